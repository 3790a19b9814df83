"""Callers that end, or raise, while a run works in a thread of its own."""

from __future__ import annotations

import threading

import pytest

from runner.app.run_thread import wait_in_thread
from runner.errors import JobLockedError
from runner.net.addresses import GuardedResolver
from runner.store.lock import job_lock


def test_system_exit_of_a_listener_stops_the_run():
    """The run was left unattended, and bought everything."""
    asked = []

    def leave():
        raise SystemExit(3)

    def call(stop, post):
        post(leave)
        while not stop.is_requested():
            pass
        asked.append(stop)

    with pytest.raises(SystemExit):
        wait_in_thread("t", call)
    assert len(asked) == 1, "the run had ended before the error came out"


def test_an_interrupt_while_the_thread_starts_stops_the_run(monkeypatch):
    """Ctrl-C can strike when the thread works already and its caller does not wait for it yet."""
    start, stopped = threading.Thread.start, threading.Event()

    def start_and_interrupt(thread):
        start(thread)
        raise KeyboardInterrupt

    def call(stop, _):
        while not stop.is_requested():
            pass
        stopped.set()

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        wait_in_thread("t", call)
    assert stopped.wait(10)


def test_a_cancelled_wait_for_the_lock_ends(tmp_path):
    with job_lock(tmp_path), pytest.raises(JobLockedError), job_lock(tmp_path, wait=3600.0, is_cancelled=lambda: True):
        pass


async def test_a_look_up_that_cannot_be_made_is_an_oserror():
    """While the interpreter ends no thread can be started; nothing has left, so nothing is in doubt."""

    class Ended:
        async def resolve(self, *_):
            raise RuntimeError("cannot schedule new futures after shutdown")

    with pytest.raises(OSError, match="cannot be looked up"):
        await GuardedResolver(loopback=False, names=Ended()).resolve("api.example.com")
