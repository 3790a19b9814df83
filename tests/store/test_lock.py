from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from runner.errors import DiskError, Locked
from runner.store.lock import job_lock

HOLDER = """
import sys
from pathlib import Path
from runner.store.lock import job_lock
with job_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(home):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_runner_gets_name_of_holder_at_once(home, holder):
    with pytest.raises(Locked) as caught, job_lock(home):
        pass
    assert f"{socket.gethostname()} process {holder.pid}" in caught.value.message
    assert caught.value.exit_code == 11


def test_killed_holder_leaves_no_stale_lock(home, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    assert (home / "lock.holder").exists(), "its note stays behind, and means nothing"
    with job_lock(home):
        assert str(os.getpid()) in (home / "lock.holder").read_text()


def test_waiting_process_gets_released_lock(home, holder):
    holder.stdin.close()
    with job_lock(home, wait=20):
        pass


def test_lock_works_within_one_process_and_is_released(home):
    with job_lock(home), pytest.raises(Locked), job_lock(home):
        pass
    with job_lock(home):
        pass
    assert not (home / "lock.holder").exists()


def test_directory_and_lock_are_private(home):
    with job_lock(home):
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "lock").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "error", [PermissionError(13, "mine"), OSError(28, "mine"), TimeoutError("mine"), KeyError("mine")]
)
def test_error_inside_the_block_passes_unchanged(home, error):
    with pytest.raises(type(error)) as caught, job_lock(home):
        raise error
    assert caught.value is error
    with job_lock(home):
        pass


def test_file_in_place_of_directory_is_a_disk_error(home):
    home.parent.mkdir(parents=True)
    home.write_text("")
    with pytest.raises(DiskError), job_lock(home):
        pass
