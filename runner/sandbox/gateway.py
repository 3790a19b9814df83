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
from runner.sandbox.failures import QUERY_RESPONSES
from runner.sandbox.faults import POLL
from runner.sandbox.kling import build_order, split_path
from runner.sandbox.kling_rules import (
    NO_MONEY,
    OPERATIONS,
    TOO_FAST,
    KlingRefusedError,
    envelope,
    refusal_response,
    task_object,
)
from runner.sandbox.ledger import AcceptedTask, Order
from runner.sandbox.messages import SandboxRequest, SandboxResponse, json_response
from runner.sandbox.state import EXTENSIONS, Phase, SandboxState

PREFIX = "/kling/v1/"
FLAT_STATE_NAMES = {
    Phase.QUEUED: "queued",
    Phase.RUNNING: "processing",
    Phase.SUCCEEDED: "succeeded",
    Phase.FAILED: "failed",
}
NESTED_STATE_NAMES = {
    Phase.QUEUED: "NOT_START",
    Phase.RUNNING: "IN_PROGRESS",
    Phase.SUCCEEDED: "SUCCESS",
    Phase.FAILED: "FAILURE",
}
MINIMAL_STATE_NAMES = {
    Phase.QUEUED: "queued",
    Phase.RUNNING: "in_progress",
    Phase.SUCCEEDED: "completed",
    Phase.FAILED: "failed",
}
PROGRESS = {Phase.QUEUED: "0%", Phase.RUNNING: "50%", Phase.SUCCEEDED: "100%", Phase.FAILED: "100%"}
FAILURE_MESSAGE = "upstream: the model could not produce a result"


class KlingGatewayApi:
    """The gateway's endpoints. A valid submit becomes an Order, which the application accepts."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state

    def handle(self, request: SandboxRequest) -> SandboxResponse | Order:
        """Answer a request, or return the order that a valid submit makes."""
        operation, task_id = split_path(request.path, PREFIX)
        if operation not in OPERATIONS or (request.method, task_id == "") not in {("POST", True), ("GET", False)}:
            return _gateway_error(f"Invalid URL ({request.method} {request.path})", 404)
        endpoint = f"{request.method} {PREFIX}{operation}" + ("/{id}" if task_id else "")
        self._state.counters.record_arrival(endpoint, self._state.clock())
        try:
            account = self._authenticate(request, endpoint)
            return self._query(account, task_id) if task_id else self._submit(request, account, operation)
        except KlingRefusedError as error:
            self._state.counters.refused[str(error.code)] += 1
            return self._refusal_response(error)

    def _authenticate(self, request: SandboxRequest, endpoint: str) -> str:
        account = keys.identify_gateway_account(request)
        if isinstance(account, int):
            raise KlingRefusedError(account)
        if not self._state.admit(endpoint, account):
            raise KlingRefusedError(TOO_FAST)
        return account

    def _submit(self, request: SandboxRequest, account: str, operation: str) -> SandboxResponse | Order:
        order = build_order(self._state, "gateway", account, operation, request)
        if not isinstance(order, Order):
            return order
        dialect = self._state.options.gateway_dialect
        own_id = order.id if dialect == "A" else self._state.new_id(f"task_{secrets.token_hex(12)}")
        responses = {"A": order.to_response, "B": _accepted_video_object, "C": _accepted_minimal}
        return replace(order, id=own_id, to_response=responses[dialect])

    def _query(self, account: str, task_id: str) -> SandboxResponse:
        task = self._state.ledger.by_id(task_id)
        fault = self._state.fault_injector.next_fault(POLL)
        if fault in QUERY_RESPONSES:
            return QUERY_RESPONSES[fault]
        if task is None or (task.provider, task.account) != ("gateway", account) or fault == "poll_missing":
            self._state.counters.refused["task_not_exist"] += 1
            return json_response({"code": "task_not_exist", "message": "task_not_exist", "data": None}, 400)
        return self._task_response(task, "reviewing" if fault == "poll_unknown_state" else None)

    def _task_response(self, task: AcceptedTask, unknown_state: str | None) -> SandboxResponse:
        match self._state.options.gateway_dialect, task.kind:
            case "A", _:
                hidden = {"task_status": unknown_state, "task_result": {}} if unknown_state else {}
                return envelope(task_object(self._state, task) | hidden)
            case "B", "image":
                return json_response(
                    {"code": "success", "message": "", "data": self._flat_object(task, FLAT_STATE_NAMES, unknown_state)}
                )
            case "B", _:
                return json_response(
                    {"code": "success", "message": "", "data": self._nested_object(task, unknown_state)}
                )
            case _:
                return json_response(self._flat_object(task, MINIMAL_STATE_NAMES, unknown_state))

    def _flat_object(
        self, task: AcceptedTask, state_names: dict[Phase, str], unknown_state: str | None
    ) -> dict[str, Any]:
        phase = self._state.phase(task)
        links = self._state.output_links(task) if phase is Phase.SUCCEEDED and not unknown_state else []
        failure = {"code": 500, "message": FAILURE_MESSAGE} if phase is Phase.FAILED else None
        return {
            "task_id": task.id,
            "status": unknown_state or state_names[phase],
            "url": next(iter(links), ""),
            "format": EXTENSIONS[task.kind],
            "metadata": None,
            "error": failure,
        }

    def _nested_object(self, task: AcceptedTask, unknown_state: str | None) -> dict[str, Any]:
        phase = self._state.phase(task)
        done = phase in {Phase.SUCCEEDED, Phase.FAILED}
        return {
            "task_id": task.id,
            "action": "generate",
            "status": unknown_state or NESTED_STATE_NAMES[phase],
            "fail_reason": FAILURE_MESSAGE if phase is Phase.FAILED else "",
            "submit_time": int(task.at),
            "finish_time": int(self._state.finish_time(task)) if done else 0,
            "progress": PROGRESS[phase],
            "data": {"code": 0, "message": "SUCCEED", "data": {} if unknown_state else task_object(self._state, task)},
        }

    def _refusal_response(self, error: KlingRefusedError) -> SandboxResponse:
        if self._state.options.gateway_dialect == "A":
            return refusal_response(error)
        if error.status == 401:  # noqa: PLR2004  bad key
            return _gateway_error("无效的令牌", 401)
        if error.code == NO_MONEY:
            return json_response({"code": "quota_not_enough", "message": "user quota is not enough", "data": None}, 403)
        upstream = json.dumps({"code": error.code, "message": error.message})
        return json_response({"code": "fail_to_fetch_task", "message": upstream, "data": None}, error.status)


def _accepted_video_object(task: AcceptedTask) -> SandboxResponse:
    model = {"id": task.id, "task_id": task.id, "object": "video", "model": task.model}
    return json_response(model | {"status": "", "progress": 0, "created_at": int(task.at)})


def _accepted_minimal(task: AcceptedTask) -> SandboxResponse:
    return json_response({"task_id": task.id, "status": "queued"})


def _gateway_error(message: str, status: int) -> SandboxResponse:
    text = f"{message} (request id: {uuid.uuid4().hex})"
    return json_response({"error": {"message": text, "type": "new_api_error", "code": ""}}, status)
