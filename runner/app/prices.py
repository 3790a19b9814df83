"""Prices of tasks: the manifest's, else the catalogue's. A price that neither has is unknown, never 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import ManifestError, Problem

if TYPE_CHECKING:
    from runner.lifecycle.task import Draft
    from runner.manifest.expand import Each
    from runner.manifest.model import Manifest
    from runner.manifest.parse import Parsed
    from runner.providers.catalogue import Catalogue, Shape


class Prices:
    """Prices of one manifest's drafts, each in its provider's unit."""

    def __init__(self, manifest: Manifest, catalogue: Catalogue) -> None:
        self._cost, self._catalogue = manifest.cost, catalogue
        self._shapes: dict[tuple[str, str, str], Shape] = {}

    def of(self, draft: Draft) -> float | None:
        """Return the price of one task, or None if it is unknown."""
        if isinstance(self._cost, float):
            return self._cost
        for name in (f"{draft.operation}/{draft.model}", draft.model):
            if self._cost and name in self._cost:
                return self._cost[name]
        return self.shape(draft).cost(draft.request)

    def unit(self, draft: Draft) -> str:
        """Return the unit in which the draft's provider counts costs."""
        return self.shape(draft).spec.unit

    def shape(self, draft: Draft) -> Shape:
        """Return the catalogue's entry of the draft's model."""
        key = (draft.provider, draft.operation, draft.model)
        if key not in self._shapes:
            name = f"{draft.operation}/{draft.model}"
            self._shapes[key] = self._catalogue.find(draft.provider, name, unchecked=True)
        return self._shapes[key]


class Unpriced:
    """Check of a cap on costs: every price must be known, and all must be in one unit."""

    def __init__(self, catalogue: Catalogue, *, capped: bool) -> None:
        self._catalogue, self._capped = catalogue, capped
        self._prices: Prices | None = None
        self._models: dict[str, None] = {}
        self._units: dict[str, None] = {}

    def see(self, parsed: Parsed, draft: Draft) -> None:
        """Note the price and unit of one draft."""
        if not self._capped and parsed.manifest.limits.max_cost is None:
            return
        self._prices = self._prices or Prices(parsed.manifest, self._catalogue)
        self._units[self._prices.unit(draft)] = None
        if self._prices.of(draft) is None:
            self._models[draft.model] = None

    def raise_any(self, parsed: Parsed) -> None:
        """Raise ManifestError if a model has no price, or if prices are in several units."""
        if not self._models and len(self._units) < 2:  # noqa: PLR2004 - two currencies
            return
        written = parsed.manifest.limits.max_cost is not None
        key = "limits.max_cost" if written else "--max-cost"
        line, column = parsed.places.place("limits", "max_cost") if written else (0, 0)
        models, units = ", ".join(self._models), " and ".join(self._units)
        why, hint = (
            (f"nobody knows what {models} costs", "say it with `cost:`, e.g. `cost: 4`, in the provider's unit")
            if self._models
            else (f"costs in {units} do not add up to one cap", "make a manifest for each")
        )
        raise ManifestError([Problem(parsed.manifest.file, line, column, key, why, hint)])


def both(first: Each, second: Each | None) -> Each:
    """Return a callback that calls both, one after the other."""
    if second is None:
        return first

    def call_both(parsed: Parsed, draft: Draft) -> None:
        first(parsed, draft)
        second(parsed, draft)

    return call_both
