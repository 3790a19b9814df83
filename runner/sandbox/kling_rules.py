"""Kling's rules for submits, the codes, HTTP statuses and messages of its refusals, and the JSON of its responses."""

from __future__ import annotations

import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from runner.sandbox.messages import SandboxResponse, json_response
from runner.sandbox.request_images import malformed_image_field
from runner.sandbox.state import FORBIDDEN, Phase, SandboxState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.sandbox.ledger import AcceptedTask, Kind

#: The kind of media that each paid operation makes, by the end of its path.
OPERATIONS: Mapping[str, Kind] = MappingProxyType(
    {"images/generations": "image", "videos/text2video": "video", "videos/image2video": "video"}
)
BAD_BODY, BAD_VALUE, NO_MONEY, NO_RESOURCE, UNSAFE, TOO_FAST, TOO_MANY = 1200, 1201, 1102, 1203, 1301, 1302, 1303
STATUS: Mapping[int, int] = MappingProxyType(
    {
        1001: 401,
        1002: 401,
        1003: 401,
        1004: 401,
        NO_MONEY: 429,
        BAD_BODY: 400,
        BAD_VALUE: 400,
        1202: 404,
        NO_RESOURCE: 404,
        UNSAFE: 400,
        TOO_FAST: 429,
        TOO_MANY: 429,
    }
)
MESSAGES: Mapping[int, str] = MappingProxyType(
    {
        1001: "Authorization is empty",
        1002: "Authorization is invalid",
        1003: "Authorization is not yet valid",
        1004: "Authorization has expired",
        NO_MONEY: "Resource pack is used up or expired",
        BAD_BODY: "request body is not valid JSON",
        1202: "The requested method is invalid",
        NO_RESOURCE: "The requested resource does not exist",
        UNSAFE: "Content security policy of the platform was triggered",
        TOO_FAST: "API request is too fast",
        TOO_MANY: "parallel task over resource pack limit",
    }
)
IMAGE_MODELS = frozenset(["kling-v1", "kling-v1-5", "kling-v1-6", "kling-v2", "kling-v2-new", "kling-v2-1", "kling-v3"])
VIDEO_MODELS = frozenset(
    [
        "kling-v1",
        "kling-v1-5",
        "kling-v1-6",
        "kling-v2-master",
        "kling-v2-1",
        "kling-v2-1-master",
        "kling-v2-5-turbo",
        "kling-v2-6",
        "kling-v3",
    ]
)
IMAGE_RATIOS = frozenset(["16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9"])
VIDEO_RATIOS = frozenset(["16:9", "9:16", "1:1"])
DURATIONS = frozenset(str(n) for n in range(3, 16))
OLD_DURATIONS = frozenset({"5", "10"})
MAX_PROMPT_LENGTH = 2500
MAX_IMAGES = 9
STATE_NAMES = {
    Phase.QUEUED: "submitted",
    Phase.RUNNING: "processing",
    Phase.SUCCEEDED: "succeed",
    Phase.FAILED: "failed",
}
FAILURE_MESSAGE = "the model could not produce a result"


class KlingRefusedError(Exception):
    """Raised for a request that Kling answers with a code other than 0."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message or MESSAGES[code])
        self.code = code
        self.message = message or MESSAGES[code]

    @property
    def status(self) -> int:
        """Return the HTTP status of the response."""
        return STATUS[self.code]


def check_submit(operation: str, body: Mapping[str, Any]) -> None:
    """Raise KlingRefusedError if Kling would refuse this body of a submit."""
    kind = OPERATIONS[operation]
    model = str(body.get("model_name") or "kling-v1")
    if model not in (IMAGE_MODELS if kind == "image" else VIDEO_MODELS):
        raise KlingRefusedError(NO_RESOURCE, f"model {model} does not exist")
    field = _invalid_common_field(operation, body) or (
        _invalid_image_task_field(body) if kind == "image" else _invalid_video_task_field(body)
    )
    if field:
        raise KlingRefusedError(BAD_VALUE, f"{field} is invalid")
    if any(word in body.get("prompt", "") for word in FORBIDDEN):
        raise KlingRefusedError(UNSAFE)


def _invalid_common_field(operation: str, body: Mapping[str, Any]) -> str | None:
    prompt, external_id, image = body.get("prompt", ""), body.get("external_task_id"), body.get("image") or ""
    if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT_LENGTH:
        return "prompt"
    if not prompt and operation != "videos/image2video":
        return "prompt"
    if not isinstance(external_id, str | None) or external_id == "":
        return "external_task_id"
    if not isinstance(image, str) or image.startswith("data:"):
        return "image"
    if field := malformed_image_field(body):
        return field
    return "image" if operation == "videos/image2video" and not (image or body.get("image_tail")) else None


def _invalid_image_task_field(body: Mapping[str, Any]) -> str | None:
    n = body.get("n", 1)
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MAX_IMAGES:
        return "n"
    if body.get("image") and body.get("negative_prompt"):
        return "negative_prompt"
    return None if str(body.get("aspect_ratio", "16:9")) in IMAGE_RATIOS else "aspect_ratio"


def _invalid_video_task_field(body: Mapping[str, Any]) -> str | None:
    allowed = DURATIONS if body.get("model_name") == "kling-v3" else OLD_DURATIONS
    if str(body.get("duration", "5")) not in allowed:
        return "duration"
    if body.get("mode", "std") not in ("std", "pro"):
        return "mode"
    return None if str(body.get("aspect_ratio", "16:9")) in VIDEO_RATIOS else "aspect_ratio"


def accepted_response(state: SandboxState, task: AcceptedTask) -> SandboxResponse:
    """Return the response to an accepted submit."""
    at = milliseconds(task.at)
    data = {"task_id": state.wire_id(task.id), "task_status": "submitted", "created_at": at, "updated_at": at}
    return envelope(data | {"task_info": {"external_task_id": task.external_id or ""}})


def task_object(state: SandboxState, task: AcceptedTask) -> dict[str, Any]:
    """Return the object for a task in Kling's legacy design."""
    phase, created = state.phase(task), state.lists.time(task)
    result: dict[str, Any] = {
        "task_id": state.lists.id(task),
        "task_status": STATE_NAMES[phase],
        "task_status_msg": FAILURE_MESSAGE if phase is Phase.FAILED else "",
        "task_info": {"external_task_id": state.lists.reference(task)},
        "created_at": milliseconds(created) if isinstance(created, float) else created,
        "updated_at": updated_at(state, task),
    }
    if phase is Phase.SUCCEEDED:
        result["final_unit_deduction"] = str(task.charge)
        result["task_result"] = _task_result(task, state.output_links(task))
    return result


def newer_task_object(state: SandboxState, task: AcceptedTask) -> dict[str, Any]:
    """Return the object for a task in Kling's newer design."""
    phase = state.phase(task)
    links = state.output_links(task) if phase is Phase.SUCCEEDED else []
    return {
        "id": state.lists.id(task),
        "status": "succeeded" if phase is Phase.SUCCEEDED else STATE_NAMES[phase],
        "message": FAILURE_MESSAGE if phase is Phase.FAILED else "",
        "create_time": milliseconds(task.at),
        "update_time": updated_at(state, task),
        "external_id": task.external_id or "",
        "outputs": [{"url": link, "watermark_url": ""} for link in links],
        "billing": [],
    }


def _task_result(task: AcceptedTask, links: Sequence[str]) -> dict[str, Any]:
    if task.kind == "image":
        return {"images": [{"index": n, "url": link, "watermark_url": ""} for n, link in enumerate(links)]}
    duration = f"{task.request.get('duration', '5')}.1"
    return {"videos": [{"id": f"v{task.id}", "url": link, "watermark_url": "", "duration": duration} for link in links]}


def envelope(data: object) -> SandboxResponse:
    """Return a successful response with this data."""
    return json_response({"code": 0, "message": "SUCCEED", "request_id": uuid.uuid4().hex, "data": data})


def refusal_response(error: KlingRefusedError) -> SandboxResponse:
    """Return Kling's response to a request that it refuses."""
    body = {"code": error.code, "message": error.message, "request_id": uuid.uuid4().hex}
    return json_response(body, error.status)


def updated_at(state: SandboxState, task: AcceptedTask) -> int:
    """Return the last change of a task in milliseconds of Unix time: its end, or now while it runs."""
    return milliseconds(min(state.clock(), state.finish_time(task)))


def milliseconds(at: float) -> int:
    """Return a Unix time in milliseconds."""
    return int(at * 1000)
