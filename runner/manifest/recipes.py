"""Which model makes a task: what the matrix says, else the manifest, else the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import UsageError
from runner.manifest.recipe import Recipe
from runner.manifest.teach import described, plain

if TYPE_CHECKING:
    from runner.manifest.blame import Blame
    from runner.manifest.combine import Spot
    from runner.manifest.model import Manifest
    from runner.manifest.recipe import Catalogue, Param
    from runner.manifest.uses import Uses


class Recipes:
    """One recipe for each model of the job, made when it is first met."""

    def __init__(self, manifest: Manifest, catalogue: Catalogue, params: list[Param], blame: Blame, uses: Uses) -> None:
        self._manifest = manifest
        self._catalogue = catalogue
        self._params = params
        self._blame = blame
        self._uses = uses
        self._found: dict[tuple[Any, Any], Recipe | None] = {}

    @property
    def whole(self) -> bool:
        """Whether every model was found."""
        return None not in self._found.values()

    def of(self, spot: Spot) -> Recipe | None:
        """How the tasks here are made; None where their model is unknown, which is told."""
        chosen = self._choice("provider", spot), self._choice("model", spot)
        if not all(isinstance(name, str) for name in chosen):
            self._found["", ""] = None
            return self._find(*chosen, spot)
        if chosen not in self._found:
            self._found[chosen] = self._find(*chosen, spot)
        return self._found[chosen]

    def _choice(self, name: str, spot: Spot) -> Any:
        if name in spot.given:
            return spot.given[name]
        return getattr(self._manifest, name) or spot.row.values.get(name)

    def _find(self, provider: Any, model: Any, spot: Spot) -> Recipe | None:
        if not (self._is_name("provider", provider, spot) and self._is_name("model", model, spot)):
            return None
        try:
            shape = self._catalogue.find(provider, model, unchecked=self._manifest.unchecked)
        except UsageError as error:
            self._blame.choice("model" if model in error.message else "provider", spot, error.message, error.hint)
            return None
        recipe = Recipe(provider, shape, self._params, self._manifest.matrix.axes)
        self._uses.meet(recipe)
        return recipe

    def _is_name(self, name: str, value: Any, spot: Spot) -> bool:
        if isinstance(value, str) and value:
            return True
        if value or self._is_told(name, spot):
            message = f"expected the name of a {name}, found {described(value)}"
            slip = next((column for column in spot.row.values if column != name and plain(column) == name), "")
            hint = f"call the column `{slip}` `{name}`" if slip else f"`runner {name}s` lists what there is"
            self._blame.choice(name, spot, message, hint)
        return False

    def _is_told(self, name: str, spot: Spot) -> bool:
        """Whether it is here that a name is missing; where no task could have one, the parser has said so."""
        given = self._manifest.items
        from_file = given is not None and given.file is not None
        return from_file or name in spot.row.values or self._manifest.matrix.gives(name)
