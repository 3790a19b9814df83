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
    ResponseEnding,
    SandboxResponse,
    html_response,
)

#: Responses to a submit that is not accepted.
SUBMIT_RESPONSES: Mapping[str | None, SandboxResponse] = MappingProxyType(
    {
        "reset_before": RESET,
        "http_504_before": GATEWAY_TIMEOUT,
        "http_502_html": BAD_GATEWAY,
        "html_200": PORTAL,
        "late_accept": LOST,
    }
)
#: Responses to a query that is not executed.
QUERY_RESPONSES: Mapping[str | None, SandboxResponse] = MappingProxyType(
    {"poll_500": SERVER_ERROR, "poll_html": PORTAL, "poll_reset": RESET}
)
#: Responses to a download instead of the file.
DOWNLOAD_RESPONSES: Mapping[str | None, SandboxResponse] = MappingProxyType(
    {
        "html_download": html_response(200, "This file is not available right now"),
        "expired_link": html_response(403, "403 Forbidden: request has expired"),
        "http_429_download": html_response(429, "429 Too Many Requests"),
        "empty_download": SandboxResponse(content_type="application/octet-stream"),
    }
)


def faulty_submit_response(response: SandboxResponse, fault: str | None, slow_s: float) -> SandboxResponse:
    """Return the response to an accepted submit with this fault. `slow_s` is the delay of `slow_reply` in seconds."""
    match fault:
        case "lost_reply":
            return LOST
        case "reset_after":
            return RESET
        case "http_500_after":
            return SERVER_ERROR
        case "cut_reply":
            return response.with_(ending=ResponseEnding.CUT)
        case "slow_reply":
            return response.with_(delay_s=slow_s)
        case _:
            return response


def faulty_download_response(response: SandboxResponse, fault: str | None, slow_s: float) -> SandboxResponse:
    """Return the response to a download with this fault. `slow_s` is the duration of `slow_download` in seconds."""
    match fault:
        case "cut_download":
            return response.with_(ending=ResponseEnding.CUT)
        case "reset_download":
            return response.with_(ending=ResponseEnding.CUT_RESET)
        case "slow_download":
            return response.with_(spread_s=slow_s)
        case _:
            return response
