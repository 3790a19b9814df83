"""Runs from a script, an event loop and a thread: results, events, and what a run must leave alone."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import anyio
import pytest

import runner
from runner.api import python_hint


async def until(holds) -> None:
    """Wait until a condition that another thread causes is true."""
    with anyio.fail_after(20):
        while not holds():  # noqa: ASYNC110 - there is nothing to wait for
            await anyio.sleep(0.02)


def join_run() -> None:
    """Wait for the thread of a run that nobody waits for."""
    for thread in threading.enumerate():
        if thread.name == "runner job":
            thread.join(20)
            assert not thread.is_alive()


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def test_run_returns_results_as_in_results_file(box):
    result = runner.run(box.job())
    assert (result.exit_code, result.reasons, result.counts) == (0, [], {"done": 4})
    assert type(result.exit_code) is int
    lines = [json.loads(line) for line in (result.directory / "results.jsonl").read_text().splitlines()]
    tasks = list(result.tasks(state="done"))
    assert [task.to_dict() for task in tasks] == lines
    assert [task.vars["subject"] for task in tasks] == [f"job {number}" for number in range(4)]
    assert sorted(task.remote_id for task in tasks) == sorted(task.id for task in box.accepted)
    assert all(output.path.stat().st_size == output.bytes for task in tasks for output in task.outputs)
    assert all(task.queued_at <= task.submitted_at <= task.finished_at for task in tasks)
    assert list(result.tasks(state="held")) == []
    assert result.describe().startswith("job: 4 done\n")
    assert runner.run(box.job()).summary["submitted"] == 0
    assert box.paid_once(4)


async def test_run_inside_a_loop_names_the_other_function(box):
    with pytest.raises(runner.RunnerError, match=r"await runner\.arun"):
        runner.run(box.job())
    assert (await runner.arun(box.job())).exit_code == 0


async def test_two_jobs_run_in_one_loop(box):
    first, second = await asyncio.gather(runner.arun(box.job(name="a")), runner.arun(box.job(name="b")))
    assert (first.counts, second.counts) == ({"done": 4}, {"done": 4})
    assert box.paid_once(8)


@pytest.mark.slow
async def test_same_job_twice_is_refused(box):
    box.sandbox.change(accept_delay_s=0.5)
    results = await asyncio.gather(
        runner.arun(box.job()), runner.arun(box.job()), runner.arun(box.job(), wait_lock=30), return_exceptions=True
    )
    errors = [result for result in results if isinstance(result, runner.RunnerError)]
    assert [error.exit_code for error in errors] in ([11], [11, 11])
    assert {error.hint for error in errors} == {"Wait for it, or give wait_lock=600."}
    assert box.paid_once(4)


def test_hints_name_what_a_caller_can_write():
    hint = "Put the latest state back; or, to buy its tasks anew whatever was bought before, add --buy-again."
    assert python_hint(hint).endswith("whatever was bought before, give buy_again=True.")
    assert python_hint("`runner recover MANIFEST` rebuilds it.") == "`runner recover MANIFEST` rebuilds it."


def test_run_in_a_thread(box):
    found = []
    thread = threading.Thread(target=lambda: found.append(runner.run(box.job()).exit_code))
    thread.start()
    thread.join(30)
    assert found == [0]


# events


def test_events_come_in_the_callers_thread_and_in_order(box):
    events, threads = [], set()

    def listen(event):
        events.append(event)
        threads.add(threading.current_thread())

    runner.run(box.job(2), on_event=listen)
    assert threads == {threading.current_thread()}
    by_key = {}
    for event in events:
        if isinstance(event, runner.TaskChanged):
            by_key.setdefault(event.key, []).append(event.state)
    assert list(by_key.values()) == [["submitting", "running", "ready", "done"]] * 2
    last = events[-1]
    assert isinstance(last, runner.Progress)
    assert (last.counts, last.done, last.total, str(last)) == ({"done": 2}, 2, 2, "job: 2/2 done")


async def test_events_of_a_loop_come_in_its_thread(box):
    events, threads = [], set()
    await runner.arun(box.job(1), on_event=lambda event: (events.append(event), threads.add(threading.get_ident())))
    assert threads == {threading.get_ident()}
    assert [event.state for event in events if isinstance(event, runner.TaskChanged)][-1] == "done"


def test_listener_that_raises_loses_no_id(box, caplog):
    def listen(event):
        raise ZeroDivisionError

    result = runner.run(box.job(), on_event=listen)
    assert (result.exit_code, result.counts) == (1, {"done": 4})
    assert result.reasons == ["the event listener failed: ZeroDivisionError()"]
    assert "the event listener failed" in caplog.text
    assert box.paid_once(4)


async def test_listener_that_raises_in_a_loop_loses_no_id(box):
    def listen(event):
        raise ZeroDivisionError

    result = await runner.arun(box.job(), on_event=listen)
    assert (result.exit_code, result.counts) == (1, {"done": 4})
    assert box.paid_once(4)


def test_warnings_are_events_and_log_lines(box, caplog):
    runner.run(box.job(1))
    events = []
    runner.run(box.job(1, output={"name": "{{ index }}-x"}), on_event=events.append)
    assert [str(event) for event in events if isinstance(event, runner.Warned)] == [
        "job: output.name has changed: 1 file renamed"
    ]
    assert [(record.name, record.levelno) for record in caplog.records] == [("runner", logging.WARNING)]


# what a run leaves alone


@pytest.mark.slow
def test_run_prints_nothing_and_leaves_signals_and_logging_alone(box, capfd):
    handlers = [signal.getsignal(number) for number in SIGNALS]
    seen, root = [], logging.getLogger().handlers[:]

    def listen(event):
        seen.append([signal.getsignal(number) for number in SIGNALS])

    runner.run(box.job(), on_event=listen)
    runner.run(box.job(), verb="verify")
    box.sandbox.change(outage=True)
    runner.run(box.job(5), deadline="1s")
    assert all(each == handlers for each in seen)
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert logging.getLogger().handlers == root
    assert logging.getLogger("runner").level == logging.NOTSET
    assert capfd.readouterr() == ("", "")


# stopping


async def test_cancelled_run_saves_ids_and_resumes(box):
    """A cancellation is like the first Ctrl-C: what is on the wire delivers its id, and nothing is paid twice."""
    box.sandbox.change(accept_delay_s=0.3)
    running = asyncio.create_task(runner.arun(box.job(30)))
    await until(lambda: box.accepted)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    stored = runner.open_job(box.root / "job")
    sent = len(box.accepted)
    assert 0 < sent < 30
    known = {task.remote_id for task in stored.tasks() if task.remote_id}
    assert known == {task.id for task in box.accepted}
    assert {"submitting", "in_doubt"}.isdisjoint(stored.counts)
    assert not (box.root / "job/.runner/lock.holder").exists()
    box.sandbox.change(accept_delay_s=0.0)
    assert (await runner.arun(box.job(30))).counts == {"done": 30}
    assert box.paid_once(30)


@pytest.mark.slow
async def test_timeouts_of_both_libraries_stop_a_run(box):
    box.sandbox.change(accept_delay_s=0.3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await runner.arun(box.job(30))
    with anyio.move_on_after(1.0) as scope:
        await runner.arun(box.job(30))
    assert scope.cancelled_caught
    known = {task.remote_id for task in runner.open_job(box.root / "job").tasks() if task.remote_id}
    assert known == {task.id for task in box.accepted}
    assert box.sandbox.ledger.duplicates() == 0


@pytest.mark.slow
def test_interrupted_run_saves_ids_and_resumes(box):
    box.sandbox.change(accept_delay_s=0.3)

    def interrupt(event):
        if isinstance(event, runner.TaskChanged) and event.state == "running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(box.job(30), on_event=interrupt)
    stored = runner.open_job(box.root / "job")
    known = {task.remote_id for task in stored.tasks() if task.remote_id}
    assert known == {task.id for task in box.accepted}
    assert stored.counts["queued"] > 0
    assert runner.run(box.job(30)).counts == {"done": 30}
    assert box.paid_once(30)


@pytest.mark.slow
async def test_third_cancellation_does_not_wait(box):
    box.sandbox.change(accept_delay_s=3.0)
    running = asyncio.create_task(runner.arun(box.job(2)))
    await until(lambda: box.sandbox.stats["requests"])
    began = time.monotonic()
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - began < 2.0
    await anyio.to_thread.run_sync(join_run)  # it drains although nobody waits for it
    known = {task.remote_id for task in runner.open_job(box.root / "job").tasks() if task.remote_id}
    assert known == {task.id for task in box.accepted}


@pytest.mark.slow
def test_loop_closed_under_a_run_stops_it(box):
    """A program that gives up its loop cancels nothing; the run must not buy the rest unattended."""
    box.sandbox.change(accept_delay_s=0.3)
    loop = asyncio.new_event_loop()
    running = loop.create_task(runner.arun(box.job(30)))
    loop.run_until_complete(until(lambda: box.accepted))
    loop.close()
    with suppress(RuntimeError, GeneratorExit):  # as when it is collected: there is no loop to leave a scope in
        running.get_coro().close()
    join_run()
    assert len(box.accepted) < 30
    known = {task.remote_id for task in runner.open_job(box.root / "job").tasks() if task.remote_id}
    assert known == {task.id for task in box.accepted}
    box.sandbox.change(accept_delay_s=0.0)
    assert runner.run(box.job(30)).counts == {"done": 30}
    assert box.paid_once(30)


#: starts a run in a thread, and ends its main thread with the first accepted task
LEAVES = """
import json, sys, threading
from pathlib import Path
import runner

accepted = threading.Event()

def on_event(event):
    if isinstance(event, runner.TaskChanged) and event.state == "running":
        accepted.set()

job = runner.Job(json.loads(sys.argv[1]), out=Path(sys.argv[2]))
threading.Thread(target=runner.run, args=(job,), kwargs={"on_event": on_event}).start()
accepted.wait(20)
"""


@pytest.mark.slow
def test_main_thread_that_ends_stops_a_run(box):
    """No host can be looked up while the interpreter ends, so the run drains instead of filling up with doubts."""
    box.sandbox.change(accept_delay_s=0.3)
    values = box.values(30)
    ended = subprocess.run(
        [sys.executable, "-c", LEAVES, json.dumps(values), str(box.root / "job")],
        env={**os.environ, **box.env}, check=False, timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert 0 < len(box.accepted) < 30
    stored = runner.open_job(box.root / "job")
    assert {task.remote_id for task in stored.tasks() if task.remote_id} == {task.id for task in box.accepted}
    assert {"submitting", "in_doubt"}.isdisjoint(stored.counts)
    box.sandbox.change(accept_delay_s=0.0)
    assert runner.run(box.job(30)).counts == {"done": 30}
    assert box.paid_once(30)


# options


@pytest.mark.slow
def test_cap_on_costs_pauses_the_job(box):
    result = runner.run(box.job(cost=4), max_cost=8)
    assert (result.exit_code, result.counts) == (8, {"queued": 2, "done": 2})
    assert runner.run(box.job(cost=4), max_cost=16).exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_cost": 5}, "<python>: max_cost: nobody knows what kling-v2-1 costs"),
        ({"max_cost": -1}, "max_cost: -1 is no amount"),
        ({"deadline": "soon"}, "deadline: expected a duration"),
        ({"verb": "buy"}, "verb: there is no 'buy'"),
        ({"failed": True}, "failed and reason choose what to retry"),
    ],
)
def test_wrong_option_is_refused_before_anything_is_sent(box, options, message):
    with pytest.raises(runner.RunnerError) as raised:
        runner.run(box.job(), **options)
    assert str(raised.value).startswith(message)
    assert (raised.value.exit_code, box.accepted) == (2, [])


@pytest.mark.slow
def test_failed_tasks_are_retried_by_verb(box):
    job = box.job(1, name="FAIL-TEST")
    result = runner.run(job)
    assert (result.exit_code, result.counts, len(box.accepted)) == (3, {"failed": 1}, 1)
    assert {task.error.reason for task in result.tasks("failed")} == {"provider"}
    runner.run(job)
    assert len(box.accepted) == 1
    runner.run(job, verb="retry", failed=True, reason="provider")
    assert len(box.accepted) == 2


@pytest.mark.slow
def test_embedded_sandbox_serves_a_script(tmp_path, capfd):
    job = runner.Job(
        name="one", provider="chanjing", model="kling-v2-1", params={"prompt": "a heron"}, out=tmp_path / "one",
        sandbox=True, env={"RUNNER_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert runner.run(job).exit_code == 0
    assert capfd.readouterr() == ("", "")
