"""Writes the page: data beside it in parts, named by their content, then the page that names them, then old data goes.

Whoever looks meanwhile sees the page of before or the page of now. Data is beside the page, as scripts that hand it
over, because a page of the file system may not fetch. Nothing of a job ever stands in the markup but its name, escaped,
and a block of JSON; the rest is put there by the script as text, and a policy forbids everything else (X28, X29).
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

#: tasks that a page shows at the most, the newest; each costs a browser about a kilobyte and a half
MOST = 20_000
#: tasks of the first part, which is what is seen first, and of each other one
_FIRST, _PART = 200, 1_000
_GALLERY = ("words", "text", "data", "wall", "detail", "main")
_LIVE = ("words", "live_words", "text", "live")
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self'; media-src 'self'; {more}; "
    "style-src '{style}'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def write(place: Place, rows: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> int:
    """Write data and page for these rows of the store; how many there were. Raises OSError.

    `facts`: job, made (seconds since the epoch), counts by state, total, cost, unit, whether it pretends.
    """
    made = place.made()
    parts: list[str] = []
    shown = 0
    for page in _pages(rows):
        shown += len(page)
        cards = harmless_json([card(row, made) for row in page])
        data = b"gallery.take(%d, %b);\n" % (len(parts), cards)
        name = f"data-{hashlib.sha256(data).hexdigest()[:16]}.js"
        parts.append(name)
        if name not in made:
            with whole_file(place.folder / name) as file:
                file.write(data)
    told = {**facts, "shown": shown, "parts": len(parts), "fields": FIELDS, "folder": FOLDER}
    with whole_file(place.page) as file:
        file.write(page_of(str(facts["job"]), told, [f"{FOLDER}/{name}" for name in parts]))
    place.tidy(set(parts))
    return shown


def _pages(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The rows in lists, a short one first."""
    left = iter(rows)
    for size in chain([_FIRST], iter(lambda: _PART, None)):
        page = list(islice(left, size))
        if not page:
            return
        yield page


def page_of(job: str, facts: Mapping[str, Any], scripts: Iterable[str]) -> bytes:
    """The page as it is written; `scripts` are paths relative to it, made here."""
    script = _script(_GALLERY)
    pieces = {
        "title": html.escape(job),
        "facts": harmless_json(facts).decode(),
        "data": "\n".join(f'<script src="{path}" async></script>' for path in scripts),
    }
    return MARK + _filled("page", "gallery", script, f"script-src 'self' '{_digest(script)}'", pieces)


def live_page(title: str) -> bytes:
    """The page that shows every job while it runs; `events` beside it tells it what changes."""
    script = _script(_LIVE)
    rules = f"connect-src 'self'; script-src '{_digest(script)}'"
    return b"<!doctype html>\n" + _filled("live", "live", script, rules, {"title": html.escape(title)})


def _filled(name: str, style: str, script: str, rules: str, pieces: Mapping[str, str]) -> bytes:
    """A page from its parts, in one pass: what was put in is not looked at again."""
    css = _asset("theme.css") + _asset(f"{style}.css")
    policy = _POLICY.format(style=_digest(css), more=rules)
    known = {**pieces, "style": css, "script": script, "policy": policy}
    return re.sub(r"@(\w+)@", lambda found: known[found[1]], _asset(f"{name}.html")).encode(errors="replace")


def _digest(text: str) -> str:
    """What a policy calls an element with this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _script(names: tuple[str, ...]) -> str:
    """Several scripts as one; their names are their own."""
    body = "\n".join(_asset(f"{name}.js") for name in names)
    return f'\n"use strict";\n(() => {{\n{body}\n}})();\n'


@cache
def _asset(name: str) -> str:
    return (resources.files("runner.report.gallery") / "assets" / name).read_text(encoding="utf-8")
