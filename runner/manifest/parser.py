"""Parse a manifest, and report all errors at once, each with its location and a hint."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runner.manifest import yaml_reader
from runner.manifest.content_checks import Inspector
from runner.manifest.diagnostics import Diagnostics, closest_hint, describe_value
from runner.manifest.matrix import AxisReader, read_matrix
from runner.manifest.model import MODEL_KEYS, Items, JobLimits, Manifest, Matrix, Notify, Retry
from runner.manifest.naming import slug
from runner.manifest.notify_urls import NOTIFY_EVENTS
from runner.manifest.positions import SourceMap, YamlMapping
from runner.manifest.rows import data_file_error, is_workbook
from runner.manifest.schema import Document, NotifyPart, add_schema_errors, is_name

if TYPE_CHECKING:
    from runner.errors import Diagnostic
    from runner.manifest.positions import KeyPath


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """A manifest, and the map from paths to the locations of its values."""

    manifest: Manifest
    source_map: SourceMap


def parse(text: bytes, path: Path, *, out: Path | None = None) -> ParsedManifest:
    """Return the manifest with the contents `text`. Raise ManifestError if it is wrong.

    Paths of the manifest are relative to the directory of `path`. `out` overrides the job directory.
    """
    parsed, diagnostics = try_parse(text, path, out=out)
    if parsed is None or diagnostics:
        raise diagnostics.error()
    return parsed


def try_parse(text: bytes, path: Path, *, out: Path | None = None) -> tuple[ParsedManifest | None, Diagnostics]:
    """Return as much of the manifest as can be understood, else None, and all diagnostics."""
    diagnostics = Diagnostics(str(path))
    warnings: list[Diagnostic] = []
    root, errors = yaml_reader.scan(text, str(path), warnings)
    diagnostics.extend(errors)
    if warnings:
        first, others = warnings[0], [str(each.line) for each in warnings[1:]]
        lines = f" (also in line {', '.join(others[:3])}{', …' if len(others) > 3 else ''})" if others else ""  # noqa: PLR2004
        diagnostics.add((first.line, first.column), "", f"{first.message}{lines}", first.hint, warn=True)
    if not isinstance(root, YamlMapping):
        if not errors:
            message = f"expected `key: value` lines, found {describe_value(root)}"
            diagnostics.add((1, 1), "", message, "begin with `version: 1`")
        return None, diagnostics
    return build(root, diagnostics, path, out=out), diagnostics


def build(root: YamlMapping, diagnostics: Diagnostics, path: Path, *, out: Path | None = None) -> ParsedManifest:
    """Return as much of the manifest `root` as can be understood, and add what is wrong to `diagnostics`."""
    source_map = SourceMap(root)
    return ParsedManifest(_ManifestBuilder(root, source_map, diagnostics, path).build(out), source_map)


class _ManifestBuilder:
    """Builder of a manifest from its root mapping. Adds diagnostics and leaves what is wrong at its default."""

    def __init__(self, root: YamlMapping, source_map: SourceMap, diagnostics: Diagnostics, path: Path) -> None:
        self.root = root
        self.source_map = source_map
        self.diagnostics = diagnostics
        self.path = path
        self.base = path.absolute().parent

    def build(self, out: Path | None) -> Manifest:
        document = self._validate_document()
        inspector = Inspector(self.source_map, self.diagnostics)
        params = inspector.check_params(self.root.get("params", {}))
        axes = AxisReader(inspector, self.path, document.limits.max_tasks)
        matrix = read_matrix(self.root.get("matrix", {}), inspector, axes)
        items = self._read_items(inspector)
        self._check_required(document, matrix, items)
        limits, retry = document.limits, document.retry
        stem = self.path.stem
        name = document.name or (stem if is_name(stem) else slug(stem))
        directory = document.output.dir or f"out/{name}"
        if "\0" in directory:
            self._add_error(("output", "dir"), "a NUL character cannot be in a path", "delete it")
            directory = "out"
        return Manifest(
            file=str(self.path),
            root=self.base,
            name=name,
            provider=document.provider,
            model=document.model,
            unchecked=document.unchecked,
            directory=Path(os.path.normpath(out.absolute() if out else self.base / directory)),
            params=params,
            items=items,
            matrix=matrix,
            repeat=document.repeat,
            output_name=document.output.name,
            output_shards=document.output.shards,
            limits=JobLimits(
                qps=limits.qps,
                in_flight=limits.in_flight,
                submits_at_once=limits.submits_at_once,
                downloads=limits.downloads,
                max_tasks=limits.max_tasks,
                deadline=limits.deadline,
                end=limits.end,
                max_cost=limits.max_cost,
            ),
            retry=Retry(retry.attempts, retry.patience, retry.doubt, retry.remember, retry.absence),
            notify=self._read_notify(document.notify),
            cost=document.cost,
        )

    def _validate_document(self) -> Document:
        """Return the manifest by its schema. Report what is wrong and leave it at its default."""
        try:
            return Document.model_validate(self.root)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            add_schema_errors(errors, self.source_map, self.diagnostics)
            return Document.model_validate(_without_keys(self.root, [each["loc"] for each in errors]))

    def _check_required(self, document: Document, matrix: Matrix, items: Items | None) -> None:
        if "version" not in self.root:
            self.diagnostics.add((1, 1), "version", "missing", "write `version: 1`")
        elif document.version != 1:
            message = f"version {document.version} is unknown here"
            self._add_error(("version",), message, "write `version: 1`, or update runner")
        columns = items.rows[0] if items and items.rows else {}
        from_file = items is not None and items.file is not None
        for key in MODEL_KEYS:
            is_set = key in self.root and self.root[key] != ""
            if not is_set and not matrix.provides(key) and key not in columns and not from_file:
                self._add_error((key,), "missing", f"write `{key}: NAME`; `runner {key}s` lists what there is")

    def _read_notify(self, part: NotifyPart | None) -> Notify | None:
        if part is None:
            return None
        if isinstance(written := self.root["notify"], YamlMapping) and "url" not in written:
            self._add_error(("notify",), "`url` is missing", 'write `url: "${HEALTHCHECK_URL}"`')
        return Notify(part.url, tuple(event for event in NOTIFY_EVENTS if event in part.on))

    def _read_items(self, inspector: Inspector) -> Items | None:
        written = self.root.get("items")
        if "items" not in self.root:
            return None
        if not isinstance(written, YamlMapping):
            return Items(rows=inspector.check_rows(written))
        for key in written.keys() - {"file", "sheet"}:
            location = self.source_map.key_location("items", key)
            self.diagnostics.add(location, f"items.{key}", "no such key", closest_hint(key, ["file", "sheet"]))
        file = written.get("file")
        if not isinstance(file, str) or not file:
            self._add_error(("items", "file"), f"expected the path of a data file, found {describe_value(file)}",
                      "write `file: rows.csv`, or rows as a list")  # fmt: skip
            return Items()
        path = self.base / file
        if error := data_file_error(path):
            self._add_error(("items", "file"), *error)
        sheet = written.get("sheet", "")
        if "sheet" in written and (not isinstance(sheet, str) or not sheet or not is_workbook(path)):
            message = f"expected the name of a sheet of a workbook (.xlsx, .ods), found {describe_value(sheet)}"
            hint = 'write `sheet: "NAME"`' if is_workbook(path) else f"take it out: {path.suffix} has no sheets"
            self._add_error(("items", "sheet"), message, hint)
            return Items()
        return Items() if error else Items(file=path, sheet=sheet)

    def _add_error(self, path: tuple[str, ...], message: str, hint: str) -> None:
        self.diagnostics.add(self.source_map.location(*path), ".".join(path), message, hint)


def _without_keys(root: dict[str, Any], paths: list[KeyPath]) -> dict[str, Any]:
    """Return the mapping without the keys at these paths, which are at most two levels deep."""
    remaining = {key: dict(value) if isinstance(value, dict) else value for key, value in root.items()}
    for first, *rest in paths:
        if not rest:
            remaining.pop(str(first), None)
        elif isinstance(part := remaining.get(str(first)), dict):
            part.pop(rest[0], None)
    return remaining
