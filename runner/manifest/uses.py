"""Report columns, axes and `set` values that no template or model parameter uses.

A value that one model of the job takes and another would ignore is an error, unless `set` gives it. A column or axis
that nothing uses is a warning, or an error if it differs from a parameter only in spelling.
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

#: largest number of unused columns that a message shows
_SHOWN = 20
_LOST = "take it out, or give it with `matrix.set` to the models that have it"


class Uses:
    """Columns, axes and added values without effect, collected from tasks and reported at the end.

    `used_names` are the names that templates and conditions use.
    """

    def __init__(
        self, manifest: Manifest, provenance: Blame, used_names: Iterable[str], columns: Collection[str]
    ) -> None:
        matrix = manifest.matrix
        self._blame, self._columns, self._axes = provenance, columns, matrix.axes
        self._chosen = {name for name in CHOICES if getattr(manifest, name)}
        self._params = manifest.params.keys()
        self._named = {*used_names, *(set(CHOICES) - self._chosen)}
        self._added = {name for row in matrix.add for name in row} - self._axes.keys()
        used = {*self._named, *CHOICES, *self._params}
        self._watched = {*columns, *self._axes, *self._added} - used
        self._then = [rule.then for rule in matrix.set]
        self._new = [set(then) - self._watched - used for then in self._then]
        self._recipes: list[Recipe] = []
        self._unheard: list[tuple[Recipe, str, Spot]] = []
        self._vain: dict[tuple[int, str], Recipe] = {}

    def meet(self, template: Recipe) -> None:
        """Add the request template of another model of the job."""
        self._recipes.append(template)
        template.unheeded = {name for name in self._watched if not template.sets[name]}

    def watch(self, template: Recipe, combination: Spot, known: Mapping[str, Any]) -> None:
        """Note the values of a task that its model ignores, and the `set` values without effect."""
        for name in [name for name in template.unheeded if known.get(name) not in (None, "")]:
            if not any(name in self._then[number] for number in combination.changed):
                template.unheeded.discard(name)
                self._unheard.append((template, name, combination))
        for number in combination.changed:
            for name in list(self._new[number]):
                if template.sets[name]:
                    self._new[number].discard(name)
                else:
                    self._vain[number, name] = template

    def tell(self, first: Row, *, whole: bool) -> None:
        """Report ignored and unused values. `first` is the first row. `complete` is true if every model was found."""
        for template, name, combination in self._unheard:
            self._tell_lost(template, name, combination, whole=whole)
        for (number, name), template in self._vain.items():
            if name in self._new[number]:
                message = f"changes nothing: no text uses `{name}`, and {_called(template)} has no such parameter"
                self._blame.at(("matrix", "set", number, "then", name), message, _near(template, name), key=True)
        if whole and self._recipes:
            self._tell_axes()
            self._tell_columns(first)

    def _tell_lost(self, template: Recipe, name: str, combination: Spot, *, whole: bool) -> None:
        other = next((each for each in self._recipes if each.sets[name]), None)
        if other:
            message = f"is no parameter of {_called(template)}, but of {_called(other)}"
            add = self._blame.given if name in combination.given else self._blame.cell
            add(name, combination, message, _LOST)
        elif whole and name in self._added and name in combination.given:
            message = f"no text uses `{name}`, and {_called(template)} has no such parameter"
            self._blame.given(name, combination, message, _near(template, name))

    def _tell_axes(self) -> None:
        for name, axis in self._axes.items():
            if name in self._watched and not any(template.sets[name] for template in self._recipes):
                intended = self._meant(name)
                models = _called(self._recipes[0]) if len(self._recipes) == 1 else "no model"
                message = f"no text uses this axis, and {models} has no such parameter"
                hint = f"call it `{intended}`" if intended else _near(self._recipes[0], name)
                self._blame.at(axis.path, message, hint, key=True, warn=not intended)

    def _tell_columns(self, first: Row) -> None:
        unused = [name for name in self._columns if not self._is_heard(name)]
        misspelled = {name: intended for name in unused if (intended := self._meant(name))}
        for name, intended in misspelled.items():
            message = f"no text uses the column `{name}`, and the parameter is called `{intended}`"
            self._blame.columns(
                first, message, f"call it `{intended}`, or something else if it is not meant for the model"
            )
        if others := [name for name in unused if name not in misspelled]:
            self._blame.columns(first, f"nothing uses {self._listed(others)}", self._advice(others), warn=True)

    def _is_heard(self, name: str) -> bool:
        return name in self._named or name in self._axes or any(template.fills[name] for template in self._recipes)

    def _meant(self, name: str) -> str:
        """Return the parameter that a name differs from only in spelling, else an empty text."""
        intended = plain(name)
        is_free = intended not in {name, *self._columns, *self._axes, *self._params, *self._chosen}
        return intended if is_free and any(template.sets[intended] for template in self._recipes) else ""

    def _listed(self, names: list[str]) -> str:
        reasons = dict.fromkeys(self._chosen, " (the manifest names it)")
        reasons |= dict.fromkeys(self._params, " (`params` sets it)")
        shown = ", ".join(f"`{name}`{reasons.get(name, '')}" for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"the column{'s' if len(names) > 1 else ''} {shown}{more}"

    def _advice(self, names: list[str]) -> str:
        hints = [_near(template, name) for name in names[:_SHOWN] for template in self._recipes[:1]]
        similar = [hint for hint in hints if hint.startswith("did you mean")]
        return " ".join([*similar[:1], "what is here stands in results.jsonl only"])


def _called(template: Recipe) -> str:
    return f"{template.provider} {template.shape.operation}/{template.shape.code}"


def _near(template: Recipe, name: str) -> str:
    """Return the hint of the model for a parameter that it does not have."""
    _, diagnostics = template.shape.request({name: "x"})
    return next((each.hint for each in diagnostics if each.name == name and each.hint), "correct the name")
