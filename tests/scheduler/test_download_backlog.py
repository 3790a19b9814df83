"""What is paid and not on the disk bounds submits."""

from dataclasses import replace

from runner.scheduler.download_backlog import DownloadBacklog
from runner.store.queries import UnfetchedCounts
from runner.tasks.models import NO_ERROR, State, Task, TaskError

WORKERS = 4
TASK = Task(
    id=1,
    key="00",
    provider="chanjing",
    operation="image",
    model="m",
    state=State.QUEUED,
    ref="r",
    due_at=0.0,
    submitted_at=1000.0,
)
RUNNING = replace(TASK, state=State.RUNNING)
READY = replace(TASK, state=State.READY, finished_at=1020.0)
FAILED_ONCE = replace(READY, failures=1, error=TaskError("network", None, "503 from files.example"))
DONE = replace(READY, state=State.DONE, due_at=None, error=NO_ERROR)


class Made:
    """A backlog and its clock."""

    def __init__(self, workers=WORKERS):
        self.backlog, self.now = DownloadBacklog(workers), 0.0
        self.backlog.restore(UnfetchedCounts(), 1000.0)

    def move(self, before, after, count=1, seconds=0.0):
        for _ in range(count):
            self.now += seconds
            self.backlog.update(before, after, self.now)

    @property
    def full(self):
        return self.backlog.is_full(self.now)


def saturated(running=200):
    """Return a backlog whose 4 workers fetch 10 files a second, of tasks that take 20 s: at most 408 are allowed."""
    made = Made()
    made.move(TASK, RUNNING, 40 + running)
    made.move(RUNNING, READY, 40)
    made.move(READY, DONE, 30, seconds=0.1)
    return made


def test_limit_is_twice_what_downloads_work_off_meanwhile():
    made = saturated()
    assert round(made.backlog.limit()) == 2 * (10 * 20 + WORKERS)


def test_submits_wait_above_the_limit_and_go_on_below():
    made = saturated(running=390)
    assert made.backlog.unfetched == 400
    assert not made.full
    made.move(TASK, RUNNING, 9)
    assert made.full
    assert made.backlog.reason == "what is paid is fetched first"
    made.move(RUNNING, READY, 200)
    made.move(READY, DONE, 60, seconds=0.1)
    assert made.backlog.unfetched == 349
    assert made.full, "80 % of the limit are 326: a single file must not let submits flap"
    made.move(READY, DONE, 25, seconds=0.1)
    assert not made.full


def test_submits_go_on_while_downloads_keep_up():
    """Thousands may run at the provider: only what waits for a download stops submits."""
    made = saturated(running=5000)
    assert made.full
    made.move(READY, DONE, 6, seconds=0.1)
    assert made.backlog.waiting == WORKERS
    assert not made.full


def test_nothing_is_known_before_workers_were_busy():
    made = Made()
    made.move(TASK, RUNNING, 1000)
    made.move(RUNNING, READY, 500)
    assert not made.full
    made.now += 1.0
    assert made.full, "no file came in a second, and 500 wait"


def test_pause_between_runs_is_no_time_of_a_task():
    made = Made()
    made.move(TASK, RUNNING, 2)
    made.move(RUNNING, replace(READY, submitted_at=10.0))
    assert made.backlog._mean_seconds == 0.0
    made.move(RUNNING, READY)
    assert made.backlog._mean_seconds == 20.0


def test_a_result_that_fails_stops_no_submit():
    """One of many hosts that is away must not use up the limit for ever."""
    made = saturated()
    made.move(RUNNING, READY, 200)
    made.move(READY, FAILED_ONCE, 7)
    made.move(READY, DONE, 199)
    assert (made.backlog.waiting, made.backlog.unfetched) == (4, 4)
    assert not made.full


def test_submits_wait_while_no_file_can_be_fetched():
    made = Made()
    made.move(TASK, RUNNING, 20)
    made.move(RUNNING, READY, 8)
    made.move(READY, FAILED_ONCE, 7)
    assert not made.full
    made.move(READY, FAILED_ONCE)
    assert made.full
    assert made.backlog.out_of_reach
    assert made.backlog.reason == "no file can be fetched (503 from files.example)"
    made.move(FAILED_ONCE, DONE)
    assert not made.full


def test_submits_wait_for_a_file_host_15_minutes_at_most():
    made = Made()
    made.move(TASK, RUNNING, 20)
    made.move(RUNNING, READY, 8)
    made.move(READY, FAILED_ONCE, 8)
    assert made.full
    made.now += 899.0
    assert made.full
    made.now += 1.0
    assert not made.full
    made.move(FAILED_ONCE, FAILED_ONCE, 8)
    assert made.full, "still nothing comes"


def test_submits_go_on_when_no_failed_result_is_left():
    """Results that were given up are stranded: nothing would ever succeed again."""
    made = Made()
    made.move(TASK, RUNNING, 8)
    made.move(RUNNING, READY, 8)
    made.move(READY, FAILED_ONCE, 8)
    assert made.full
    made.move(FAILED_ONCE, replace(FAILED_ONCE, state=State.STRANDED, due_at=None), 8)
    assert not made.full


def test_a_fresh_link_after_a_failure_is_still_a_failure():
    made = Made()
    made.move(TASK, RUNNING)
    made.move(RUNNING, READY)
    again = replace(RUNNING, refreshes=1)
    made.move(READY, again)
    assert made.backlog.unfetched == 0
    made.move(again, replace(READY, refreshes=1))
    made.move(replace(READY, refreshes=1), DONE)
    assert dict(made.backlog._counts) == {"running": 0, "ready": 0, "failing": 0}


def test_what_rests_until_the_next_run_does_not_count():
    made = Made()
    made.move(TASK, RUNNING)
    made.move(RUNNING, READY)
    made.move(READY, replace(READY, due_at=None))
    assert made.backlog.unfetched == 0


def test_without_downloads_submits_never_wait():
    made = Made(workers=0)
    made.move(TASK, RUNNING, 100)
    made.move(RUNNING, READY, 100)
    made.now += 100.0
    assert not made.full
