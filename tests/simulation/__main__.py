"""`python -m tests.simulation --seeds 10000 --first 0 --jobs 2`: run seeds, print failing ones and how to replay.

--kind kling       only this class of provider        --trace    print every event (with --seeds 1)
--mode liveness    only this mode                     --hashes   print the trace hash of every seed
--lies             providers that differ from their documents
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.faults import KINDS, draw
from tests.simulation.lies import draw as draw_lies
from tests.simulation.world import play


def one(seed, *, kind=None, mode=None, lies=False, trace=False):
    began = time.perf_counter()
    liveness = None if mode is None else mode == "liveness"
    plan = draw_lies(seed, kind=kind) if lies else draw(seed, kind=kind, liveness=liveness)
    report = play(plan, trace=trace)
    return seed, report, time.perf_counter() - began


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--mode", choices=("safety", "liveness"))
    parser.add_argument("--lies", action="store_true")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--hashes", action="store_true")
    chosen = parser.parse_args(argv)
    work = partial(one, kind=chosen.kind, mode=chosen.mode, lies=chosen.lies, trace=chosen.trace)
    seeds = range(chosen.first, chosen.first + chosen.seeds)
    began, failed, virtual, crashes, states, sums = time.perf_counter(), [], 0.0, Counter(), Counter(), Counter()
    slowest = (0.0, -1)
    for seed, report, took in _played(work, seeds, chosen.jobs):
        virtual += report.seconds
        crashes += report.crashes
        states.update(report.states)
        sums.update(events=report.events, sent=report.sents, doubtful=report.unclear, accepted=report.made)
        slowest = max(slowest, (took, seed))
        if chosen.hashes:
            print(seed, report.trace)
        if chosen.trace:
            print("\n".join(report.tail))
        if report.violation:
            failed.append(seed)
            options = "".join(
                f" --{name} {value}" for name, value in (("kind", chosen.kind), ("mode", chosen.mode)) if value
            )
            options += " --lies" if chosen.lies else ""
            print(f"seed {seed} ({report.plan.kind}): {report.violation}")
            print(f"    .venv/bin/python -m tests.simulation --seeds 1 --first {seed}{options} --trace", flush=True)
    spent = time.perf_counter() - began
    print(
        f"{len(seeds)} seeds, {len(failed)} failed, {spent:.1f} s, {len(seeds) / spent:.1f} seeds/s, "
        f"{virtual / 3600:.1f} virtual hours ({virtual / spent:.0f} x real time), slowest {slowest[0]:.1f} s "
        f"(seed {slowest[1]})"
    )
    print(f"{dict(sums)}; {sum(crashes.values())} crashes; tasks ended {dict(states)}")
    if failed:
        print(f"failed: {failed[:50]}")
    return 1 if failed else 0


def _played(work, seeds, jobs):
    if jobs == 1:
        yield from map(work, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, seeds, chunksize=4)


if __name__ == "__main__":
    sys.exit(main())
