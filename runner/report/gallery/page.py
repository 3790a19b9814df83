"""Write the gallery page of a job and the data files it loads.

The data is written first, in parts named by their content, then the page that names them, then old data is removed. A
reader sees the old page or the new one at any moment. The data is in scripts, since a page from the file system may not
fetch. The markup holds only the escaped name of the job and a block of JSON. The script inserts the rest as text, and
a content security policy forbids everything else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import cache
from importlib import resources
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from runner.report.gallery.cards import FIELDS, card, harmless_json
from runner.report.gallery.place import FOLDER, MARK
from runner.report.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runner.report.gallery.place import Place

#: tasks on a page, the newest ones; each takes about 1.5 kB in a browser
MOST = 20_000
#: tasks in the first part, which the browser shows first, and in every other part
_FIRST, _PART = 200, 1_000
_GALLERY = ("words", "text", "data", "wall", "detail", "main")
_LIVE = ("words", "live_words", "text", "live")
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self'; media-src 'self'; {more}; "
    "style-src '{style}'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def write(gallery: Place, rows: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> int:
    """Write data and page for rows of the store, and return the number of rows; raises OSError.

    `facts` holds job, made (seconds since the epoch), counts by state, total, cost, unit and pretend (sandbox).
    """
    file_names = gallery.made()
    parts: list[str] = []
    shown = 0
    for batch in _pages(rows):
        shown += len(batch)
        cards = harmless_json([card(row, file_names) for row in batch])
        data = b"gallery.take(%d, %b);\n" % (len(parts), cards)
        name = f"data-{hashlib.sha256(data).hexdigest()[:16]}.js"
        parts.append(name)
        if name not in file_names:
            with whole_file(gallery.folder / name) as file:
                file.write(data)
    page_facts = {**facts, "shown": shown, "parts": len(parts), "fields": FIELDS, "folder": FOLDER}
    with whole_file(gallery.page) as file:
        file.write(page_of(str(facts["job"]), page_facts, [f"{FOLDER}/{name}" for name in parts]))
    gallery.tidy(set(parts))
    return shown


def _pages(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the rows in lists, a short one first."""
    remaining = iter(rows)
    for size in chain([_FIRST], iter(lambda: _PART, None)):
        batch = list(islice(remaining, size))
        if not batch:
            return
        yield batch


def page_of(job: str, facts: Mapping[str, Any], scripts: Iterable[str]) -> bytes:
    """Return the gallery page of a job; `scripts` are trusted paths relative to the page."""
    script = _script(_GALLERY)
    pieces = {
        "title": html.escape(job),
        "facts": harmless_json(facts).decode(),
        "data": "\n".join(f'<script src="{path}" async></script>' for path in scripts),
    }
    return MARK + _filled("page", "gallery", script, f"script-src 'self' '{_digest(script)}'", pieces)


def live_page(title: str) -> bytes:
    """Return the live page of all jobs, which reads changes from `events` beside it."""
    script = _script(_LIVE)
    sources = f"connect-src 'self'; script-src '{_digest(script)}'"
    return b"<!doctype html>\n" + _filled("live", "live", script, sources, {"title": html.escape(title)})


def _filled(name: str, style: str, script: str, sources: str, pieces: Mapping[str, str]) -> bytes:
    """Return a page with its placeholders filled in one pass, so that inserted text is never expanded again."""
    css = _asset("theme.css") + _asset(f"{style}.css")
    policy = _POLICY.format(style=_digest(css), more=sources)
    values = {**pieces, "style": css, "script": script, "policy": policy}
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], _asset(f"{name}.html")).encode(errors="replace")


def _digest(text: str) -> str:
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
