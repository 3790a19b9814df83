"""Check the contents of `params` and `items`, and find credentials anywhere in a manifest."""

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

#: variables that every template knows
COUNTERS = ("index", "repeat")
_CREDENTIALS = frozenset((
    "apikey", "api_key", "secret", "secret_key", "api_secret", "app_secret", "client_secret", "token", "access_token",
    "auth_token", "password", "passwd", "access_key", "access_key_id", "secret_access_key", "authorization", "bearer",
    "credential", "credentials", "private_key", "x_api_key",
))  # fmt: skip
_SCALARS = frozenset((str, int, float, bool, type(None)))
#: whole numbers from here on fit only into a float, and have lost digits or are infinite
_EXACT = 2.0**64


def flaw(value: Any) -> str:
    """Return the reason why a value cannot stand in a row, empty if it can: a scalar, or a list of scalars."""
    kind = type(value)
    if kind is float and abs(value) >= _EXACT:
        return "a number too big to be exact"
    if kind in _SCALARS:
        return ""
    if isinstance(value, list) and all(type(each) in _SCALARS for each in value):
        return next(filter(None, map(flaw, value)), "")
    return f"expected text, a number, true, false or a list of them, found {described(value)}"


class Inspector:
    """Checker of the free parts of a manifest. Adds diagnostics and returns what is valid."""

    def __init__(self, source_map: Places, diagnostics: Report) -> None:
        self.places = source_map
        self.report = diagnostics

    def params(self, written: Any) -> dict[str, Any]:
        """Return the parameters, or nothing if they are not a mapping."""
        if not isinstance(written, dict):
            colon = wide_colon([written], 0) if isinstance(written, str) else None
            hint = colon[-1] if colon else "indent the parameters"
            self.add(("params",), f"expected a mapping (`key: value`), found {described(written)}", hint)
            return {}
        self.credentials(written, ("params",))
        return written

    def rows(self, written: Any) -> tuple[dict[str, Any], ...]:
        """Return the rows that are mappings, or nothing if `items` is not a list."""
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
        """Report every key under `path` that looks like a credential, and return whether there was one."""
        found = [name for name in _names(value, path) if str(name[-1]).lower().replace("-", "_") in _CREDENTIALS]
        for name in found:
            self._credential(name)
        return bool(found)

    def _credential(self, path: tuple[str | int, ...]) -> None:
        self.add(path, "looks like a credential, and those never stand in a manifest",
                  "set it in the environment and remove it here", key=True)  # fmt: skip

    def data(self, value: Any, path: tuple[str | int, ...]) -> None:
        """Warn of a text that looks like a template where templates are not rendered."""
        if isinstance(value, str) and is_template(value):
            hint = "only texts of `params` and `output.name` are templates"
            self.add(path, "is sent as it stands, braces and all", hint, warn=True)

    def add(
        self, path: tuple[str | int, ...], message: str, hint: str, *, key: bool = False, warn: bool = False
    ) -> None:
        """Add an error or a warning at a value, or at its key."""
        location = self.places.key_place(*path) if key else self.places.place(*path)
        self.report.add(location, dotted(path), message, hint, warn=warn)


def _names(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every key. The recursion is safe since the reader bounds the depth."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in pairs:
        if isinstance(step, str):
            yield (*path, step)
        if isinstance(each, dict | list):
            yield from _names(each, (*path, step))
