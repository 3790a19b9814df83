"""Route each request to its provider, accept the orders that result, and inject faults around the acceptance."""

import asyncio
from collections import Counter
from dataclasses import asdict
from typing import Any, Protocol

from runner.sandbox import chanjing
from runner.sandbox.charged_refusals import refusal
from runner.sandbox.failures import SUBMIT_RESPONSES, faulty_submit_response
from runner.sandbox.faults import CHARGED, SUBMIT
from runner.sandbox.file_host import FileHost
from runner.sandbox.gateway import KlingGatewayApi
from runner.sandbox.kling import KlingApi
from runner.sandbox.ledger import Order
from runner.sandbox.messages import OUTAGE, SandboxRequest, SandboxResponse, json_response, text_response
from runner.sandbox.state import SandboxState
from runner.sandbox.strangers import accept_strangers
from runner.sandbox.upload_host import PREFIX as UPLOADS
from runner.sandbox.upload_host import UploadHost

CONTROL_PREFIX = "/_sandbox/"
#: Paths of POST requests that buy nothing.
FREE_POSTS = frozenset({chanjing.TOKEN_PATH, chanjing.PAGE_PATH})
COUNTER_NAMES = (
    "tokens_issued",
    "downloads_served",
    "downloads_with_credentials",
    "uploads",
    "uploads_with_credentials",
    "connections",
    "connections_refused",
)


class ProviderApi(Protocol):
    """The API of one provider."""

    def handle(self, request: SandboxRequest) -> SandboxResponse | Order:
        """Answer a request, or return the order that a valid submit makes."""


class App:
    """All endpoints of a sandbox: providers, file host, upload host and control."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._files = FileHost(state)
        self._uploads = UploadHost(state)
        self._pending_accepts: set[asyncio.TimerHandle] = set()
        kling = KlingApi(state)
        self._providers: dict[str, ProviderApi] = {
            "/open/": chanjing.ChanjingApi(state, self._uploads),
            "/v1/": kling,
            "/tasks": kling,
            "/kling/": KlingGatewayApi(state),
        }

    async def __call__(self, request: SandboxRequest) -> SandboxResponse:
        """Answer a request."""
        if request.path.startswith("/files/"):
            return await self._files.handle(request)
        if request.path.startswith(UPLOADS):
            return self._uploads.receive(request)
        if request.path.startswith(CONTROL_PREFIX):
            return self._control(request)
        for prefix, provider in self._providers.items():
            if request.path.startswith(prefix):
                return await self._call_provider(provider, request)
        return text_response("404 page not found", 404)

    def close(self) -> None:
        """Cancel the acceptances that are still to come, and stop drawing files."""
        for handle in self._pending_accepts:
            handle.cancel()
        self._files.close()

    async def _call_provider(self, provider: ProviderApi, request: SandboxRequest) -> SandboxResponse:
        options = self._state.options
        if options.outage:
            self._state.counters.record_arrival("outage", self._state.clock())
            return OUTAGE
        if options.accept_delay_s and request.method == "POST" and request.path not in FREE_POSTS:
            await asyncio.sleep(options.accept_delay_s)
        outcome = provider.handle(request)
        return self._accept_order(outcome) if isinstance(outcome, Order) else outcome

    def _accept_order(self, order: Order) -> SandboxResponse:
        accept_strangers(self._state, order)
        fault = self._state.fault_injector.next_fault(SUBMIT)
        if fault == "late_accept":
            self._accept_later(order)
        if fault in SUBMIT_RESPONSES:
            return SUBMIT_RESPONSES[fault]
        if self._state.lies("throttle"):
            return refusal(order.provider, "throttle")
        response: SandboxResponse = order.to_response(self._state.accept(order))
        if (charged := self._state.fault_injector.next_fault(CHARGED)) is not None:
            return refusal(order.provider, charged)
        return faulty_submit_response(response, fault, self._state.options.slow_s)

    def _accept_later(self, order: Order) -> None:
        def accept() -> None:
            self._pending_accepts.discard(handle)
            if not self._state.is_external_id_taken(order.provider, order.account, order.external_id):
                self._state.accept(order)

        handle = asyncio.get_running_loop().call_later(self._state.options.late_s, accept)
        self._pending_accepts.add(handle)

    def _control(self, request: SandboxRequest) -> SandboxResponse:
        match request.method, request.path.removeprefix(CONTROL_PREFIX):
            case "GET", "ledger":
                after = request.query.get("after", "0")
                tasks = self._state.ledger.accepted[int(after) if after.isdecimal() else 0 :]
                return json_response({"accepted": [asdict(task) for task in tasks], "stats": self.stats()})
            case "GET", "stats":
                return json_response(self.stats())
            case "GET", "options":
                return json_response(self._state.options.to_dict())
            case "POST", "options":
                return self._change_options(request)
            case _:
                return text_response("404: there are ledger, stats and options", 404)

    def _change_options(self, request: SandboxRequest) -> SandboxResponse:
        try:
            self._state.change(request.json_object() or {})
        except (ValueError, TypeError, AttributeError) as error:
            return text_response(f"{error}\n", 400)
        return json_response(self._state.options.to_dict())

    def stats(self) -> dict[str, Any]:
        """Return all counters as a JSON object, as `GET /_sandbox/stats` shows them."""
        state, counters = self._state, self._state.counters
        return {
            "accepted": len(state.ledger.accepted),
            "accepted_by_provider": dict(Counter(task.provider for task in state.ledger.accepted)),
            "charges": state.ledger.charges(),
            "duplicates": state.ledger.duplicates(),
            "foreign": sum(task.foreign for task in state.ledger.accepted),
            "requests": dict(counters.requests),
            "refused": dict(counters.refused),
            "violations": dict(counters.violations),
            "peaks": counters.peaks(state.options.window_s),
            "window_s": state.options.window_s,
            "faults": dict(state.fault_injector.injected),
            "late": len(self._pending_accepts),
            **{name: counters.counts[name] for name in COUNTER_NAMES},
        }
