"""Choose the model of a task: by the matrix, else by the manifest, else by the row."""

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
    """Request templates of the models of a job, each created at its first use."""

    def __init__(
        self, manifest: Manifest, catalogue: Catalogue, params: list[Param], provenance: Blame, unused: Uses
    ) -> None:
        self._manifest = manifest
        self._catalogue = catalogue
        self._params = params
        self._blame = provenance
        self._uses = unused
        self._found: dict[tuple[Any, Any], Recipe | None] = {}

    @property
    def whole(self) -> bool:
        """Return whether every model was found."""
        return None not in self._found.values()

    def of(self, combination: Spot) -> Recipe | None:
        """Return the request template of a combination. Report an unknown model and return None."""
        chosen = self._choice("provider", combination), self._choice("model", combination)
        if not all(isinstance(name, str) for name in chosen):
            self._found["", ""] = None
            return self._find(*chosen, combination)
        if chosen not in self._found:
            self._found[chosen] = self._find(*chosen, combination)
        return self._found[chosen]

    def _choice(self, name: str, combination: Spot) -> Any:
        if name in combination.given:
            return combination.given[name]
        return getattr(self._manifest, name) or combination.row.values.get(name)

    def _find(self, provider: Any, model: Any, combination: Spot) -> Recipe | None:
        if not (self._is_name("provider", provider, combination) and self._is_name("model", model, combination)):
            return None
        try:
            description = self._catalogue.find(provider, model, unchecked=self._manifest.unchecked)
        except UsageError as error:
            self._blame.choice(
                "model" if model in error.message else "provider", combination, error.message, error.hint
            )
            return None
        template = Recipe(provider, description, self._params, self._manifest.matrix.axes)
        self._uses.meet(template)
        return template

    def _is_name(self, name: str, value: Any, combination: Spot) -> bool:
        if isinstance(value, str) and value:
            return True
        if value or self._is_told(name, combination):
            message = f"expected the name of a {name}, found {described(value)}"
            similar = next(
                (column for column in combination.row.values if column != name and plain(column) == name), ""
            )
            hint = f"call the column `{similar}` `{name}`" if similar else f"`runner {name}s` lists what there is"
            self._blame.choice(name, combination, message, hint)
        return False

    def _is_told(self, name: str, combination: Spot) -> bool:
        """Return whether to report a missing name here. If no task can have one, the parser has reported it."""
        source = self._manifest.items
        from_file = source is not None and source.file is not None
        return from_file or name in combination.row.values or self._manifest.matrix.gives(name)
