"""What a probe measures: questions that cost nothing, and what the provider shows of the probe's own tasks.

Each function returns facts. What could not be measured gives none, and a note for people instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from runner.providers.expressions import compile_expression
from runner.providers.requests import Reply
from runner.providers.responses import (
    ListPage,
    classify_response,
    compare_echo,
    read_bills,
    read_page,
    read_task,
    scope,
)
from runner.scheduler.listing import CLOCK_TOLERANCE, Reading, read_list
from runner.scheduler.row_match import match
from runner.tasks.events import Finished, Found, Rejected
from runner.tasks.fact import Fact
from runner.tasks.models import State, reference
from runner.tasks.remote_ids import parse_remote_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.providers.requests import Outcome
    from runner.providers.responses import ListedTask
    from runner.scheduler.session import ProviderSession
    from runner.tasks.models import Task

#: pages of a reading at most, and the number of a page that lies beyond the end of every list
_PAGES, _BEYOND = 4, 1000
#: seconds by which the time of an own row may differ from its send
_TIME_ERROR = 60.0
#: meanings of an answer to a question about an unknown task that say nothing about it
_NO_ANSWER = {"throttled", "window", "credentials", "credit", "account", "configuration"}
#: longest pause between two looks, and between two questions about a running task, seconds
_LONGEST_PAUSE, _LONGEST_POLL = 30.0, 15.0
#: seconds that a probe waits for the end of its task, to compare list and query; its result is fetched in any case
_PATIENCE = 600.0
#: levels of a row that are searched for a field of the request
_DEPTH = 4


@dataclass(slots=True)
class Measured:
    """Facts of one step, and what could not be measured and why."""

    facts: list[Fact] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Measured) -> None:
        """Take over the facts and notes of another step."""
        self.facts += other.facts
        self.notes += other.notes


class Measurement:
    """Measures one provider's list, references and times on an operation, by free questions.

    `nonce` is text that no other probe has: an unknown reference and an unknown id are made of it.
    """

    def __init__(self, session: ProviderSession, operation: str, model: str, nonce: str) -> None:
        self._session, self._operation, self._model = session, operation, model
        self._spec, self._nonce = session.spec, sha256(nonce.encode()).hexdigest()

    # questions without a purchase

    async def ask(self, example: Task) -> Measured:
        """Ask for an unknown reference and an unknown id, and read three pages. `example` is any task of the probe."""
        found = Measured()
        await self._ask_unknown(example, found)
        number = str(10**17 + int(self._nonce[:12], 16))
        query = self._session.dialect.query(replace(example, remote_id=number))
        self._judge_unknown(await self._session.send(query), "unknown_id", found)
        if self._spec.reconcile.listing is None:
            found.notes.append(f"{self._spec.name} has no list of tasks")
        else:
            await self._read_pages(found)
        return found

    async def _ask_unknown(self, example: Task, found: Measured) -> None:
        """Ask for a reference that was never used. If a task comes, answers by reference mean nothing."""
        unknown = replace(example, ref=reference(self._nonce, self._nonce[10:], 1))
        request = self._session.dialect.by_reference(unknown)
        if request is None:
            found.notes.append(f"{self._spec.name} cannot be asked by reference")
        else:
            self._judge_unknown(await self._session.send(request), "unknown_reference", found)

    def _judge_unknown(self, outcome: Outcome, name: str, found: Measured) -> None:
        """Judge the answer to a question about something that cannot be there."""
        if not isinstance(outcome, Reply):
            found.notes.append(f"{_WORDS[name]}: no answer")
            return
        if compile_expression(self._spec.query.valid).is_true(scope(outcome)):
            if self._id_in(outcome) is not None:
                found.facts.append(self._fact(name, "contradicted", "a task", why="it returned a task"))
            else:
                found.facts.append(self._fact(name, "measured", "unknown", why="an answer without a task"))
            return
        answer = classify_response(self._spec, outcome, "query")
        if outcome.status >= 500 or answer.meaning in _NO_ANSWER:  # noqa: PLR2004 - server errors
            found.notes.append(f"{_WORDS[name]}: no clear answer ({answer.error.code})")
            return
        found.facts.append(
            self._fact(name, "measured", "unknown", why=f"http {outcome.status}, code {answer.error.code}")
        )

    async def _read_pages(self, found: Measured) -> None:
        pages: list[tuple[ListedTask, ...]] = []
        for number in (1, 2, _BEYOND):
            page = await self._page(number)
            if page is None and number == 1:
                found.notes.append("the list cannot be read")
                return
            pages.append(page or ())
        first, second, beyond = pages
        if not first:
            found.notes.append("the list is empty: its pages, order and times say nothing yet")
            return
        ids = {row.remote_id for row in first}
        repeated = [
            number for number, page in ((2, second), (_BEYOND, beyond)) if ids & {row.remote_id for row in page}
        ]
        if repeated:
            why = f"page {repeated[0]} repeats rows of page 1"
            found.facts.append(self._fact("pages", "contradicted", "repeat", n=len(ids), why=why))
        else:
            found.facts.append(self._fact("pages", "measured", "differ", n=len(first) + len(second)))
        rows = (*first, *second) if not repeated else first
        found.facts += self._capacity(len(rows))
        found.facts += self._order_by_times(rows)

    async def _page(self, number: int) -> tuple[ListedTask, ...] | None:
        request = self._session.dialect.list_page(self._operation, number)
        if request is None:
            return None
        page = read_page(self._spec, await self._session.send(request))
        return page.rows if isinstance(page, ListPage) else None

    def _order_by_times(self, rows: tuple[ListedTask, ...]) -> Iterator[Fact]:
        """Yield the order of rows with readable, different times."""
        times = [row.created for row in rows if row.created]
        if len(set(times)) > 1:
            order = _order(times)
            yield self._fact("order", "measured", order, n=len(times), why="by the times that it shows")

    def _capacity(self, rows: int) -> Iterator[Fact]:
        if rows:
            yield self._fact("capacity", "measured", str(rows))

    # what is shown of an own task

    async def find_by_reference(self, task: Task) -> tuple[str | None, bool]:
        """Return the id that a question by the task's reference gives, and True if the answer names the reference."""
        request, listing = self._session.dialect.by_reference(task), self._spec.reconcile.listing
        outcome = None if request is None else await self._session.send(request)
        if not isinstance(outcome, Reply) or not compile_expression(self._spec.query.valid).is_true(scope(outcome)):
            return None, False
        value = compile_expression(self._spec.query.task).search(scope(outcome))
        named = compile_expression(listing.reference).search(value) if listing and listing.reference else None
        return self._id_in(outcome), named == task.ref

    async def read(self, task: Task) -> Reading | None:
        """Return a reading of the list back to the task's send, or None if there is no clean one."""
        since = (task.submitted_at or self._session.clock.now()) + self._session.ahead - CLOCK_TOLERANCE
        reading = await read_list(self._session, self._operation, since, pages=_PAGES)
        if not isinstance(reading, Reading):
            return None
        self._session.facts_of(self._operation).observe(reading)
        return reading

    def is_row_of(self, task: Task, row: ListedTask) -> bool:
        """Return True if a row carries the task's reference, or, without references, shows its whole request.

        Prompts of a probe are like no other, so a row that shows one is of that task.
        """
        listing = self._spec.reconcile.listing
        if listing is not None and listing.reference is not None:
            return row.reference == task.ref
        return match(self._spec, self._body(task), row, {}, ambiguous=False) == "match"

    async def look(self, task: Task) -> Found | None:
        """Look once for a task whose answer was lost. A row or an answer counts only if it names the task."""
        id_, is_named = await self.find_by_reference(task)
        if id_ is not None and is_named:
            return Found(id_, "found by reference")
        reading = None if self._spec.reconcile.listing is None else await self.read(task)
        rows = [row for row in reading.rows if self.is_row_of(task, row)] if reading is not None else []
        return Found(rows[0].remote_id, "found in the list") if rows else None

    async def find(self, task: Task, seconds: float) -> tuple[Found | None, float]:
        """Look for a task until it is found, at most so long. Return what was found, and after how many seconds."""
        begun = anyio.current_time()
        for until in _looks(seconds):
            await anyio.sleep(max(0.0, begun + until - anyio.current_time()))
            found = await self.look(task)
            if found is not None or self._session.dead:
                return found, anyio.current_time() - begun
        return None, seconds

    async def measure(self, task: Task, seconds: float, *, is_new: bool) -> Measured:
        """Measure on an accepted task how list and reference show it, for at most so long.

        `is_new`: its answer came just now, so that the delay until it is shown can be measured.
        """
        by_query: tuple[str | None, bool] = (None, False)
        row, reading, shown_after, begun = None, None, 0.0, anyio.current_time()
        listing, has_query = self._spec.reconcile.listing, self._spec.reconcile.by_reference is not None
        for until in _looks(seconds):
            await anyio.sleep(max(0.0, begun + until - anyio.current_time()))
            if has_query and by_query[0] is None:
                by_query = await self.find_by_reference(task)
            if listing is not None and not (row and self._is_marked(task, row)):
                latest = await self.read(task)
                reading = latest or reading
                seen = (
                    next((each for each in latest.rows if each.remote_id == task.remote_id), None) if latest else None
                )
                shown_after = until if row is None and seen is not None else shown_after
                row = seen or row
            if (not has_query or by_query[0] is not None) and (listing is None or (row and self._is_marked(task, row))):
                break
            if self._session.dead or self._session.breaker.outage:
                return Measured(notes=["it stopped answering"])
        found = Measured()
        if has_query:
            found.facts.append(self._judge_reference(task, *by_query, seconds))
            # again, now that there is a task that such an answer could name
            await self._ask_unknown(task, found)
        if listing is not None:
            self._judge_row(task, row, shown_after if is_new else None, seconds, found)
        if reading is not None:
            found.facts += self._capacity(len(reading.rows))
        return found

    def _is_marked(self, task: Task, row: ListedTask) -> bool:
        """Return True if a row of the task shows its reference, where the list should show references."""
        listing = self._spec.reconcile.listing
        return listing is None or listing.reference is None or row.reference == task.ref

    def _judge_reference(self, task: Task, id_: str | None, is_named: bool, seconds: float) -> Fact:
        name = "reference_by_query"
        if id_ == task.remote_id:
            return self._fact(name, "measured", "ours", why="it names our reference" if is_named else "")
        if id_ is None:
            return self._fact(name, "contradicted", "unknown", why=f"unknown after {seconds:g} s")
        return self._fact(name, "contradicted", "another", why="another task came")

    def _judge_row(
        self, task: Task, row: ListedTask | None, shown_after: float | None, seconds: float, found: Measured
    ) -> None:
        """Judge what the list shows of an own task: its reference, delay, time and fields."""
        listing, ahead = self._spec.reconcile.listing, self._session.ahead
        if row is None:
            why = f"an own task did not appear within {seconds:g} s"
            found.facts.append(self._fact("own_rows", "contradicted", "missing", why=why))
            return
        found.facts.append(self._fact("own_rows", "measured", "shown"))
        if shown_after is not None:
            found.facts.append(self._fact("lag", "measured", f"{shown_after:g}", why="seconds, at most"))
        if listing is not None and listing.reference is not None:
            if row.reference == task.ref:
                found.facts.append(self._fact("reference_in_list", "measured", "shown"))
            else:
                value = "another" if row.reference else "missing"
                found.facts.append(self._fact("reference_in_list", "contradicted", value))
        accepted = task.submitted_at
        if not row.created:
            found.facts.append(self._fact("times", "contradicted", "unreadable"))
        elif accepted is not None:
            error = row.created - ahead - accepted
            why = f"{error:+.1f} s from our send to its time"
            if abs(error) <= _TIME_ERROR:
                found.facts.append(self._fact("times", "measured", "right", why=why))
            else:
                found.facts.append(self._fact("times", "contradicted", "wrong", why=why))
        found.facts += self._judge_echo(task, row)

    def _judge_echo(self, task: Task, row: ListedTask) -> Iterator[Fact]:
        """Yield for each field of the request how its row shows it, and teach the list's facts."""
        body = self._body(task)
        same = compare_echo(self._spec, body, row.raw)
        self._session.facts_of(self._operation).learn_echo(self._model, same, self._session.clock.now())
        for name, value in sorted(body.items()):
            if name in same:
                value_shown = row.echo.get(name)
                how = "verbatim" if same[name] else "hidden" if value_shown is None else "changed"
            else:
                how = "verbatim" if _holds(row.raw, name, value) else "hidden"
            yield replace(self._fact("field", "measured", how), subject=name, model=self._model)

    def order_of_own(self, tasks: list[Task], reading: Reading) -> Iterator[Fact]:
        """Yield the order in which a reading shows own tasks, which are given in the order of their sends."""
        at = {row.remote_id: number for number, row in enumerate(reading.rows)}
        places = [-float(at[task.remote_id]) for task in tasks if task.remote_id in at]
        if len(places) > 1:
            # the newest first: the later a send, the smaller its place
            yield self._fact("order", "measured", _order(places[::-1]), n=len(places), why="by own tasks")

    async def shown_field(self, task: Task, name: str, seconds: float) -> Any:
        """Return what the list shows of a field of an own task, or None if it does not, at most so late."""
        for until in _looks(seconds):
            reading = await self.read(task)
            row = next((each for each in reading.rows if each.remote_id == task.remote_id), None) if reading else None
            if row is not None:
                return next((each for each in _named(row.raw, name, whole=True) if each), None)
            if self._session.dead:
                break
            await anyio.sleep(min(until, _LONGEST_PAUSE))
        return None

    def judge_pictures(self, name: str, shown: list[Any], sent: list[list[str]]) -> Measured:
        """Judge what the list shows of two tasks that differ only in the pictures that were `sent`."""
        if None in shown:
            how, why = "hidden", ""
        elif all(_flat(value) == values for value, values in zip(shown, sent, strict=True)):
            how, why = "verbatim", "two pictures"
        elif _flat(shown[0]) == _flat(shown[1]):
            how, why = "changed", "two pictures look alike"
        else:
            how, why = "changed", "two pictures look different"
        return Measured([replace(self._fact("field", "measured", how, n=2, why=why), subject=name, model=self._model)])

    async def follow(self, task: Task) -> Measured:
        """Ask for an own task until it ends, and compare with what the list shows then."""
        found, listing = Measured(), self._spec.reconcile.listing
        begun, pause, end = anyio.current_time(), 1.0, None
        while anyio.current_time() - begun < _PATIENCE and not self._session.dead:
            outcome = await self._session.send(self._session.dialect.query(task))
            value = self._task_in(outcome)
            end = None if value is None else read_task(self._spec, value)
            if isinstance(end, Finished | Rejected):
                amount = next(_named(value, "deduction"), None)
                self._judge_price(task, amount if amount is not None else await self._billed(task), end, found)
                break
            await anyio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL)
        if not isinstance(end, Finished | Rejected):
            found.notes.append("state in the list: the task did not end in time")
        elif listing is not None:
            await self._judge_freshness(task, type(end), found)
        return found

    async def _judge_freshness(self, task: Task, end: type[Finished | Rejected], found: Measured) -> None:
        """Measure how long the list goes on showing an ended task as running."""
        begun, seconds = anyio.current_time(), self._session.quiet_time
        for until in (0.0, *_looks(seconds)):
            await anyio.sleep(max(0.0, begun + until - anyio.current_time()))
            reading = await self.read(task)
            row = next((each for each in reading.rows if each.remote_id == task.remote_id), None) if reading else None
            if row is not None:
                state = compile_expression(self._spec.query.state).search(row.raw)
                if state is None:
                    found.notes.append("state in the list: it shows none")
                    return
                if isinstance(read_task(self._spec, row.raw), end):
                    found.facts.append(self._fact("state_freshness", "measured", f"{until:g}", why="seconds, at most"))
                    return
        if row is not None:
            found.facts.append(self._fact("state_freshness", "contradicted", f"over {seconds:g}"))

    def _judge_price(self, task: Task, amount: Any, end: Finished | Rejected, found: Measured) -> None:
        if amount is None:
            return
        if isinstance(end, Rejected):
            is_free = _number(amount) == 0.0
            found.facts.append(self._fact("failed_free", "measured" if is_free else "contradicted", str(amount)[:20]))
            return
        expected, shown = task.cost, _number(amount)
        differs = expected is not None and shown is not None and abs(shown - expected) > 1e-6  # noqa: PLR2004
        why = f"{expected:g} expected" if expected is not None else "the catalogue has no price"
        state = "contradicted" if differs else "measured"
        found.facts.append(replace(self._fact("price", state, str(amount)[:20], why=why), model=self._model))

    async def _billed(self, task: Task) -> float | None:
        """Return what the account's bills say that a task cost, or None."""
        begin = (task.submitted_at or 0.0) - CLOCK_TOLERANCE
        request = self._session.dialect.bill_page(begin, self._session.clock.now() + CLOCK_TOLERANCE, 1)
        bills = read_bills(self._spec, await self._session.send(request)) if request is not None else None
        amounts = [bill.amount for bill in bills if bill.remote_id == task.remote_id] if isinstance(bills, list) else []
        return sum(amounts) if amounts else None

    def _fact(self, name: str, state: Any, value: str, *, n: int = 1, why: str = "") -> Fact:
        now = self._session.clock.now()
        return Fact(name, state, self._operation, value=value, n=n, first_at=now, last_at=now, why=why)

    def fact(self, name: str, state: Any, value: str, *, subject: str = "", n: int = 1, why: str = "") -> Fact:
        """Return a fact about this operation, measured now."""
        return replace(self._fact(name, state, value, n=n, why=why), subject=subject)

    def _body(self, task: Task) -> dict[str, Any]:
        return self._session.dialect.body(task.operation, task.model, orjson.loads(task.request))

    def _task_in(self, outcome: Outcome) -> Any:
        if not isinstance(outcome, Reply) or not compile_expression(self._spec.query.valid).is_true(scope(outcome)):
            return None
        return compile_expression(self._spec.query.task).search(scope(outcome))

    def _id_in(self, outcome: Reply) -> str | None:
        """Return the id that an answer to a query is about."""
        query, listing, values = self._spec.query, self._spec.reconcile.listing, scope(outcome)
        if query.id is not None:
            return parse_remote_id(compile_expression(query.id).search(values))
        task = compile_expression(query.task).search(values)
        return parse_remote_id(compile_expression(listing.id).search(task)) if listing is not None else None


_WORDS = {"unknown_reference": "a reference never used", "unknown_id": "an id never given"}


def is_paid(task: Task) -> bool:
    """Return True if a task was bought or may have been: whatever is not unsent and not plainly refused."""
    if task.remote_id is not None or task.doubts:
        return True
    return task.state not in {State.QUEUED, State.FAILED}


def _looks(seconds: float) -> Iterator[float]:
    """Yield the times of looks: soon, then at doubling distances, the last one at the end."""
    at, pause = 0.5, 0.5
    while at < seconds:
        yield at
        at, pause = at + pause, min(2 * pause, _LONGEST_PAUSE)
    yield seconds


def _order(values: list[float]) -> str:
    if all(first >= second for first, second in pairwise(values)):
        return "newest first"
    return "oldest first" if all(first <= second for first, second in pairwise(values)) else "none"


def _holds(value: Any, name: str, wanted: Any, depth: int = _DEPTH) -> bool:
    """Return True if a row has the field somewhere, with this value."""
    return any(each == wanted for each in _named(value, name, depth, whole=True))


def _named(value: Any, name: str, depth: int = _DEPTH, *, whole: bool = False) -> Iterator[Any]:
    """Yield the values of fields that are called so, or whose names contain it, down to a few levels."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key == name if whole else name in str(key):
                yield each
            elif depth:
                yield from _named(each, name, depth - 1, whole=whole)


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
