"""Check the contents of `params` and `items`, and find credentials anywhere in a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.manifest.decoding import MAX_CELL
from runner.manifest.diagnostics import describe_value, find_wide_colon
from runner.manifest.positions import dotted_path
from runner.manifest.templates import is_template
from runner.text import WRITTEN_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.manifest.diagnostics import Diagnostics
    from runner.manifest.positions import KeyPath, SourceMap

#: variables that every template knows
BUILTIN_VARIABLES = ("index", "repeat")
_CREDENTIAL_NAMES = frozenset((
    "apikey", "api_key", "secret", "secret_key", "api_secret", "app_secret", "client_secret", "token", "access_token",
    "auth_token", "password", "passwd", "access_key", "access_key_id", "secret_access_key", "authorization", "bearer",
    "credential", "credentials", "private_key", "x_api_key",
))  # fmt: skip
#: largest depth of a nested value, which the store can write
_MAX_DEPTH = 100
_SCALARS = frozenset((str, int, float, bool, type(None), *WRITTEN_TYPES))
#: whole numbers from here on fit only into a float, and have lost digits or are infinite
_EXACT_LIMIT = 2.0**64


def value_error(value: Any) -> str:
    """Return the reason why a value cannot stand in a row, empty if it can: a scalar, or a list of scalars."""
    kind = type(value)
    if isinstance(value, float) and abs(value) >= _EXACT_LIMIT:
        return "a number too big to be exact"
    if kind in _SCALARS:
        return ""
    if isinstance(value, list) and all(type(each) in _SCALARS for each in value):
        return next(filter(None, map(value_error, value)), "")
    return f"expected text, a number, true, false or a list of them, found {describe_value(value)}"


def data_error(value: Any) -> str:
    """Return the reason why a value cannot stand in a data file, empty if it can: nested values can, to a depth."""
    if type(value) in _SCALARS:
        return "a number too big to be exact" if isinstance(value, float) and abs(value) >= _EXACT_LIMIT else ""
    level, size = [value], 0
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, str):
                size += len(each)
            elif isinstance(each, dict):
                size += sum(map(len, each))
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
            elif isinstance(each, float) and abs(each) >= _EXACT_LIMIT:
                return "a number too big to be exact"
        if size > MAX_CELL:
            return f"a value of more than {MAX_CELL >> 20} MiB"
        if not inner:
            return ""
        level = inner
    return f"nested deeper than {_MAX_DEPTH} levels"


class Inspector:
    """Checker of the free parts of a manifest. Adds diagnostics and returns what is valid."""

    def __init__(self, source_map: SourceMap, diagnostics: Diagnostics) -> None:
        self.source_map = source_map
        self.diagnostics = diagnostics

    def check_params(self, written: Any) -> dict[str, Any]:
        """Return the parameters, or nothing if they are not a mapping."""
        if not isinstance(written, dict):
            colon = find_wide_colon([written], 0) if isinstance(written, str) else None
            hint = colon[-1] if colon else "indent the parameters"
            self.add(("params",), f"expected a mapping (`key: value`), found {describe_value(written)}", hint)
            return {}
        self.report_credentials(written, ("params",))
        return written

    def check_rows(self, written: Any) -> tuple[dict[str, Any], ...]:
        """Return the rows that are mappings, or nothing if `items` is not a list."""
        if not isinstance(written, list) or not written:
            self.add(("items",), f"expected rows, found {describe_value(written) if written != [] else 'none'}",
                      "write `- name: value` lines, or `file: rows.csv`")  # fmt: skip
            return ()
        return tuple(row for number, row in enumerate(written) if self._is_valid_row(number, row))

    def _is_valid_row(self, number: int, row: Any) -> bool:
        if not isinstance(row, dict):
            self.add(("items", number), f"expected a mapping, found {describe_value(row)}", "write `name: value`")
            return False
        for name, value in row.items():
            if type(value) is not str and (message := value_error(value)):
                self.add(("items", number, name), message, "a row holds plain values; put the rest into `params`")
            self.warn_of_template(value, ("items", number, name))
            if name.lower() in _CREDENTIAL_NAMES:
                self._report_credential(("items", number, name))
        return True

    def report_credentials(self, value: Any, path: KeyPath) -> bool:
        """Report every key under `path` that looks like a credential, and return whether there was one."""
        found = [
            name for name in _key_paths(value, path) if str(name[-1]).lower().replace("-", "_") in _CREDENTIAL_NAMES
        ]
        for name in found:
            self._report_credential(name)
        return bool(found)

    def _report_credential(self, path: KeyPath) -> None:
        self.add(path, "looks like a credential, and those never stand in a manifest",
                  "set it in the environment and remove it here", key=True)  # fmt: skip

    def warn_of_template(self, value: Any, path: KeyPath) -> None:
        """Warn of a text that looks like a template where templates are not rendered."""
        if isinstance(value, str) and is_template(value):
            hint = "only texts of `params` and `output.name` are templates"
            self.add(path, "is sent as it stands, braces and all", hint, warn=True)

    def add(self, path: KeyPath, message: str, hint: str, *, key: bool = False, warn: bool = False) -> None:
        """Add an error or a warning at a value, or at its key."""
        location = self.source_map.key_location(*path) if key else self.source_map.location(*path)
        self.diagnostics.add(location, dotted_path(path), message, hint, warn=warn)


def _key_paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Yield the path of every key. The recursion is safe since the reader bounds the depth."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in pairs:
        if isinstance(step, str):
            yield (*path, step)
        if isinstance(each, dict | list):
            yield from _key_paths(each, (*path, step))
