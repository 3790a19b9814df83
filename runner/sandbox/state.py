"""State that the providers of one sandbox share: options, clock, ledger, limits, and the progress of tasks in time."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any
from urllib.parse import quote

from runner.sandbox.faults import FINISH, FaultInjector, fraction
from runner.sandbox.ledger import AcceptedTask, Ledger, Order
from runner.sandbox.limits import RequestCounters, Slots, WindowLimit
from runner.sandbox.list_view import ListView
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
        self.lists = ListView(self)
        self._reported_finished: set[str] = set()
        self._last_id = 0
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
        name = quote(task.id, safe="")
        return [f"{self.url}/files/{name}/{n}.{extension}{until}" for n in range(count)]

    def lies(self, kind: str) -> bool:
        """Return whether this request is answered with a lie of this kind."""
        return self.fault_injector.next_fault((kind,)) is not None

    def new_id(self, own: str) -> str:
        """Return the id of a new task in the form of the options. `own` is the provider's, and is unique."""
        self._last_id = number = max(self._last_id, len(self.ledger.accepted)) + 1
        forms = {
            "number": str(10**15 + int(10**15 * fraction(own))),
            "long": f"{own}-".ljust(200, "x"),
            "slash": f"task/{own}",
            "blank": f"task {own}",
            "unicode": f"任务-{own}",
            "alike": _replace_bits(f"{number:016b}", "lI"),
            "case": f"task-{_replace_bits(f'{number:08b}', 'aA')}",
        }
        return forms.get(self.options.id_form, own)

    def wire_id(self, task_id: str) -> int | str:
        """Return an id as responses show it. One that was given in another form, before it changed, stays as it is."""
        return int(task_id) if self.options.id_form == "number" and task_id.isdecimal() else task_id

    def _hides_outputs(self, task: AcceptedTask) -> bool:
        if task.id in self._reported_finished:
            return False
        self._reported_finished.add(task.id)
        return self.fault_injector.next_fault(FINISH) is not None

    def _take_slots(self, task: AcceptedTask) -> None:
        if task.provider != "chanjing":
            count = task.charge if task.kind == "image" else 1
            self._slots.take((task.provider, task.account, task.kind), self.finish_time(task), count)


def _replace_bits(bits: str, letters: str) -> str:
    return bits.translate({ord("0"): letters[0], ord("1"): letters[1]})
