"""What rows and the matrix say, and whether any task hears it.

A value that one model of the job knows and another does not is a mistake where it would be lost, unless `set` gives it.
What nothing uses is a warning; where only its spelling keeps it from being a parameter, a mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.manifest.recipe import CHOICES
from runner.manifest.teach import plain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from runner.manifest.blame import Blame
    from runner.manifest.combine import Spot
    from runner.manifest.formats import Row
    from runner.manifest.model import Manifest
    from runner.manifest.recipe import Recipe

#: names of unused columns that are shown
_SHOWN = 20
_LOST = "take it out, or give it with `matrix.set` to the models that have it"


class Uses:
    """Meets every recipe once, watches tasks, tells at the end; `named` are the names that texts and conditions use."""

    def __init__(self, manifest: Manifest, blame: Blame, named: Iterable[str], columns: Collection[str]) -> None:
        matrix = manifest.matrix
        self._blame, self._columns, self._axes = blame, columns, matrix.axes
        self._chosen = {name for name in CHOICES if getattr(manifest, name)}
        self._params = manifest.params.keys()
        self._named = {*named, *(set(CHOICES) - self._chosen)}
        self._added = {name for row in matrix.add for name in row} - self._axes.keys()
        heard = {*self._named, *CHOICES, *self._params}
        self._watched = {*columns, *self._axes, *self._added} - heard
        self._then = [change.then for change in matrix.set]
        self._new = [set(then) - self._watched - heard for then in self._then]
        self._recipes: list[Recipe] = []
        self._unheard: list[tuple[Recipe, str, Spot]] = []
        self._vain: dict[tuple[int, str], Recipe] = {}

    def meet(self, recipe: Recipe) -> None:
        """A model of this job."""
        self._recipes.append(recipe)
        recipe.unheeded = {name for name in self._watched if not recipe.sets[name]}

    def watch(self, recipe: Recipe, spot: Spot, known: Mapping[str, Any]) -> None:
        """A task of a model that does not heed everything, or that `set` has changed."""
        for name in [name for name in recipe.unheeded if known.get(name) not in (None, "")]:
            if not any(name in self._then[number] for number in spot.changed):
                recipe.unheeded.discard(name)
                self._unheard.append((recipe, name, spot))
        for number in spot.changed:
            for name in list(self._new[number]):
                if recipe.sets[name]:
                    self._new[number].discard(name)
                else:
                    self._vain[number, name] = recipe

    def tell(self, first: Row, *, whole: bool) -> None:
        """What is lost and what may be a slip; `first` is the first row, `whole` says that every model was found."""
        for recipe, name, spot in self._unheard:
            self._tell_lost(recipe, name, spot, whole=whole)
        for (number, name), recipe in self._vain.items():
            if name in self._new[number]:
                message = f"changes nothing: no text uses `{name}`, and {_called(recipe)} has no such parameter"
                self._blame.at(("matrix", "set", number, "then", name), message, _near(recipe, name), key=True)
        if whole and self._recipes:
            self._tell_axes()
            self._tell_columns(first)

    def _tell_lost(self, recipe: Recipe, name: str, spot: Spot, *, whole: bool) -> None:
        knows = next((other for other in self._recipes if other.sets[name]), None)
        if knows:
            message = f"is no parameter of {_called(recipe)}, but of {_called(knows)}"
            tell = self._blame.given if name in spot.given else self._blame.cell
            tell(name, spot, message, _LOST)
        elif whole and name in self._added and name in spot.given:
            message = f"no text uses `{name}`, and {_called(recipe)} has no such parameter"
            self._blame.given(name, spot, message, _near(recipe, name))

    def _tell_axes(self) -> None:
        for name, axis in self._axes.items():
            if name in self._watched and not any(recipe.sets[name] for recipe in self._recipes):
                meant = self._meant(name)
                message = f"no text uses this axis, and {self._models()} has no such parameter"
                hint = f"call it `{meant}`" if meant else _near(self._recipes[0], name)
                self._blame.at(axis.path, message, hint, key=True, warn=not meant)

    def _tell_columns(self, first: Row) -> None:
        unused = [name for name in self._columns if not self._is_heard(name)]
        slips = {name: meant for name in unused if (meant := self._meant(name))}
        for name, meant in slips.items():
            message = f"no text uses the column `{name}`, and the parameter is called `{meant}`"
            self._blame.columns(
                first, message, f"call it `{meant}`, or something else if it is not meant for the model"
            )
        if idle := [name for name in unused if name not in slips]:
            self._blame.columns(first, f"nothing uses {self._listed(idle)}", self._advice(idle), warn=True)

    def _is_heard(self, name: str) -> bool:
        return name in self._named or name in self._axes or any(recipe.fills[name] for recipe in self._recipes)

    def _meant(self, name: str) -> str:
        """The parameter that a name would be, were it written like one."""
        meant = plain(name)
        free = meant not in {name, *self._columns, *self._axes, *self._params, *self._chosen}
        return meant if free and any(recipe.sets[meant] for recipe in self._recipes) else ""

    def _listed(self, names: list[str]) -> str:
        reasons = dict.fromkeys(self._chosen, " (the manifest names it)")
        reasons |= dict.fromkeys(self._params, " (`params` sets it)")
        shown = ", ".join(f"`{name}`{reasons.get(name, '')}" for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"the column{'s' if len(names) > 1 else ''} {shown}{more}"

    def _advice(self, names: list[str]) -> str:
        near = [_near(recipe, name) for name in names[:_SHOWN] for recipe in self._recipes[:1]]
        meant = [hint for hint in near if hint.startswith("did you mean")]
        return " ".join([*meant[:1], "what is here stands in results.jsonl only"])

    def _models(self) -> str:
        return _called(self._recipes[0]) if len(self._recipes) == 1 else "no model"


def _called(recipe: Recipe) -> str:
    return f"{recipe.provider} {recipe.shape.operation}/{recipe.shape.code}"


def _near(recipe: Recipe, name: str) -> str:
    """What the model says of a parameter that it does not have."""
    _, mistakes = recipe.shape.request({name: "x"})
    return next((mistake.hint for mistake in mistakes if mistake.name == name and mistake.hint), "correct the name")
