"""Refusals of submits that would succeed: after the charge, against all documents, or free of charge."""

import uuid
from types import MappingProxyType

from runner.sandbox import chanjing_rules as chanjing
from runner.sandbox import kling_rules as kling
from runner.sandbox.messages import SandboxResponse, json_response

#: Codes and texts of each fault: Kling's, and Chanjing's, which has no parallel limit.
_KLING = MappingProxyType(
    {
        "throttle": kling.TOO_FAST,
        "refuse_after_charge": kling.TOO_FAST,
        "refuse_window_after_charge": kling.TOO_MANY,
        "refuse_content_after_charge": kling.UNSAFE,
        "refuse_credit_after_charge": kling.NO_MONEY,
    }
)
_TOO_FAST = (chanjing.TOO_FAST, "超出 QPS 限制")
_CHANJING = MappingProxyType(
    {
        "throttle": _TOO_FAST,
        "refuse_after_charge": _TOO_FAST,
        "refuse_window_after_charge": _TOO_FAST,
        "refuse_content_after_charge": (chanjing.INTERNAL, "内容审核未通过，违规"),
        "refuse_credit_after_charge": (chanjing.INTERNAL, "扣费失败，蝉豆余额不足"),
    }
)


def refusal(provider: str, fault: str) -> SandboxResponse:
    """Return the provider's refusal of this kind. The gateway answers as Kling does."""
    if provider != "chanjing":
        return kling.refusal_response(kling.KlingRefusedError(_KLING[fault]))
    code, text = _CHANJING[fault]
    return json_response({"trace_id": uuid.uuid4().hex, "code": code, "msg": text, "data": None})
