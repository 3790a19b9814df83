"""Hostile text stays text; the page is parsed as a browser would parse it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.report.gallery import page
from runner.report.gallery.page import CARD_FIELDS, card, script_safe_json

from .conftest import output, row

HOSTILE = (
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "</title><svg onload=alert(1)>",
    "javascript:alert(1)", '" onmouseover="alert(1)', "' autofocus onfocus='alert(1)", "{{7*7}}", "@script@ @facts@",
    "<!--", "-->", "]]>", "\u2028\u2029", "\u202egnp.exe", "\x00\x1b[2J\x7f", "&lt;b&gt;", "<\x00script>", "\ufeff",
    "💥" * 3, "\\", "\\u003c", "`${1}`",
)  # fmt: skip
PIECES = st.lists(st.sampled_from(HOSTILE), min_size=2, max_size=3).map("".join)
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(), PIECES)
TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "div", "h1", "p", "nav", "input", "label", "span",
    "select", "button", "main", "dialog", "noscript", "script",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "id", "dir", "role", "type", "autocomplete", "spellcheck",
    "class", "min", "max", "step", "src", "async",
}  # fmt: skip


class Parsed(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        self.texts.setdefault(self._open, []).append(data)

    def of(self, tag):
        return [fields for name, fields in self.elements if name == tag]


def written(directory, rows, info):
    page.write(page.open_gallery(directory), rows, info)
    return (directory / "index.html").read_bytes().decode()


def data(directory):
    """Return the cards of all parts in order."""
    found = {}
    for path in (directory / "gallery").glob("data-*.js"):
        at, body = re.fullmatch(
            r"gallery\.take\((\d+), (.*)\);\n", path.read_text(encoding="utf-8"), re.DOTALL
        ).groups()
        found[int(at)] = json.loads(body)
    return [card for _, cards in sorted(found.items()) for card in cards]


@given(TEXT)
@example("@title@")
def test_name_is_only_text(text):
    parsed = Parsed(page.gallery_page(text, {"job": text}, ["gallery/data-0.js"]).decode())
    assert {tag for tag, _ in parsed.elements} == TAGS
    assert {name for _, fields in parsed.elements for name in fields} == ATTRIBUTES
    assert [fields["src"] for fields in parsed.of("script") if "src" in fields] == ["gallery/data-0.js"]
    info = json.loads(parsed.texts["script"][0])
    assert info == {"job": text}


@given(st.dictionaries(TEXT, TEXT | st.integers(min_value=-(2**53), max_value=2**53), max_size=3), TEXT, TEXT)
def test_data_is_equal_as_script_and_as_text(variables, file, message):
    encoded = card(row(vars=variables, message=message, reason="x", outputs=[output(file)]), set())
    text = script_safe_json(encoded).decode()
    assert re.search("[<>&\u2028\u2029]", text) is None
    fields = dict(zip(CARD_FIELDS, json.loads(text), strict=True))
    assert json.loads(fields["vars"]) == variables
    # an output without a name is left out
    assert [each[0] for each in fields["outputs"]] == ([file] if file else [])
    assert fields["error"] == ["x", None, message]


def test_policy_allows_only_our_own_content(tmp_path, info):
    text = written(tmp_path, [row()], info)
    parsed = Parsed(text)
    (policy,) = (fields["content"] for fields in parsed.of("meta") if "http-equiv" in fields)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["trusted-types"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy
    for tag, name in (("style", "style-src"), ("script", "script-src")):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        assert base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() in rules[name]
    assert re.findall(r"https?://|//[a-z]", re.sub(r"^ *//.*$", "", text, flags=re.MULTILINE)) == []


def test_only_documented_fields_are_published(tmp_path, info):
    secret = "canary-7f3a"
    hidden = {**output(), "url": f"https://cdn.example/x?sign={secret}"}
    text = written(tmp_path, [row(outputs=[hidden], evidence=secret, ref=secret, fingerprint=secret)], info)
    written_files = [path.read_text(encoding="utf-8") for path in (tmp_path / "gallery").iterdir()]
    assert [each for each in (text, *written_files) if secret in each] == []


def test_new_page_replaces_the_old_page_and_its_data(tmp_path, info):
    written(tmp_path, [row()], info)
    before = {path.name for path in (tmp_path / "gallery").iterdir()}
    (tmp_path / "gallery/mine.txt").write_text("kept")
    text = written(tmp_path, [row(key="k2")], info)
    after = {path.name for path in (tmp_path / "gallery").iterdir()}
    assert (len(before), len(after - before), len(before - after)) == (2, 2, 1)
    assert "mine.txt" in after
    (source,) = (fields["src"] for fields in Parsed(text).of("script") if "src" in fields)
    assert (tmp_path / source).exists()


@pytest.mark.slow
def test_ten_thousand_tasks_come_in_parts(tmp_path, info):
    """The page and its first part are small, so that tasks appear at once."""
    text = written(tmp_path, (row(key=f"k{number}", position=number) for number in range(10_000)), info)
    sources = [fields["src"] for fields in Parsed(text).of("script") if "src" in fields]
    assert len(sources) == 11
    assert len(text) < 64_000
    assert (tmp_path / sources[0]).stat().st_size < 64_000
    assert [fields[0] for fields in data(tmp_path)] == [f"k{number}" for number in range(10_000)]
    assert json.loads(Parsed(text).texts["script"][0])["shown"] == 10_000


@pytest.mark.parametrize(
    ("file_names", "thumbnail"),
    [(set(), None), ({"abcd.webp"}, "abcd.webp"), ({"abcd.none"}, False), ({"other.webp"}, None)],
)
def test_thumbnail_is_present_impossible_or_not_made(file_names, thumbnail):
    """A card has the thumbnail's name, False if the file cannot be decoded, or None."""
    fields = dict(zip(CARD_FIELDS, card(row(outputs=[output(sha256="abcd")]), file_names), strict=True))
    assert fields["outputs"] == [["a.png", 3, "image/png", thumbnail]]
