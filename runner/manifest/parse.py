"""Parse a manifest, and report all errors at once, each with its location and a hint."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runner.errors import ManifestError, Problem
from runner.manifest import content, items, matrix, notices, reader
from runner.manifest.axis import AxisReader
from runner.manifest.model import Items, Limits, Manifest, Matrix, Notify, Retry
from runner.manifest.names import slug
from runner.manifest.report import Report
from runner.manifest.schema import Document, NotifyPart, is_name
from runner.manifest.teach import closest, described, translate
from runner.manifest.values import Mapping, Places

if TYPE_CHECKING:
    from os import PathLike


@dataclass(frozen=True, slots=True)
class Parsed:
    """A manifest, and the map from paths to the locations of its values."""

    manifest: Manifest
    places: Places


def load(path: Path, *, out: Path | None = None) -> Parsed:
    """Return the manifest in the file `path`. Raise ManifestError if it is wrong."""
    return parse(contents(path), path, out=out)


def parse(text: bytes, path: Path, *, out: Path | None = None) -> Parsed:
    """Return the manifest with the contents `text`. Raise ManifestError if it is wrong.

    Paths of the manifest are relative to the directory of `path`. `out` overrides the job directory.
    """
    parsed, diagnostics = attempt(text, path, out=out)
    if parsed is None or diagnostics:
        raise diagnostics.error()
    return parsed


def attempt(text: bytes, path: Path, *, out: Path | None = None) -> tuple[Parsed | None, Report]:
    """Return as much of the manifest as can be understood, else None, and all diagnostics."""
    diagnostics = Report(str(path))
    root, errors = reader.scan(text, str(path))
    diagnostics.extend(errors)
    if not isinstance(root, Mapping):
        if not errors:
            diagnostics.add(
                (1, 1), "", f"expected `key: value` lines, found {described(root)}", "begin with `version: 1`"
            )
        return None, diagnostics
    source_map = Places(root)
    return Parsed(_Builder(root, source_map, diagnostics, path).build(out), source_map), diagnostics


def contents(path: Path) -> bytes:
    """Return the bytes of a manifest. Raise ManifestError if there is no readable file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unreadable(path, "not a regular file", "give the path of a YAML file")
        with path.open("rb") as file:
            return file.read(reader.MAX_BYTES + 1)
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file", "check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _unreadable(path, f"cannot be read: {reason}", "check the path and its permissions") from error


def _unreadable(path: PathLike[str], message: str, hint: str) -> ManifestError:
    return ManifestError([Problem(str(path), 0, 0, "", message, hint)])


class _Builder:
    """Builder of a manifest from its root mapping. Adds diagnostics and leaves what is wrong at its default."""

    def __init__(self, root: Mapping, source_map: Places, diagnostics: Report, path: Path) -> None:
        self.root = root
        self.places = source_map
        self.report = diagnostics
        self.path = path
        self.home = path.absolute().parent

    def build(self, out: Path | None) -> Manifest:
        document = self._document()
        inspector = content.Inspector(self.places, self.report)
        params = inspector.params(self.root.get("params", {}))
        axes = AxisReader(inspector, self.path, document.limits.max_tasks)
        parsed_matrix = matrix.read(self.root.get("matrix", {}), inspector, axes)
        rows = self._items(inspector)
        self._required(document, parsed_matrix, rows)
        limits, retry = document.limits, document.retry
        stem = self.path.stem
        name = document.name or (stem if is_name(stem) else slug(stem))
        directory = document.output.dir or f"out/{name}"
        if "\0" in directory:
            self._add(("output", "dir"), "a NUL character cannot be in a path", "delete it")
            directory = "out"
        return Manifest(
            file=str(self.path),
            root=self.home,
            name=name,
            provider=document.provider,
            model=document.model,
            unchecked=document.unchecked,
            directory=Path(os.path.normpath(out.absolute() if out else self.home / directory)),
            params=params,
            items=rows,
            matrix=parsed_matrix,
            repeat=document.repeat,
            output_name=document.output.name,
            limits=Limits(
                limits.qps, limits.in_flight, limits.downloads, limits.max_tasks, limits.deadline, limits.max_cost
            ),
            retry=Retry(retry.attempts, retry.patience, retry.doubt),
            notify=self._notify(document.notify),
            cost=document.cost,
        )

    def _document(self) -> Document:
        """Return the manifest by its schema. Report what is wrong and leave it at its default."""
        try:
            return Document.model_validate(self.root)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            translate(errors, self.places, self.report)
            return Document.model_validate(_without(self.root, [each["loc"] for each in errors]))

    def _required(self, document: Document, parsed_matrix: Matrix, rows: Items | None) -> None:
        if "version" not in self.root:
            self.report.add((1, 1), "version", "missing", "write `version: 1`")
        elif document.version != 1:
            self._add(
                ("version",), f"version {document.version} is unknown here", "write `version: 1`, or update runner"
            )
        columns = rows.rows[0] if rows and rows.rows else {}
        from_file = rows is not None and rows.file is not None
        for key in ("provider", "model"):
            is_set = key in self.root and self.root[key] != ""
            if not is_set and not parsed_matrix.gives(key) and key not in columns and not from_file:
                self._add((key,), "missing", f"write `{key}: NAME`; `runner {key}s` lists what there is")

    def _notify(self, part: NotifyPart | None) -> Notify | None:
        if part is None:
            return None
        if isinstance(written := self.root["notify"], Mapping) and "url" not in written:
            self._add(("notify",), "`url` is missing", 'write `url: "${HEALTHCHECK_URL}"`')
        return Notify(part.url, tuple(event for event in notices.WORDS if event in part.on))

    def _items(self, inspector: content.Inspector) -> Items | None:
        written = self.root.get("items")
        if "items" not in self.root:
            return None
        if not isinstance(written, Mapping):
            return Items(rows=inspector.rows(written))
        for key in written.keys() - {"file"}:
            self.report.add(self.places.key_place("items", key), f"items.{key}", "no such key", closest(key, ["file"]))
        file = written.get("file")
        if not isinstance(file, str) or not file:
            self._add(("items", "file"), f"expected the path of a data file, found {described(file)}",
                      "write `file: rows.csv`, or rows as a list")  # fmt: skip
            return Items()
        path = self.home / file
        if error := items.unfit(path):
            self._add(("items", "file"), *error)
        return Items() if error else Items(file=path)

    def _add(self, path: tuple[str, ...], message: str, hint: str) -> None:
        self.report.add(self.places.place(*path), ".".join(path), message, hint)


def _without(root: dict[str, Any], paths: list[tuple[str | int, ...]]) -> dict[str, Any]:
    remaining = {key: dict(value) if isinstance(value, dict) else value for key, value in root.items()}
    for first, *rest in paths:
        if not rest:
            remaining.pop(str(first), None)
        elif isinstance(part := remaining.get(str(first)), dict):
            part.pop(rest[0], None)
    return remaining
