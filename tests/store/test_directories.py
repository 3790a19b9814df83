"""Directories of the runner are private, and their names survive a power failure."""

from __future__ import annotations

import os
import stat

import pytest

from runner.store import directories
from runner.store.claims import Claims
from runner.store.directories import make, make_account
from runner.store.ground import check
from runner.store.registry import Registry
from runner.store.store import Store
from runner.store.uploads import Uploads


@pytest.fixture
def open_umask():
    was = os.umask(0o022)
    yield
    os.umask(was)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def synced(monkeypatch):
    """Record the directories that are synced, and sync them."""
    seen, sync = [], directories.sync
    monkeypatch.setattr(directories, "sync", lambda directory: seen.append(directory) or sync(directory))
    return seen


async def test_names_of_new_directories_are_synced(tmp_path, synced, open_umask):
    job = tmp_path / "out" / "job"
    check(job)
    assert synced == [tmp_path, tmp_path / "out"]
    await (await Store.open(job / ".runner")).aclose()
    assert synced == [tmp_path, tmp_path / "out", job]
    assert (mode(job), mode(job / ".runner")) == (0o755, 0o700), "results are for others too, the state is not"
    await (await Store.open(job / ".runner")).aclose()
    assert len(synced) == 3, "existing directories are not synced again"


@pytest.mark.parametrize("kind", ["claims", "registry", "uploads"])
async def test_account_files_are_private_up_to_home(tmp_path, open_umask, kind):
    home = tmp_path / "state" / "runner"
    account = home / "accounts" / "chanjing-1"
    match kind:
        case "claims":
            await Claims(account, "one").take("r")
        case "registry":
            await Registry(account).at("/x")
        case "uploads":
            await Uploads(account).find("ab", 0.0)
    assert {mode(place) for place in (home, account.parent, account)} == {0o700}
    assert mode(home.parent) == 0o755


def test_wider_modes_are_narrowed(tmp_path, open_umask):
    home = tmp_path / "home"
    account = home / "accounts" / "chanjing-1"
    account.mkdir(parents=True)
    assert mode(home) == 0o755
    make_account(account)
    assert {mode(place) for place in (home, account.parent, account)} == {0o700}


def test_home_with_other_content_keeps_its_mode(tmp_path, open_umask):
    """RUNNER_HOME may be a user's home or a public directory."""
    home = tmp_path / "home"
    (home / "letters").mkdir(parents=True)
    make_account(home / "accounts" / "chanjing-1")
    assert (mode(home), mode(home / "accounts")) == (0o755, 0o700)


def test_file_in_place_of_directory_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        make(tmp_path / "file")
