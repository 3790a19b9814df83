"""Chanjing's rules for submits and queries, and the codes of its refusals."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from runner.sandbox.ledger import Kind
from runner.sandbox.messages import Request
from runner.sandbox.world import FORBIDDEN

IMAGE, VIDEO = 3, 4
KINDS: Mapping[object, Kind] = MappingProxyType({IMAGE: "image", VIDEO: "video"})
MALFORMED, NO_TOKEN, BAD_PARAMETER, TOO_FAST, INTERNAL = 400, 10400, 40000, 40001, 50000
MOST_IMAGES = 4
MOST_IDS = 50
IMAGE_MODELS = frozenset(
    [
        "doubao-seedream-3.0-t2i",
        "doubao-seedream-4.0",
        "doubao-seedream-4.5",
        "kling-v2-1",
        "kling-v2",
        "wan2.2-t2i",
        "doubao-seedream5.0-pro",
        "doubao-seedream5.0-lite",
        "image2_medium",
        "gemini-3-pro-image",
    ]
)
VIDEO_MODELS = frozenset(
    [
        "tx_kling-v2-1-master",
        "tx_kling2.5",
        "kling-v2-5-turbo-normal",
        "Doubao-Seedance-1.0-lite-i2v",
        "Doubao-Seedance-1.0-pro",
        "MiniMax-Hailuo-02",
        "kling1.6",
        "kling-v2-1-master",
        "kling2.5",
        "viduq1",
        "happyhorse-1.0-t2v",
        "happyhorse-1.0-i2v",
        "happyhorse-1.0-r2v",
        "happyhorse-1.0-video-edit",
        "minmax-h3-t2v",
        "seedance-2.0-pro-wetoken",
        "seedance-2.0-lite-wetoken",
        "seedance-fast-2.0-lite-wetoken",
        "seedance-2.5-t2v",
        "seedance-2.5-first-last-to-video",
        "seedance-2.5-r2v",
        "tx_kling-v3-0-text2video",
        "tx_kling-v3-0-turbo-image2video",
    ]
)


class Refused(Exception):
    """Raised for a request that Chanjing answers with a code other than 0."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg


def fields_of(request: Request) -> dict[str, Any]:
    """Return the body of a request. Raise ChanjingRefusedError if it is not a JSON object."""
    body = request.fields()
    if body is None:
        raise Refused(MALFORMED, "传入参数格式错误")
    return body


def check_submit(body: Mapping[str, Any]) -> Kind:
    """Return the kind of media that a submit buys. Raise ChanjingRefusedError if it is invalid."""
    kind = _kind(body.get("creation_type"), "creation_type")
    model, prompt = body.get("model_code"), body.get("ref_prompt", "")
    if not (isinstance(model, str) and model and isinstance(prompt, str)):
        raise Refused(BAD_PARAMETER, "参数错误：model_code")
    if model not in IMAGE_MODELS | VIDEO_MODELS:
        raise Refused(INTERNAL, "模型不存在")
    if model not in (IMAGE_MODELS if kind == "image" else VIDEO_MODELS):
        raise Refused(BAD_PARAMETER, "参数错误：creation_type")
    if field := _wrong_field(kind, body):
        raise Refused(BAD_PARAMETER, f"参数错误：{field}")
    if any(word in prompt for word in FORBIDDEN):
        raise Refused(INTERNAL, "内容审核未通过，违规")
    return kind


def _wrong_field(kind: Kind, body: Mapping[str, Any]) -> str | None:
    if kind == "video":
        return None if _is_int(body.get("video_duration"), 1, 60) else "video_duration"
    if not body.get("ref_prompt"):
        return "ref_prompt"
    default = None if body["model_code"] == "doubao-seedream-3.0-t2i" else 1
    if not _is_int(body.get("number_of_images", default), 1, MOST_IMAGES):
        return "number_of_images"
    return "ref_img_url" if body["model_code"] == "kling-v2-1" and body.get("ref_img_url") else None


def check_page(body: Mapping[str, Any]) -> tuple[Kind, int, int, list[str]]:
    """Return kind, page, page size and ids of a query. Raise ChanjingRefusedError if one of them is invalid."""
    ids = body.get("unique_ids") or []
    if not isinstance(ids, list) or len(ids) > MOST_IDS or not all(isinstance(i, str) for i in ids):
        raise Refused(BAD_PARAMETER, "参数错误：unique_ids 最多 50 个")
    for name, maximum in (("page", 10**9), ("page_size", MOST_IDS)):
        if not _is_int(body.get(name), 1, maximum):
            raise Refused(BAD_PARAMETER, f"参数错误：{name}")
    return _kind(body.get("type"), "type"), body["page"], body["page_size"], ids


def _kind(value: Any, name: str) -> Kind:
    if not _is_int(value, IMAGE, VIDEO):
        raise Refused(BAD_PARAMETER, f"参数错误：{name}")
    return KINDS[value]


def _is_int(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
