"""Eighty files of 5 MB, eight at once, against `curl -Z`, which neither hashes, checks, syncs nor resumes.

Ours are written, hashed, checked, synced, and get their names. The loop is aiohttp with sha256, write and fsync in one
thread, so it stands still while the disk does. The best of 5 rounds of each, taking turns. The share of curl's CPU that
sha256 alone takes bounds the first figure: above 0.6, curl itself would miss the goal if it hashed. The server is
Python's, on the same cores.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.figure import Figure
from benchmarks.process import measured
from benchmarks.provider import file_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from benchmarks.bench import Bench

_BYTES, _FILES, _PARALLEL, _ROUNDS = 5_000_000, 80, 8, 5
_SELF_SIGNED = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"


class Cost(NamedTuple):
    """Wall time and CPU time, seconds."""

    wall: float
    cpu: float


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure plain downloads and downloads over TLS; yield nothing without curl."""
    if shutil.which("curl") is None or shutil.which("openssl") is None:
        return
    certificate, hashing = signed(bench.directory), _hashing()
    yield Figure("sha256: CPU a GB", hashing * 1e9 / (_BYTES * _FILES), unit="s")
    for name, files in (("plain", ()), ("TLS", certificate)):
        with file_server(_BYTES, *map(str, files)) as url:
            ours, bare, curl = (_best(costs) for costs in zip(*_rounds(bench, url, files), strict=True))
        yield Figure(f"{name}: CPU / curl", ours.cpu / curl.cpu, 1.6)
        yield Figure(f"{name}: wall time / curl", ours.wall / curl.wall, 1.15)
        yield Figure(f"{name}: CPU / curl and sha256", ours.cpu / (curl.cpu + hashing))
        yield Figure(f"{name}: CPU / the loop", ours.cpu / bare.cpu)
        yield Figure(f"{name}: wall time / the loop", ours.wall / bare.wall)
        yield Figure(f"{name}: CPU of curl a GB", curl.cpu * 1e9 / (_BYTES * _FILES), unit="s")


def _hashing() -> float:
    """Return CPU seconds that the hashes of all files take."""
    file = bytes(_BYTES)
    began = time.process_time()
    for _ in range(_FILES):
        hashlib.sha256(file).digest()
    return time.process_time() - began


def _rounds(bench: Bench, url: str, certificate: tuple[Path, ...]) -> Iterator[tuple[Cost, Cost, Cost]]:
    for _ in range(_ROUNDS):
        ours, bare = (_python(way, bench, url, certificate) for way in ("ours", "bare"))
        yield ours, bare, _curl(bench, url, certificate)


def _best(costs: Iterable[Cost]) -> Cost:
    """Return the smallest costs, since other processes can only add to them."""
    return Cost(*map(min, zip(*costs, strict=True)))


def _python(way: str, bench: Bench, url: str, certificate: tuple[Path, ...]) -> Cost:
    folder = _emptied(bench.directory / "files")
    words = (way, url, str(folder), str(_FILES), str(_PARALLEL), *map(str, certificate[:1]))
    return Cost(*map(float, bench.python("-m", "benchmarks.fetching", *words).output.split()))


def _curl(bench: Bench, url: str, certificate: tuple[Path, ...]) -> Cost:
    folder = _emptied(bench.directory / "files")
    trust = ["--cacert", str(certificate[0])] if certificate else []
    program = shutil.which("curl") or "curl"
    command = [program, "-q", "-sS", "-Z", "--parallel-max", str(_PARALLEL), *trust, "-o", f"{folder}/#1.png"]
    usage = measured([*command, f"{url}/[1-{_FILES}].png"], bench.environ(None), bench.directory)
    return Cost(usage.seconds, usage.cpu)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def signed(folder: Path) -> tuple[Path, Path]:
    """Return a self-signed certificate for 127.0.0.1 and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*_SELF_SIGNED.split(), *names], check=True, capture_output=True)
    return certificate, key
