"""Prices of tasks: the manifest's, else the catalogue's. A price that neither has is unknown, never 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.errors import Diagnostic, ManifestError

if TYPE_CHECKING:
    from runner.lifecycle.task import Draft
    from runner.manifest.expand import DraftCallback
    from runner.manifest.model import Manifest
    from runner.manifest.parse import ParsedManifest
    from runner.providers.catalogue import Catalogue, ModelSchema


class Prices:
    """Prices of one manifest's drafts, each in its provider's unit."""

    def __init__(self, manifest: Manifest, catalogue: Catalogue) -> None:
        self._cost, self._catalogue = manifest.cost, catalogue
        self._shapes: dict[tuple[str, str, str], ModelSchema] = {}

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

    def shape(self, draft: Draft) -> ModelSchema:
        """Return the catalogue's entry of the draft's model."""
        key = (draft.provider, draft.operation, draft.model)
        if key not in self._shapes:
            name = f"{draft.operation}/{draft.model}"
            self._shapes[key] = self._catalogue.find(draft.provider, name, unchecked=True)
        return self._shapes[key]


class CostCapCheck:
    """Check of a cap on costs: every price must be known, and all must be in one unit."""

    def __init__(self, catalogue: Catalogue, *, has_cap: bool) -> None:
        self._catalogue, self._has_cap = catalogue, has_cap
        self._prices: Prices | None = None
        self._unpriced_models: dict[str, None] = {}
        self._units: dict[str, None] = {}

    def add(self, parsed: ParsedManifest, draft: Draft) -> None:
        """Note the price and unit of one draft."""
        if not self._has_cap and parsed.manifest.limits.max_cost is None:
            return
        self._prices = self._prices or Prices(parsed.manifest, self._catalogue)
        self._units[self._prices.unit(draft)] = None
        if self._prices.of(draft) is None:
            self._unpriced_models[draft.model] = None

    def raise_if_unpriced(self, parsed: ParsedManifest) -> None:
        """Raise ManifestError if a model has no price, or if prices are in several units."""
        if not self._unpriced_models and len(self._units) < 2:  # noqa: PLR2004 - two currencies
            return
        written = parsed.manifest.limits.max_cost is not None
        key = "limits.max_cost" if written else "--max-cost"
        line, column = parsed.source_map.location("limits", "max_cost") if written else (0, 0)
        models, units = ", ".join(self._unpriced_models), " and ".join(self._units)
        why, hint = (
            (f"nobody knows what {models} costs", "say it with `cost:`, e.g. `cost: 4`, in the provider's unit")
            if self._unpriced_models
            else (f"costs in {units} do not add up to one cap", "make a manifest for each")
        )
        raise ManifestError([Diagnostic(parsed.manifest.file, line, column, key, why, hint)])


def chain_callbacks(first: DraftCallback, second: DraftCallback | None) -> DraftCallback:
    """Return a callback that calls both, one after the other."""
    if second is None:
        return first

    def call_both(parsed: ParsedManifest, draft: Draft) -> None:
        first(parsed, draft)
        second(parsed, draft)

    return call_both
