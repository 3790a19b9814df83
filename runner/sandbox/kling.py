"""Kling's official API in its legacy design (`/v1/...`), and the newer query `GET /tasks`.

Where the documents are silent, this module decides: an unknown id is 404 with 1203, and lists are newest first.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from runner.sandbox import keys
from runner.sandbox.faults import POLL, QUERY
from runner.sandbox.kling_rules import (
    BAD_BODY,
    BAD_VALUE,
    NO_MONEY,
    NO_RESOURCE,
    OPERATIONS,
    TOO_FAST,
    TOO_MANY,
    Refused,
    check,
)
from runner.sandbox.kling_shapes import envelope, new_task_object, refusal, task_object, told
from runner.sandbox.ledger import Accepted, Order
from runner.sandbox.messages import Answer, Request
from runner.sandbox.pictures import pictures
from runner.sandbox.troubles import QUERY_ANSWERS
from runner.sandbox.world import World

PREFIX = "/v1/"
TASKS = "/tasks"
MOST_PAGES, MOST_ROWS = 1000, 500


class Kling:
    """Kling's endpoints. A valid submit becomes an Order, which the application accepts."""

    def __init__(self, state: World) -> None:
        self._world = state

    def answer(self, request: Request) -> Answer | Order:
        """Answer a request, or return the order that a valid submit makes."""
        operation, task_id = split(request.path, PREFIX)
        self._world.traffic.arrived(_endpoint(request, operation, task_id), self._world.clock())
        try:
            return self._routed(request, operation, task_id)
        except Refused as error:
            self._world.traffic.refused[str(error.code)] += 1
            return refusal(error)

    def _routed(self, request: Request, operation: str, task_id: str) -> Answer | Order:
        account = self._account(request, _endpoint(request, operation, task_id))
        match request.method, operation, task_id:
            case "POST", str(op), "" if op in OPERATIONS:
                return ordered(self._world, "kling", account, operation, request)
            case "GET", str(op), "" if op in OPERATIONS:
                return self._list(request, account, operation)
            case "GET", str(op), str(name) if op in OPERATIONS:
                return self._task(account, operation, name)
            case "GET", "tasks", "":
                return self._tasks(request, account)
            case _:
                raise Refused(NO_RESOURCE)

    def _account(self, request: Request, endpoint: str) -> str:
        account = keys.holder(request, self._world.clock())
        if isinstance(account, int):
            raise Refused(account)
        if not self._world.admit(endpoint, account):
            raise Refused(TOO_FAST)
        return account

    def _task(self, account: str, operation: str, name: str) -> Answer:
        by_id = self._world.ledger.by_id(name) is not None
        fault = self._world.dice.roll(POLL if by_id else QUERY)
        if fault in QUERY_ANSWERS:
            return QUERY_ANSWERS[fault]
        tasks = found(self._world, "kling", account, [name])
        task = next((task for task in tasks if task.operation == operation), None)
        if task is None or fault == "poll_missing":
            raise Refused(NO_RESOURCE, "task does not exist")
        return envelope(self._rows([task], fault)[0])

    def _list(self, request: Request, account: str, operation: str) -> Answer:
        page, size = _number(request, "pageNum", 1, MOST_PAGES), _number(request, "pageSize", 30, MOST_ROWS)
        fault = self._world.dice.roll(QUERY)
        if fault in QUERY_ANSWERS:
            return QUERY_ANSWERS[fault]
        tasks, _ = self._world.page("kling", account, operation, page, size)
        return envelope(self._rows(tasks, fault))

    def _tasks(self, request: Request, account: str) -> Answer:
        selectors = [name for name in ("task_ids", "external_task_ids") if request.query.get(name)]
        if len(selectors) != 1 or len(request.query) != 1:
            raise Refused(BAD_VALUE, "task_ids or external_task_ids, one of the two")
        fault = self._world.dice.roll(QUERY)
        if fault in QUERY_ANSWERS:
            return QUERY_ANSWERS[fault]
        names = request.query[selectors[0]].split(",")
        tasks = found(self._world, "kling", account, names)
        by_task_id = selectors == ["task_ids"]
        return envelope(
            [new_task_object(self._world, t) for t in tasks if (t.id if by_task_id else t.external_id) in names]
        )

    def _rows(self, tasks: Sequence[Accepted], fault: str | None) -> list[dict[str, Any]]:
        rows = [task_object(self._world, task) for task in tasks]
        if fault == "poll_unknown_state":
            rows[0] |= {"task_status": "reviewing", "task_result": {}}
        return rows


def split(path: str, prefix: str) -> tuple[str, str]:
    """Return operation and task id of a path such as `/v1/videos/text2video/123`, with `""` if there is no id."""
    if path == TASKS:
        return "tasks", ""
    parts = path.removeprefix(prefix).split("/", 2)
    return "/".join(parts[:2]), parts[2] if len(parts) > 2 else ""  # noqa: PLR2004  family, operation, id


def ordered(state: World, provider: str, account: str, operation: str, request: Request) -> Order:
    """Return the order that a submit makes. Raise KlingRefusedError if it cannot be accepted."""
    body = request.fields()
    if body is None:
        raise Refused(BAD_BODY)
    check(operation, body)
    kind, external_id = OPERATIONS[operation], body.get("external_task_id")
    charge = body.get("n", 1) if kind == "image" else 1
    if state.repeats(provider, account, external_id):
        raise Refused(BAD_VALUE, "external_task_id already exists")
    if not state.affords(charge):
        raise Refused(NO_MONEY)
    if not state.has_slots(provider, account, kind, charge):
        raise Refused(TOO_MANY)
    task_id = new_id()
    return Order(task_id, provider, account, operation, kind, external_id, body, charge, told, pictures(body))


def found(state: World, provider: str, account: str, names: Sequence[str]) -> list[Accepted]:
    """Return the account's tasks with these names, which are task ids or external ids.

    A task is found by its external id only when it is visible in lists.
    """
    tasks: list[Accepted] = []
    for name in names:
        by_id = state.ledger.by_id(name)
        visible = [t for t in state.ledger.by_external_id(name) if t.at <= state.visible_until()]
        tasks += [by_id] if by_id else visible
    return [t for t in tasks if (t.provider, t.account) == (provider, account)]


def new_id() -> str:
    """Return a random task id of 18 digits. It is unique across sandboxes as well."""
    return str(8 * 10**17 + secrets.randbelow(10**17))


def _endpoint(request: Request, operation: str, task_id: str) -> str:
    if operation not in OPERATIONS and operation != "tasks":
        return "unknown"
    path = TASKS if operation == "tasks" else PREFIX + operation
    return f"{request.method} {path}/{{id}}" if task_id else f"{request.method} {path}"


def _number(request: Request, name: str, default: int, maximum: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= maximum):
        raise Refused(BAD_VALUE, f"{name} is invalid")
    return int(text)
