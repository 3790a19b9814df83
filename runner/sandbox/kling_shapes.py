"""How Kling shows tasks and refusals."""

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
    """Say that a submit was accepted."""
    at = milliseconds(task.at)
    data = {"task_id": task.id, "task_status": "submitted", "created_at": at, "updated_at": at}
    return envelope(data | {"task_info": {"external_task_id": task.external_id or ""}})


def task_object(world: World, task: Accepted) -> dict[str, Any]:
    """Return a task as Kling's legacy design shows it."""
    phase = world.phase(task)
    shown: dict[str, Any] = {
        "task_id": task.id,
        "task_status": WORDS[phase],
        "task_status_msg": FAILURE if phase is Phase.FAILED else "",
        "task_info": {"external_task_id": task.external_id or ""},
        "created_at": milliseconds(task.at),
        "updated_at": updated_at(world, task),
    }
    if phase is Phase.SUCCEEDED:
        shown["final_unit_deduction"] = str(task.charge)
        shown["task_result"] = _result(task, world.links(task))
    return shown


def new_task_object(world: World, task: Accepted) -> dict[str, Any]:
    """Return a task as Kling's newer design shows it."""
    phase = world.phase(task)
    links = world.links(task) if phase is Phase.SUCCEEDED else []
    return {
        "id": task.id,
        "status": "succeeded" if phase is Phase.SUCCEEDED else WORDS[phase],
        "message": FAILURE if phase is Phase.FAILED else "",
        "create_time": milliseconds(task.at),
        "update_time": updated_at(world, task),
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
    return as_json({"code": 0, "message": "SUCCEED", "request_id": uuid.uuid4().hex, "data": data})


def refusal(refused: Refused) -> Answer:
    """Return Kling's answer to a request it refuses."""
    body = {"code": refused.code, "message": refused.message, "request_id": uuid.uuid4().hex}
    return as_json(body, refused.status)


def updated_at(world: World, task: Accepted) -> int:
    return milliseconds(min(world.clock(), world.finish_at(task)))


def milliseconds(at: float) -> int:
    return int(at * 1000)
