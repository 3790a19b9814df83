"""Compare a row of the provider's list with a request, where the provider keeps no reference of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from runner.providers.expressions import compile_expression
from runner.providers.guarantee import hidden_fields
from runner.providers.responses import compare_echo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.providers.responses import ListedTask
    from runner.providers.spec import Spec

Match = Literal["match", "possible", "none"]


def match(
    spec: Spec, body: Mapping[str, Any], row: ListedTask, trusted: Mapping[str, bool], *, ambiguous: bool
) -> Match:
    """Compare a row of the list with a request, where the provider keeps no reference of ours.

    `trusted` are fields that the list is known to give back unchanged (False: changed). `ambiguous`: the job holds
    another request that the list shows alike. A row that differs only in fields that are not known to come back
    unchanged is a possible match: it is not adopted, and the task's absence is not believed.
    """
    same = compare_echo(spec, body, row.raw)
    echo, proof = (listing.echo, listing.proof) if (listing := spec.reconcile.listing) else ({}, ())
    differs = {field for field, equal in same.items() if not equal and trusted.get(field, True)}
    hidden_proof = {
        field for field in proof if field in differs and not compile_expression(echo[field]).search(row.raw)
    }
    if not same or any(field in proof or field in trusted for field in differs - hidden_proof):
        return "none"
    hidden = hidden_fields(spec, body, trusted)
    # a proof that is known to come back changed, or is not shown, distinguishes no rows: that row may be of any request
    unsure = any(not same.get(field, True) or not trusted.get(field, True) for field in proof)
    return "possible" if differs or unsure or (hidden and ambiguous) else "match"
