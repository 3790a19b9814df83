"""Route each request to its provider, accept the orders that result, and inject faults around the acceptance."""

import asyncio
from collections import Counter
from dataclasses import asdict
from typing import Any, Protocol

from runner.sandbox import chanjing
from runner.sandbox.faults import SUBMIT
from runner.sandbox.files import Files
from runner.sandbox.gateway import Gateway
from runner.sandbox.kling import Kling
from runner.sandbox.ledger import Order
from runner.sandbox.messages import OUTAGE, Answer, Request, as_json, as_text
from runner.sandbox.troubles import BEFORE, spoiled_submit
from runner.sandbox.uploads import PREFIX as UPLOADS
from runner.sandbox.uploads import Uploads
from runner.sandbox.world import World

CONTROL = "/_sandbox/"
#: Paths of POST requests that buy nothing.
FREE = frozenset({chanjing.TOKEN, chanjing.PAGE})
COUNTS = (
    "tokens_issued",
    "downloads_served",
    "downloads_with_credentials",
    "uploads",
    "uploads_with_credentials",
    "connections",
    "connections_refused",
)


class Provider(Protocol):
    """The API of one provider."""

    def answer(self, request: Request) -> Answer | Order:
        """Answer a request, or return the order that a valid submit makes."""


class App:
    """All endpoints of a sandbox: providers, file host, upload host and control."""

    def __init__(self, state: World) -> None:
        self._world = state
        self._files = Files(state)
        self._uploads = Uploads(state)
        self._late: set[asyncio.TimerHandle] = set()
        kling = Kling(state)
        self._providers: dict[str, Provider] = {
            "/open/": chanjing.Chanjing(state, self._uploads),
            "/v1/": kling,
            "/tasks": kling,
            "/kling/": Gateway(state),
        }

    async def __call__(self, request: Request) -> Answer:
        """Answer a request."""
        if request.path.startswith("/files/"):
            return await self._files.answer(request)
        if request.path.startswith(UPLOADS):
            return self._uploads.put(request)
        if request.path.startswith(CONTROL):
            return self._control(request)
        for prefix, provider in self._providers.items():
            if request.path.startswith(prefix):
                return await self._api(provider, request)
        return as_text("404 page not found", 404)

    def close(self) -> None:
        """Cancel the acceptances that are still to come, and stop drawing files."""
        for handle in self._late:
            handle.cancel()
        self._files.close()

    async def _api(self, provider: Provider, request: Request) -> Answer:
        options = self._world.options
        if options.outage:
            self._world.traffic.arrived("outage", self._world.clock())
            return OUTAGE
        if options.accept_delay_s and request.method == "POST" and request.path not in FREE:
            await asyncio.sleep(options.accept_delay_s)
        outcome = provider.answer(request)
        return self._submitted(outcome) if isinstance(outcome, Order) else outcome

    def _submitted(self, order: Order) -> Answer:
        fault = self._world.dice.roll(SUBMIT)
        if fault == "late_accept":
            self._accept_later(order)
        if fault in BEFORE:
            return BEFORE[fault]
        response: Answer = order.to_response(self._world.accept(order))
        return spoiled_submit(response, fault, self._world.options.slow_s)

    def _accept_later(self, order: Order) -> None:
        def accept() -> None:
            self._late.discard(handle)
            if not self._world.repeats(order.provider, order.account, order.external_id):
                self._world.accept(order)

        handle = asyncio.get_running_loop().call_later(self._world.options.late_s, accept)
        self._late.add(handle)

    def _control(self, request: Request) -> Answer:
        match request.method, request.path.removeprefix(CONTROL):
            case "GET", "ledger":
                after = request.query.get("after", "0")
                tasks = self._world.ledger.accepted[int(after) if after.isdecimal() else 0 :]
                return as_json({"accepted": [asdict(task) for task in tasks], "stats": self.stats()})
            case "GET", "stats":
                return as_json(self.stats())
            case "GET", "options":
                return as_json(self._world.options.to_json())
            case "POST", "options":
                return self._changed(request)
            case _:
                return as_text("404: there are ledger, stats and options", 404)

    def _changed(self, request: Request) -> Answer:
        try:
            self._world.change(request.fields() or {})
        except (ValueError, TypeError, AttributeError) as error:
            return as_text(f"{error}\n", 400)
        return as_json(self._world.options.to_json())

    def stats(self) -> dict[str, Any]:
        """Return all counters as a JSON object, as `GET /_sandbox/stats` shows them."""
        state, counters = self._world, self._world.traffic
        return {
            "accepted": len(state.ledger.accepted),
            "accepted_by_provider": dict(Counter(task.provider for task in state.ledger.accepted)),
            "charges": state.ledger.charges(),
            "duplicates": state.ledger.duplicates(),
            "requests": dict(counters.requests),
            "refused": dict(counters.refused),
            "violations": dict(counters.violations),
            "peaks": counters.peaks(state.options.window_s),
            "window_s": state.options.window_s,
            "faults": dict(state.dice.struck),
            "late": len(self._late),
            **{name: counters.counts[name] for name in COUNTS},
        }
