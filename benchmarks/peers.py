"""The same 300 prompts with other tools: the same server, limit and files, one after the other.

The account may do 50 submits and 50 queries a second; a task takes 1 to 3 s. None of the others polls tasks, so each
got the smallest script that submits, polls every second and downloads (`benchmarks/peer`). It gets the rate if it can
keep to one, and may have 200 tasks in flight. Time is of the whole process. Then the same again with three replies
lost, and the process killed when half of the tasks are accepted, and started again the way it resumes (JOBDIR,
`--resume-failed`, an artifact store, `--resume`). Paid in vain is what was accepted and is in no file.
"""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

from benchmarks.contender import RATE, Contender, lay_out, others
from benchmarks.figure import Figure
from benchmarks.provider import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.provider import Provider

_ROWS = 300
_LIMITS = ("--qps", str(RATE), "--seconds", "1,3")


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure time and losses of each tool."""
    rows = bench.size(_ROWS)
    found = list(others(bench.directory / "borrowed"))
    ours, files = _clean(bench, None, rows)
    yield Figure(f"runner: {rows} prompts", ours, unit="s")
    yield Figure("runner: rows without a file, no faults", rows - files, 0)
    for one in found:
        if isinstance(one, str):
            yield Figure(f"{one}: not installed", None)
            continue
        theirs, files = _clean(bench, one, rows)
        yield Figure(f"runner / {one.name}: time", ours / theirs, 1.0)
        yield Figure(f"{one.name}: rows without a file, no faults", rows - files)
    for peer in (None, *(one for one in found if isinstance(one, Contender))):
        vain, missing = _lost(bench, peer, rows)
        name, goal = (peer.name, None) if peer else ("runner", 0)
        yield Figure(f"{name}: paid in vain, 3 replies lost and killed once", vain, goal)
        yield Figure(f"{name}: rows without a file", missing, goal)


def _clean(bench: Bench, peer: Contender | None, rows: int) -> tuple[float, int]:
    with sandbox(*_LIMITS) as provider:
        return _run(bench, peer, rows, provider, "clean", killed=False)


def _lost(bench: Bench, peer: Contender | None, rows: int) -> tuple[int, int]:
    faults = ",".join(str(max(1, rows * part // 6)) for part in (1, 3, 5))
    with sandbox(*_LIMITS, "--fault", f"lost_reply=@{faults}") as provider:
        _, files = _run(bench, peer, rows, provider, "faults", killed=True)
        return provider.stats()["accepted"] - files, rows - files


def _run(
    bench: Bench, peer: Contender | None, rows: int, provider: Provider, how: str, *, killed: bool
) -> tuple[float, int]:
    """Return seconds and the number of files."""
    folder = bench.directory / f"{peer.name if peer else 'runner'}-{how}"
    environ = lay_out(folder, rows, provider, _token(provider))
    contender = peer or _ours(bench, folder, rows, provider)
    until = (lambda: provider.stats()["accepted"] >= rows // 2) if killed else None
    seconds = contender.run(folder, environ, until)
    where = folder / "files" if peer else folder / "job"
    return seconds, len(list(where.glob("*.png")))


def _ours(bench: Bench, folder: Path, rows: int, provider: Provider) -> Contender:
    manifest = folder / "job.yaml"
    text = bench.manifest("job", bench.numbered("peers", rows), RATE).read_text(encoding="utf-8")
    manifest.write_text(text.replace("dir: job", f"dir: {folder / 'job'}"), encoding="utf-8")
    home = {**bench.environ(provider), "RUNNER_HOME": str(folder / "home")}
    return Contender("runner", bench.command(["run", str(manifest), "--json"]), environ=home)


def _token(provider: Provider) -> str:
    body = json.dumps({"app_id": "peer", "secret_key": "peer"}).encode()
    request = urllib.request.Request(f"{provider.url}/open/v1/access_token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        token: str = json.loads(response.read())["data"]["access_token"]
    return token
