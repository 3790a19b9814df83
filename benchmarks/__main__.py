"""Run the named measures, or all: `python -m benchmarks [NAME …]`.

A run of all of them writes docs/performance.md and the figures that the READMEs quote from it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from benchmarks import (
    ahead,
    backlog,
    downloads,
    floor,
    gallery,
    large,
    latency,
    million,
    pacing,
    parti,
    peers,
    plan,
    quoted,
    reading,
    requests,
    resume,
    simulate,
    startup,
    status,
    store,
    whole,
    wronged,
)
from benchmarks.bench import session
from benchmarks.figure import Figure, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.bench import Bench

#: beginning of the row of a measure that raised an exception
_BROKEN = "not measured"
_HEAD = """\
# Performance

Written by `make bench`, that is `{command}`; do not edit. What counts is the ratios, since both halves
of each were measured in one run on one machine; milliseconds and megabytes are of that machine.

{when} · Python {python} · {system} · {cores} cores · load average {load:.1f} at the start · {minutes:.0f} minutes
"""


class Measure(Protocol):
    """A module with a `measure`; its docstring goes under the table."""

    __doc__: str | None

    def measure(self, bench: Bench) -> Iterator[Figure]: ...


MEASURES: Mapping[str, Measure] = {
    "startup": startup,
    "plan": plan,
    "reading": reading,
    "pacing": pacing,
    "wronged": wronged,
    "whole": whole,
    "simulate": simulate,
    "requests": requests,
    "downloads": downloads,
    "store": store,
    "million": million,
    "parti": parti,
    "floor": floor,
    "resume": resume,
    "status": status,
    "peers": peers,
    "gallery": gallery,
    "latency": latency,
    "large": large,
    "backlog": backlog,
    "ahead": ahead,
}


def main(words: Sequence[str]) -> int:
    """Return 1 if a measure raised an exception; a missed goal is a line of the table and no failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ratios measured in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(MEASURES)}; all without")
    parser.add_argument(
        "--quick", action="store_true", help="sizes of a tenth; shows that it works, and writes nothing"
    )
    arguments = parser.parse_args(words)
    names = arguments.names
    if unknown := set(names) - set(MEASURES):
        parser.error(f"no measure is called {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    load, began = os.getloadavg()[0], time.monotonic()
    found = _measured(names or list(MEASURES), quick=arguments.quick)
    shown = table(figure.cells(name) for name, figures in found.items() for figure in figures)
    print(shown)
    if not (names or arguments.quick):
        head = _headed(load, time.monotonic() - began)
        quoted.PAGE.write_text("\n".join([head, shown, "", *_notes()]), encoding="utf-8")
        quoted.write()
    return int(any(figure.what.startswith(_BROKEN) for figures in found.values() for figure in figures))


def _measured(names: Sequence[str], *, quick: bool) -> dict[str, list[Figure]]:
    found = {}
    with session(quick=quick) as bench:
        for name in names:
            began = time.monotonic()
            found[name] = list(_figures(name, bench))
            print(f"{name} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def _figures(name: str, bench: Bench) -> Iterator[Figure]:
    """Yield the figures of a measure, or one row without a figure if it raises an exception."""
    try:
        yield from MEASURES[name].measure(bench)
    except Exception as error:  # noqa: BLE001 - the figures of the other measures must not be lost
        traceback.print_exc()
        yield Figure(f"{_BROKEN}: {type(error).__name__}", None)


def _headed(load: float, seconds: float) -> str:
    return _HEAD.format(
        command="python -m benchmarks",
        when=datetime.now(UTC).strftime("%Y-%m-%d"),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count(),
        load=load,
        minutes=seconds / 60,
    )


def _notes() -> Iterator[str]:
    yield "## What each measure does, and does not do\n"
    for name, module in MEASURES.items():
        yield f"**{name}**: {(module.__doc__ or '').strip()}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
