"""Write the gallery of a job: `index.html` beside the outputs, and a folder with its data files and thumbnails.

Neither the page nor the folder is touched if it exists and was not made by runner. One process writes at a time. The
data is written first, in parts named by their content, then the page that names them, then old data is removed. A
reader sees the old page or the new one at any moment. The data is in scripts, since a page from the file system may not
fetch. The markup holds only the escaped name of the job and a block of JSON. The script inserts the rest as text, and
a content security policy forbids everything else.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import html
import os
import re
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import UsageError
from runner.files import atomic_write, open_to_read
from runner.report.results import ERROR_FIELDS, result_dict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path


PAGE = "index.html"
FOLDER = "gallery"
#: first bytes of every gallery page
MARK = b"<!doctype html>\n<!-- made by runner: written anew after every run -->\n"
_NOTE = "READ-ME.txt"
_NOTE_MARK = b"Made by runner: "
_NOTE_TEXT = (
    _NOTE_MARK + b"what ../index.html shows. It may be deleted; `runner gallery` makes it again.\n"
    b"Files that you put here stay, but for those named data-*.js.\n"
)
#: tasks on a page, the newest ones; each takes about 1.5 kB in a browser
MAX_TASKS = 20_000
#: tasks in the first part, which the browser shows first, and in every other part
_FIRST_PART_TASKS, _PART_TASKS = 200, 1_000
_GALLERY_SCRIPTS = ("words", "text", "data", "wall", "detail", "main")
_LIVE_SCRIPTS = ("words", "live_words", "text", "live")
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self'; media-src 'self'; {more}; "
    "style-src '{style}'; require-trusted-types-for 'script'; trusted-types 'none'"
)
#: fields of a card in their order; the page receives these names
CARD_FIELDS = (
    *("key", "index", "repeat", "provider", "model", "state", "id", "vars", "request", "outputs", "error"),
    *("attempts", "cost", "queued", "submitted", "finished"),
)
#: hexadecimal digits of a file's SHA-256 that name its thumbnail
_NAME_LENGTH = 24
#: characters that could end a script, begin markup or break a line of JavaScript, with their JSON escapes
_ESCAPES = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}


class GalleryDirectory:
    """Paths of the gallery in a job directory."""

    def __init__(self, directory: Path) -> None:
        self.page = directory / PAGE
        self.folder = directory / FOLDER

    def file_names(self) -> set[str]:
        """Return the names of all files in the folder, thumbnails included."""
        return {entry.name for entry in os.scandir(self.folder)}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock on the page, and wait while another process writes it."""
        with (self.folder / _NOTE).open("rb") as note:
            fcntl.flock(note, fcntl.LOCK_EX)
            yield

    def remove_stale_data(self, kept: set[str]) -> None:
        """Remove the data files of earlier pages, except the names in `kept`."""
        for name in self.file_names() - kept:
            if name.startswith("data-") and name.endswith(".js"):
                (self.folder / name).unlink(missing_ok=True)


def open_gallery(directory: Path) -> GalleryDirectory:
    """Return the gallery of a job directory, and create its folder if needed.

    Raises UsageError if page or folder exists and is not ours, and OSError.
    """
    gallery = GalleryDirectory(directory)
    _raise_if_foreign(gallery.page, os.path.lexists(gallery.page) and not _starts_with(gallery.page, MARK))
    with suppress(FileExistsError):
        gallery.folder.mkdir()
    note = gallery.folder / _NOTE
    is_folder = gallery.folder.is_dir() and not gallery.folder.is_symlink()
    if is_folder and not gallery.file_names():
        with atomic_write(note) as file:
            file.write(_NOTE_TEXT)
    _raise_if_foreign(gallery.folder, not is_folder or not _starts_with(note, _NOTE_MARK))
    return gallery


def is_ours(page: Path) -> bool:
    """Return whether a page was made by runner."""
    return _starts_with(page, MARK)


def _raise_if_foreign(path: Path, foreign: bool) -> None:
    if foreign:
        raise UsageError(
            f"{path} is there already and was not made by runner; it was left as it is",
            hint="Move it away, then `runner gallery` makes the page.",
        )


def _starts_with(path: Path, mark: bytes) -> bool:
    """Return whether a path is a regular file, not a symbolic link, that begins with `mark`."""
    try:
        file = open_to_read(path)
    except OSError:
        return False
    with file:
        return file.read(len(mark)) == mark


def write(gallery: GalleryDirectory, rows: Iterable[Mapping[str, Any]], info: Mapping[str, Any]) -> int:
    """Write data and page for rows of the store, and return the number of rows; raises OSError.

    `info` holds job, made (seconds since the epoch), counts by state, total, cost, unit and pretend (sandbox).
    """
    file_names = gallery.file_names()
    parts: list[str] = []
    shown = 0
    for batch in _batches(rows):
        shown += len(batch)
        cards = script_safe_json([card(row, file_names) for row in batch])
        data = b"gallery.take(%d, %b);\n" % (len(parts), cards)
        name = f"data-{hashlib.sha256(data).hexdigest()[:16]}.js"
        parts.append(name)
        if name not in file_names:
            with atomic_write(gallery.folder / name) as file:
                file.write(data)
    page_info = {**info, "shown": shown, "parts": len(parts), "fields": CARD_FIELDS, "folder": FOLDER}
    with atomic_write(gallery.page) as file:
        file.write(gallery_page(str(info["job"]), page_info, [f"{FOLDER}/{name}" for name in parts]))
    gallery.remove_stale_data(set(parts))
    return shown


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the rows in lists, a short one first."""
    remaining = iter(rows)
    for size in chain([_FIRST_PART_TASKS], iter(lambda: _PART_TASKS, None)):
        batch = list(islice(remaining, size))
        if not batch:
            return
        yield batch


def gallery_page(job: str, info: Mapping[str, Any], scripts: Iterable[str]) -> bytes:
    """Return the gallery page of a job; `scripts` are trusted paths relative to the page."""
    script = _script(_GALLERY_SCRIPTS)
    pieces = {
        "title": html.escape(job),
        "facts": script_safe_json(info).decode(),
        "data": "\n".join(f'<script src="{path}" async></script>' for path in scripts),
    }
    return MARK + _render("page", "gallery", script, f"script-src 'self' '{_policy_hash(script)}'", pieces)


def live_page(title: str) -> bytes:
    """Return the live page of all jobs, which reads changes from `events` beside it."""
    script = _script(_LIVE_SCRIPTS)
    sources = f"connect-src 'self'; script-src '{_policy_hash(script)}'"
    return b"<!doctype html>\n" + _render("live", "live", script, sources, {"title": html.escape(title)})


def _render(name: str, style: str, script: str, sources: str, pieces: Mapping[str, str]) -> bytes:
    """Return a page with its placeholders filled in one pass, so that inserted text is never expanded again."""
    css = _asset("theme.css") + _asset(f"{style}.css")
    policy = _POLICY.format(style=_policy_hash(css), more=sources)
    values = {**pieces, "style": css, "script": script, "policy": policy}
    template = _asset("head.html") + _asset(f"{name}.html")
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], template).encode(errors="replace")


def _policy_hash(text: str) -> str:
    """Return the source expression of a content security policy that allows an element with this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _script(names: tuple[str, ...]) -> str:
    """Return several scripts as one, in a scope of their own."""
    body = "\n".join(_asset(f"{name}.js") for name in names)
    return f'\n"use strict";\n(() => {{\n{body}\n}})();\n'


@cache
def _asset(name: str) -> str:
    return (resources.files("runner.report.gallery") / "assets" / name).read_text(encoding="utf-8")


def thumbnail_name(sha256: str) -> str:
    """Return the name of the thumbnail for a file's SHA-256, without extension."""
    return sha256[:_NAME_LENGTH]


def card(row: Mapping[str, Any], file_names: Collection[str]) -> list[Any]:
    """Return a row of the store in the order of CARD_FIELDS; `file_names` are the names in the gallery directory.

    `vars` and `request` are JSON within the JSON, so that a browser does not round their large numbers.
    """
    result = result_dict(row)
    return [
        *(result[name] for name in ("key", "index", "repeat", "provider", "model", "state", "remote_id")),
        orjson.dumps(result["vars"]).decode(),
        orjson.dumps(result["request"]).decode(),
        [_output_entry(output, file_names) for output in result["outputs"]],
        [result["error"][name] for name in ERROR_FIELDS] if result["error"]["reason"] else None,
        *(result[name] for name in ("attempts", "cost", "queued_at", "submitted_at", "finished_at")),
    ]


def _output_entry(output: Mapping[str, Any], file_names: Collection[str]) -> list[Any]:
    """Return file, bytes, media type and thumbnail of an output.

    The thumbnail is its file name, False if the file cannot be decoded, or None if it was not made yet.
    """
    name = thumbnail_name(output["sha256"] or "")
    thumbnail_file = f"{name}.webp" if f"{name}.webp" in file_names else False if f"{name}.none" in file_names else None
    return [output["file"], output["bytes"], output["media_type"], thumbnail_file if name else None]


def script_safe_json(value: Any) -> bytes:
    """Return JSON that no value can end early, neither as JavaScript nor as the text of a script element."""
    text = orjson.dumps(value)
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return text
