"""Compare the provider's list and bills with the job: find what was paid for and is unknown here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import orjson

from runner.providers.images import has_placeholder
from runner.providers.responses import read_bills
from runner.scheduler.reconcile import CLOCK_TOLERANCE, read_list
from runner.tasks.models import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runner.providers.responses import Bill, ListedTask
    from runner.scheduler.session import ProviderSession
    from runner.tasks.events import AccountBlocked, RetryableFailure
    from runner.tasks.models import Task

#: pages of bills that are read at most
_PAGES = 200
_OPEN = {State.IN_DOUBT, State.HELD}


@dataclass(frozen=True, slots=True)
class Finding:
    """A charge that the job cannot explain, or a paid task that it lost."""

    kind: Literal["orphan", "duplicate", "drift"]
    provider: str
    remote_id: str
    #: the task it seems to belong to
    key: str | None
    why: str


@dataclass(slots=True)
class AuditReport:
    """The result of auditing one provider."""

    findings: list[Finding] = field(default_factory=list)
    #: rows of the list that no task of the job explains
    unrelated: int = 0
    #: the cost of this job by the provider's bills, in its unit; None if it shows no bills
    charged: float | None = None


async def audit(
    session: ProviderSession, tasks: Sequence[Task], known: set[str]
) -> AuditReport | RetryableFailure | AccountBlocked:
    """Audit one provider. Return why, if its list or bills cannot be read.

    `tasks` are the job's tasks that were ever sent, `known` all remote ids that the job was ever given.
    """
    since = min((task.submitted_at or 0.0 for task in tasks), default=0.0) - CLOCK_TOLERANCE
    rows: dict[str, ListedTask] = {}
    for operation in _lists(session, tasks):
        listed = await read_list(session, operation, since)
        if not isinstance(listed, list):
            return listed
        rows |= {row.remote_id: row for row in listed}
    bills = await _bills(session, since)
    if not isinstance(bills, list):
        return bills
    return _compare(session, tasks, known, rows, bills)


def _lists(session: ProviderSession, tasks: Iterable[Task]) -> Iterable[str]:
    """Return one operation for each list of the provider."""
    return {
        session.dialect.group(operation): operation for operation in sorted({task.operation for task in tasks})
    }.values()


async def _bills(session: ProviderSession, since: float) -> list[Bill] | RetryableFailure | AccountBlocked:
    bills: list[Bill] = []
    for number in range(1, _PAGES + 1):
        request = session.dialect.bill_page(since, session.clock.now(), number)
        if request is None:
            return bills
        page = read_bills(session.spec, await session.send(request))
        if not isinstance(page, list):
            return page
        if not page:
            break
        bills += page
    return bills


def _compare(
    session: ProviderSession,
    tasks: Sequence[Task],
    known: set[str],
    rows: Mapping[str, ListedTask],
    bills: Sequence[Bill],
) -> AuditReport:
    owners = _OwnerIndex(session, tasks)
    report = AuditReport()
    for remote_id in rows.keys() - known:
        owner = owners.find(rows[remote_id])
        if owner is None:
            report.unrelated += 1
        else:
            report.findings.append(_surplus(remote_id, owner))
    report.findings += _drift(session.name, bills, known | rows.keys())
    if session.spec.billing is not None:
        report.charged = sum(bill.amount for bill in bills if bill.remote_id in known)
    return report


def _surplus(remote_id: str, owner: Task) -> Finding:
    if owner.state in _OPEN:
        return Finding("orphan", owner.provider, remote_id, owner.key, "paid for, and its task waits for an answer")
    why = f"paid for beside {owner.remote_id}" if owner.remote_id else f"paid for, and its task is {owner.state}"
    return Finding("duplicate" if owner.remote_id else "orphan", owner.provider, remote_id, owner.key, why)


def _drift(provider: str, bills: Sequence[Bill], explained: set[str]) -> Iterator[Finding]:
    """Yield a finding for each charge of a task that neither the job nor the list has."""
    for bill in {bill.remote_id: bill for bill in bills}.values():
        if bill.remote_id not in explained:
            yield Finding(
                "drift", provider, bill.remote_id, None, f"{bill.amount:g} charged for a task that nobody knows"
            )


class _OwnerIndex:
    """Finds the task that a row of the list belongs to: by our reference, else by the fields that the list echoes."""

    def __init__(self, session: ProviderSession, tasks: Sequence[Task]) -> None:
        self._listing = session.spec.reconcile.listing
        self._by_ref = {task.ref: task for task in tasks}
        self._by_echo: dict[tuple[str, ...], dict[bytes, Task]] = {}
        if self._listing is not None and not self._listing.reference:
            for task in sorted(tasks, key=lambda each: each.state not in _OPEN, reverse=True):
                self._add(session, task)

    def find(self, row: ListedTask) -> Task | None:
        """Return the row's task, first of all one that waits for an answer; None if the row is unrelated to the job."""
        if row.reference is not None:
            return self._by_ref.get(row.reference)
        for fields, by_fingerprint in self._by_echo.items():
            owner = by_fingerprint.get(_fingerprint(row.echo, fields))
            if owner is not None:
                return owner
        return None

    def _add(self, session: ProviderSession, task: Task) -> None:
        body = session.dialect.body(task.operation, task.model, orjson.loads(task.request))
        echo = self._listing.echo if self._listing else {}
        fields = tuple(sorted(name for name in echo if name in body and not has_placeholder(body[name])))
        self._by_echo.setdefault(fields, {})[_fingerprint(body, fields)] = task


def _fingerprint(values: Mapping[str, Any], fields: Sequence[str]) -> bytes:
    return orjson.dumps([values.get(name) for name in fields], default=str)
