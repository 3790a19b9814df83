"""Keys and goods are promises: a change would buy every task again, so the vectors never change."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.manifest.identity import canonical, canonical_text, task_goods, task_key

VECTORS = [
    (("chanjing", "image", "kling-v2-1", {"ref_prompt": "cat"}, 1), "e77a6fdb273255890f6dba52be627b36"),
    (("chanjing", "image", "kling-v2-1", {"ref_prompt": "cat"}, 2), "aa54c8eb928d6abe6e8f5f6df1c11d6e"),
    (("chanjing", "image", "kling-v2-1", {"ref_prompt": "水墨猫 🐈", "n": 2}, 1), "7dd8dd786f3dd28b01d076623c290003"),
    (
        ("kling", "text2video", "kling-v1", {"cfg_scale": 0.1, "x": 1e-7, "y": 1e22, "z": 5.0}, 1),
        "7bf4f71cceddbe36af060f75e2836d50",
    ),
    (
        ("kling", "text2video", "kling-v1", {"camera": {"b": [1, None, True], "a": {"d": "", "c": -0.0}}}, 1),
        "17dbb9ec6730748bcaef8378c0ae0796",
    ),
    (("kling", "text2video", "kling-v1", {}, 1000), "0c2531c61303acb148cdf1399998f5aa"),
]


@pytest.mark.parametrize(("content", "expected"), VECTORS)
def test_keys_match_the_recorded_vectors(content, expected):
    assert task_key(*content) == expected


def test_order_of_parameters_does_not_change_the_key():
    assert task_key("p", "o", "m", {"a": 1, "b": {"c": 2, "d": 3}}, 1) == task_key(
        "p", "o", "m", {"b": {"d": 3, "c": 2}, "a": 1}, 1
    )


def test_integers_and_floats_have_different_keys():
    assert task_key("p", "o", "m", {"a": 5}, 1) != task_key("p", "o", "m", {"a": 5.0}, 1)


def test_numbers_beyond_json_raise_type_error():
    with pytest.raises(TypeError):
        task_key("p", "o", "m", {"a": 2**64}, 1)


GOODS = [
    (("chanjing", "/p", "kling-v2-1", {"ref_prompt": "cat"}, 1, {}), "c057efa86b3152411b98974240afbe18"),
    (
        ("chanjing", "/p", "kling-v2-1", {"ref_prompt": "水墨猫 🐈", "n": 2}, 2, {"n": 1}),
        "c8203d54bf01de20933b5924264c5b66",
    ),
    (
        ("kling", "/v", "m", {"x": 5.0, "y": [1.5, {"b": " a\r\n", "a": None}], "z": True}, 1, {}),
        "3a2755605e0511e50fb54739def11619",
    ),
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["prompt", "n", "ratio", "images"])
REQUESTS = st.dictionaries(NAMES, VALUES, min_size=1)


def goods(request, repeat=1, implied=None, **place):
    where = {"provider": "p", "endpoint": "/e", "model": "m", **place}
    return task_goods(**where, request=request, repeat=repeat, implied=implied or {})


def unseen(text, draw):
    """Return the text as another editor may write it: no reader sees a difference."""
    text = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    blanks = st.sampled_from(["", " ", "\t", "\u3000 "])
    inner = end.join(line + draw(blanks) for line in lines)
    return draw(st.sampled_from(["", "\ufeff"])) + draw(blanks) + inner + draw(st.sampled_from(["", "\n", "\r\n \n"]))


def rewritten(value, draw):
    """Return a value as another editor or program may write it."""
    if isinstance(value, str):
        return unseen(value, draw)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:
        return float(value)
    if isinstance(value, list):
        return [rewritten(each, draw) for each in value]
    if isinstance(value, dict):
        return {name: rewritten(value[name], draw) for name in reversed(value)}
    return value


@pytest.mark.parametrize(("content", "expected"), GOODS)
def test_goods_match_the_recorded_vectors(content, expected):
    assert task_goods(*content) == expected


@given(st.data(), REQUESTS)
def test_harmless_edits_have_the_same_goods(data, request):
    assert goods(rewritten(request, data.draw)) == goods(request)


@given(REQUESTS, NAMES, VALUES)
def test_real_edits_have_other_goods(request, name, value):
    same = name in request and repr(canonical(request[name])) == repr(canonical(value))
    assert (goods({**request, name: value}) == goods(request)) == same


@given(TEXTS)
def test_canonical_text_is_final(text):
    assert canonical_text(canonical_text(text)) == canonical_text(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Cat", "cat"), ("a  b", "a b"), ("it's", "it’s"), ("a - b", "a – b"), ("a\nb", "a b"), ("5", 5), (True, 1),
     ("\u212b", "A"), ("ﬁ", "fi"), ("Ａ", "A"), ("a\n\nb", "a\nb"), ([1, 2], [2, 1]), ("", None)],
)  # fmt: skip
def test_what_can_be_seen_counts(one, other):
    assert goods({"x": one}) != goods({"x": other})


def test_place_model_and_repeat_count():
    request = {"prompt": "cat"}
    others = [{"provider": "q"}, {"endpoint": "/f"}, {"model": "n"}, {"repeat": 2}]
    assert len({goods(request), *(goods(request, **other) for other in others)}) == 5


def test_values_that_go_without_saying_do_not_count():
    assert goods({"prompt": "cat", "n": 1}, implied={"n": 1}) == goods({"prompt": "cat"})
    assert goods({"prompt": "cat", "n": 1.0}, implied={"n": 1}) == goods({"prompt": "cat"})
    assert goods({"prompt": "cat", "n": 2}, implied={"n": 1}) != goods({"prompt": "cat"})
    # a changed default is the same purchase, and kept
    assert goods({"prompt": "cat", "n": 2}, implied={"n": 2}) == goods({"prompt": "cat", "n": 1}, implied={"n": 1})
