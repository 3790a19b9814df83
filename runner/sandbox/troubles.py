"""Answers that stand in for the right one when a fault strikes."""

from collections.abc import Mapping
from types import MappingProxyType

from runner.sandbox.messages import (
    BAD_GATEWAY,
    GATEWAY_TIMEOUT,
    LOST,
    PORTAL,
    RESET,
    SERVER_ERROR,
    Answer,
    Ending,
    as_page,
)

#: Instead of accepting.
BEFORE: Mapping[str | None, Answer] = MappingProxyType(
    {
        "reset_before": RESET,
        "http_504_before": GATEWAY_TIMEOUT,
        "http_502_html": BAD_GATEWAY,
        "html_200": PORTAL,
        "late_accept": LOST,
    }
)
#: Instead of looking anything up.
QUERY_ANSWERS: Mapping[str | None, Answer] = MappingProxyType(
    {"poll_500": SERVER_ERROR, "poll_html": PORTAL, "poll_reset": RESET}
)
#: Instead of the file.
DOWNLOAD_ANSWERS: Mapping[str | None, Answer] = MappingProxyType(
    {
        "html_download": as_page(200, "This file is not available right now"),
        "expired_link": as_page(403, "403 Forbidden: request has expired"),
        "http_429_download": as_page(429, "429 Too Many Requests"),
        "empty_download": Answer(content_type="application/octet-stream"),
    }
)


def spoiled_submit(answer: Answer, fault: str | None, slow_s: float) -> Answer:
    """Return what the client sees of the answer to an accepted submit."""
    match fault:
        case "lost_reply":
            return LOST
        case "reset_after":
            return RESET
        case "http_500_after":
            return SERVER_ERROR
        case "cut_reply":
            return answer.with_(ending=Ending.CUT)
        case "slow_reply":
            return answer.with_(delay_s=slow_s)
        case _:
            return answer


def spoiled_download(answer: Answer, fault: str | None, slow_s: float) -> Answer:
    """Return what the client sees of a file."""
    match fault:
        case "cut_download":
            return answer.with_(ending=Ending.CUT)
        case "reset_download":
            return answer.with_(ending=Ending.CUT_RESET)
        case "slow_download":
            return answer.with_(spread_s=slow_s)
        case _:
            return answer
