"""Values to a Manifest: every mistake at once, each with its place and what to do."""

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
    """A manifest and where each of its values stands."""

    manifest: Manifest
    places: Places


def load(path: Path, *, out: Path | None = None) -> Parsed:
    """The manifest in the file `path`."""
    return parse(contents(path), path, out=out)


def parse(text: bytes, path: Path, *, out: Path | None = None) -> Parsed:
    """The manifest that `text` is; `path` is where it stands, `out` overrides its directory."""
    parsed, report = attempt(text, path, out=out)
    if parsed is None or report:
        raise report.error()
    return parsed


def attempt(text: bytes, path: Path, *, out: Path | None = None) -> tuple[Parsed | None, Report]:
    """As much of the manifest as can be understood, and every problem; None where nothing can."""
    report = Report(str(path))
    root, problems = reader.scan(text, str(path))
    report.extend(problems)
    if not isinstance(root, Mapping):
        if not problems:
            report.add((1, 1), "", f"expected `key: value` lines, found {described(root)}", "begin with `version: 1`")
        return None, report
    places = Places(root)
    return Parsed(_Builder(root, places, report, path).build(out), places), report


def contents(path: Path) -> bytes:
    """The bytes of a manifest; ManifestError where there is no readable file."""
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
    def __init__(self, root: Mapping, places: Places, report: Report, path: Path) -> None:
        self.root = root
        self.places = places
        self.report = report
        self.path = path
        self.home = path.absolute().parent

    def build(self, out: Path | None) -> Manifest:
        document = self._document()
        inspector = content.Inspector(self.places, self.report)
        params = inspector.params(self.root.get("params", {}))
        axes = AxisReader(inspector, self.path, document.limits.max_tasks)
        multiplied = matrix.read(self.root.get("matrix", {}), inspector, axes)
        rows = self._items(inspector)
        self._required(document, multiplied, rows)
        limits, retry = document.limits, document.retry
        name = document.name or _default_name(self.path)
        return Manifest(
            file=str(self.path),
            root=self.home,
            name=name,
            provider=document.provider,
            model=document.model,
            unchecked=document.unchecked,
            directory=self._directory(out, document.output.dir or f"out/{name}"),
            params=params,
            items=rows,
            matrix=multiplied,
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
        """The manifest by its schema; what is wrong is told and left at its default."""
        try:
            return Document.model_validate(self.root)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            translate(errors, self.places, self.report)
            return Document.model_validate(_without(self.root, [each["loc"] for each in errors]))

    def _directory(self, out: Path | None, written: str) -> Path:
        if "\0" in written:
            self._add(("output", "dir"), "a NUL character cannot be in a path", "delete it")
            written = "out"
        return Path(os.path.normpath(out.absolute() if out else self.home / written))

    def _required(self, document: Document, multiplied: Matrix, rows: Items | None) -> None:
        if "version" not in self.root:
            self.report.add((1, 1), "version", "missing", "write `version: 1`")
        elif document.version != 1:
            self._add(
                ("version",), f"version {document.version} is unknown here", "write `version: 1`, or update runner"
            )
        columns = rows.rows[0] if rows and rows.rows else {}
        from_file = rows is not None and rows.file is not None
        for key in ("provider", "model"):
            given = key in self.root and self.root[key] != ""
            if not given and not multiplied.gives(key) and key not in columns and not from_file:
                self._add((key,), "missing", f"write `{key}: NAME`; `runner {key}s` lists what there is")

    def _notify(self, part: NotifyPart | None) -> Notify | None:
        if part is None:
            return None
        if isinstance(written := self.root["notify"], Mapping) and "url" not in written:
            self._add(("notify",), "`url` is missing", 'write `url: "${HEALTHCHECK_URL}"`')
        return Notify(part.url, tuple(word for word in notices.WORDS if word in part.on))

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
        if trouble := items.unfit(path):
            self._add(("items", "file"), *trouble)
        return Items() if trouble else Items(file=path)

    def _add(self, path: tuple[str, ...], message: str, hint: str) -> None:
        self.report.add(self.places.place(*path), ".".join(path), message, hint)


def _default_name(path: Path) -> str:
    return path.stem if is_name(path.stem) else slug(path.stem)


def _without(root: dict[str, Any], paths: list[tuple[str | int, ...]]) -> dict[str, Any]:
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in root.items()}
    for first, *rest in paths:
        if not rest:
            kept.pop(str(first), None)
        elif isinstance(part := kept.get(str(first)), dict):
            part.pop(rest[0], None)
    return kept
