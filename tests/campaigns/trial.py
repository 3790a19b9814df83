"""One job with kills: run and killed repeatedly, then run to its end, once more idle, and checked."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
import urllib.request
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runner.store import journal as journals
from runner.store.read_only import open_read_only
from tests.campaigns.oracle import COMPLETE, HELD, WAITING, Case, Violation, find_violations, made_as
from tests.campaigns.planner import Kill, Outlook
from tests.simulation.lies import LIES
from tests.whole.conftest import Box, Desk, sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.campaigns.planner import Kind

#: seconds between two looks at how many submits are on the wire
TICK = 0.02
#: seconds; a run that takes longer hangs, of a job of 24 tasks
TIMEOUT = 60
#: runs until a job must be complete: without reconciliation every third doubt ends one
RUNS = 16
#: runs where doubts may stay: each may settle some
LYING_RUNS = 3
#: lies that no rule can tell from the truth now and then (docs/reliability.md), and ids that the ledger does not know
UNDECIDABLE = {
    "leaves out every other row",
    "changes ids",
    "has equal tasks of somebody else",
    "has similar tasks of somebody else",
}
KILLED = -9
FAULTS = {
    "reset_before": 0.03,
    "lost_reply": 0.05,
    "reset_after": 0.03,
    "cut_reply": 0.02,
    "http_504_before": 0.015,
    "http_500_after": 0.015,
    "late_accept": 0.02,
    "poll_500": 0.02,
    "cut_download": 0.1,
}
#: faults that leave no submit in doubt
_HARMLESS = {"poll_500", "cut_download"}


@dataclass
class Durations:
    """Observed durations of a start and of a whole run without kills, in seconds."""

    boot: float = 0.6
    length: float = 3.0


@dataclass
class Report:
    """The outcome of one job."""

    kind: str
    seed: int
    kills_done: list[str] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    runs: int = 0
    tasks: int = 24
    accepted: int = 0
    held: int = 0
    held_and_paid: int = 0
    refused: int = 0
    #: submits that kills left without an outcome: of all kills, and of one at the most
    doubts: int = 0
    most_doubts: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.modes.total()

    @property
    def replay(self) -> str:
        return f"{self.kind}/{self.seed}/{','.join(self.kills_done)}"


class Trial:
    """One job in `root`, with faults chosen by the seed."""

    def __init__(
        self,
        kind: Kind,
        seed: int,
        root: Path,
        on_hit: Callable[[Kill], None] = lambda _: None,
        code: Path | None = None,
    ) -> None:
        """Create a trial. `code` is a copy of the runner that is not edited during the campaign."""
        self.kind, self.report, self._on_hit = kind, Report(kind.name, seed, tasks=kind.tasks), on_hit
        self._code = {} if code is None else {"PYTHONPATH": str(code)}
        self.chance = Random(seed)
        self._root, self._job = root, root / "out" / "job"
        self._desk = Desk(root)
        self._box: Box | None = None
        self._lies: dict[str, float] = {}
        #: answers that can be lost at once, as `plan` says it
        self._bound = kind.at_once
        #: what the job was judged by
        self.case: Case | None = None

    def run(self, next_kill: Callable[[Trial], Kill | None]) -> Report:
        """Kill the job until there is no next kill or it is complete, then finish and check it."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._desk.write("job.yaml", _manifest(self.kind))
        with sandbox(
            *_fault_options(self.kind, self.chance, self.report.seed), "--ledger", str(self._ledger)
        ) as self._box:
            self._desk.env = {**self._box.env, **self._code}
            self._buy_before()
            if self.kind.lies:
                self._lie()
            self._read_bound()
            while (kill := next_kill(self)) is not None:
                self._tighten()
                if not self.execute(kill) and self._complete():
                    break
            self._finish()
        self._root.joinpath("replay.txt").write_text(f"{self.report.replay}\n")
        return self.report

    def _buy_before(self) -> None:
        """Buy with another job of the account, so that its list was measured: the first purchases have less proof."""
        options = self._box.ask("/_sandbox/options")
        self._box.change(faults={}, seconds=[1.0, 1.0], accept_delay_s=0.0)
        self._desk.write("before.yaml", _manifest(self.kind, "before", 4, repeat=1))
        process = self._desk.start("run", "before.yaml")
        _, err = process.communicate(timeout=TIMEOUT)
        if process.returncode:
            self._accuse("exit", f"the job before: exit {process.returncode}: {err[-2000:]}")
        self._box.change(**{name: options[name] for name in ("faults", "seconds", "accept_delay_s")})

    def _read_bound(self) -> None:
        """Ask `plan` how many answers can be lost at once, which no kill may exceed."""
        if self.kind.at_once:
            out, _ = self._desk.start("plan", "job.yaml", "--json").communicate(timeout=TIMEOUT)
            (found,) = json.loads(out)["lost_at_once"]
            self._bound = found["answers"]
            if self._bound != self.kind.at_once:
                self._accuse("exit", f"plan says that {self._bound} answers can be lost at once")

    def _lie(self) -> None:
        """Choose one lie or two for the rest of the job."""
        lies = [lie for lie in LIES if self.kind.provider in lie.kinds and lie.name not in UNDECIDABLE]
        chosen = self.chance.sample(lies, self.chance.choice((1, 2)))
        if not chosen[0].goes_with(chosen[-1]):
            chosen = chosen[:1]
        self._lies = {kind: share for lie in chosen for kind, share in lie.faults.items()}
        options = {name: value for lie in chosen for name, value in lie.options.items()}
        options |= {name: share * self.kind.doubt for lie in chosen for name, share in lie.times.items()}
        self._box.change(faults=self._box.ask("/_sandbox/options")["faults"] | self._lies, **options)

    # kills

    def execute(self, kill: Kill) -> bool:
        """Run until the kill. Return False if the run ended before."""
        self.report.kills_done.append(str(kill))
        code, _ = self._run(kill)
        if code == KILLED:
            if self.kind.at_once:
                self._count_doubts()
            self.report.modes[kill.mode] += 1
            if kill.point:
                self.report.hits[kill.point] += 1
                self._on_hit(kill)
            return True
        self.report.missed += 1
        return False

    def _count_doubts(self) -> None:
        """Count the submits that a kill left without an outcome, by the journal."""
        doubts = self.outlook().submitting
        self.report.doubts += doubts
        self.report.most_doubts = max(self.report.most_doubts, doubts)
        if doubts > self._bound:
            self._accuse("journal", f"a kill left {doubts} submits without an outcome, and plan said {self._bound}")

    def outlook(self) -> Outlook:
        """Return the state of the job, from journal, database and ledger."""
        last: dict[str, str] = {}
        for line, _ in journals.read_lines(self._job / ".runner" / "journal.jsonl"):
            if "ref" in line:
                last[line["ref"]] = line["t"]
        found = Counter(last.values())
        states = self._states()
        doubts = found["intent"]
        taken = min(doubts, max(0, len(self._accepted()) - found["id"] - found["saved"]))
        return Outlook(
            queued=self.kind.tasks - found["intent"] - found["held"] - found["id"] - found["saved"],
            submitting=doubts - states["in_doubt"],
            taken=taken,
            missing=doubts - taken,
            unfinished=found["id"],
        )

    def _tighten(self) -> None:
        """Lower the provider's rate limit now and then."""
        if self.kind.at_once:
            return
        self._box.change(qps=12.0 if self.chance.random() < 0.2 else None)

    # runs

    def _run(self, kill: Kill | None = None) -> tuple[int, dict[str, Any] | None]:
        """Run one process to its end or kill, and return exit code and summary, if any."""
        self.report.runs += 1
        env = {"RUNNER_CRASH_AT": str(kill)} if kill and kill.point else None
        process = self._desk.start("run", "job.yaml", "--json", env=env)
        timed = kill is not None and bool(kill.seconds)
        if kill is not None and kill.on_wire:
            self._kill_when(process, kill.on_wire)
        try:
            out, err = process.communicate(timeout=kill.seconds if timed else self._timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            if not timed:
                self._accuse("exit", f"a run hung for {self._timeout} s: {err[-2000:]}")
                return 0, None
        if "Traceback" in err or "internal error" in err:
            self._accuse("exit", f"a traceback, exit {process.returncode}: {err[-2000:]}")
        if process.returncode not in {KILLED, *COMPLETE, *({WAITING} if self.kind.lies else ())}:
            self._accuse("exit", f"{kill or 'no kill'}: exit {process.returncode}: {out[-500:]} {err[-2000:]}")
        lines = out.splitlines()
        summary = json.loads(lines[-1]) if lines and process.returncode != KILLED else None
        return process.returncode, summary

    @property
    def _timeout(self) -> float:
        return TIMEOUT * max(1.0, self.kind.tasks / 100)

    def _kill_when(self, process: subprocess.Popen[str], on_wire: int) -> None:
        """Kill the process as soon as so many submits are on the wire, as the database says, unless it ends before.

        Those of the run before are no more on the wire; they are `submitting` until this run has put them in doubt.
        """
        has_recovered = False
        while process.poll() is None:
            submitting = self._states()["submitting"]
            if has_recovered and submitting >= on_wire:
                process.kill()
                return
            has_recovered = has_recovered or submitting < on_wire
            time.sleep(TICK)

    def _finish(self) -> None:
        """Run to the end without kills. Unresolvable doubts end runs early, so there may be several."""
        self._box.change(qps=None)
        last = None
        for _ in range(LYING_RUNS if self.kind.lies else RUNS):
            _, last = self._run()
            if self._complete():
                break
        self._box.change(faults=self._lies)
        self._until_nothing_is_late()
        before = len(self._accepted())
        _, idle = self._run()
        if last is None or idle is None:
            self._accuse("exit", "a run without a blow gave no summary")
            return
        self._check(last, idle, before)

    def _until_nothing_is_late(self) -> None:
        while self._box.stats["late"]:
            time.sleep(0.05)

    def _check(self, last: dict[str, Any], idle: dict[str, Any], before: int) -> None:
        with open_read_only(self._job / ".runner") as seen:
            rows = list(seen.results())
        self.case = case = Case(
            can_reconcile=self.kind.can_reconcile,
            lies=self.kind.lies,
            by_reference=self.kind.by_reference,
            rows=rows,
            journal=[line for line, _ in journals.read_lines(self._job / ".runner" / "journal.jsonl")],
            ledger=self._accepted(),
            directory=self._job,
            last=last,
            idle=idle,
            before_idle=before,
            truth=self._served([row["remote_id"] for row in rows if row["remote_id"]]),
        )
        if len(rows) != self.kind.tasks:
            self._accuse("lost", f"{len(rows)} rows for {self.kind.tasks} tasks")
        self.report.violations += find_violations(case)
        self.report.accepted, self.report.held = len(case.ledger), case.held
        self.report.held_and_paid = case.held_and_paid
        stats = self._box.stats
        self.report.refused = sum(stats["refused"].get(code, 0) for code in ("40001", "1302"))
        self.report.faults = Counter(stats["faults"])

    def _served(self, remote_ids: Sequence[str]) -> dict[str, str]:
        served = {}
        for remote_id in remote_ids:
            url = f"{self._box.url}/files/{quote(made_as(remote_id), safe='')}/0.png"
            with urllib.request.urlopen(url, timeout=10) as answer:
                served[remote_id] = sha256(answer.read()).hexdigest()
        return served

    def _accuse(self, kind: str, what: str) -> None:
        self.report.violations.append(Violation(kind, what))

    # what is on disk

    @property
    def _ledger(self) -> Path:
        return self._root / "ledger.jsonl"

    def _accepted(self) -> list[dict[str, Any]]:
        lines = [line for line in map(json.loads, self._ledger.read_text().splitlines()) if not line["foreign"]]
        return [line for line in lines if not any("before" in str(text) for text in line["request"].values())]

    def _states(self) -> Counter[str]:
        path = self._job / ".runner" / "state.db"
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return Counter(dict(database.execute("select state, count(*) from task group by state")))
        return Counter()

    def _complete(self) -> bool:
        states = self._states()
        return states.total() > 0 and not set(states) - {"done", HELD, "failed", "stranded"}


def measure(kind: Kind, seed: int, root: Path) -> Durations:
    """Measure how long a process takes to open its store, and a run to end, with these faults and without kills."""
    desk = Desk(root)
    root.mkdir(parents=True)
    desk.write("job.yaml", _manifest(kind))
    with sandbox(*_fault_options(kind, Random(seed), seed)) as box:
        began = time.monotonic()
        process = desk.start("run", "job.yaml", env=box.env)
        journal = root / "out" / "job" / ".runner" / "journal.jsonl"
        while process.poll() is None and not (journal.exists() and journal.stat().st_size):
            time.sleep(0.005)
        boot = time.monotonic() - began
        process.communicate(timeout=TIMEOUT)
        return Durations(boot, time.monotonic() - began)


def _manifest(kind: Kind, word: str = "thing", count: int | None = None, repeat: int | None = None) -> str:
    repeat = kind.repeat if repeat is None else repeat
    count = kind.tasks // repeat if count is None else count
    at_once = f", submits_at_once: {kind.at_once}" if kind.at_once else ""
    items = "\n".join(f"  - {{subject: {word} {number} of many}}" for number in range(count))
    return f"""\
version: 1
provider: {kind.provider}
model: {kind.model}
params: {{prompt: "{{{{ subject }}}}", aspect_ratio: "1:1"}}
items:
{items}
repeat: {repeat}
limits: {{qps: 60{at_once}}}
retry: {{doubt: {kind.doubt:g}s}}
"""


def _fault_options(kind: Kind, chance: Random, seed: int) -> list[str]:
    """Return the sandbox's options: faults, slow acceptance, a lagging list, and mostly no unique references.

    No request is accepted and shown later than half of the quiet time. Where many submits are to be on the wire, none
    is lost on its way: a doubt would set the number back.
    """
    words = ["--seed", str(seed), "--seconds", "0.05,0.3", "--late-s", "0.25"]
    delay = chance.choice((0.0, 0.05, 0.12)) if kind.answers_after is None else kind.answers_after
    words += ["--accept-delay-s", f"{delay:g}"]
    words += ["--list-lag-s", f"{chance.choice((0.0, 0.1)):g}"]
    words += [] if chance.random() < 0.25 else ["--no-external-id-unique"]
    for fault, share in FAULTS.items():
        if kind.at_once and fault not in _HARMLESS:
            continue
        words += ["--fault", f"{fault}={share}"]
    return words
