"""Draws docs/pictures/terminal.svg, a real run in the sandbox as a person sees it on a terminal: `make pictures`.

1. Every line is the program's own. Only the directory's path is made shorter.
2. Of the live view, which is redrawn in place, one moment is shown: when half of the tasks are done.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.style import Style

COLUMNS, ROWS = 112, 40
#: pixels of a cell, of the margin, of the letters
WIDTH, HEIGHT, MARGIN, LETTERS = 8.4, 19, 16, 14
INK, PAPER, FAINT = "#d4d7dd", "#16181d", "#7d838d"
#: of the numbers that terminals give them: red, green, yellow, blue, cyan
COLOURS = {1: "#f2777a", 2: "#7ccf6b", 3: "#e8c065", 4: "#6cb0ff", 6: "#54c8d4"}
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Noto Sans Mono CJK SC',monospace"
#: what the live view writes to take its last lines back
_REDRAWN = re.compile(r"\r?(?:\x1b\[1A\x1b\[2K|\x1b\[2K)+")
_CURSOR = re.compile(r"\x1b\[\?25[hl]")
#: words between gaps: viewers make one blank of several
_TOGETHER = re.compile(r"\S+(?: \S+)*")
_DONE = re.compile(r"(\d+) of (\d+) done")

MANIFEST = """\
version: 1
provider: kling
model: image/kling-v2-1
params:
  prompt: "{{ subject }}, {{ style }}"
items:
  - {subject: 江南水乡的乌篷船}
  - {subject: a heron in a reed bed}
  - {subject: 青瓷茶壶}
  - {subject: a lighthouse in a storm}
  - {subject: 竹影里的灯笼}
  - {subject: a paper kite over rice fields}
matrix:
  style: [ink, oil, photo]
  aspect_ratio: [1:1, 9:16]
  set:
    - {when: {subject: a heron in a reed bed, style: oil, aspect_ratio: 1:1}, then: {style: 违规}}
cost: 8
limits: {qps: 6, max_cost: 500}
"""


def on_a_terminal(folder: Path, *words: str) -> str:
    """Everything that the command writes on a terminal of its own."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
    env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "PYTHONUTF8": "1", "RUNNER_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "runner", *words]
    with subprocess.Popen(command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b"".join(_until_closed(ours))
    os.close(ours)
    if process.returncode not in {0, 3}:
        raise SystemExit(f"{' '.join(words)}: exit {process.returncode}\n{seen.decode()}")
    return _CURSOR.sub("", seen.decode()).replace("\r\n", "\n").replace(str(folder), "~")


def _until_closed(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # Linux's word for a terminal that nobody writes to any more
            return
        if not piece:
            return
        yield piece


def moment(seen: str) -> tuple[str, str]:
    """Return the live view at half of the way, and the text on the terminal at the end."""
    *frames, end = _REDRAWN.split(seen)
    told = {frame: found for frame in frames if (found := _DONE.search(frame))}
    half = min(told, key=lambda frame: abs(int(told[frame][1]) / int(told[frame][2]) - 0.5))
    return half.strip("\n"), end.strip("\n")


@dataclass
class Picture:
    """Lines of styled text as SVG: no script, no font and no address of elsewhere."""

    lines: list[Text]

    def svg(self) -> str:
        """Return the drawing as SVG."""
        wide, high = round(COLUMNS * WIDTH + 2 * MARGIN), len(self.lines) * HEIGHT + 2 * MARGIN
        console = Console(width=COLUMNS, color_system="truecolor", legacy_windows=False)
        texts = [text for row, line in enumerate(self.lines) for text in _texts(console, row, line)]
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">'
        box = f'<rect width="{wide}" height="{high}" rx="10" fill="{PAPER}"/>'
        group = f'<g font-family="{FONTS}" font-size="{LETTERS}" fill="{INK}">'
        return "\n".join(
            [head, "<title>runner plan and runner run on a terminal</title>", box, group, *texts, "</g></svg>\n"]
        )


def _texts(console: Console, row: int, line: Text) -> Iterator[str]:
    column = 0
    for words, style, _ in line.render(console, end=""):
        for found in _TOGETHER.finditer(words):
            before, cells = cell_len(words[: found.start()]), cell_len(found[0])
            at = f'x="{MARGIN + (column + before) * WIDTH:g}" y="{MARGIN + (row + 0.75) * HEIGHT:g}"'
            long = f'textLength="{cells * WIDTH:g}" lengthAdjust="spacingAndGlyphs"'
            yield f"<text {at} {long}{_look(style)}>{escape(found[0])}</text>"
        column += cell_len(words)


def _look(style: Style | None) -> str:
    if style is None:
        return ""
    number = style.color.number if style.color else None
    colour = FAINT if number is None and style.dim else COLOURS.get(number or 0, "")
    return (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if style.bold else "")


def draw(manifest: str = MANIFEST) -> str:
    """Plan and run a job in the sandbox; what was seen, as SVG."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "herons.yaml").write_text(manifest, encoding="utf-8")
        planned = on_a_terminal(folder, "plan", "herons.yaml")
        half, end = moment(on_a_terminal(folder, "run", "herons.yaml", "--sandbox"))
    return Picture(
        [
            _prompt("runner plan herons.yaml"),
            *_lines(planned),
            Text(),
            _prompt("runner run herons.yaml --sandbox", "half of the way:"),
            *_lines(half),
            Text(),
            Text.assemble(("at the end:", "dim")),
            *_lines(end),
        ]
    ).svg()


def _prompt(command: str, remark: str = "") -> Text:
    return Text.assemble(("$ ", "color(2)"), (command, "bold"), (f"    {remark}" if remark else "", "dim"))


def _lines(seen: str) -> list[Text]:
    lines = [Text.from_ansi(line) for line in seen.strip("\n").split("\n")]
    for line in lines:
        line.truncate(COLUMNS, overflow="ellipsis")
    return lines


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(), encoding="utf-8")
