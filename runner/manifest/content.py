"""What may stand in `params` and `items`, and what may stand nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.manifest.syntax import wide_colon
from runner.manifest.teach import described
from runner.manifest.templates import is_template
from runner.manifest.values import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.manifest.report import Report
    from runner.manifest.values import Places

#: variables every template knows
COUNTERS = ("index", "repeat")
_CREDENTIALS = frozenset((
    "apikey", "api_key", "secret", "secret_key", "api_secret", "app_secret", "client_secret", "token", "access_token",
    "auth_token", "password", "passwd", "access_key", "access_key_id", "secret_access_key", "authorization", "bearer",
    "credential", "credentials", "private_key", "x_api_key",
))  # fmt: skip
_SCALARS = frozenset((str, int, float, bool, type(None)))
#: whole numbers that only a float can hold have lost digits on the way, or are infinite
_EXACT = 2.0**64


def flaw(value: Any) -> str:
    """Why a value cannot stand in a row; empty where it can: a scalar, or a list of them."""
    kind = type(value)
    if kind is float and abs(value) >= _EXACT:
        return "a number too big to be exact"
    if kind in _SCALARS:
        return ""
    if isinstance(value, list) and all(type(each) in _SCALARS for each in value):
        return next(filter(None, map(flaw, value)), "")
    return f"expected text, a number, true, false or a list of them, found {described(value)}"


class Inspector:
    """Adds a problem for all that is wrong, and gives back what is right."""

    def __init__(self, places: Places, report: Report) -> None:
        self.places = places
        self.report = report

    def params(self, written: Any) -> dict[str, Any]:
        if not isinstance(written, dict):
            slip = wide_colon([written], 0) if isinstance(written, str) else None
            hint = slip[-1] if slip else "indent the parameters"
            self.add(("params",), f"expected a mapping (`key: value`), found {described(written)}", hint)
            return {}
        self.credentials(written, ("params",))
        return written

    def rows(self, written: Any) -> tuple[dict[str, Any], ...]:
        if not isinstance(written, list) or not written:
            self.add(("items",), f"expected rows, found {described(written) if written != [] else 'none'}",
                      "write `- name: value` lines, or `file: rows.csv`")  # fmt: skip
            return ()
        return tuple(row for number, row in enumerate(written) if self._row(number, row))

    def _row(self, number: int, row: Any) -> bool:
        if not isinstance(row, dict):
            self.add(("items", number), f"expected a mapping, found {described(row)}", "write `name: value`")
            return False
        for name, value in row.items():
            if type(value) is not str and (message := flaw(value)):
                self.add(("items", number, name), message, "a row holds plain values; put the rest into `params`")
            self.data(value, ("items", number, name))
            if name.lower() in _CREDENTIALS:
                self._credential(("items", number, name))
        return True

    def credentials(self, value: Any, path: tuple[str | int, ...]) -> bool:
        """Tells of every key under `path` that looks like a credential; whether there was one."""
        found = [name for name in _names(value, path) if str(name[-1]).lower().replace("-", "_") in _CREDENTIALS]
        for name in found:
            self._credential(name)
        return bool(found)

    def _credential(self, path: tuple[str | int, ...]) -> None:
        self.add(path, "looks like a credential, and those never stand in a manifest",
                  "set it in the environment and remove it here", key=True)  # fmt: skip

    def data(self, value: Any, path: tuple[str | int, ...]) -> None:
        """Warns of a text that looks like a template where none is one."""
        if isinstance(value, str) and is_template(value):
            hint = "only texts of `params` and `output.name` are templates"
            self.add(path, "is sent as it stands, braces and all", hint, warn=True)

    def add(
        self, path: tuple[str | int, ...], message: str, hint: str, *, key: bool = False, warn: bool = False
    ) -> None:
        """Tells of a mistake at a value, or at its key."""
        place = self.places.key_place(*path) if key else self.places.place(*path)
        self.report.add(place, dotted(path), message, hint, warn=warn)


def _names(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """The path of every key; the reader has bounded the depth."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in pairs:
        if isinstance(step, str):
            yield (*path, step)
        if isinstance(each, dict | list):
            yield from _names(each, (*path, step))
