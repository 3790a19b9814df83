"""Responses that replace the correct one when a fault is injected."""

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

#: Responses to a submit that is not accepted.
BEFORE: Mapping[str | None, Answer] = MappingProxyType(
    {
        "reset_before": RESET,
        "http_504_before": GATEWAY_TIMEOUT,
        "http_502_html": BAD_GATEWAY,
        "html_200": PORTAL,
        "late_accept": LOST,
    }
)
#: Responses to a query that is not executed.
QUERY_ANSWERS: Mapping[str | None, Answer] = MappingProxyType(
    {"poll_500": SERVER_ERROR, "poll_html": PORTAL, "poll_reset": RESET}
)
#: Responses to a download instead of the file.
DOWNLOAD_ANSWERS: Mapping[str | None, Answer] = MappingProxyType(
    {
        "html_download": as_page(200, "This file is not available right now"),
        "expired_link": as_page(403, "403 Forbidden: request has expired"),
        "http_429_download": as_page(429, "429 Too Many Requests"),
        "empty_download": Answer(content_type="application/octet-stream"),
    }
)


def spoiled_submit(response: Answer, fault: str | None, slow_s: float) -> Answer:
    """Return the response to an accepted submit with this fault. `slow_s` is the delay of `slow_reply` in seconds."""
    match fault:
        case "lost_reply":
            return LOST
        case "reset_after":
            return RESET
        case "http_500_after":
            return SERVER_ERROR
        case "cut_reply":
            return response.with_(ending=Ending.CUT)
        case "slow_reply":
            return response.with_(delay_s=slow_s)
        case _:
            return response


def spoiled_download(response: Answer, fault: str | None, slow_s: float) -> Answer:
    """Return the response to a download with this fault. `slow_s` is the duration of `slow_download` in seconds."""
    match fault:
        case "cut_download":
            return response.with_(ending=Ending.CUT)
        case "reset_download":
            return response.with_(ending=Ending.CUT_RESET)
        case "slow_download":
            return response.with_(spread_s=slow_s)
        case _:
            return response
