from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import ManifestError, ParameterDiagnostic
from runner.manifest.expand import ExpansionSummary

ERRORS = [
    (
        "params: {prompt: '{{ subjet }}'}\nitems: [{subject: a}]",
        "job.yaml:4:18: params.prompt: unknown variable `subjet`; did you mean `subject`?",
    ),
    (
        "params: {prompt: '{{ zzz }}'}",
        "job.yaml:4:18: params.prompt: unknown variable `zzz`; the variables are `index`, `repeat`",
    ),
    (
        "params: {prompt: '{{ a.b }}'}\nitems: [{a: 1}]",
        "job.yaml:4:18: params.prompt: there is no part `b` (with the row in job.yaml:5); name a part that every row",
    ),
    (
        "params: {prompt: x}\noutput: {name: '{{ a }}'}",
        "job.yaml:5:16: output.name: unknown variable `a`; the variables are `index`, `key`",
    ),
    (
        "params: {prompt: x, clarity: 5}",
        "job.yaml:4:30: params.clarity: 5 is not 1024 or 2048; choose one",
    ),
    (
        "params: {prompt: x, clarty: 5}",
        "job.yaml:4:29: params.clarty: is no parameter; remove it",
    ),
    (
        "params: {seed: 1}",
        "job.yaml:4:9: params: ink needs prompt; add it",
    ),
    (
        "params: {prompt: '{{ s }}'}\nitems: [{s: a}]\nmatrix: {clarity: [1024, 7]}",
        "job.yaml:6:26: matrix.clarity[1]: 7 is not",
    ),
    (
        "params: {prompt: x}\nitems:\n- {clarity: 1024}\n- {clarity: 9}",
        "job.yaml:7:13: clarity: 9 is not",
    ),
    (
        "params: {prompt: x, clarity: '{{ c }}'}\nitems: [{c: 1024}, {c: 9}]",
        "job.yaml:4:30: params.clarity: 9 is not 1024 or 2048 (with the row in job.yaml:5)",
    ),
    (
        "params: {prompt: '{{ s }}{{ t }}'}\nitems:\n- {s: a, t: b}\n- {s: c}",
        "job.yaml:7:3: t: has no value in this row, but `params.prompt` uses it",
    ),
    (
        "params: {prompt: '{{ s }}'}\nitems: [{s: }]",
        "job.yaml:5:13: s: has no value in this row",
    ),
    (
        "params: {prompt: '{{ s }}'}\nmatrix: {s: [a, null]}",
        "job.yaml:5:17: matrix.s[1]: is nothing here, but `params.prompt` uses it",
    ),
    (
        "params: {prompt: '{{ a + 1 }}'}\nitems: [{a: x}]",
        "params.prompt: the template fails",
    ),
    (
        "params: {prompt: x}\nitems: [{style: a}]\nmatrix: {style: [b]}",
        "job.yaml:6:10: matrix.style: is the name of a column",
    ),
    (
        "params: {prompt: x}\nitems: [{index: 1}]",
        "the column `index` has the name of a variable",
    ),
    (
        "params: {prompt: x}\nmatrix: {model: [ink, inq]}",
        "job.yaml:5:23: matrix.model[1]: fake has no model 'inq'; did you mean ink?",
    ),
    (
        "params: {prompt: x}\nmatrix: {provider: [fake, fke]}",
        "matrix.provider[1]: there is no provider 'fke'",
    ),
    (
        "params: {prompt: x}\nmatrix: {model: [ink, 5]}",
        "matrix.model[1]: expected the name of a model, found the number 5",
    ),
    (
        "params: {prompt: x}\nmatrix: {model: [[ink]]}",
        "expected the name of a model, found a list",
    ),
]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_error_is_reported_once_at_its_location(text, message, bench):
    assert message in bench.error(text)


def test_unknown_provider_and_model(bench):
    text = "params: {prompt: x}"
    assert "job.yaml:2:11: provider: there is no provider 'fke'" in bench.error(
        text, head="version: 1\nprovider: fke\nmodel: ink\n"
    )
    assert "job.yaml:3:8: model: fake has no model 'inq'" in bench.error(
        text, head="version: 1\nprovider: fake\nmodel: inq\n"
    )


def test_hint_for_a_used_column_named_like_a_parameter(bench):
    bench.write("r.csv", "clarity\ncrisp\n")
    (both,) = bench.errors("params: {prompt: '{{ clarity }} herons'}\nitems: {file: r.csv}")
    assert both.hint == "choose one; it sets the parameter `clarity`: call it otherwise if it is meant for texts alone"
    (alone,) = bench.errors("params: {prompt: herons}\nitems: {file: r.csv}")
    assert alone.hint == "choose one"


def test_empty_cell_of_a_required_parameter_is_located(bench):
    bench.write("r.csv", "prompt,clarity\nherons,1024\n,1024\n")
    (found,) = bench.errors("items: {file: r.csv}")
    assert str(found).removeprefix(f"{bench.home}/") == (
        "r.csv:3:1: prompt: is empty in this row, and ink needs prompt; fill it in, or take the row out"
    )
    (inline,) = bench.errors("items:\n- {prompt: herons}\n- {prompt: null}")
    assert (inline.line, inline.column, inline.key) == (6, 12, "prompt")


def test_errors_sort_by_numeric_index(bench):
    found = bench.errors("params: {prompt: x}\nmatrix: {clarity: {from: 1, to: 12}}")
    assert [each.key for each in found] == [f"matrix.clarity[{number}]" for number in range(12)]


def test_errors_of_data_files_have_their_line(bench):
    bench.write("r.csv", "s,clarity\na,1024\nb,9\n\nc\nd,7\n")
    found = [
        str(each).replace(f"{bench.home}/", "")
        for each in bench.errors("params: {prompt: '{{ s }}'}\nitems: {file: r.csv}")
    ]
    assert found == [
        "r.csv:3:3: clarity: 9 is not 1024 or 2048; choose one",
        "r.csv:5:1: 1 field where the header has 2; a value with a comma, a quote or a line break needs quotes in CSV",
        "r.csv:6:3: clarity: 7 is not 1024 or 2048; choose one",
    ]


def test_jsonl_row_without_the_variable_is_located(bench):
    bench.write("r.jsonl", '{"s": "a"}\n{"t": "b"}\n{"s": null}\n')
    found = bench.errors("params: {prompt: '{{ s }}'}\nitems: {file: r.jsonl}")
    assert [each.line for each in found] == [2, 3]
    assert bench.prompts("params: {prompt: '{{ s|default(9) }}'}\nitems: {file: r.jsonl}") == ["a", "9"]


def test_later_jsonl_rows_may_add_columns(bench):
    bench.write("r.jsonl", '{"s": "a"}\n{"s": "b", "t": "x"}\n{"s": "c", "t": "y"}\n')
    text = "params: {prompt: '{{ s }}{{ t|default(0) }}'}\nitems: {file: r.jsonl}\nmatrix: {exclude: [{t: y}]}"
    assert bench.prompts(text) == ["a0", "bx"]


def test_same_error_is_reported_once(bench):
    assert "clarity" in bench.error("params: {prompt: '{{ s }}', clarity: 5}\nitems: [{s: a}, {s: b}]\nrepeat: 5")


def test_broken_template_causes_no_second_error(bench):
    assert "unknown variable" in bench.error("params: {prompt: x, clarity: '{{ c }}'}")


def test_broken_axis_or_file_causes_no_second_error(bench):
    assert "matrix.style" in bench.error("params: {prompt: '{{ style }}'}\nmatrix: {style: []}")
    assert "no such file" in bench.error("params: {prompt: '{{ style }}'}\nitems: {file: r.csv}")


def test_max_tasks_error_counts_the_tasks(bench):
    text = "params: {prompt: '{{ a }}{{ s }}'}\nitems: [{s: 1}, {s: 2}]\nmatrix: {a: [1, 2, 3]}\nrepeat: 4\n"
    text += "limits: {max_tasks: %d}"
    assert bench.examine(text % 24) == ExpansionSummary(24, 0)
    assert "at least 24 tasks (3 a × 4 repeat × 2 items), and at most 23 are allowed" in bench.error(text % 23)


def test_max_tasks_stops_reading_a_file(bench):
    bench.write("r.txt", "".join(f"prompt {number}\n" for number in range(100)))
    assert len(bench.drafts("items: {file: r.txt}\nlimits: {max_tasks: 100}")) == 100
    assert "at least 11 tasks (a row each)" in bench.error("items: {file: r.txt}\nlimits: {max_tasks: 10}")


def test_huge_product_of_duplicates_ends_quickly(bench):
    axis = list(range(1000))
    text = f"params: {{prompt: x}}\nmatrix: {{a: {axis}, b: {axis}, c: {axis}}}\nlimits: {{max_tasks: 100}}"
    began = time.process_time()
    assert "at least 1,000,000,000 tasks" in bench.error(text)
    assert time.process_time() - began < 2


def test_numbers_beyond_json_are_reported(bench):
    bench.catalogue.shapes["ink"].request = lambda params: ({"x": 2**64}, [])
    assert "cannot be sent as JSON" in bench.error("params: {prompt: x}")


def test_many_errors_are_counted(bench):
    bench.catalogue.shapes["ink"].request = lambda params: (
        dict(params),
        [ParameterDiagnostic("prompt", f"bad {params['prompt']}")],
    )
    bench.write("r.txt", "".join(f"prompt {number}\n" for number in range(5000)))
    with pytest.raises(ManifestError) as caught:
        bench.examine("items: {file: r.txt}")
    assert (len(caught.value.diagnostics), caught.value.omitted) == (50, 4950)
    assert [each.line for each in caught.value.diagnostics] == list(range(1, 51))


WORDS = [
    "version: 1\n", "provider: fake\n", "model: ink\n", "params:", "items:", "matrix:", "repeat:", "output:",
    "limits:", "name:",
    " {prompt: '{{ a }}'}\n", " [{a: 1}, {b: 2}]\n", " {a: [1, 2]}\n", " {file: r.csv}\n", "- a\n", "  b: 1\n",
    " &x", " *x", " 2\n",
    " !t", "<<: ", "{", "}", "[", "]", "'", '"', ": ", "\n", "\t", "---\n", "NO", "12:30:45", "2024-01-01",
    "|\n", "? ", "#", "{{", "%",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join) | st.text() | st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_a_manifest_or_an_error_with_a_hint(bench, content):
    data = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
    errors = ()
    try:
        bench.examine(data)
    except ManifestError as error:
        errors = error.diagnostics
    assert all(each.hint for each in errors)


def test_kind_that_comes_after_thousands_of_another_is_shown(bench):
    rows = "".join("a,x\n" for _ in range(5_000))
    bench.write("r.csv", f"prompt,clarity\n{rows},1024\n")
    with pytest.raises(ManifestError) as caught:
        bench.examine("items: {file: r.csv}")
    first, second, rest, _ = str(caught.value).split("\n")
    assert "(5,000 of this kind, also at 3:3 and 4:3, …)" in first
    assert "r.csv:5002:1: prompt: is empty in this row" in second
    assert "4,999 more" in rest
    assert len(caught.value.diagnostics) == 50
    assert len(caught.value.others) < 2_000
