"""State that the providers of one sandbox share: options, clock, ledger, limits, and the progress of tasks in time."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import Enum, auto
from itertools import islice
from typing import Any

from runner.sandbox.faults import FINISH, FaultInjector, fraction
from runner.sandbox.ledger import AcceptedTask, Ledger, Order
from runner.sandbox.limits import RequestCounters, Slots, WindowLimit
from runner.sandbox.options import Options

#: Words in a prompt that the content check refuses.
FORBIDDEN = ("违规", "NSFW-TEST")
#: Word in a prompt whose task is accepted and fails later.
FAILING = "FAIL-TEST"
#: Share of its duration for which a task is queued.
QUEUED_SHARE = 0.3
#: Extension of output files, by kind of media.
EXTENSIONS = {"image": "png", "video": "mp4"}


class Phase(Enum):
    """The progress of a task."""

    QUEUED = auto()
    RUNNING = auto()
    SUCCEEDED = auto()
    FAILED = auto()


class SandboxState:
    """The shared state of a sandbox. All times are Unix times in seconds, from `clock`."""

    def __init__(self, options: Options, clock: Callable[[], float]) -> None:
        self.options = options
        self.clock = clock
        self.url = ""
        self.ledger = Ledger(options.ledger)
        self.counters = RequestCounters()
        self.fault_injector = FaultInjector(options.faults, options.seed)
        self._window = WindowLimit()
        self._slots = Slots()
        self._reported_finished: set[str] = set()
        for accepted in self.ledger.accepted:
            self._take_slots(accepted)

    def change(self, changes: dict[str, Any]) -> None:
        """Change some options. If the faults change, their requests are counted from 1 again."""
        self.options = self.options.with_changes(changes)
        if "faults" in changes:
            injected = self.fault_injector.injected
            self.fault_injector = FaultInjector(self.options.faults, self.options.seed)
            self.fault_injector.injected = injected

    def admit(self, endpoint: str, account: str) -> bool:
        """Return whether the rate limit admits one more request, and count the request or the violation."""
        options = self.options
        if options.qps is None:
            return True
        admitted = self._window.admit(endpoint, account, self.clock(), options.qps, options.window_s)
        if not admitted:
            self.counters.violations[endpoint] += 1
        return admitted

    def can_afford(self, charge: int) -> bool:
        """Return whether the credit covers this charge."""
        credit = self.options.credit
        return credit is None or self.ledger.charges() + charge <= credit

    def has_slots(self, provider: str, account: str, kind: str, count: int) -> bool:
        """Return whether this many slots are free for the account's tasks of this kind."""
        limit = self.options.concurrency
        return limit is None or self._slots.count_taken((provider, account, kind), self.clock()) + count <= limit

    def is_external_id_taken(self, provider: str, account: str, external_id: str | None) -> bool:
        """Return whether a task of the account has this external id already. False if ids need not be unique."""
        if external_id is None or not self.options.external_id_unique:
            return False
        tasks = self.ledger.by_external_id(external_id)
        return any(task.provider == provider and task.account == account for task in tasks)

    def accept(self, order: Order) -> AcceptedTask:
        """Accept and charge an order, and return its task."""
        accepted = self.ledger.accept(order, self.clock())
        self._take_slots(accepted)
        return accepted

    def finish_time(self, task: AcceptedTask) -> float:
        """Return the time at which the task succeeds or fails."""
        low, high = self.options.duration_range(task.kind)
        return task.at + low + (high - low) * fraction(self.options.seed, "time", task.number)

    def phase(self, task: AcceptedTask) -> Phase:
        """Return the present phase of the task."""
        now, end = self.clock(), self.finish_time(task)
        if now >= end:
            return Phase.FAILED if FAILING in task.prompt else Phase.SUCCEEDED
        return Phase.QUEUED if now < task.at + QUEUED_SHARE * (end - task.at) else Phase.RUNNING

    def output_links(self, task: AcceptedTask) -> list[str]:
        """Return the download links of a succeeded task. A fault can make the first result empty."""
        if self._hides_outputs(task):
            return []
        life = self.options.link_life_s
        until = "" if life is None else f"?until={self.clock() + life:.3f}"
        extension = EXTENSIONS[task.kind]
        count = task.charge if task.kind == "image" else 1
        return [f"{self.url}/files/{task.id}/{n}.{extension}{until}" for n in range(count)]

    def page(self, provider: str, account: str, operation: str, page: int, size: int) -> tuple[list[AcceptedTask], int]:
        """Return a page (from 1) of an account's visible tasks, newest first, and the number of all of them.

        Options and faults can cut the list, leave rows out or change the order.
        """
        tasks, total = self.ledger.visible_tasks(provider, account, operation, self.visible_until())
        first, last = 0, total
        if self.options.list_newest is not None:
            first = max(0, total - self.options.list_newest)
        if self.options.list_oldest is not None:
            last = min(total, self.options.list_oldest)
        if self.lies("list_blank"):
            last = first
        order: Sequence[int] = range(last - 1, first - 1, -1)
        if self.lies("list_holes"):
            order = [i for i in order if tasks[i].number % 2]
        if self.lies("list_unordered"):
            order = sorted(order, key=lambda i: fraction(tasks[i].id))
        if self.lies("list_oldest_first"):
            order = order[::-1]
        if self.lies("list_one_page"):
            page = 1
        return [tasks[i] for i in islice(order, (page - 1) * size, page * size)], len(order)

    def lies(self, kind: str) -> bool:
        """Return whether this request is answered with a lie of this kind."""
        return self.fault_injector.next_fault((kind,)) is not None

    def list_time(self, at: float) -> float | str | None:
        """Return the creation time of a row, or None or a text where a fault says so."""
        if self.lies("list_no_times"):
            return None
        if self.lies("list_text_times"):
            return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
        return at

    def shows_reference(self, task: AcceptedTask) -> bool:
        """Return whether a task is old enough to show its external id."""
        return self.clock() - task.at >= self.options.reference_lag_s

    def visible_until(self) -> float:
        """Return the time up to which a task must have been accepted to show in lists."""
        return self.clock() - self.options.list_lag_s

    def _hides_outputs(self, task: AcceptedTask) -> bool:
        if task.id in self._reported_finished:
            return False
        self._reported_finished.add(task.id)
        return self.fault_injector.next_fault(FINISH) is not None

    def _take_slots(self, task: AcceptedTask) -> None:
        if task.provider != "chanjing":
            count = task.charge if task.kind == "image" else 1
            self._slots.take((task.provider, task.account, task.kind), self.finish_time(task), count)
