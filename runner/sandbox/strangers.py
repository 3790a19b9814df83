"""Tasks of somebody else on the same account: unrelated ones, and ones that lists show like a request of the client."""

from dataclasses import replace
from typing import Any

from runner.sandbox.faults import STRANGERS, fraction
from runner.sandbox.ledger import Order
from runner.sandbox.state import SandboxState

#: A reference image that no client of a test has sent.
IMAGE = "https://files.example/somebody-else.png"


def accept_strangers(state: SandboxState, order: Order) -> None:
    """Accept the tasks that somebody else submits just before this order, as the faults say."""
    for kind in STRANGERS:
        if state.lies(kind):
            state.accept(_strangers_order(state, order, kind))


def _strangers_order(state: SandboxState, order: Order, kind: str) -> Order:
    number = len(state.ledger.accepted)
    return replace(
        order,
        id=state.new_id(f"9{int(10**17 * fraction(state.options.seed, kind, number)):017d}"),
        external_id=None if order.external_id is None else f"somebody-else-{number}",
        request=_request(order.request, kind, number),
        pictures={},
        foreign=True,
    )


def _request(request: dict[str, Any], kind: str, number: int) -> dict[str, Any]:
    others = {name: value for name, value in request.items() if name != "external_task_id"}
    if kind == "foreign_task":
        prompt = "ref_prompt" if "ref_prompt" in others else "prompt"
        return {**others, prompt: f"somebody else's wish, number {number}"}
    if kind == "twin_hidden":
        field = "ref_img_url" if "creation_type" in others else "image"
        return {**others, field: [IMAGE] if field == "ref_img_url" else IMAGE}
    return others
