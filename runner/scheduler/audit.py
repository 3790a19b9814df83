"""Compare the provider's list and bills with the job: find what was paid for and is unknown here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import orjson

from runner.providers.images import has_placeholder
from runner.providers.responses import read_bills
from runner.scheduler.first_reading import row_fingerprints
from runner.scheduler.listing import CLOCK_TOLERANCE, Reading, read_list
from runner.tasks.events import Resolved
from runner.tasks.models import State, key_of_reference
from runner.tasks.remote_ids import show_remote_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from runner.providers.responses import Bill, ListedTask
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.store.claims import Claims
    from runner.store.store import Store
    from runner.tasks.events import AccountBlocked, RetryableFailure
    from runner.tasks.models import Task

#: pages of bills that are read at most
_PAGES = 200
#: groups of equal files that are told
_MOST_EQUAL = 100
_OPEN = {State.IN_DOUBT, State.HELD}


@dataclass(frozen=True, slots=True)
class Finding:
    """A charge that the job cannot explain, or a paid task that it lost."""

    kind: Literal["orphan", "duplicate", "drift", "equal"]
    provider: str
    remote_id: str
    #: the task it seems to belong to
    key: str | None
    why: str
    #: it carries the very reference of that task, which has no id: it is certainly the task's
    is_certain: bool = False


@dataclass(slots=True)
class AuditReport:
    """The result of auditing one provider."""

    findings: list[Finding] = field(default_factory=list)
    #: rows of the list that no task of the job explains
    unrelated: int = 0
    #: the cost of this job by the provider's bills, in its unit; None if it shows no bills
    charged: float | None = None
    #: tasks of the job that the list should show and does not
    left_out: int = 0
    #: why the bills could not be read; the list was compared all the same
    bills_error: str | None = None


async def audit(
    session: ProviderSession, store: Store, known: set[str], claims: Claims | None = None
) -> AuditReport | RetryableFailure | AccountBlocked:
    """Audit one provider. Return why, if its list cannot be read.

    `known` are all remote ids that the job was ever given. Rows that other jobs of the account claim are theirs.
    """
    tasks = await store.tasks_ever_sent(session.name)
    began_at = await store.began_at()
    since = min((task.submitted_at or began_at for task in tasks), default=began_at) - CLOCK_TOLERANCE
    rows: dict[str, ListedTask] = {}
    for operation in await _lists(session, store, tasks):
        listed = await read_list(session, operation, since)
        if not isinstance(listed, Reading):
            return listed
        rows |= {row.remote_id: row for row in listed.rows}
    bills = await _bills(session, since)
    others = await claims.owned_by_others(list(rows)) if claims is not None else set()
    report = await _compare(session, store, tasks, {key: rows[key] for key in rows.keys() - known - others})
    report.left_out = sum(task.remote_id is not None and task.remote_id not in rows for task in tasks)
    if not isinstance(bills, list):
        report.bills_error = bills.error.message or "they cannot be read"
    elif session.spec.billing is not None:
        report.findings += _drift(session.name, bills, known | rows.keys())
        report.charged = sum(bill.amount for bill in bills if bill.remote_id in known)
    return report


async def _lists(session: ProviderSession, store: Store, tasks: Iterable[Task]) -> Iterable[str]:
    """Return one operation for each list that may hold tasks of the job, those that wait to be bought included."""
    sent = {task.operation for task in tasks}
    operations = [each for each in sorted(session.spec.operations) if each in sent] or sorted(session.spec.operations)
    operations += [each for each in sorted(session.spec.operations) if await store.has_queued(session.name, [each])]
    return {session.dialect.group(operation): operation for operation in operations}.values()


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


async def _compare(
    session: ProviderSession, store: Store, tasks: Sequence[Task], rows: Mapping[str, ListedTask]
) -> AuditReport:
    """Find the owner of each row that nobody claims: by our reference, of whichever purchase, else by its request.

    What stood in a list without references before the job began is not the job's.
    """
    owners, report, began_at = _OwnerIndex(session, tasks), AuditReport(), await store.began_at()
    earlier = {remote_id for known in session.earlier.values() for remote_id in known.ids}
    for remote_id, row in rows.items():
        key = key_of_reference(store.uuid, row.reference) if row.reference is not None else None
        found = await store.find_by_key_prefix(key) if key is not None else []
        owner = found[0] if len(found) == 1 else owners.find(row)
        if not found and remote_id in earlier and row.created < began_at:
            owner = None
        if owner is None and row.reference is None and remote_id not in earlier:
            queued = await store.queued_like(session.name, list(row_fingerprints(session.spec, row)), 1)
            owner = queued[0] if queued else None
        if owner is None:
            report.unrelated += 1
        else:
            report.findings.append(_surplus(row, owner))
    return report


def _surplus(row: ListedTask, owner: Task) -> Finding:
    remote_id, is_certain = row.remote_id, row.reference is not None and row.reference == owner.ref
    if owner.state is State.QUEUED:
        why = "paid for, and its task waits to be bought" if is_certain else "looks like a task that waits to be bought"
        return Finding("orphan", owner.provider, remote_id, owner.key, why, is_certain)
    if owner.state in _OPEN:
        why = "paid for, and its task waits for an answer"
        return Finding("orphan", owner.provider, remote_id, owner.key, why, is_certain)
    why = (
        f"paid for beside {show_remote_id(owner.remote_id)}"
        if owner.remote_id
        else f"paid for, and its task is {owner.state}"
    )
    return Finding("duplicate" if owner.remote_id else "orphan", owner.provider, remote_id, owner.key, why)


def _drift(provider: str, bills: Sequence[Bill], explained: set[str]) -> Iterator[Finding]:
    """Yield a finding for each charge of a task that neither the job nor the list has."""
    for bill in {bill.remote_id: bill for bill in bills}.values():
        if bill.remote_id not in explained:
            yield Finding(
                "drift", provider, bill.remote_id, None, f"{bill.amount:g} charged for a task that nobody knows"
            )


async def adopt_certain(settlement: Settlement, findings: Iterable[Finding], by: str) -> list[Finding]:
    """Adopt each finding that is certainly of a task without an id, once for each task. Return those that were adopted.

    `by` is the user who decides.
    """
    adopted = []
    for finding in findings:
        for task in await settlement.store.find_by_key_prefix(finding.key or "-") if finding.is_certain else ():
            waits = task.state in {State.QUEUED, *_OPEN} and task.provider == finding.provider
            taken = waits and (settlement.claims is None or await settlement.claims.claim_found(finding.remote_id))
            event = Resolved("adopt", by, finding.remote_id)
            if taken and await settlement.settle(task, event) is not None:
                adopted.append(finding)
    return adopted


async def find_equal_files(store: Store) -> list[Finding]:
    """Return a finding for each file that tasks with different requests share, if one of them was adopted.

    Then that one may have been adopted wrongly.
    """
    findings = []
    for tasks in await store.equal_files(_MOST_EQUAL):
        adopted = next((task for task in tasks if task["adopted"] and task["remote_id"]), None)
        if adopted is not None:
            others = ", ".join(task["key"][:8] for task in tasks if task is not adopted)
            why = f"its file is also that of {others}, which asked for something else: was it adopted wrongly?"
            findings.append(Finding("equal", adopted["provider"], adopted["remote_id"], adopted["key"], why))
    return findings


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
