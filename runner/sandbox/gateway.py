"""A gateway in front of Kling (`/kling/v1/...`), in three dialects: A as Kling, B video object, C minimal.

In dialect B an image task is a flat object with one link, and a video task is an object that contains Kling's response.
The gateway has no list and no query by external id.
"""

import json
import secrets
import uuid
from dataclasses import replace
from typing import Any

from runner.sandbox import keys
from runner.sandbox.faults import POLL
from runner.sandbox.kling import new_id, ordered, split
from runner.sandbox.kling_rules import NO_MONEY, OPERATIONS, TOO_FAST, Refused
from runner.sandbox.kling_shapes import envelope, refusal, task_object, told
from runner.sandbox.ledger import Accepted, Order
from runner.sandbox.messages import Answer, Request, as_json
from runner.sandbox.troubles import QUERY_ANSWERS
from runner.sandbox.world import EXTENSIONS, Phase, World

PREFIX = "/kling/v1/"
FLAT_WORDS = {
    Phase.QUEUED: "queued",
    Phase.RUNNING: "processing",
    Phase.SUCCEEDED: "succeeded",
    Phase.FAILED: "failed",
}
OBJECT_WORDS = {
    Phase.QUEUED: "NOT_START",
    Phase.RUNNING: "IN_PROGRESS",
    Phase.SUCCEEDED: "SUCCESS",
    Phase.FAILED: "FAILURE",
}
MINIMAL_WORDS = {
    Phase.QUEUED: "queued",
    Phase.RUNNING: "in_progress",
    Phase.SUCCEEDED: "completed",
    Phase.FAILED: "failed",
}
PROGRESS = {Phase.QUEUED: "0%", Phase.RUNNING: "50%", Phase.SUCCEEDED: "100%", Phase.FAILED: "100%"}
FAILURE = "upstream: the model could not produce a result"


class Gateway:
    """The gateway's endpoints. A valid submit becomes an Order, which the application accepts."""

    def __init__(self, state: World) -> None:
        self._world = state

    def answer(self, request: Request) -> Answer | Order:
        """Answer a request, or return the order that a valid submit makes."""
        operation, task_id = split(request.path, PREFIX)
        if operation not in OPERATIONS or (request.method, task_id == "") not in {("POST", True), ("GET", False)}:
            return _refused_route(request)
        endpoint = f"{request.method} {PREFIX}{operation}" + ("/{id}" if task_id else "")
        self._world.traffic.arrived(endpoint, self._world.clock())
        try:
            account = self._account(request, endpoint)
            return self._query(account, task_id) if task_id else self._submit(request, account, operation)
        except Refused as error:
            self._world.traffic.refused[str(error.code)] += 1
            return self._refusal(error)

    def _account(self, request: Request, endpoint: str) -> str:
        account = keys.gateway_holder(request)
        if isinstance(account, int):
            raise Refused(account)
        if not self._world.admit(endpoint, account):
            raise Refused(TOO_FAST)
        return account

    def _submit(self, request: Request, account: str, operation: str) -> Order:
        order = ordered(self._world, "gateway", account, operation, request)
        dialect = self._world.options.gateway_dialect
        own_id = new_id() if dialect == "A" else f"task_{secrets.token_hex(12)}"
        responses = {"A": told, "B": _told_object, "C": _told_minimal}
        return replace(order, id=own_id, to_response=responses[dialect])

    def _query(self, account: str, task_id: str) -> Answer:
        task = self._world.ledger.by_id(task_id)
        fault = self._world.dice.roll(POLL)
        if fault in QUERY_ANSWERS:
            return QUERY_ANSWERS[fault]
        if task is None or (task.provider, task.account) != ("gateway", account) or fault == "poll_missing":
            self._world.traffic.refused["task_not_exist"] += 1
            return as_json({"code": "task_not_exist", "message": "task_not_exist", "data": None}, 400)
        return self._shown(task, "reviewing" if fault == "poll_unknown_state" else None)

    def _shown(self, task: Accepted, unknown_state: str | None) -> Answer:
        match self._world.options.gateway_dialect, task.kind:
            case "A", _:
                hidden = {"task_status": unknown_state, "task_result": {}} if unknown_state else {}
                return envelope(task_object(self._world, task) | hidden)
            case "B", "image":
                return as_json({"code": "success", "message": "", "data": self._flat(task, FLAT_WORDS, unknown_state)})
            case "B", _:
                return as_json({"code": "success", "message": "", "data": self._object(task, unknown_state)})
            case _:
                return as_json(self._flat(task, MINIMAL_WORDS, unknown_state))

    def _flat(self, task: Accepted, state_names: dict[Phase, str], unknown_state: str | None) -> dict[str, Any]:
        phase = self._world.phase(task)
        links = self._world.links(task) if phase is Phase.SUCCEEDED and not unknown_state else []
        failure = {"code": 500, "message": FAILURE} if phase is Phase.FAILED else None
        return {
            "task_id": task.id,
            "status": unknown_state or state_names[phase],
            "url": next(iter(links), ""),
            "format": EXTENSIONS[task.kind],
            "metadata": None,
            "error": failure,
        }

    def _object(self, task: Accepted, unknown_state: str | None) -> dict[str, Any]:
        phase = self._world.phase(task)
        done = phase in {Phase.SUCCEEDED, Phase.FAILED}
        return {
            "task_id": task.id,
            "action": "generate",
            "status": unknown_state or OBJECT_WORDS[phase],
            "fail_reason": FAILURE if phase is Phase.FAILED else "",
            "submit_time": int(task.at),
            "finish_time": int(self._world.finish_at(task)) if done else 0,
            "progress": PROGRESS[phase],
            "data": {"code": 0, "message": "SUCCEED", "data": {} if unknown_state else task_object(self._world, task)},
        }

    def _refusal(self, error: Refused) -> Answer:
        if self._world.options.gateway_dialect == "A":
            return refusal(error)
        if error.status == 401:  # noqa: PLR2004  bad key
            return _own_error("无效的令牌", 401)
        if error.code == NO_MONEY:
            return as_json({"code": "quota_not_enough", "message": "user quota is not enough", "data": None}, 403)
        upstream = json.dumps({"code": error.code, "message": error.message})
        return as_json({"code": "fail_to_fetch_task", "message": upstream, "data": None}, error.status)


def _told_object(task: Accepted) -> Answer:
    model = {"id": task.id, "task_id": task.id, "object": "video", "model": task.model}
    return as_json(model | {"status": "", "progress": 0, "created_at": int(task.at)})


def _told_minimal(task: Accepted) -> Answer:
    return as_json({"task_id": task.id, "status": "queued"})


def _refused_route(request: Request) -> Answer:
    return _own_error(f"Invalid URL ({request.method} {request.path})", 404)


def _own_error(message: str, status: int) -> Answer:
    text = f"{message} (request id: {uuid.uuid4().hex})"
    return as_json({"error": {"message": text, "type": "new_api_error", "code": ""}}, status)
