"""`python -m tests.campaigns.torture --kills 500 --classes reference,list,none --seed N --jobs 2`.

Jobs of 24 tasks against a hostile sandbox, each killed with SIGKILL up to a dozen times: at a failpoint, by a timer
over the observed length of a run, and a second time during the recovery. Then the job is run to its end, once more
idle, and checked by `oracle`. In the classes `lying-reference` and `lying-list` the provider differs from its
documents, in one way or two: nothing may be paid twice or lost there either, but tasks may be held or stay in doubt.
In `wide-reference`, `wide-list` and `wide-none`, which are played only by name, jobs have 400 tasks and answers take a
second; each kill comes with 50 submits on the wire, and may leave no more doubts than `plan` said.
Exit 1 for any violation, or if a failpoint was hit too rarely.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

import runner
from tests.campaigns.planner import KINDS, WIDE, Kill, Planner
from tests.campaigns.trial import Durations, Report, Trial, measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.campaigns.planner import Kind

EVERY_KIND = {**KINDS, **WIDE}
#: shares of the kills by a timer, and of those during the recovery from another
TIMED, SECOND = 0.15, 0.15
#: when the first of those may fall, as a part of the time that a process takes to begin, and the length of a recovery
EARLIEST, RECOVERY = 0.7, 0.2
#: a campaign may go on so much longer to hit every point often enough
STRETCH = 1.5
#: least number of kills of one job: rare failpoints need one or two others before them
FEWEST = 4
#: kills that came too late, after which a job gets no more
MISSES = 4


@dataclass
class Campaign:
    """Trials of all provider classes, some at a time."""

    kinds: Sequence[Kind]
    kills: int
    seed: int
    #: how often each point must be hit in each class
    hits: int
    root: Path
    #: kills of one job
    kills_per_job: int = 10
    jobs: int = 2
    #: time a run of each class first, instead of taking usual figures
    observe: bool = True
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.planner = Planner(self.hits)
        self._lock = threading.Lock()
        self._planned: Counter[str] = Counter()
        self._rounds = 0
        self._durations = {kind.name: Durations() for kind in self.kinds}
        self._began = time.monotonic()
        self._code = self.root / "code"

    def run(self) -> bool:
        """Return whether there is no violation and every failpoint was hit often enough."""
        shutil.copytree(Path(runner.__file__).parent, self._code / "runner", ignore=shutil.ignore_patterns("*.pyc"))
        with ThreadPoolExecutor(self.jobs) as pool:
            if self.observe:
                durations = pool.map(
                    lambda kind: measure(kind, self.seed, self.root / f"durations-{kind.name}"), self.kinds
                )
                self._durations = dict(zip(self._durations, durations, strict=True))
            for done in [pool.submit(self._worker) for _ in range(self.jobs)]:
                done.result()
        return self.kept

    @property
    def kept(self) -> bool:
        return not self.violations and not any(self.wanting.values())

    @property
    def violations(self) -> int:
        return sum(len(report.violations) for report in self.reports)

    @property
    def wanting(self) -> dict[str, dict[str, int]]:
        """Return the failpoints with too few hits and the number of missing hits, for each class."""
        return {kind.name: self.planner.wanting(kind) for kind in self.kinds}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    # rounds

    def _worker(self) -> None:
        while (turn := self._next()) is not None:
            kind, number, kills = turn
            root = self.root / f"{kind.name}-{number}"
            seed = Random(f"{self.seed}/{number}").getrandbits(32)
            trial = Trial(kind, seed, root, lambda kill, kind=kind: self.planner.hit(kind, kill), self._code)
            report = trial.run(lambda trial, kills=kills: self._choose(trial, kills))
            with self._lock:
                self._planned[kind.name] += report.kills - kills
                self.reports.append(report)
                self._tell(report, root)
            if not report.violations:
                shutil.rmtree(root)

    def _next(self) -> tuple[Kind, int, int] | None:
        """Return the class with most missing kills, the number of its next job, and the number of its kills."""
        with self._lock:
            lacks = {kind.name: self._lack(kind) for kind in self.kinds}
            name = max(lacks, key=lacks.__getitem__)
            if lacks[name] <= 0:
                return None
            self._rounds += 1
            kills = min(self.kills_per_job, max(FEWEST, lacks[name]))
            self._planned[name] += kills
            return EVERY_KIND[name], self._rounds, kills

    def _lack(self, kind: Kind) -> int:
        """Return how many kills a class still needs. Beyond its number only failpoints with too few hits count."""
        lack = self.kills - self._planned[kind.name]
        if lack > 0 or self._planned[kind.name] >= STRETCH * self.kills:
            return lack
        return sum(self.planner.wanting(kind).values())

    def _choose(self, trial: Trial, kills: int) -> Kill | None:
        """Return the next kill of a job, or None if it has had enough."""
        report, durations, chance = trial.report, self._durations[trial.kind.name], trial.chance
        if report.kills >= kills or report.missed >= MISSES:
            return None
        if trial.kind.at_once:
            # each run doubles what is on the wire, so it takes as many tasks again to come so far
            return Kill(on_wire=trial.kind.at_once) if trial.outlook().queued >= 2.5 * trial.kind.at_once else None
        pressed = sum(self.planner.wanting(trial.kind).values()) >= self.kills - self._done(trial.kind)
        dice = 1.0 if pressed else chance.random()
        if dice < SECOND and report.kills:
            return Kill(seconds=chance.uniform(EARLIEST * durations.boot, durations.boot + RECOVERY), second=True)
        if dice < SECOND + TIMED:
            return Kill(seconds=chance.uniform(EARLIEST * durations.boot, durations.length))
        return self.planner.choose(trial.kind, trial.outlook(), chance)

    def _done(self, kind: Kind) -> int:
        return sum(report.kills for report in self.reports if report.kind == kind.name)

    # words

    def _tell(self, report: Report, root: Path) -> None:
        print(f"[{self.seconds:6.1f} s] {' | '.join(self._progress())} | {self.violations} violations", flush=True)
        if report.violations:
            for violation in report.violations:
                print(f"  VIOLATION {violation}")
            print(f"  seed {self.seed}, kept in {root}; again with")
            print(f"  python -m tests.campaigns.torture --replay {report.replay!r}", flush=True)

    def _progress(self) -> Iterator[str]:
        for kind in self.kinds:
            mine = [report for report in self.reports if report.kind == kind.name]
            least = min((self.planner.hits[kind.name, point] for point in kind.points), default=0)
            held = sum(report.held for report in mine)
            yield f"{kind.name} {self._done(kind)}/{self.kills} in {len(mine)} jobs, points >= {least}, {held} held"

    def figures(self) -> dict[str, Any]:
        """Return all counters as a JSON object."""
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "violations": self.violations,
            "wanting": self.wanting,
            "classes": {kind.name: self._figures(kind) for kind in self.kinds},
            "convicted": [
                {"replay": report.replay, "violations": [str(each) for each in report.violations]}
                for report in self.reports
                if report.violations
            ],
        }

    def _figures(self, kind: Kind) -> dict[str, Any]:
        mine = [report for report in self.reports if report.kind == kind.name]
        numbers = ("kills", "runs", "missed", "tasks", "accepted", "held", "held_and_paid", "refused", "doubts")
        return {
            "jobs": len(mine),
            **{name: sum(getattr(report, name) for report in mine) for name in numbers},
            "most_doubts": max((report.most_doubts for report in mine), default=0),
            "kills_by": dict(sum((report.modes for report in mine), Counter())),
            "faults": dict(sum((report.faults for report in mine), Counter())),
            "hits": {point: self.planner.hits[kind.name, point] for point in kind.points},
            "impossible": {} if kind.at_once else dict(kind.impossible),
        }


def summary(figures: Mapping[str, Any]) -> str:
    """Return the figures as text."""
    lines = []
    for name, found in figures["classes"].items():
        lines.append(
            f"{name}: {found['kills']} kills {found['kills_by']}, {found['missed']} kills that hit nothing,"
            f" {found['jobs']} jobs, {found['tasks']} tasks, {found['accepted']} paid,"
            f" {found['held']} held ({found['held_and_paid']} of them paid),"
            f" {found['doubts']} doubts left by kills, {found['most_doubts']} by one"
        )
        if found["hits"]:
            lines.append("  " + ", ".join(f"{point} {count}" for point, count in found["hits"].items()))
        lines += [f"  {point}: cannot occur; {why}" for point, why in found["impossible"].items()]
        lines += [f"  WANTING {point}: {lack} hits" for point, lack in figures["wanting"][name].items()]
    kills = sum(found["kills"] for found in figures["classes"].values())
    speed = f"{figures['seconds'] / kills:.2f} s a kill" if kills else "no kill"
    lines.append(f"{figures['violations']} violations, {figures['seconds']} s, {speed}, seed {figures['seed']}")
    return "\n".join(lines)


def replay(text: str, root: Path) -> bool:
    """Repeat the same faults and kills. The processes race again, so a rare failure may need several attempts."""
    name, seed, kills = text.split("/")
    left = [Kill.parse(kill) for kill in reversed(kills.split(",")) if kill]
    report = Trial(EVERY_KIND[name], int(seed), root / "replay").run(lambda _: left.pop() if left else None)
    for violation in report.violations:
        print(f"VIOLATION {violation}")
    print(f"{report.kills} kills, {report.held} held, {len(report.violations)} violations, kept in {root}")
    return not report.violations


def main(words: Sequence[str]) -> int:
    """Return 0 if there is no violation and every failpoint was hit, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=500, help="for each class (500)")
    parser.add_argument("--classes", default=",".join(KINDS), help="with commas between (all but the wide ones)")
    parser.add_argument("--hits", type=int, default=20, help="for each point of each class, at the least (20)")
    parser.add_argument("--seed", type=int, help="of kills and faults (drawn and printed)")
    parser.add_argument("--jobs", type=int, default=2, help="at the same time (2)")
    parser.add_argument("--kills-per-job", type=int, default=10, help="to one job (10)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="the figures, as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="for jobs with violations (a new one under /tmp)")
    parser.add_argument("--replay", metavar="CLASS/SEED/BLOWS", help="one job again, as a violation printed it")
    given = parser.parse_args(words)
    root = given.keep or Path(tempfile.mkdtemp(prefix="torture-"))
    if given.replay:
        return 0 if replay(given.replay, root) else 1
    if unknown := set(given.classes.split(",")) - set(EVERY_KIND):
        parser.error(f"no such class: {', '.join(sorted(unknown))}; there are {', '.join(EVERY_KIND)}")
    seed = SystemRandom().getrandbits(32) if given.seed is None else given.seed
    kinds = [EVERY_KIND[name] for name in given.classes.split(",")]
    campaign = Campaign(kinds, given.kills, seed, given.hits, root, given.kills_per_job, given.jobs)
    print(f"seed {seed}, {given.kills} kills for each of {given.classes}, in {root}", flush=True)
    kept = campaign.run()
    figures = campaign.figures()
    print(summary(figures))
    if given.report:
        given.report.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
