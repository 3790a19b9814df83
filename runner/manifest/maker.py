"""Makes drafts: one combination and one repeat at a time, into a draft or into problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.lifecycle.task import Draft
from runner.manifest import identity
from runner.manifest.templates import TemplateError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from runner.manifest.blame import Blame
    from runner.manifest.bounds import Bounds
    from runner.manifest.combine import Spot
    from runner.manifest.naming import Namer
    from runner.manifest.recipe import Recipe
    from runner.manifest.recipes import Recipes
    from runner.manifest.twins import Twins
    from runner.manifest.uses import Uses


class Maker:
    """`made` counts drafts; mistakes in `muted` parameters are told already."""

    def __init__(
        self, recipes: Recipes, namer: Namer, uses: Uses, twins: Twins, bounds: Bounds, blame: Blame,
        *, muted: Collection[str], repeat: int,
    ) -> None:  # fmt: skip
        self.made = 0
        self._recipes, self._namer, self._uses = recipes, namer, uses
        self._twins, self._bounds, self._blame = twins, bounds, blame
        self._muted = muted
        self._repeats = range(1, repeat + 1)

    def drafts(self, spot: Spot) -> Iterator[Draft]:
        """What comes of one combination; ends early when there are too many."""
        known = {**spot.row.values, **spot.given}
        recipe = self._recipes.of(spot)
        if recipe and (recipe.unheeded or spot.changed):
            self._uses.watch(recipe, spot, known)
        for repeat in self._repeats:
            draft = self._draft(recipe, spot, known, repeat) if recipe else None
            if draft is not None:
                yield draft
            elif self._bounds.over or self._bounds.idle():
                return

    def _draft(self, recipe: Recipe, spot: Spot, known: dict[str, Any], repeat: int) -> Draft | None:
        index = self.made + 1
        variables = {**known, "index": index, "repeat": repeat}
        if None in known.values():
            variables = {name: value for name, value in variables.items() if value is not None}
        try:
            params = recipe.params(spot.row.values, spot.given, variables)
        except TemplateError as error:
            self._blame.template(error, spot)
            return None
        request, key = self._requested(recipe, spot, params, repeat)
        if not key or not self._is_new(key, spot, index):
            return None
        self.made = index
        name = self._name(recipe, spot, key, variables, params)
        shape = recipe.shape
        return Draft(key, index, repeat, known, recipe.provider, shape.operation, shape.code, request, name,
                     self._bounds.watch(shape.slots(request)))  # fmt: skip

    def _requested(
        self, recipe: Recipe, spot: Spot, params: Mapping[str, Any], repeat: int
    ) -> tuple[dict[str, Any], str]:
        """The request and the key of a task; no key where it cannot be sent, which is told."""
        shape = recipe.shape
        request, mistakes = shape.request(params)
        for mistake in mistakes:
            if mistake.name not in self._muted:
                self._blame.mistake(mistake, spot, shape)
        try:
            return request, identity.key(recipe.provider, shape.operation, shape.code, request, repeat)
        except TypeError as error:
            self._blame.at(("params",), f"cannot be sent as JSON: {error}", "write long numbers in quotes")
            return request, ""

    def _is_new(self, key: str, spot: Spot, index: int) -> bool:
        """Whether there was no such task yet, and there are not too many others."""
        digest = bytes.fromhex(key)
        if self._twins.merge(digest, spot) or self._bounds.full(self.made):
            return False
        self._twins.keep(digest, spot, index)
        return True

    def _name(
        self, recipe: Recipe, spot: Spot, key: str, variables: Mapping[str, Any], params: Mapping[str, Any]
    ) -> str:
        try:
            name = self._namer.name(self.made, key, recipe, variables, params)
        except TemplateError as error:
            error.path = ("output", "name")
            self._blame.template(error, spot)
            return ""
        here = (self.made, spot.row.line)
        if twin := self._namer.twin(name, *here):
            both = f"{self._blame.where(twin)} and {self._blame.where(here)}"
            self._blame.at(("output", "name"), f"{both} are both called `{name}`", "begin it with `{{ index }}-`")
        return name
