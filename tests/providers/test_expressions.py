"""Check the traps of JMESPath, and that no shape of a response makes an expression raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jmespath.exceptions import JMESPathError

from runner.providers.expressions import compile_expression


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("starts_with(a, 'x')", {"a": None}, None),
        ("starts_with(a, 'x')", {"a": 5}, None),
        ("contains(a, 'x')", {}, None),
        ("length(a)", {"a": 5}, None),
        ("sort_by(a, &b)", {"a": [{"b": 1}, {"b": "x"}]}, None),
        ("a > `1`", {"a": "text"}, None),
        ("max(a)", {"a": [1, "x"]}, None),
        ("a.b.c[0]", "text", None),
        ("a[?b > `1`]", {"a": 7}, None),
        ("[a][?@].{url: @}", {"a": None}, []),
        ("[a][?@].{url: @}", {"a": "u"}, [{"url": "u"}]),
        ("a[?u] | [0].u", {"a": [{"u": None}, {"u": "x"}]}, "x"),
        ("a || b", {"a": "", "b": "x"}, "x"),
        ("a || b", {"a": [], "b": "x"}, "x"),
        ('headers."retry-after"', {"headers": {"retry-after": "3"}}, "3"),
        ("code == `0`", {"code": 0.0}, True),
        ("code == `0`", {"code": "0"}, False),
        ("code == `1`", {"code": True}, False),
        ("body.code != `0`", {"body": "text"}, True),
        ("body.code == `0`", {"body": "text"}, False),
        ("a == `null`", {}, True),
        ("!(a.b)", {"a": {}}, True),
    ],
)
def test_search_finds_a_value_or_none(text, value, found):
    assert compile_expression(text).search(value) == found


@pytest.mark.parametrize("truthy", [0, 1, "x", [0], {"a": 1}, None, "true"])
def test_only_exactly_true_holds(truthy):
    """`0` is true in JMESPath, so a rule that is just `code` would match a success."""
    assert not compile_expression("code").is_true({"code": truthy})
    assert compile_expression("code").is_true({"code": True})


@pytest.mark.parametrize(
    ("text", "found"),
    [('{"code": 1301}', 1301), ("{", None), ("", None), ("[1]", None), (7, None), (None, None), ({"code": 1}, None)],
)
def test_from_json_reads_json_text_only(text, found):
    assert compile_expression("from_json(message).code").search({"message": text}) == found


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("余额|欠费", "账户欠费", "欠费"),
        ("~([0-9]+)s", "resets in ~30s", "30"),
        ("x", 5, None),
        ("x", None, None),
        ("x", ["x"], None),
        ("b$", "x" * 20_000 + "b", None),
    ],
)
def test_match_reads_the_start_of_a_text_only(pattern, text, found):
    assert compile_expression(f"match(a, '{pattern}')").search({"a": text}) == found


@pytest.mark.parametrize("broken", ["a[", "a ||", "", "nope(", "a = b"])
def test_broken_expression_raises_when_compiled(broken):
    with pytest.raises(JMESPathError):
        compile_expression(broken)


def test_expression_is_compiled_once():
    assert compile_expression("a.b") is compile_expression("a.b")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abu"), inner, max_size=3),
)
AWKWARD = [
    "a > b",
    "length(a)",
    "sort_by(a, &b)",
    "a[].b | [0]",
    "join(', ', a)",
    "max_by(a, &b)",
    "a.*.b",
    "to_number(a)",
    "-a",
]


@pytest.mark.slow
@given(JSON)
def test_no_value_makes_search_raise(value):
    for text in AWKWARD[:-1]:
        compile_expression(text).search(value)
