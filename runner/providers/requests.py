"""Build the requests of one provider from tasks, and define the outcomes of a request.

The module `responses` turns outcomes into events.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import orjson

from runner.providers.images import fill_placeholders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.providers.spec import OperationSpec, Spec
    from runner.tasks.models import Task

#: purpose of a request; it decides the connection, the deadline, and the meaning of a missing answer
Phase = Literal["submit", "query", "lookup", "token"]


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a provider's API. The path is already percent-encoded, the body is sent as JSON."""

    phase: Phase
    method: str
    path: str
    #: rate limiter that it draws from, e.g. `submit` or `query`
    endpoint: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """Complete HTTP response. `body` is parsed JSON, or text if it is not JSON."""

    status: int
    body: Any
    #: header names are in lower case
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotSent:
    """Proof that no byte of the request left this machine."""

    error: str
    #: the certificate or the address is wrong, so that another try would fail too
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Request that was sent, or may have been sent, without a complete response."""

    error: str


Outcome = Reply | NotSent | NoAnswer


def request_fingerprint(provider: str, shown: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits of the request fields that a provider's list shows."""
    return hashlib.sha256(orjson.dumps([provider, shown], option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


class Dialect:
    """Request builder for one provider. It holds no state except its spec."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def __repr__(self) -> str:
        return f"Dialect({self.spec.name})"

    def body(self, operation: str, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of a submit without the reference: constants, model code and parameters."""
        codes = dict.fromkeys(self.spec.submit.model_fields_, model)
        return {**self.spec.operations[operation].body, **codes, **request}

    def submit(self, task: Task, images: Mapping[str, str] | None = None) -> Request:
        """Return the paid request. `images` maps the field of each image placeholder to the value sent instead."""
        request = fill_placeholders(orjson.loads(task.request), images or {})
        body = self.body(task.operation, task.model, request)
        if self.spec.submit.reference:
            body[self.spec.submit.reference] = task.ref
        return Request("submit", "POST", self._operation(task).path, "submit", body)

    def query(self, task: Task) -> Request:
        """Return the query for one task."""
        path = self._fill(self.spec.query.path, self._operation(task), id=task.remote_id or "")
        return Request("query", "GET", path, "query")

    def query_many(self, tasks: Sequence[Task]) -> Request:
        """Return one query for several tasks of one operation group.

        Raise TypeError if the provider has no batched query.
        """
        many = self.spec.query.many
        if many is None:
            raise TypeError(f"{self.spec.name} has no batched query")
        constants = {**many.body, **self._operation(tasks[0]).query}
        body = {**constants, many.field: [task.remote_id for task in tasks]}
        return Request("query", many.method, many.path, "query", body)

    def by_reference(self, task: Task) -> Request | None:
        """Return the query for a task by its reference, or None if the provider keeps no references."""
        template = self.spec.reconcile.by_reference
        if template is None:
            return None
        return Request("lookup", "GET", self._fill(template, self._operation(task), ref=task.ref), "query")

    def list_page(self, operation: str, number: int) -> Request | None:
        """Return the query for one page of the account's task list, or None if there is no list.

        `number` counts from 1.
        """
        listing = self.spec.reconcile.listing
        if listing is None:
            return None
        target, body = self.spec.operations[operation], None
        if listing.body is not None:
            filled = {name: number if value == "{page}" else value for name, value in listing.body.items()}
            body = {**filled, **target.query}
        path = self._fill(listing.path, target, page=str(number))
        return Request("lookup", listing.method, path, "query", body)

    def probe(self) -> Request:
        """Return a query free of charge. Any response except a 5xx proves that the provider is up."""
        operation = next(iter(self.spec.operations))
        page = self.list_page(operation, 1)
        if page is not None:
            return page
        path = self._fill(self.spec.query.path, self.spec.operations[operation], id="probe")
        return Request("query", "GET", path, "query")

    def bill_page(self, start: float, end: float, page: int) -> Request | None:
        """Return the query for one page of the account's charges, or None if the provider does not show them.

        `start` and `end` are seconds since the epoch, `page` counts from 1.
        """
        billing = self.spec.billing
        if billing is None:
            return None
        zone = timezone(timedelta(hours=billing.hours))
        filled = {
            "{start}": datetime.fromtimestamp(start, zone).strftime(billing.times),
            "{end}": datetime.fromtimestamp(end, zone).strftime(billing.times),
            "{page}": page,
        }
        body = {
            name: filled.get(value, value) if isinstance(value, str) else value for name, value in billing.body.items()
        }
        return Request("lookup", billing.method, billing.path, "query", body)

    def group(self, operation: str) -> str:
        """Return the key of the operations that share batched queries and one list."""
        target = self.spec.operations[operation]
        return f"{target.path} {orjson.dumps(target.query, option=orjson.OPT_SORT_KEYS).decode()}"

    def _operation(self, task: Task) -> OperationSpec:
        return self.spec.operations[task.operation]

    @staticmethod
    def _fill(template: str, operation: OperationSpec, **values: str) -> str:
        """Fill the placeholders of a path. Ids come from the provider, so every value is percent-encoded."""
        path = template.replace("{path}", operation.path)
        for name, value in values.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return path
