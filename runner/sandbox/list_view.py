"""What lists show of an account's tasks: which of them, when, in which order, with which id, time, reference, prompt.

Without options and faults everything is shown at once, newest first. Every lie about a list is told here.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from runner.sandbox.faults import fraction
from runner.sandbox.ledger import AcceptedTask

if TYPE_CHECKING:
    from runner.sandbox.state import SandboxState

#: Characters of a prompt that `list_cuts_prompt` leaves.
CUT_PROMPT = 4
#: What `id_changes` puts before an id, everywhere but in the response to the submit.
OTHER_ID = "task-"


class ListView:
    """The lists of one sandbox."""

    def __init__(self, state: "SandboxState") -> None:
        self._state = state

    def page(self, provider: str, account: str, operation: str, page: int, size: int) -> tuple[list[AcceptedTask], int]:
        """Return a page (from 1) of an account's visible tasks, and the number of all of them."""
        options, lies = self._state.options, self._state.lies
        tasks, _ = self._state.ledger.visible_tasks(provider, account, operation, inf)
        total = bisect_right(tasks, self._state.clock(), key=self.shown_from)
        first, last = 0, total
        if options.list_newest is not None:
            first = max(0, total - options.list_newest)
        if options.list_oldest is not None:
            last = min(total, options.list_oldest)
        if lies("list_blank"):
            last = first
        order: Sequence[int] = range(last - 1, first - 1, -1)
        if lies("list_holes"):
            order = [i for i in order if tasks[i].number % 2]
        if lies("list_unordered"):
            order = sorted(order, key=lambda i: fraction(tasks[i].id))
        if lies("list_oldest_first"):
            order = order[::-1]
        if lies("list_one_page"):
            page = 1
        size = min(size, options.list_page or size)
        return [tasks[i] for i in islice(order, (page - 1) * size, page * size)], len(order)

    def is_visible(self, task: AcceptedTask) -> bool:
        """Return whether lists and queries by external id show the task by now."""
        return self.shown_from(task) <= self._state.clock()

    def batch(self, tasks: Iterable[AcceptedTask]) -> Iterator[AcceptedTask]:
        """Return what a query by several ids shows of these tasks."""
        return (task for task in tasks if not self._state.lies("batch_drops"))

    def time(self, task: AcceptedTask) -> float | str | None:
        """Return the creation time that a row shows."""
        if self._state.lies("list_no_times"):
            return None
        at = task.at + self._state.options.list_time_shift_s
        if self._state.lies("list_text_times"):
            return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
        return at

    def id(self, task: AcceptedTask) -> int | str:
        """Return the id that rows and queries show."""
        changed = self._state.lies("id_changes")
        return f"{OTHER_ID}{task.id}" if changed else self._state.wire_id(task.id)

    def find(self, task_id: str) -> AcceptedTask | None:
        """Return the task with an id that a response or a list has shown."""
        ledger = self._state.ledger
        return ledger.by_id(task_id) or ledger.by_id(task_id.removeprefix(OTHER_ID))

    def reference(self, task: AcceptedTask) -> str:
        """Return the external id that a row shows; that of the neighbour accepted before it where the list is wrong."""
        if task.external_id is None or not self.shows_reference(task):
            return ""
        if self._state.lies("echo_wrong"):
            before = self._neighbour(task)
            return (before and before.external_id) or f"{task.external_id[:-1]}x"
        return task.external_id

    def shows_reference(self, task: AcceptedTask) -> bool:
        """Return whether a task is old enough to show its external id."""
        return self._state.clock() - task.at >= self._state.options.reference_lag_s

    def prompt(self, task: AcceptedTask) -> str:
        """Return the prompt that a row shows."""
        if self._state.lies("list_hides_prompt"):
            return ""
        before = self._neighbour(task) if self._state.lies("echo_wrong") else None
        prompt = (before or task).prompt
        return prompt[:CUT_PROMPT] if self._state.lies("list_cuts_prompt") else prompt

    def _neighbour(self, task: AcceptedTask) -> AcceptedTask | None:
        """Return the task that was accepted before this one in the same list."""
        tasks, _ = self._state.ledger.visible_tasks(task.provider, task.account, task.operation, inf)
        position = bisect_right(tasks, task.number - 1, key=lambda each: each.number)
        return tasks[position - 1] if position else None

    def shown_from(self, task: AcceptedTask) -> float:
        """Return the Unix time from which lists show the task."""
        options = self._state.options
        return task.at + options.list_lag_s + options.list_lag_grows_s * (task.number - 1)
