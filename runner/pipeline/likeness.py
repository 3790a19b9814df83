"""Whether a row of the list is a task of ours, where the provider keeps no reference: by what it shows of its request.

A row that differs only in what is not known to be shown faithfully is "perhaps": it is not adopted, and it forbids to
believe that the task is absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from runner.providers.reading import echoed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.providers.reading import Row
    from runner.providers.spec import Spec

Likeness = Literal["ours", "perhaps", "no"]


def likeness(spec: Spec, body: Mapping[str, Any], row: Row, trusted: Mapping[str, bool], *, rivals: bool) -> Likeness:
    """How the row stands to the request; `rivals`: the job holds another request that the list shows alike."""
    same = echoed(spec, body, row.value)
    proof = spec.look_up.listing.proof if spec.look_up.listing else ()
    differs = {field for field, equal in same.items() if not equal and trusted.get(field, True)}
    if not same or any(field in proof or field in trusted for field in differs):
        return "no"
    hidden = any(not trusted.get(field, field in same) for field in body)
    # what proves a task and is known to come back changed tells nobody apart: that row may be anyone's
    unsure = any(not same.get(field, True) for field in proof)
    return "perhaps" if differs or unsure or (hidden and rivals) else "ours"
