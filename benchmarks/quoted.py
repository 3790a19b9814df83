"""Write the rows of docs/performance.md that both READMEs quote, between two marks: `python -m benchmarks.quoted`.

A full `python -m benchmarks` does so as well. A row that the page does not have is left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"
_BLOCK = re.compile(f"{_BEGIN}\n.*?{_END}", re.DOTALL)


class Quote(NamedTuple):
    """A row of the page, and its names in the two READMEs."""

    measure: str
    what: str
    english: str
    chinese: str


_HEADS = {"README.md": ("what", "figure", "goal"), "README.zh-CN.md": ("测量项", "数值", "目标")}
QUOTES = (
    Quote("parti", "tasks not done, or not paid exactly once",
          "PartiPrompts' 1,632 prompts: tasks not done, or not paid exactly once",
          "PartiPrompts 的 1,632 条提示词：未完成或付费次数不是一次的任务"),
    Quote("pacing", "50/s: taken / ideal", "limit of 50 a second, machine busy: time / ideal",
          "每秒 50 次的限额、机器繁忙：用时 / 理想"),
    Quote("pacing", "50/s: violations", "the same: requests beyond the limit", "同上：超出限额的请求"),
    Quote("pacing", "3 processes at 50/s: taken / ideal", "three processes on one account: time / ideal",
          "三个进程共用一个账号：用时 / 理想"),
    Quote("wronged", "submits refused as too fast", "manifest says 50 a second, server allows 10: share refused",
          "清单写每秒 50 次、服务器只允许 10 次：被拒的比例"),
    Quote("whole", "100/s: makespan / bound", "1,000 tasks at 100 a second: makespan / bound",
          "每秒 100 次、1,000 个任务：总用时 / 下界"),
    Quote("whole", "100/s: CPU a task", "the same: CPU a task", "同上：每个任务的 CPU"),
    Quote("simulate", "shared 50/s: polls a task", "poll calls a task, 50 ids a call",
          "每次查 50 个：每个任务的查询次数"),
    Quote("downloads", "plain: wall time / curl", "downloads of 5 MB, hashed and synced: time / `curl -Z`",
          "下载 5 MB 文件（含校验与落盘）：用时 / `curl -Z`"),
    Quote("store", "a durable transition at 500 waiters", "a change of state on the disk, 500 waiting",
          "500 个等待者：一次落盘的状态变更"),
    Quote("million", "plan: CPU a task", "a million tasks: `plan`, CPU a task", "一百万个任务：`plan` 每个任务的 CPU"),
    Quote("million", "plan: peak memory", "the same: peak memory", "同上：内存峰值"),
    Quote("million", "begin: to the first claim", "the same: resume, to the first claim", "同上：恢复到第一次领取"),
    Quote("reading", "reading: CPU / CSafeLoader", "YAML of 100,000 rows: CPU / CSafeLoader",
          "十万行 YAML：CPU / CSafeLoader"),
    Quote("startup", "`--help` / `python -c pass`", "`--help` / `python -c pass`", "`--help` / `python -c pass`"),
    Quote("startup", "`run`: to its first submit", "`run`: to its first submit", "`run`：到第一次提交"),
    Quote("peers", "runner / GNU parallel: time", "300 prompts: time / GNU parallel with curl",
          "300 条提示词：用时 / GNU parallel 加 curl"),
    Quote("peers", "runner / Scrapy: time", "the same / Scrapy", "同上 / Scrapy"),
    Quote("peers", "runner / promptfoo: time", "the same / promptfoo", "同上 / promptfoo"),
    Quote("peers", "runner / async-batch-llm: time", "the same / async-batch-llm", "同上 / async-batch-llm"),
    Quote("peers", "runner: paid in vain, 3 replies lost and killed once",
          "3 replies lost, killed once: tasks paid in vain, ours", "丢失 3 个应答并被杀一次：白付的任务，本程序"),
    Quote("peers", "Scrapy: paid in vain, 3 replies lost and killed once", "the same, Scrapy", "同上，Scrapy"),
)  # fmt: skip


def block(page: str, readme: str) -> str:
    """Return the marked block of a README, built from the text of the page."""
    rows = dict(_rows(page))
    names = [(quote.english if readme == "README.md" else quote.chinese, quote[:2]) for quote in QUOTES]
    lines = [_HEADS[readme], ("---", "---", "---"), *((text, *rows[key]) for text, key in names if key in rows)]
    return "\n".join([_BEGIN, *(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines), _END])


def quoted(text: str) -> str:
    """Return the marked block in the text of a README; raises ValueError if there is none."""
    found = _BLOCK.search(text)
    if found is None:
        raise ValueError(f"the marks {_BEGIN} and {_END} are not there")
    return found[0]


def write() -> None:
    """Write the figures of the page into both READMEs."""
    page = PAGE.read_text(encoding="utf-8")
    for name in _HEADS:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(quoted(text), block(page, name)), encoding="utf-8")


def _rows(page: str) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Yield measure and label, with figure and goal, of each row."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if len(cells) == 5:
            measure, what, figure, goal, _ = cells
            yield (measure, what), (figure, goal)


if __name__ == "__main__":
    write()
