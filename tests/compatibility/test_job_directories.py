"""Job directories that runner 0.1 left behind go on: nothing is lost, nothing is paid twice, and reports say the same.

The workspaces in `fixtures/` were made by `make_fixtures.py`, which says how; beside each stands what the old version
itself said while it took a copy to its end. `PYTHONPATH` may name another version, e.g. the old one.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from .procedure import FIXTURES, PROVIDERS, SANDBOX, Workspace, normalise, prompt_of, recover, take_to_end, unpack

CODE = Path(os.environ.get("PYTHONPATH", "").split(os.pathsep)[0] or Path(__file__).parents[2])
STATES = {"queued", "submitting", "in_doubt", "held", "running", "ready", "done", "failed", "stranded"}
#: what a run leaves as it is
SETTLED = {"done", "held", "failed", "stranded"}
#: FAIL-TEST fails, and the old version bought it again by `retry --failed`, on purpose
BOUGHT_AGAIN = {"FAIL-TEST"}


def unpacked(name: str, root: Path) -> Workspace:
    unpack(FIXTURES / f"{name}.tar.xz", root)
    return Workspace(root, CODE)


def expected(name: str, kind: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))[kind]


@pytest.mark.slow
def test_job_directories_go_on(tmp_path):
    """One test for all, since they wait more than they work: side by side they take half as long."""
    names = [*PROVIDERS, SANDBOX]
    spaces = [unpacked(name, tmp_path / name) for name in names]
    before = [space.accepted() for space in spaces]
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(take_to_end, names, spaces))
    errors = []
    for each in zip(names, spaces, before, said, strict=True):
        try:
            check(*each)
        except AssertionError as error:
            error.add_note(f"in the workspace {each[0]}")
            errors.append(error)
    if errors:
        raise ExceptionGroup("what the old version left does not go on", errors)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_state_is_rebuilt_from_its_journal(name, tmp_path):
    space = unpacked(name, tmp_path)
    known = {task["id"] for task in space.accepted()}
    assert normalise(recover(space, "images.yaml"), space.root, known) == expected(name, "recovered")


def check(name: str, space: Workspace, before: list[dict[str, Any]], said: dict[str, Any]) -> None:
    """Check all that is promised of one workspace, and then that each word is the old version's."""
    for manifest, job in said.items():
        check_what_was_settled(job)
        check_ids(job)
        check_files(job, space.directory(manifest, *(["--sandbox"] if name == SANDBOX else [])))
    check_payments(said, before, space.accepted())
    if name != SANDBOX:
        check_states(name, said["images.yaml"])
        check_account(name, space)
    assert normalise(said, space.root, {task["id"] for task in before}) == expected(name, "resumed")


def check_states(name: str, job: dict[str, Any]) -> None:
    """Check that the fixture has every state; a doubt at the gateway is held at once, for nothing can be looked up."""
    assert set(job["status before"]["counts"]) == STATES - ({"in_doubt"} if name == "kling-gateway" else set())
    assert {row["state"] for row in job["last results"] if row["index"]} == {"done", "held", "failed"}


def check_what_was_settled(job: dict[str, Any]) -> None:
    """Check that a run changes nothing of what is done, held, failed or stranded, to the last field."""
    after = {row["key"]: row for row in job["results"]}
    assert all(after[row["key"]] == row for row in job["export before"] if row["state"] in SETTLED)
    assert {row["state"] for row in job["results"] if row["index"]} <= SETTLED


def check_ids(job: dict[str, Any]) -> None:
    """Check that each task keeps the id that it had, and that no id belongs to two."""
    ids = {row["key"]: row["remote_id"] for row in last(job)}
    assert all(ids[row["key"]] == row["remote_id"] for row in job["export before"] if row["remote_id"])
    assert max(Counter(filter(None, ids.values())).values()) == 1


def check_files(job: dict[str, Any], directory: Path) -> None:
    """Check that what is done has all its files, and nothing else has any."""
    for row in last(job):
        assert bool(row["outputs"]) == (row["state"] == "done")
        for output in row["outputs"]:
            assert sha256((directory / output["file"]).read_bytes()).hexdigest() == output["sha256"]


def check_payments(said: dict[str, Any], before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """Check by the provider's ledger that all that was paid is done, and that nothing was paid twice."""
    rows = [row for job in said.values() for row in last(job)]
    done = {row["remote_id"] for row in rows if row["state"] == "done"}
    # what a person has to decide on or gave up, and what the provider could not make
    unfinished = {row["vars"]["prompt"] for row in rows if row["state"] in {"held", "failed"}}
    assert {prompt_of(task) for task in after if task["id"] not in done} <= unfinished
    assert done <= {task["id"] for task in after}
    bought = Counter(task["key"] for task in after)
    assert {prompt_of(task) for task in after if bought[task["key"]] > 1} <= BOUGHT_AGAIN
    assert sum(job["run"]["submitted"] for job in said.values()) == len(after) - len(before)
    later = ("second run", "retry", "verify", "last run")
    assert not any(job[verb]["submitted"] for job in said.values() for verb in later if verb in job)


def check_account(name: str, space: Workspace) -> None:
    """Check that the account's directory is found by its name, and no other is begun."""
    (account,) = (space.root / "home" / "accounts").iterdir()
    assert account.name.startswith(f"{name}-")


def last(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the latest results of a job."""
    return job.get("last results", job["results"])


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVIDERS)
def test_unseen_edits_of_an_old_job_buy_nothing(name, tmp_path):
    """Rows of version 0.1 have no goods: they are computed from the request that was stored."""
    space = unpacked(name, tmp_path)
    manifest, before = tmp_path / "images.yaml", space.ask("plan", "images.yaml")
    text = manifest.read_text(encoding="utf-8")
    edited = re.sub(r"\{prompt: ([^},]+)", r'{prompt: " \1  "', text)
    assert edited != text
    manifest.write_text(edited, encoding="utf-8")
    after = space.ask("plan", "images.yaml")
    assert (after["new"], after["known"]) == (before["new"], before["known"])
    assert after["restated"]["unseen"] == sum(before["known"].values())
