"""What is known of refusals: measured on the first two, contradicted by one, and shared by the account's jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.errors import DiskError
from runner.scheduler.refusals import Refusals
from runner.store.facts import AccountFacts
from runner.tasks.events import AccountBlocked, Interrupted, Rejected, RetryableFailure, Suspected
from runner.tasks.fact import Fact
from runner.tasks.models import State, Task, TaskError

NOW, DAY = 1_790_000_000.0, 86_400.0
FAST = TaskError("throttled", "1302", "too fast")
THROTTLED = RetryableFailure("throttled", FAST)
TASK = Task(7, "ab" * 16, "kling", "image", "m", State.SUBMITTING, None)
SUSPECT = replace(TASK, state=State.IN_DOUBT, error=FAST)
GROUPS = {"image": "images", "video": "videos"}


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def refusals(clock=None, warnings=None, groups=GROUPS) -> Refusals:
    return Refusals("kling", groups, clock or Clock(), ([] if warnings is None else warnings).append)


@pytest.mark.parametrize(
    "event",
    [
        THROTTLED,
        RetryableFailure("window", replace(FAST, reason="window")),
        Rejected(TaskError("moderation", "1301", "risk")),
        Rejected(TaskError("invalid", "1201", "bad"), maybe_taken=True),
        AccountBlocked("credit", TaskError("credit", "1102", "used up")),
        AccountBlocked("account", TaskError("account", "1103", "?")),
    ],
    ids=lambda event: event.error.reason,
)
def test_unknown_refusal_is_a_suspect(event):
    assert refusals().check(TASK, event) == Suspected(event.error)


@pytest.mark.parametrize(
    "event",
    [
        RetryableFailure("unsent", TaskError("network", None, "no byte left")),
        AccountBlocked("credentials", TaskError("credentials", "1002", "wrong key")),
        AccountBlocked("configuration", TaskError("configuration", None, "wrong address")),
        Interrupted("no answer"),
    ],
    ids=lambda event: type(event).__name__ + str(getattr(event, "kind", "")),
)
def test_what_costs_nobody_is_no_suspect(event):
    assert refusals().check(TASK, event) is event


def test_where_nothing_can_be_looked_up_a_refusal_is_believed():
    assert refusals(groups={}).check(TASK, THROTTLED) is THROTTLED


def test_refusal_that_may_mean_an_earlier_submit_stays_so():
    event = Rejected(TaskError("invalid", "1201", "exists"), maybe_taken=True)
    assert refusals().check(replace(TASK, doubts=1), event) is event


async def test_two_measurements_make_a_code_free_for_one_operation():
    clock = Clock()
    known = refusals(clock)
    await known.confirm(SUSPECT)
    assert isinstance(known.check(TASK, THROTTLED), Suspected)
    await known.confirm(SUSPECT)
    assert known.check(TASK, THROTTLED) is THROTTLED
    assert isinstance(known.check(replace(TASK, operation="video"), THROTTLED), Suspected)
    other = RetryableFailure("throttled", replace(FAST, code="1304"))
    assert isinstance(known.check(TASK, other), Suspected)
    clock.now += 31 * DAY
    assert isinstance(known.check(TASK, THROTTLED), Suspected), "after thirty days it is measured again"


def test_one_code_with_two_meanings_is_two_refusals():
    known = refusals()
    known._take(
        "images", Fact("refusal", "measured", "image", subject="50000 moderation", n=2, last_at=NOW), silent=True
    )
    moderated, credit = (TaskError(reason, "50000", "?") for reason in ("moderation", "credit"))
    assert known.verdict("image", moderated) == "free"
    assert known.verdict("image", credit) == "unknown"


async def test_contradiction_wins_over_any_number_and_is_told_once():
    warnings = []
    known = refusals(warnings=warnings)
    for _ in range(40):
        await known.confirm(SUSPECT)
    await known.contradict(SUSPECT, "id-9")
    await known.contradict(SUSPECT, "id-10")
    await known.confirm(SUSPECT)
    event = known.check(TASK, THROTTLED)
    assert isinstance(event, Interrupted)
    assert "1302" in event.reason
    (told,) = warnings
    assert "id-9" in told
    assert "doubt" in told


async def test_contradiction_reaches_running_jobs_before_their_next_submit(tmp_path):
    """Two jobs of an account, as two processes have it: each has opened the file for itself."""
    warnings, here, there = [], refusals(), refusals()
    there.on_warning = warnings.append
    for known in (here, there):
        await known.bind(AccountFacts(tmp_path))
    await there.refresh()
    await here.contradict(SUSPECT, "id-9")
    assert isinstance(there.check(TASK, THROTTLED), Suspected)
    await there.refresh()
    assert isinstance(there.check(TASK, THROTTLED), Interrupted)
    assert len(warnings) == 1


async def test_unchanged_file_is_not_read_again(tmp_path):
    class Counting(AccountFacts):
        reads = 0

        async def facts(self, name, now):
            self.reads += 1
            return await super().facts(name, now)

    file = Counting(tmp_path)
    known = refusals()
    await known.bind(file)
    for _ in range(5):
        await known.refresh()
    assert file.reads == 0, "there is no file"
    await known.confirm(SUSPECT)
    for _ in range(5):
        await known.refresh()
    assert file.reads == len(GROUPS)


async def test_three_contradictions_of_a_day_end_trust(tmp_path):
    clock, file = Clock(), AccountFacts(tmp_path)
    known = refusals(clock)
    await known.bind(file)
    for number, name in enumerate(("own_rows", "reference_in_list", "refusal")):
        assert not known.distrusted, number
        group = ("images", "videos")[number % 2]
        await file.record(group, Fact(name, "contradicted", "image", first_at=NOW, last_at=NOW, why="seen"))
        await known.refresh()
    assert known.distrusted
    known.trusts_less = True
    assert not known.distrusted
    assert isinstance(known.check(TASK, THROTTLED), Interrupted)
    known.trusts_less = False
    clock.now += DAY
    assert not known.distrusted


async def test_what_cannot_be_written_is_kept_and_said_once(tmp_path):
    class Broken(AccountFacts):
        broken = True

        async def record(self, name, *facts):
            if self.broken:
                raise DiskError("no room")
            await super().record(name, *facts)

    warnings, file = [], Broken(tmp_path)
    known = refusals(warnings=warnings)
    await known.bind(file)
    await known.contradict(SUSPECT, "id-9")
    await known.confirm(SUSPECT)
    assert sum("no room" in warning for warning in warnings) == 1
    assert isinstance(known.check(TASK, THROTTLED), Interrupted), "this run knows it all the same"
    file.broken = False
    await known.save()
    (fact,) = await file.facts("images", NOW)
    assert (fact.state, fact.subject) == ("contradicted", "1302 throttled")


async def test_codes_without_end_are_not_remembered():
    known = refusals()
    for number in range(1_100):
        await known.confirm(replace(SUSPECT, error=replace(FAST, code=str(number))))
    assert len(known._known) == 1_000


def test_many_suspects_in_a_row_pause_submits():
    known = refusals()
    tasks = [replace(SUSPECT, id=number) for number in range(20)]
    for task in tasks:
        assert not known.paused
        known.add_suspect(task)
    assert known.paused
    assert known.settle_suspect(tasks[0])
    assert known.paused, "until all of them were looked up"
    known.record_accepted()
    assert not known.paused
    assert not known.settle_suspect(tasks[1]), "one was accepted since"
    assert len(known.waiting) == 18
