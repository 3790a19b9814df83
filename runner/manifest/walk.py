"""One walk through a manifest: every combination of row, axes and repeat, made into a draft or into problems."""

from __future__ import annotations

from itertools import chain, product
from math import prod
from typing import TYPE_CHECKING, Any

from runner.errors import UsageError
from runner.lifecycle.task import Draft
from runner.manifest import identity, items
from runner.manifest.blame import Blame, Spot
from runner.manifest.formats import Row
from runner.manifest.ingredients import Ingredients
from runner.manifest.recipe import Recipe
from runner.manifest.teach import described
from runner.manifest.templates import TemplateError
from runner.manifest.values import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.manifest.parse import Parsed
    from runner.manifest.recipe import Catalogue
    from runner.manifest.report import Report

#: combinations without a new task that are looked at, for each task that `max_tasks` allows
_PATIENCE = 10


class Walk:
    """Problems go to `report`, and the walk goes on; `made` and `merged` count tasks."""

    def __init__(self, parsed: Parsed, catalogue: Catalogue, report: Report) -> None:
        self.made = self.merged = 0
        self._manifest = parsed.manifest
        self._catalogue = catalogue
        self._ingredients = Ingredients(parsed, report)
        self._report = report
        self._blame = Blame(parsed, report, self._ingredients.params)
        self._namer = self._ingredients.namer()
        self._axes = tuple(parsed.manifest.matrix)
        self._recipes: dict[tuple[Any, Any], Recipe | None] = {}
        self._seen: set[bytes] = set()
        self._idle = 0
        self._over = False

    def drafts(self) -> Iterator[Draft]:
        rows = self._rows()
        first = next(rows, None)
        if first is None:
            return
        self._ingredients.check(self._columns(first))
        self._namer = self._ingredients.namer()
        for row in chain([first], rows):
            yield from self._of_row(row)
            if self._over:
                return

    def _rows(self) -> Iterator[Row]:
        given, file = self._manifest.items, self._manifest.file
        if given is None:
            return iter([Row({}, file, 1, 1)])
        if given.file is not None:
            return items.rows(given.file, self._blame.label(given.file), self._report)
        return (Row(values, file, *unpack(getattr(values, "at", 0))) for values in given.rows)

    def _columns(self, first: Row) -> set[str]:
        given = self._manifest.items
        if given is not None and given.file is None:
            return set[str]().union(*given.rows)
        return set(first.values)

    def _of_row(self, row: Row) -> Iterator[Draft]:
        axes = self._manifest.matrix.values()
        positions = product(*[range(len(axis)) for axis in axes])
        for values, at in zip(product(*axes), positions, strict=True):
            spot = Spot(row, values, at)
            known = {**row.values, **dict(zip(self._axes, values, strict=True))}
            recipe = self._recipe(spot)
            for repeat in range(1, self._manifest.repeat + 1):
                draft = self._draft(recipe, spot, known, repeat) if recipe else None
                if draft is not None:
                    yield draft
                elif self._is_over():
                    return

    def _draft(self, recipe: Recipe, spot: Spot, known: dict[str, Any], repeat: int) -> Draft | None:
        index = self.made + 1
        variables = {**known, "index": index, "repeat": repeat}
        if None in known.values():
            variables = {name: value for name, value in variables.items() if value is not None}
        try:
            params = recipe.params(spot.row.values, spot.values, variables)
        except TemplateError as error:
            self._blame.template(error, spot)
            return None
        request, key = self._requested(recipe, spot, params, repeat)
        if not key or self._is_twin(key):
            return None
        self.made = index
        name = self._name(spot, key, variables, params)
        shape = recipe.shape
        return Draft(key, index, repeat, known, recipe.provider, shape.operation, shape.code, request, name,
                     shape.slots(request))  # fmt: skip

    def _requested(
        self, recipe: Recipe, spot: Spot, params: Mapping[str, Any], repeat: int
    ) -> tuple[dict[str, Any], str]:
        """The request and the key of a task; no key where it cannot be sent, which is told."""
        shape = recipe.shape
        request, mistakes = shape.request(params)
        for mistake in mistakes:
            if mistake.name not in self._ingredients.muted:
                self._blame.mistake(mistake, spot)
        try:
            return request, identity.key(recipe.provider, shape.operation, shape.code, request, repeat)
        except TypeError as error:
            self._blame.whole(("params",), f"cannot be sent as JSON: {error}", "write long numbers in quotes")
            return request, ""

    def _is_twin(self, key: str) -> bool:
        """Whether there was such a task already, or too many others."""
        digest = bytes.fromhex(key)
        if digest in self._seen:
            self.merged += 1
            return True
        if self.made >= self._manifest.limits.max_tasks:
            self._too_many()
            return True
        self._seen.add(digest)
        return False

    def _name(self, spot: Spot, key: str, variables: Mapping[str, Any], params: Mapping[str, Any]) -> str:
        try:
            name = self._namer.name(self.made, key, variables, params)
        except TemplateError as error:
            error.path = ("output", "name")
            self._blame.template(error, spot)
            return ""
        here = (self.made, spot.row.line)
        if twin := self._namer.twin(name, *here):
            both = f"{self._blame.where(twin)} and {self._blame.where(here)}"
            self._blame.whole(("output", "name"), f"{both} are both called `{name}`", "begin it with `{{ index }}-`")
        return name

    def _recipe(self, spot: Spot) -> Recipe | None:
        """How the tasks here are made; None where their model is unknown, which is told."""
        chosen = self._choice("provider", spot), self._choice("model", spot)
        if not all(isinstance(name, str) for name in chosen):
            return self._found(*chosen, spot)
        if chosen not in self._recipes:
            self._recipes[chosen] = self._found(*chosen, spot)
        return self._recipes[chosen]

    def _choice(self, name: str, spot: Spot) -> Any:
        if name in self._axes:
            return spot.values[self._axes.index(name)]
        return getattr(self._manifest, name) or spot.row.values.get(name)

    def _found(self, provider: Any, model: Any, spot: Spot) -> Recipe | None:
        if not (self._is_name("provider", provider, spot) and self._is_name("model", model, spot)):
            return None
        try:
            shape = self._catalogue.find(provider, model, unchecked=self._manifest.unchecked)
        except UsageError as error:
            self._blame.choice("model" if model in error.message else "provider", spot, error.message, error.hint)
            return None
        return Recipe(provider, shape, self._ingredients.params, self._axes)

    def _is_name(self, name: str, value: Any, spot: Spot) -> bool:
        if isinstance(value, str) and value:
            return True
        given = self._manifest.items
        if value or name in self._axes or name in spot.row.values or (given is not None and given.file is not None):
            message = f"expected the name of a {name}, found {described(value)}"
            self._blame.choice(name, spot, message, f"`runner {name}s` lists what there is")
        return False

    def _is_over(self) -> bool:
        """Whether the walk ends here; many combinations that make few tasks are too many as well."""
        self._idle += 1
        if self._idle > self._manifest.limits.max_tasks * _PATIENCE and not self._over:
            self._too_many()
        return self._over

    def _too_many(self) -> None:
        self._over = True
        most, rows = self._manifest.limits.max_tasks, self._manifest.items
        sizes = {name: len(values) for name, values in self._manifest.matrix.items()}
        sizes["repeat"] = self._manifest.repeat
        if rows is not None and rows.file is None:
            sizes["items"] = len(rows.rows)
        told = " x ".join(f"{size:,} {name}" for name, size in sizes.items() if size > 1) or "a row each"
        message = f"at least {max(prod(sizes.values()), most + 1):,} tasks ({told}), and at most {most:,} are allowed"
        self._blame.whole(("limits", "max_tasks"), message, "take some away, or raise `limits.max_tasks`")
