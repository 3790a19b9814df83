"""Turn each combination and each number of `repeat` into a draft or into diagnostics."""

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
    """Builder of drafts, counted in `draft_count`. Errors in `broken` parameters have been reported already."""

    def __init__(
        self, templates: Recipes, namer: Namer, unused: Uses, duplicates: Twins, limit: Bounds, provenance: Blame,
        *, muted: Collection[str], repeat: int,
    ) -> None:  # fmt: skip
        self.made = 0
        self._recipes, self._namer, self._uses = templates, namer, unused
        self._twins, self._bounds, self._blame = duplicates, limit, provenance
        self._muted = muted
        self._repeats = range(1, repeat + 1)

    def drafts(self, combination: Spot) -> Iterator[Draft]:
        """Yield the drafts of one combination. Stop early when there are too many tasks."""
        known = {**combination.row.values, **combination.given}
        template = self._recipes.of(combination)
        if template and (template.unheeded or combination.changed):
            self._uses.watch(template, combination, known)
        for repeat in self._repeats:
            draft = self._draft(template, combination, known, repeat) if template else None
            if draft is not None:
                yield draft
            elif self._bounds.over or self._bounds.idle():
                return

    def _draft(self, template: Recipe, combination: Spot, known: dict[str, Any], repeat: int) -> Draft | None:
        index = self.made + 1
        variables = {**known, "index": index, "repeat": repeat}
        if None in known.values():
            variables = {name: value for name, value in variables.items() if value is not None}
        try:
            params = template.params(combination.row.values, combination.given, variables)
        except TemplateError as error:
            self._blame.template(error, combination)
            return None
        request, key = self._requested(template, combination, params, repeat)
        digest = bytes.fromhex(key)
        if not key or self._twins.merge(digest, combination) or self._bounds.full(self.made):
            return None
        self._twins.keep(digest, combination, index)
        self.made = index
        name = self._name(template, combination, key, variables, params)
        model = template.shape
        return Draft(key, index, repeat, known, template.provider, model.operation, model.code, request, name,
                     self._bounds.watch(model.slots(request)))  # fmt: skip

    def _requested(
        self, template: Recipe, combination: Spot, params: Mapping[str, Any], repeat: int
    ) -> tuple[dict[str, Any], str]:
        """Return the request and the key of a task.

        Report content that cannot be sent as JSON, and return an empty key for it.
        """
        model = template.shape
        request, diagnostics = model.request(params)
        for diagnostic in diagnostics:
            if diagnostic.name not in self._muted:
                self._blame.mistake(diagnostic, combination, model)
        try:
            return request, identity.key(template.provider, model.operation, model.code, request, repeat)
        except TypeError as error:
            self._blame.at(("params",), f"cannot be sent as JSON: {error}", "write long numbers in quotes")
            return request, ""

    def _name(
        self, template: Recipe, combination: Spot, key: str, variables: Mapping[str, Any], params: Mapping[str, Any]
    ) -> str:
        try:
            name = self._namer.name(self.made, key, template, variables, params)
        except TemplateError as error:
            error.path = ("output", "name")
            self._blame.template(error, combination)
            return ""
        here = (self.made, combination.row.line)
        if earlier := self._namer.twin(name, *here):
            both = f"{self._blame.where(earlier)} and {self._blame.where(here)}"
            self._blame.at(("output", "name"), f"{both} are both called `{name}`", "begin it with `{{ index }}-`")
        return name
