"""A number is text as it was written wherever text is wanted, and a number wherever a number is."""

from __future__ import annotations

import orjson
import pytest

from runner.providers.catalogue import Catalogue
from runner.text import has_written_number, number_as_written, plain_numbers, texts_of_numbers

#: as they are written; the value of each is another text
NUMBERS = ["1.10", "9.90", "0x10", "12e03", "0o17", ".5", "+5", "1.", "3.0e0", "-0", "0.1234567890123456789"]
#: text that other readers of YAML take for numbers, times and dates
TEXTS = ["1_000", "16:9", "12:30:45", "2024-01-02", "007", "0b11", "-0x1", "1e999"]


@pytest.mark.parametrize("written", [*NUMBERS, *TEXTS])
def test_templates_names_and_variables_have_what_was_written(bench, written):
    (draft,) = bench.drafts(f"""\
        params: {{prompt: "iOS {{{{ v }}}}, {{{{ v | upper }}}}!"}}
        items: [{{v: {written}}}]
        output: {{name: "{{{{ v }}}}-x"}}
        """)
    assert draft.request == {"ref_prompt": f"iOS {written}, {written.upper()}!"}
    assert draft.vars == {"v": written}
    assert written.lstrip("-.").replace(":", "_").replace("+", "_") in draft.name
    assert type(orjson.loads(orjson.dumps(draft.vars))["v"]) is str


@pytest.mark.parametrize("written", NUMBERS)
def test_number_parameters_get_their_number(bench, written):
    plain = bench.drafts(f"params: {{prompt: cat, x: {written}, seed: [{written}], clarity: 1024}}")
    (draft,) = plain
    assert type(draft.request["x"]) in {int, float}
    assert type(draft.request["seed"][0]) in {int, float}
    by_column = bench.drafts(f"items: [{{prompt: cat, x: {written}, seed: [{written}], clarity: 1024}}]")
    assert [each.key for each in by_column] == [draft.key]
    assert draft.goods_before == ""


def test_keys_of_requests_with_numbers_are_as_ever(bench):
    """Recorded with the version that took `0.50` for 0.5: what is sent as a number may not change."""
    draft, other = (
        bench.drafts("params: {prompt: cat, x: 0.50, seed: 0x10}")[0],
        bench.drafts("params: {prompt: cat, x: 0.5, seed: 16}")[0],
    )
    assert (draft.key, draft.goods) == (other.key, other.goods)


def test_axes_and_added_values_are_as_written(bench):
    found = bench.drafts("""\
        params: {prompt: "{{ v }} {{ w }}"}
        matrix:
          v: [1.10, 1.1]
          add: [{v: 0x1F, w: 2.50}]
          set: [{when: {v: 1.10}, then: {w: 9.90}}, {when: {v: 31}, then: {w: 7.70}}]
        """)
    assert [draft.request["ref_prompt"] for draft in found] == ["1.10 9.90", "1.1 9.90", "0x1F 7.70"]


def test_ranges_count_with_numbers_however_they_are_written(bench):
    found = bench.drafts('params: {prompt: "{{ v }}"}\nmatrix: {v: {from: 0.50, to: 1.00, step: 0.50}}')
    assert [draft.request["ref_prompt"] for draft in found] == ["0.5", "1.0"]


def test_arithmetic_of_templates_is_with_the_number(bench):
    (text,) = bench.prompts("""\
        params: {prompt: "{{ v + 1 }} {{ v | round(1) }} {{ v | int }} {% if v == 1.1 %}yes{% endif %} {{ v ~ '' }}"}
        items: [{v: 1.10}]
        """)
    assert text == "2.1 1.1 1 yes 1.10"


def test_numbers_as_keys_need_quotes(bench):
    assert "a key must be text; put the key in quotes" in bench.error("items: [{prompt: a, 1.10: b}]")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.yaml", "- {v: 9.90, w: [1.10, a], k: 5}\n"),
        ("rows.json", '[{"v": 9.90, "w": [1.10, "a"], "k": 5}]'),
        ("rows.jsonl", '{"v": 9.90, "w": [1.10, "a"], "k": 5}\n'),
    ],
)
def test_data_files_are_read_as_written(bench, name, content):
    bench.write(name, content)
    (draft,) = bench.drafts(f"params: {{prompt: \"{{{{ v }}}} {{{{ w | join(' ') }}}}\"}}\nitems: {{file: {name}}}")
    assert draft.request == {"ref_prompt": "9.90 1.10 a"}
    assert draft.vars == {"v": "9.90", "w": ["1.10", "a"], "k": 5}


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "18446744073709551616"])
def test_inexact_numbers_beside_unusual_ones_are_errors(bench, number):
    bench.write("rows.jsonl", f'{{"v": 1.10, "w": {number}}}\n')
    assert "too big to be exact" in bench.error('params: {prompt: "{{ v }}"}\nitems: {file: rows.jsonl}')


def test_rows_that_differ_only_in_writing_are_two_tasks(bench):
    text = 'params: {prompt: "iOS {{ v }}"}\nitems: [{v: 1.10}, {v: 1.1}, {v: 1.100}]'
    assert bench.prompts(text) == ["iOS 1.10", "iOS 1.1", "iOS 1.100"]


def test_earlier_goods_are_those_of_the_plain_number(bench):
    """What an earlier version bought for `1.10` is what this one would buy for `1.1`."""
    text = 'params: {{prompt: "iOS {{{{ v }}}}", x: {}}}\nitems: [{{v: {}}}, {{v: a}}]'
    written, plain = bench.drafts(text.format("0.50", "1.10")), bench.drafts(text.format("0.5", "1.1"))
    assert [draft.goods_before for draft in written] == [plain[0].goods, ""]
    assert [draft.goods_before for draft in plain] == ["", ""]
    constant = bench.drafts('params: {prompt: "{{ v }} of 3", x: 1}\nmatrix: {v: [12e03]}')[0]
    assert constant.goods_before == bench.drafts('params: {prompt: "12000.0 of 3", x: 1}')[0].goods


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("prompt", ("1.10", 1.1), "1.10"),
        ("cfg_scale", ("0.50", 0.5), 0.5),
        ("duration", ("0x5", 5), "5"),
        ("camera_control", {"config": {"zoom": ("1.10", 1.1)}}, {"config": {"zoom": 1.1}}),
    ],
)
def test_model_decides_whether_text_is_wanted(name, value, expected):
    def remembered(value):
        if isinstance(value, dict):
            return {key: remembered(each) for key, each in value.items()}
        return number_as_written(value[1], value[0])

    model = Catalogue().find("kling", "text2video/kling-v1", unchecked=True)
    request, diagnostics = model.request({"prompt": "cat", name: remembered(value)})
    assert (request[name], diagnostics) == (expected, [])
    assert orjson.dumps(request)


def test_unknown_parameters_get_the_number():
    model = Catalogue().find("kling", "text2video/kling-v99", unchecked=True)
    request, _ = model.request({"strength": number_as_written(1.1, "1.10"), "seed": number_as_written(16, "0x10")})
    assert [type(request[name]) for name in ("strength", "seed")] == [float, int]


def test_values_are_found_and_converted_at_any_depth():
    value = {"a": [number_as_written(1.1, "1.10"), "x"], "b": number_as_written(16, "0x10"), "c": True}
    assert has_written_number(value)
    assert not has_written_number(plain_numbers(value))
    assert plain_numbers(value) == {"a": [1.1, "x"], "b": 16, "c": True}
    assert texts_of_numbers(value) == {"a": ["1.10", "x"], "b": "0x10", "c": True}
    assert type(number_as_written(1.5, "1.5")) is float
