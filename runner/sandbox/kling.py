"""Kling's official API in its legacy design (`/v1/...`), and the newer query `GET /tasks`.

Where the documents are silent, this module decides: an unknown id is 404 with 1203, and lists are newest first.
"""

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

from runner.sandbox import keys
from runner.sandbox.failures import QUERY_RESPONSES
from runner.sandbox.faults import POLL, QUERY
from runner.sandbox.kling_rules import (
    BAD_BODY,
    BAD_VALUE,
    NO_MONEY,
    NO_RESOURCE,
    OPERATIONS,
    TOO_FAST,
    TOO_MANY,
    KlingRefusedError,
    accepted_response,
    check_submit,
    envelope,
    newer_task_object,
    refusal_response,
    task_object,
)
from runner.sandbox.ledger import AcceptedTask, Order
from runner.sandbox.list_view import OTHER_ID
from runner.sandbox.messages import SandboxRequest, SandboxResponse
from runner.sandbox.request_images import image_hashes
from runner.sandbox.state import SandboxState

PREFIX = "/v1/"
TASKS_PATH = "/tasks"
MAX_PAGES, MAX_PAGE_SIZE = 1000, 500


class KlingApi:
    """Kling's endpoints. A valid submit becomes an Order, which the application accepts."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    def handle(self, request: SandboxRequest) -> SandboxResponse | Order:
        """Answer a request, or return the order that a valid submit makes."""
        operation, task_id = split_path(request.path, PREFIX)
        self._state.counters.record_arrival(_endpoint(request, operation, task_id), self._state.clock())
        try:
            return self._route(request, operation, task_id)
        except KlingRefusedError as error:
            self._state.counters.refused[str(error.code)] += 1
            return refusal_response(error)

    def _route(self, request: SandboxRequest, operation: str, task_id: str) -> SandboxResponse | Order:
        account = self._authenticate(request, _endpoint(request, operation, task_id))
        match request.method, operation, task_id:
            case "POST", str(op), "" if op in OPERATIONS:
                return build_order(self._state, "kling", account, operation, request)
            case "GET", str(op), "" if op in OPERATIONS:
                return self._list_tasks(request, account, operation)
            case "GET", str(op), str(name) if op in OPERATIONS:
                return self._get_task(account, operation, name)
            case "GET", "tasks", "":
                return self._find_tasks(request, account)
            case _:
                raise KlingRefusedError(NO_RESOURCE)

    def _authenticate(self, request: SandboxRequest, endpoint: str) -> str:
        account = keys.identify_account(request, self._state.clock())
        if isinstance(account, int):
            raise KlingRefusedError(account)
        if not self._state.admit(endpoint, account):
            raise KlingRefusedError(TOO_FAST)
        return account

    def _get_task(self, account: str, operation: str, name: str) -> SandboxResponse:
        by_id = self._state.lists.find(name) is not None
        fault = self._state.fault_injector.next_fault(POLL if by_id else QUERY)
        if fault in QUERY_RESPONSES:
            return QUERY_RESPONSES[fault]
        tasks = find_tasks(self._state, "kling", account, [name])
        task = next((task for task in tasks if task.operation == operation), None)
        if not by_id and self._state.lies("absent_lies"):
            task = None
        if task is None and self._state.lies("any_reference"):
            task = next(iter(self._state.lists.page("kling", account, operation, 1, 1)[0]), None)
        if task is None or fault == "poll_missing":
            raise KlingRefusedError(NO_RESOURCE, "task does not exist")
        return envelope(self._rows([task], fault)[0])

    def _list_tasks(self, request: SandboxRequest, account: str, operation: str) -> SandboxResponse:
        page, size = (
            _read_number(request, "pageNum", 1, MAX_PAGES),
            _read_number(request, "pageSize", 30, MAX_PAGE_SIZE),
        )
        fault = self._state.fault_injector.next_fault(QUERY)
        if fault in QUERY_RESPONSES:
            return QUERY_RESPONSES[fault]
        tasks, _ = self._state.lists.page("kling", account, operation, page, size)
        return envelope(self._rows(tasks, fault))

    def _find_tasks(self, request: SandboxRequest, account: str) -> SandboxResponse:
        selectors = [name for name in ("task_ids", "external_task_ids") if request.query.get(name)]
        if len(selectors) != 1 or len(request.query) != 1:
            raise KlingRefusedError(BAD_VALUE, "task_ids or external_task_ids, one of the two")
        fault = self._state.fault_injector.next_fault(QUERY)
        if fault in QUERY_RESPONSES:
            return QUERY_RESPONSES[fault]
        names = request.query[selectors[0]].split(",")
        tasks = list(self._state.lists.batch(find_tasks(self._state, "kling", account, names)))
        by_task_id = selectors == ["task_ids"]
        return envelope(
            [newer_task_object(self._state, t) for t in tasks if _is_named(t, names, by_task_id=by_task_id)]
        )

    def _rows(self, tasks: Sequence[AcceptedTask], fault: str | None) -> list[dict[str, Any]]:
        rows = [task_object(self._state, task) for task in tasks]
        if fault == "poll_unknown_state":
            rows[0] |= {"task_status": "reviewing", "task_result": {}}
        return rows


def split_path(path: str, prefix: str) -> tuple[str, str]:
    """Return operation and task id of a path such as `/v1/videos/text2video/123`, with `""` if there is no id."""
    if path == TASKS_PATH:
        return "tasks", ""
    parts = path.removeprefix(prefix).split("/", 2)
    return "/".join(parts[:2]), parts[2] if len(parts) > 2 else ""  # noqa: PLR2004  family, operation, id


def build_order(
    state: SandboxState, provider: str, account: str, operation: str, request: SandboxRequest
) -> SandboxResponse | Order:
    """Return the order that a submit makes, or the response about an earlier one with the same external id.

    Raise KlingRefusedError if it cannot be accepted.
    """
    body = request.json_object()
    if body is None:
        raise KlingRefusedError(BAD_BODY)
    check_submit(operation, body)
    kind = OPERATIONS[operation]
    external_id = None if state.lies("no_reference") else body.get("external_task_id")
    charge = body.get("n", 1) if kind == "image" else 1
    if state.is_external_id_taken(provider, account, external_id):
        if state.options.external_id_first:
            return accepted_response(state, state.ledger.by_external_id(str(external_id))[0])
        raise KlingRefusedError(BAD_VALUE, "external_task_id already exists")
    if not state.can_afford(charge):
        raise KlingRefusedError(NO_MONEY)
    if not state.has_slots(provider, account, kind, charge):
        raise KlingRefusedError(TOO_MANY)
    answer = partial(accepted_response, state)
    task_id = state.new_id(new_task_id())
    return Order(task_id, provider, account, operation, kind, external_id, body, charge, answer, image_hashes(body))


def find_tasks(state: SandboxState, provider: str, account: str, names: Sequence[str]) -> list[AcceptedTask]:
    """Return the account's tasks with these names, which are task ids or external ids.

    A task is found by its external id only when it is visible in lists.
    """
    tasks: list[AcceptedTask] = []
    for name in names:
        by_id = state.lists.find(name)
        named = filter(state.lists.shows_reference, state.ledger.by_external_id(name))
        visible = list(filter(state.lists.is_visible, named))
        tasks += [by_id] if by_id else visible
    return [t for t in tasks if (t.provider, t.account) == (provider, account)]


def _is_named(task: AcceptedTask, names: Sequence[str], *, by_task_id: bool) -> bool:
    return not {task.id, f"{OTHER_ID}{task.id}"}.isdisjoint(names) if by_task_id else task.external_id in names


def new_task_id() -> str:
    """Return a random task id of 18 digits. It is unique across sandboxes as well."""
    return str(8 * 10**17 + secrets.randbelow(10**17))


def _endpoint(request: SandboxRequest, operation: str, task_id: str) -> str:
    if operation not in OPERATIONS and operation != "tasks":
        return "unknown"
    path = TASKS_PATH if operation == "tasks" else PREFIX + operation
    return f"{request.method} {path}/{{id}}" if task_id else f"{request.method} {path}"


def _read_number(request: SandboxRequest, name: str, default: int, maximum: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= maximum):
        raise KlingRefusedError(BAD_VALUE, f"{name} is invalid")
    return int(text)
