"""Take a stored workspace (manifests, job directories, RUNNER_HOME, ledger) to its end by the command line.

`make_fixtures.py` runs this with the old version and stores what it says; `test_job_directories.py` runs it with the
current one and compares. Nothing of `runner` is imported: the version is whatever `code` points at.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FIXTURES = Path(__file__).parent / "fixtures"
PROVIDERS = ("chanjing", "kling", "kling-gateway")
#: the workspace with a job of `run --sandbox`, which keeps the ledger in its own state
SANDBOX = "sandbox"
#: seconds for one command
_TIMEOUT = 120
#: the origin that the sandbox had when the workspace was made, beside the ledger
_ORIGIN = "origin.txt"
#: what no two runs have alike
_VOLATILE = {"seconds", "at", "queued_at", "submitted_at", "finished_at", "oldest_waiting_seconds"}
#: fields of reports that are newer than version 0.1
_ADDED = {
    "guarantees",
    "rebuilt",
    "bought_in",
    "linked",
    "linked_from",
    "certain",
    "results_as_of",
    "unlisted",
    "suspects",
    "waits",
    "files",
    "contradicted",
}
#: the same of lines of results.jsonl
_ADDED_TO_RESULTS = {"evidence"}


@dataclass
class Workspace:
    """A directory with manifests and jobs, and the version of `runner` that works on it."""

    root: Path
    #: the directory that holds the package `runner`
    code: Path
    python: str = sys.executable
    env: dict[str, str] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    def start(self, *words: str, env: Mapping[str, str] | None = None, **pipes: Any) -> subprocess.Popen:
        """Start `runner` with these words."""
        names = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_CONFIG")
        inherited = {name: os.environ[name] for name in names if name in os.environ}
        own = {"RUNNER_HOME": str(self.root / "home"), "PYTHONPATH": str(self.code), "LOGNAME": "operator"}
        pipes = pipes or {"stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [self.python, "-m", "runner", *words],
            cwd=self.root,
            env={**inherited, **own, **self.env, **(env or {})},
            stdout=subprocess.PIPE,
            **pipes,
        )

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        """Run it to its end; return exit code, output and errors."""
        with self.start(*words, env=env) as process:
            out, err = process.communicate(timeout=_TIMEOUT)
        return process.returncode, out, err

    def ask(self, *words: str) -> Any:
        """Run it with `--json` and return the object that it prints last."""
        code, out, err = self.run(*words, "--json")
        assert out, f"{words}: exit {code}: {err}"
        return json.loads(out.splitlines()[-1])

    def lines(self, *words: str) -> list[dict[str, Any]]:
        """Run it and return the JSON lines that it prints."""
        code, out, err = self.run(*words)
        assert code == 0, f"{words}: exit {code}: {err}"
        return [json.loads(line) for line in out.splitlines()]

    def directory(self, job: str, *words: str) -> Path:
        """Return a job's directory."""
        return self.root / "out" / (Path(job).stem + "".join(words).replace("--", "-"))

    def results(self, job: str, *words: str) -> list[dict[str, Any]]:
        """Return the lines of a job's `results.jsonl`."""
        return _read_lines(self.directory(job, *words) / "results.jsonl")

    def accepted(self) -> list[dict[str, Any]]:
        """Return what the sandbox has accepted, and so charged for."""
        inner = list(self.root.glob("out/*/.runner/sandbox.jsonl"))
        return [task for ledger in (inner or [self.ledger]) for task in _read_lines(ledger)]

    @contextmanager
    def sandbox(self, *options: str) -> Iterator[str]:
        """Serve the providers with the workspace's ledger for the length of a block; yields the address.

        An account's directory is named after the address, and every sandbox has another port: it moves along.
        """
        words = ("sandbox", "--json", "--until-stdin-closes", "--ledger", str(self.ledger), *options)
        with self.start(*words, stdin=subprocess.PIPE) as process:
            answer = json.loads(process.stdout.readline())
            self.env = answer["env"]
            self._move_accounts(answer["url"])
            try:
                yield answer["url"]
            finally:
                process.communicate(timeout=_TIMEOUT)

    def change(self, url: str, **options: Any) -> None:
        """Set options of a running sandbox."""
        body = json.dumps(options).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{url}/_sandbox/options", data=body), timeout=10):
            pass

    def _move_accounts(self, url: str) -> None:
        path = self.root / _ORIGIN
        if path.exists():
            old, new = (hashlib.sha256(each.encode()).hexdigest()[:8] for each in (path.read_text(), url))
            for account in (self.root / "home" / "accounts").glob(f"*-{old}-*"):
                account.rename(account.with_name(account.name.replace(old, new)))
        path.write_text(url)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pack(root: Path, archive: Path) -> None:
    """Store a workspace; modes and times of files stay, owners do not."""

    def strip(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(archive, "w:xz", preset=9) as file:
        file.add(root, ".", filter=strip)


def unpack(archive: Path, root: Path) -> None:
    """Restore a workspace."""
    with tarfile.open(archive) as file:
        file.extractall(root, filter="data")


def take_to_end(name: str, space: Workspace) -> dict[str, Any]:
    """Take the jobs of a workspace to their end and return, by manifest, all that the command line says on the way."""
    if name == SANDBOX:
        return {"pretend.yaml": resume(space, "pretend.yaml", "--sandbox")}
    with space.sandbox("--seconds", "0,0", "--video-seconds", "0,0"):
        films = resume(space, "films.yaml")
        status = space.ask("status", "images.yaml")
        images = {"status before": status, **resume(space, "images.yaml")}
        return {"films.yaml": films, "images.yaml": {**images, **decide(space, "images.yaml", images["results"])}}


def resume(space: Workspace, job: str, *words: str) -> dict[str, Any]:
    """Look at a job as it was left, run it, and run it again."""
    return {
        "export before": space.lines("export", job, *words),
        "run": run_and_decide(space, job, *words),
        "results": space.results(job, *words),
        "second run": space.ask("run", job, *words),
    }


def run_and_decide(space: Workspace, job: str, *words: str) -> dict[str, Any]:
    """Run a job, and say of each lost answer that nothing in this run can settle that it was never accepted.

    The old version believed that by itself. The current one has seen too little of an account that version 0.1 left.
    Return one summary of both runs, as if the first had gone on.
    """
    first = space.ask("run", job, *words)
    rows = space.results(job, *words)
    waiting = [row for row in rows if row["state"] == "in_doubt" and row["error"]["message"].startswith("not found")]
    for row in waiting:
        space.ask("resolve", job, row["key"], "--absent", *words)
    if not waiting:
        return first
    second = space.ask("run", job, *words)
    sums = ("submitted", "downloaded", "bytes", "adopted")
    # what the decisions refunded, the second run has spent again
    prices = [first["cost"], second["cost"], *(row["cost"] for row in waiting)]
    cost = None if None in prices else prices[0] + prices[1] - sum(prices[2:])
    return {**second, "cost": cost, **{name: first[name] + second[name] for name in sums}}


def decide(space: Workspace, job: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Fetch what is stranded, check everything, and give a held task the id that the provider accepted it under."""
    said = {"retry": space.ask("retry", job), "verify": space.ask("verify", job), "audit": space.ask("audit", job)}
    said["audit"]["findings"].sort(key=lambda finding: finding["remote_id"])
    ids = {prompt_of(task): task["id"] for task in space.accepted()}
    (key,) = [row["key"] for row in results if row["vars"]["prompt"] == "held until the test"]
    said["resolve"] = space.ask("resolve", job, key, "--adopt", ids["held until the test"])
    said["last run"] = space.ask("run", job)
    said["last results"] = space.results(job)
    return said


def recover(space: Workspace, job: str) -> dict[str, Any]:
    """Rebuild a job's state from its journal and say what it holds then."""
    return {"recover": space.ask("recover", job), "export": space.lines("export", job)}


def prompt_of(task: Mapping[str, Any]) -> str:
    """Return the prompt of an accepted task."""
    return task["request"].get("ref_prompt") or task["request"]["prompt"]


def normalise(said: Any, root: Path, known: set[str]) -> Any:
    """Replace what differs from run to run: times, the workspace's path, and what hangs on ids that are not `known`.

    Fields that the old version did not have are left out.
    """
    match said:
        case {"remote_id": str(remote_id), "outputs": list(outputs)} if remote_id not in known:
            outputs = [{**output, "bytes": "*", "sha256": "*"} for output in outputs]
            return normalise({**said, "remote_id": "*", "outputs": outputs}, root, {"*"})
        case {"submitted": int(submitted), "bytes": int()} if submitted:
            return normalise({**said, "bytes": "*"}, root, known)
        case dict():
            added = _ADDED | _ADDED_TO_RESULTS if "repeat" in said else _ADDED
            return {
                name: "*" if name in _VOLATILE and value is not None else normalise(value, root, known)
                for name, value in said.items()
                if name not in added and (name, value) != ("adopted", [])
            }
        case list():
            return [normalise(each, root, known) for each in said]
        case str():
            return re.sub(r"127\.0\.0\.1:\d+", "HOST", said.replace(str(root), "ROOT"))
        case _:
            return said
