"""The provider's list and bills against ours: what was paid for and is not known here (reliability.md section 14)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import orjson

from runner.lifecycle.task import State
from runner.pipeline.listing import SKEW, read_list
from runner.providers.pictures import holds_mark
from runner.providers.reading import read_bills

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runner.lifecycle.events import Blocked, Setback
    from runner.lifecycle.task import Task
    from runner.pipeline.lane import Lane
    from runner.providers.reading import Bill, Row

#: pages of bills that are read at the most
_PAGES = 200
_OPEN = {State.IN_DOUBT, State.HELD}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that costs money and is not as it should be."""

    kind: Literal["orphan", "duplicate", "drift"]
    provider: str
    remote_id: str
    #: the task it seems to belong to
    key: str | None
    why: str


@dataclass(slots=True)
class Report:
    """What an audit of one provider saw."""

    findings: list[Finding] = field(default_factory=list)
    #: rows of the list that belong to somebody else
    strangers: int = 0
    #: what the provider's bills say this job cost, in its unit; None where it shows no bills
    charged: float | None = None


async def audit(lane: Lane, tasks: Sequence[Task], known: set[str]) -> Report | Setback | Blocked:
    """Compare; `tasks` are those of the job that were ever sent, `known` every id that the job was ever given."""
    since = min((task.submitted_at or 0.0 for task in tasks), default=0.0) - SKEW
    rows: dict[str, Row] = {}
    for operation in _groups(lane, tasks):
        listed = await read_list(lane, operation, since)
        if not isinstance(listed, list):
            return listed
        rows |= {row.remote_id: row for row in listed}
    bills = await _bills(lane, since)
    if not isinstance(bills, list):
        return bills
    return _compared(lane, tasks, known, rows, bills)


def _groups(lane: Lane, tasks: Iterable[Task]) -> Iterable[str]:
    """One operation for each list that there is."""
    return {
        lane.dialect.group(operation): operation for operation in sorted({task.operation for task in tasks})
    }.values()


async def _bills(lane: Lane, since: float) -> list[Bill] | Setback | Blocked:
    bills: list[Bill] = []
    for number in range(1, _PAGES + 1):
        request = lane.dialect.bills(since, lane.clock.now(), number)
        if request is None:
            return bills
        page = read_bills(lane.spec, await lane.send(request))
        if not isinstance(page, list):
            return page
        if not page:
            break
        bills += page
    return bills


def _compared(
    lane: Lane, tasks: Sequence[Task], known: set[str], rows: Mapping[str, Row], bills: Sequence[Bill]
) -> Report:
    owners = _Owners(lane, tasks)
    report = Report()
    for remote_id in rows.keys() - known:
        owner = owners.of(rows[remote_id])
        if owner is None:
            report.strangers += 1
        else:
            report.findings.append(_surplus(remote_id, owner))
    report.findings += _drift(lane.name, bills, known | rows.keys())
    if lane.spec.billing is not None:
        report.charged = sum(bill.amount for bill in bills if bill.remote_id in known)
    return report


def _surplus(remote_id: str, owner: Task) -> Finding:
    if owner.state in _OPEN:
        return Finding("orphan", owner.provider, remote_id, owner.key, "paid for, and its task waits for an answer")
    why = f"paid for beside {owner.remote_id}" if owner.remote_id else f"paid for, and its task is {owner.state}"
    return Finding("duplicate" if owner.remote_id else "orphan", owner.provider, remote_id, owner.key, why)


def _drift(provider: str, bills: Sequence[Bill], explained: set[str]) -> Iterator[Finding]:
    """Charges for tasks that neither we nor the list know."""
    for bill in {bill.remote_id: bill for bill in bills}.values():
        if bill.remote_id not in explained:
            yield Finding(
                "drift", provider, bill.remote_id, None, f"{bill.amount:g} charged for a task that nobody knows"
            )


class _Owners:
    """Finds the task that a row of the list belongs to: by our reference, else by what the list echoes."""

    def __init__(self, lane: Lane, tasks: Sequence[Task]) -> None:
        self._listing = lane.spec.look_up.listing
        self._by_ref = {task.ref: task for task in tasks}
        self._by_echo: dict[tuple[str, ...], dict[bytes, Task]] = {}
        if self._listing is not None and not self._listing.reference:
            for task in sorted(tasks, key=lambda each: each.state not in _OPEN, reverse=True):
                self._remember(lane, task)

    def of(self, row: Row) -> Task | None:
        """The task, one that waits for an answer before any other; None: it is somebody else's."""
        if row.reference is not None:
            return self._by_ref.get(row.reference)
        for fields, prints in self._by_echo.items():
            owner = prints.get(_print(row.echo, fields))
            if owner is not None:
                return owner
        return None

    def _remember(self, lane: Lane, task: Task) -> None:
        body = lane.dialect.body(task.operation, task.model, orjson.loads(task.request))
        echo = self._listing.echo if self._listing else {}
        fields = tuple(sorted(name for name in echo if name in body and not holds_mark(body[name])))
        self._by_echo.setdefault(fields, {})[_print(body, fields)] = task


def _print(values: Mapping[str, Any], fields: Sequence[str]) -> bytes:
    return orjson.dumps([values.get(name) for name in fields], default=str)
