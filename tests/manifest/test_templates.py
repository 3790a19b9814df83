from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.manifest.templates import MAX_LENGTH, Template, TemplateError, is_template

GIVEN = {"a": "cat", "b": "Ink", "n": 3, "tags": ["x", "y"], "none": ""}
RENDERED = [
    ("{{ a }}, {{b}}", "cat, Ink"),
    ("{{ a|upper }}-{{ b | lower }}", "CAT-ink"),
    ("{{ a ~ b }}{{ n + 1 }}", "catInk4"),
    ("{% if n > 2 %}many{% else %}few{% endif %}", "many"),
    ("{{ 'one' if n == 1 else 'more' }}", "more"),
    ("{{ tags|join(', ') }}", "x, y"),
    ("{{ a|replace('c', 'b') }}{{ n|round }}", "bat3.0"),
    ("{{ a in ['cat', 'dog'] }}", "True"),
    ("{{ other|default('none') }}", "none"),
    ("{{ a|truncate(2, True, '', 0) }}", "ca"),
    ("{{ a }}\n", "cat\n"),
]
REFUSED = [
    "{{ a.__class__ }}", "{{ a['__class__'] }}", "{{ a|attr('__class__') }}", "{{ a.upper() }}",
    "{{ range(9) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ 'x' * 10**9 }}", "{{ 2 ** 999999 }}", "{{ 9 * 9 }}",
    "{{ '%999999999d' % 1 }}", "{% for i in a %}{{ i }}{% endfor %}", "{% set x = a %}", "{% include 'x' %}",
    "{% import 'x' as y %}", "{% macro m() %}{% endmacro %}", "{% raw %}{% endraw %}{{ a() }}", "{{ a|center(10**9) }}",
    "{{ '%999d'|format(1) }}", "{{ tags|map(attribute='x') }}", "{{ a[b] }}", "{{ a[:2] }}",
    "{{ 'x'[0] }}", "{{ a[1.5] }}", "{{ a[none] }}", "{{ {'a': 1} }}",
    "{{ self.x }}", "{{ cycler('a') }}", "{{ lipsum() }}", "{% block x %}{% endblock %}", "{{ a", "{{ }}",
    "{% if %}",
    "{{ a|nofilter }}", "{{ " + "(" * 5000 + "a" + ")" * 5000 + " }}", "{{ " + "not " * 4000 + "a }}",
    "{{ " + " + ".join(["n"] * 3000) + " }}", "{{ a }}" + "x" * MAX_LENGTH, "{{ a is nosuchtest }}",
]  # fmt: skip
FAILING = [
    "{{ a + n }}", "{{ n / 0 }}", "{{ a|int(x) }}", "{{ a|join(1, 2, 3) }}", "{{ n|length }}", "{{ big }}",
    "{{ half }}{{ half }}",
    "{{ half ~ half }}", "{{ half|replace('x', half) }}", "{{ half|urlencode|replace('x', 'yyyyyy') }}",
    "{{ nothing }}",
    "{{ big|upper }}",
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), RENDERED)
def test_template_renders(text, expected):
    assert Template(text).render(GIVEN) == expected


@pytest.mark.parametrize("text", REFUSED)
def test_unsafe_template_is_refused_before_it_runs(text):
    began = time.process_time()
    with pytest.raises(TemplateError) as caught:
        Template(text)
    assert caught.value.hint
    assert time.process_time() - began < 1


@pytest.mark.parametrize("text", FAILING)
def test_failing_template_raises_template_error(text):
    variables = GIVEN | {"half": "x" * 15_000, "big": "x" * (MAX_LENGTH + 1)}
    with pytest.raises(TemplateError):
        Template(text).render(variables)


def test_fast_path_agrees_with_jinja():
    template = Template("{{ a }}/{{ n }}/{{ tags }}/{{ a }}")
    fast = template.render(GIVEN)
    template.parts = ()
    assert template.render(GIVEN) == fast == "cat/3/['x', 'y']/cat"


def test_names_and_the_missing_variable():
    template = Template("{{ a }}{% if n %}{{ gone|upper }}{% endif %}")
    assert template.names == {"a", "n", "gone"}
    with pytest.raises(TemplateError) as caught:
        template.render(GIVEN)
    assert caught.value.missing == "gone"


def test_is_template():
    assert not is_template("a { b } {# c #} ${NAME} %}")
    assert is_template("{{ a }}")
    assert is_template("{% if a %}")


@given(st.text(alphabet="{}%|.()[]*'\" abcn_+~-", max_size=60))
def test_any_template_renders_or_raises_template_error(text):
    with suppress(TemplateError):
        assert len(Template(text).render(GIVEN)) <= MAX_LENGTH


@given(st.text())
def test_values_are_never_templates(value):
    assert Template("{{ a }}").render({"a": value + "{{ n }}"}) == value + "{{ n }}"


def test_columns_are_used_whatever_they_are_called(bench):
    """With `_` for what a template cannot write; a column of that very name goes first."""
    bench.write("r.csv", "Product Name,Price (USD),型号/规格,2nd,a b,a-b,x y,x_y\ncup,3,A-1,z,1,2,3,4\n,5,B,y,,,6,7\n")
    prompt = "{{ Product_Name }} {{ Price_USD }} {{ 型号_规格 }} {{ _2nd }} {{ x_y }}"
    text = f"params: {{prompt: '{prompt}'}}\nitems: {{file: r.csv}}\n"
    assert [draft.request["ref_prompt"] for draft in bench.drafts(text)] == ["cup 3 A-1 z 4", " 5 B y 7"]
    assert any("Product Name: is empty in this row" in warning for warning in bench.warnings(text))
    assert not any("nothing uses the column `Product Name`" in warning for warning in bench.warnings(text))
    error = bench.error("params: {prompt: '{{ a_b }}'}\nitems: {file: r.csv}\n")
    assert "unknown variable `a_b`" in error, "two columns would be called so"


@pytest.mark.parametrize(
    ("written", "alias"),
    [("{{ Product Name }}", "Product_Name"), ("{{ Price (USD) }}", "Price_USD"), ("{{ 2nd }}", "_2nd")],
)
def test_column_that_no_template_can_write_is_shown_as_it_can(bench, written, alias):
    assert f"{{{{ {alias} }}}}" in bench.error(f"params: {{prompt: '{written}'}}\nitems: [{{a: 1}}]\n")


def test_missing_value_of_a_renamed_column_is_said(bench):
    bench.write("r.jsonl", '{"a b": "x", "c": 1}\n{"c": 2}\n')
    assert "a_b" in bench.error("params: {prompt: '{{ a_b }} {{ c }}'}\nitems: {file: r.jsonl}\n")


@pytest.mark.parametrize("head", ["data:image/png;base64,", "iVBORw0KGgo", "/9j/", "UklGR"])
def test_image_in_a_cell_may_be_long(head):
    """A variable that stands alone cannot grow."""
    image = head + "A" * 1_000_000
    assert Template("{{ photo }}").render({"photo": image}) == image
    with pytest.raises(TemplateError):
        Template("see {{ photo }}").render({"photo": image})


NESTED = {
    "include": [{"class": "bench", "count": 2, "items": "seat"}, {"class": "cat", "big": "x" * (MAX_LENGTH + 1)}],
    "style": {"Line Art": {"width": 1.5}, "__x": 1},
    "Product Name": "cup",
    "型号/规格": "A4",
    "word": "cat",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {{ include[0].class }}", "a bench"),
        ("{{ include[-1]['class']|upper }}", "CAT"),
        ("{{ include[0].items }}", "seat"),
        ("{{ style['Line Art'].width }}", "1.5"),
        ("{{ (include|last).class }}", "cat"),
        ("{{ include|length }}", "2"),
        ("{% if include[0].count > 1 %}many{% endif %}", "many"),
        ("{{ include[5].class|default('none') }}", "none"),
        ("{{ style.none.deeper|default('none') }}", "none"),
        ('{{ row["Product Name"] }}, {{ row.word }}', "cup, cat"),
        ('{{ row["型号/规格"]|lower }} {{ row.include[1].class }}', "a4 cat"),
        ("{{ row.absent|default('none') }}", "none"),
    ],
)
def test_parts_of_nested_values(text, expected):
    assert Template(text).render(NESTED) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ include[0].colour }}", "there is no part `colour`"),
        ("{{ include[0].class.upper }}", "there is no part `upper`"),
        ("{{ word[0] }}", "there is no part `0`"),
        ("{{ include[2] }}", "there is no part `2`"),
        ("{{ include[1].big }}", "`big` has 20,001 characters"),
        ("{{ include }}", "a value with parts of its own cannot stand in a text"),
        ("{{ include[0] }}, yes", "a value with parts of its own cannot stand in a text"),
        ("{{ include|join(', ') }}", "a value with parts of its own cannot stand in a text"),
        ("{{ style|string }}", "a value with parts of its own cannot stand in a text"),
    ],
)
def test_parts_that_cannot_be_shown_are_reported(text, message):
    """The words of a Python object must never be bought."""
    with pytest.raises(TemplateError) as caught:
        Template(text).render(NESTED)
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "missing"), [("{{ a.b }}", "a"), ('{{ row["a b"] }}', "a b"), ("{{ row.a[0] }}", "a")]
)
def test_missing_variable_of_a_part_is_named(text, missing):
    with pytest.raises(TemplateError) as caught:
        Template(text).render({"x": 1})
    assert (caught.value.missing, Template(text).names) == (missing, {missing})


def test_column_called_row_is_still_a_variable():
    assert Template("{{ row }} {{ row.word }}").render({"row": 7, "word": "cat"}) == "7 cat"
