"""Kling's rules for submits, and the codes, HTTP statuses and messages of its refusals."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from runner.sandbox.ledger import Kind
from runner.sandbox.pictures import wrong
from runner.sandbox.world import FORBIDDEN

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
LONGEST_PROMPT = 2500
MOST_IMAGES = 9


class Refused(Exception):
    """Raised for a request that Kling answers with a code other than 0."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message or MESSAGES[code])
        self.code = code
        self.message = message or MESSAGES[code]

    @property
    def status(self) -> int:
        """Return the HTTP status of the response."""
        return STATUS[self.code]


def check(operation: str, body: Mapping[str, Any]) -> None:
    """Raise KlingRefusedError if Kling would refuse this body of a submit."""
    kind = OPERATIONS[operation]
    model = str(body.get("model_name") or "kling-v1")
    if model not in (IMAGE_MODELS if kind == "image" else VIDEO_MODELS):
        raise Refused(NO_RESOURCE, f"model {model} does not exist")
    field = _wrong_text(operation, body) or (_wrong_image(body) if kind == "image" else _wrong_video(body))
    if field:
        raise Refused(BAD_VALUE, f"{field} is invalid")
    if any(word in body.get("prompt", "") for word in FORBIDDEN):
        raise Refused(UNSAFE)


def _wrong_text(operation: str, body: Mapping[str, Any]) -> str | None:
    prompt, external_id, image = body.get("prompt", ""), body.get("external_task_id"), body.get("image") or ""
    if not isinstance(prompt, str) or len(prompt) > LONGEST_PROMPT:
        return "prompt"
    if not prompt and operation != "videos/image2video":
        return "prompt"
    if not isinstance(external_id, str | None) or external_id == "":
        return "external_task_id"
    if not isinstance(image, str) or image.startswith("data:"):
        return "image"
    if field := wrong(body):
        return field
    return "image" if operation == "videos/image2video" and not (image or body.get("image_tail")) else None


def _wrong_image(body: Mapping[str, Any]) -> str | None:
    n = body.get("n", 1)
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST_IMAGES:
        return "n"
    if body.get("image") and body.get("negative_prompt"):
        return "negative_prompt"
    return None if str(body.get("aspect_ratio", "16:9")) in IMAGE_RATIOS else "aspect_ratio"


def _wrong_video(body: Mapping[str, Any]) -> str | None:
    allowed = DURATIONS if body.get("model_name") == "kling-v3" else OLD_DURATIONS
    if str(body.get("duration", "5")) not in allowed:
        return "duration"
    if body.get("mode", "std") not in ("std", "pro"):
        return "mode"
    return None if str(body.get("aspect_ratio", "16:9")) in VIDEO_RATIOS else "aspect_ratio"
