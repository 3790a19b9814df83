"""Kling's response bodies for tasks and refusals."""

import uuid
from collections.abc import Sequence
from typing import Any

from runner.sandbox.kling_rules import Refused
from runner.sandbox.ledger import Accepted
from runner.sandbox.messages import Answer, as_json
from runner.sandbox.world import Phase, World

WORDS = {
    Phase.QUEUED: "submitted",
    Phase.RUNNING: "processing",
    Phase.SUCCEEDED: "succeed",
    Phase.FAILED: "failed",
}
FAILURE = "the model could not produce a result"


def told(task: Accepted) -> Answer:
    """Return the response to an accepted submit."""
    at = milliseconds(task.at)
    data = {"task_id": task.id, "task_status": "submitted", "created_at": at, "updated_at": at}
    return envelope(data | {"task_info": {"external_task_id": task.external_id or ""}})


def task_object(state: World, task: Accepted) -> dict[str, Any]:
    """Return the object for a task in Kling's legacy design."""
    phase = state.phase(task)
    result: dict[str, Any] = {
        "task_id": task.id,
        "task_status": WORDS[phase],
        "task_status_msg": FAILURE if phase is Phase.FAILED else "",
        "task_info": {"external_task_id": task.external_id or ""},
        "created_at": milliseconds(task.at),
        "updated_at": updated_at(state, task),
    }
    if phase is Phase.SUCCEEDED:
        result["final_unit_deduction"] = str(task.charge)
        result["task_result"] = _result(task, state.links(task))
    return result


def new_task_object(state: World, task: Accepted) -> dict[str, Any]:
    """Return the object for a task in Kling's newer design."""
    phase = state.phase(task)
    links = state.links(task) if phase is Phase.SUCCEEDED else []
    return {
        "id": task.id,
        "status": "succeeded" if phase is Phase.SUCCEEDED else WORDS[phase],
        "message": FAILURE if phase is Phase.FAILED else "",
        "create_time": milliseconds(task.at),
        "update_time": updated_at(state, task),
        "external_id": task.external_id or "",
        "outputs": [{"url": link, "watermark_url": ""} for link in links],
        "billing": [],
    }


def _result(task: Accepted, links: Sequence[str]) -> dict[str, Any]:
    if task.kind == "image":
        return {"images": [{"index": n, "url": link, "watermark_url": ""} for n, link in enumerate(links)]}
    duration = f"{task.request.get('duration', '5')}.1"
    return {"videos": [{"id": f"v{task.id}", "url": link, "watermark_url": "", "duration": duration} for link in links]}


def envelope(data: object) -> Answer:
    """Return a successful response with this data."""
    return as_json({"code": 0, "message": "SUCCEED", "request_id": uuid.uuid4().hex, "data": data})


def refusal(error: Refused) -> Answer:
    """Return Kling's response to a request that it refuses."""
    body = {"code": error.code, "message": error.message, "request_id": uuid.uuid4().hex}
    return as_json(body, error.status)


def updated_at(state: World, task: Accepted) -> int:
    """Return the last change of a task in milliseconds of Unix time: its end, or now while it runs."""
    return milliseconds(min(state.clock(), state.finish_at(task)))


def milliseconds(at: float) -> int:
    """Return a Unix time in milliseconds."""
    return int(at * 1000)
