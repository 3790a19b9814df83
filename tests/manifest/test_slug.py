from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.manifest.naming import MAX_BYTES, fold_name, slug

HOSTILE = [
    "../../.ssh/authorized_keys",
    "/abs",
    "C:\\x",
    "a\0b",
    "..",
    ".",
    "-rf",
    "~",
    "a. ",
    "CON",
    "con.txt",
    "a:b",
    "",
    " ",
    "NUL ",
    "COM1.x",
    "LPT²",
    "a\nb",
    "\x1b]52;c",
    "\u202eexe",
    "é" * 300,
    "😀" * 100,
    "\ud800",
    "CON." + "a" * 300,
]


def check(name: str) -> None:
    out = Path("/out")
    assert (out / name).parent == out
    assert name
    assert name not in {".", ".."}
    assert 0 < len(name.encode()) <= MAX_BYTES
    assert name[0] not in ".-"
    assert name[-1] not in ". "
    assert all(char.isalnum() or char in "_.-" for char in name)
    assert name == unicodedata.normalize("NFC", name)
    assert name.split(".", 1)[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1", "LPT²"}
    assert slug(name) == name


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_a_safe_component(text):
    check(slug(text))


@given(st.text())
@example("CON" + "." * 200)
@example("a" * 179 + ".b")
def test_any_text_becomes_one_safe_component(text):
    check(slug(text))


@given(st.text(alphabet="./\\-_ ~:conCONaé\0", max_size=300))
def test_hostile_alphabet_becomes_a_safe_component(text):
    check(slug(text))


def test_slug_examples():
    assert slug("a cat, ink / studio") == "a_cat_ink_studio"
    assert slug("0001-水墨 猫") == "0001-水墨_猫"


def test_folding_ignores_case_and_composition():
    assert fold_name("É.PNG") == fold_name("e\u0301.png")
