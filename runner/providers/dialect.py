"""A task to a request, in the words of one provider; `reading` is the way back."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from runner.providers.exchange import Request
from runner.providers.pictures import placed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.lifecycle.task import Task
    from runner.providers.spec import Listing, Operation, Spec


class Dialect:
    """How one provider is asked; holds no state."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def __repr__(self) -> str:
        return f"Dialect({self.spec.name})"

    def body(self, operation: str, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The submit's body without our reference: constants, the model's code, the parameters."""
        codes = dict.fromkeys(self.spec.submit.model_fields_, model)
        return {**self.spec.operations[operation].body, **codes, **request}

    def submit(self, task: Task, pictures: Mapping[str, str] | None = None) -> Request:
        """The paid request; `pictures` says what is sent in the place of each mark."""
        request = placed(orjson.loads(task.request), pictures or {})
        body = self.body(task.operation, task.model, request)
        if self.spec.submit.reference:
            body[self.spec.submit.reference] = task.ref
        return Request("submit", "POST", self._operation(task).path, "submit", body)

    def query(self, task: Task) -> Request:
        """The question about one task."""
        path = self._fill(self.spec.query.path, self._operation(task), id=task.remote_id or "")
        return Request("query", "GET", path, "query")

    def query_many(self, tasks: Sequence[Task]) -> Request:
        """One question about several tasks of one operation's group; the spec must know how."""
        many = self.spec.query.many
        if many is None:
            raise TypeError(f"{self.spec.name} has no batched query")
        constants = {**many.body, **self._operation(tasks[0]).query}
        body = {**constants, many.field: [task.remote_id for task in tasks]}
        return Request("query", many.method, many.path, "query", body)

    def by_reference(self, task: Task) -> Request | None:
        """The question whether the provider knows our reference; None where it keeps none."""
        template = self.spec.look_up.by_reference
        if template is None:
            return None
        return Request("lookup", "GET", self._fill(template, self._operation(task), ref=task.ref), "query")

    def page(self, operation: str, number: int) -> Request | None:
        """One page of the account's list, from 1; None where there is no list."""
        listing = self.spec.look_up.listing
        if listing is None:
            return None
        where = self.spec.operations[operation]
        return Request(
            "lookup",
            listing.method,
            self._fill(listing.path, where, page=str(number)),
            "query",
            _paged(listing, where, number),
        )

    def probe(self) -> Request:
        """Something free of charge that any answer but a 5xx shows the provider to be alive by."""
        operation = next(iter(self.spec.operations))
        page = self.page(operation, 1)
        if page is not None:
            return page
        path = self._fill(self.spec.query.path, self.spec.operations[operation], id="probe")
        return Request("query", "GET", path, "query")

    def bills(self, start: float, end: float, page: int) -> Request | None:
        """One page of what the account was charged between two times, seconds since the epoch; None: it shows none."""
        billing = self.spec.billing
        if billing is None:
            return None
        ahead = timezone(timedelta(hours=billing.hours))
        filled = {
            "{start}": datetime.fromtimestamp(start, ahead).strftime(billing.times),
            "{end}": datetime.fromtimestamp(end, ahead).strftime(billing.times),
            "{page}": page,
        }
        body = {
            name: filled.get(value, value) if isinstance(value, str) else value for name, value in billing.body.items()
        }
        return Request("lookup", billing.method, billing.path, "query", body)

    def group(self, operation: str) -> str:
        """Operations of one group can be asked about in one call, or stand in one list."""
        where = self.spec.operations[operation]
        return f"{where.path} {orjson.dumps(where.query, option=orjson.OPT_SORT_KEYS).decode()}"

    def _operation(self, task: Task) -> Operation:
        return self.spec.operations[task.operation]

    @staticmethod
    def _fill(template: str, operation: Operation, **values: str) -> str:
        """Ids come from the other side, so they are percent-encoded always."""
        path = template.replace("{path}", operation.path)
        for name, value in values.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return path


def _paged(listing: Listing, operation: Operation, number: int) -> dict[str, Any] | None:
    if listing.body is None:
        return None
    filled = {name: number if value == "{page}" else value for name, value in listing.body.items()}
    return {**filled, **operation.query}
