"""What a task costs: the manifest's word, else the catalogue's; what neither says is unknown, never 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.lifecycle.task import Draft
    from runner.manifest.model import Manifest
    from runner.providers.catalogue import Catalogue, Shape


class Prices:
    """Costs of one manifest's drafts, each in its provider's unit."""

    def __init__(self, manifest: Manifest, catalogue: Catalogue) -> None:
        self._cost, self._catalogue = manifest.cost, catalogue
        self._shapes: dict[tuple[str, str, str], Shape] = {}

    def of(self, draft: Draft) -> float | None:
        """The cost of one task; None: nobody knows."""
        if isinstance(self._cost, float):
            return self._cost
        for name in (f"{draft.operation}/{draft.model}", draft.model):
            if self._cost and name in self._cost:
                return self._cost[name]
        return self._shape(draft).cost(draft.request)

    def unit(self, draft: Draft) -> str:
        """What the draft's provider counts in."""
        return self._shape(draft).spec.unit

    def _shape(self, draft: Draft) -> Shape:
        place = (draft.provider, draft.operation, draft.model)
        if place not in self._shapes:
            name = f"{draft.operation}/{draft.model}"
            self._shapes[place] = self._catalogue.find(draft.provider, name, unchecked=True)
        return self._shapes[place]
