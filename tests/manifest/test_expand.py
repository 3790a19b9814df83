from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import ManifestError
from runner.manifest.expand import ExpansionSummary, check, expand, parse_and_check
from runner.manifest.parser import parse

PARTI = Path(__file__).resolve().parents[3] / "shared/data/PartiPrompts.tsv"


def test_one_task_without_items_and_matrix(bench):
    (draft,) = bench.drafts("params: {prompt: a cat, n: 2}")
    assert (draft.index, draft.repeat, draft.vars, draft.slots) == (1, 1, {}, 2)
    assert (draft.provider, draft.operation, draft.model) == ("fake", "image", "ink")
    assert draft.request == {"ref_prompt": "a cat", "n": 2}
    assert draft.name == "0001-a_cat"
    assert len(draft.key) == 32


def test_rows_then_axes_then_repeat(bench):
    found = bench.drafts("""
        params: {prompt: "{{ s }}{{ a }}{{ b }}{{ repeat }}"}
        items: [{s: x}, {s: y}]
        matrix: {a: [1, 2], b: [p, q]}
        repeat: 2
    """)
    expected = [f"{s}{a}{b}{r}" for s in "xy" for a in "12" for b in "pq" for r in "12"]
    assert [draft.request["ref_prompt"] for draft in found] == expected
    assert [draft.index for draft in found] == list(range(1, 17))
    assert found[0].vars == {"s": "x", "a": 1, "b": "p"}


def test_axis_beats_params_and_params_beat_columns(bench):
    (draft,) = bench.drafts("""
        params: {prompt: "{{ clarity }} {{ seed }}", clarity: "{{ gone_if_rendered|default(1) }}", seed: 1}
        items: [{seed: 2, n: 3, gone_if_rendered: 1}]
        matrix: {clarity: [2048]}
    """)
    assert draft.request == {"ref_prompt": "2048 2", "clarity": 2048, "seed": 1, "n": 3}


def test_empty_cells_set_nothing(bench):
    bench.write("r.csv", "prompt,seed\ncat,\ndog,5\n")
    assert [draft.request for draft in bench.drafts("items: {file: r.csv}")] == [
        {"ref_prompt": "cat"}, {"ref_prompt": "dog", "seed": "5"},
    ]  # fmt: skip


def test_templates_at_any_depth_and_constants(bench):
    (draft,) = bench.drafts("""
        params: {prompt: "{ not } {# one #}", x: {a: ["{{ s }}", 1, "{{ index }}"], b: null}}
        items: [{s: cat}]
    """)
    assert draft.request == {"ref_prompt": "{ not } {# one #}", "x": {"a": ["cat", 1, "1"], "b": None}}


def test_data_is_never_a_template(bench):
    bench.write("r.csv", "prompt\n{{ 7 }}{% for x in y %}\n")
    assert bench.prompts("items: {file: r.csv}") == ["{{ 7 }}{% for x in y %}"]
    assert bench.prompts("params: {prompt: '{{ s }}{{ t }}'}\nitems: [{s: '{{ 7 }}'}]\nmatrix: {t: ['{{ s }}']}") == [
        "{{ 7 }}{{ s }}"
    ]


KEYED = "params: {prompt: '{{ s }}'}\nitems: [%s]\noutput: {name: '{{ index }}-%s'}\n"


def test_reordering_renaming_and_adding_keep_the_keys(bench):
    before = {d.vars["s"]: d.key for d in bench.drafts(KEYED % ("{s: a}, {s: b}", "x"))}
    after = {d.vars["s"]: d.key for d in bench.drafts(KEYED % ("{s: c}, {s: b, note: 1}, {s: a}", "y"))}
    assert after.items() >= before.items()
    assert len(set(after.values())) == 3


def test_axis_and_params_give_the_same_key(bench):
    by_params = bench.drafts("params: {prompt: cat, seed: 5}")[0]
    by_axis = bench.drafts("params: {prompt: cat}\nmatrix: {seed: [5]}")[0]
    assert by_params.key == by_axis.key


def test_identical_tasks_merge_and_repeats_do_not(bench):
    text = "params: {prompt: '{{ s }}'}\nitems: [{s: a}, {s: b}, {s: a}]\nrepeat: 2\n"
    found = bench.drafts(text)
    assert [(d.index, d.vars["s"], d.repeat) for d in found] == [(1, "a", 1), (2, "a", 2), (3, "b", 1), (4, "b", 2)]
    assert bench.examine(text) == ExpansionSummary(tasks=4, merged=2)


def test_models_as_an_axis_or_a_column(bench):
    head = "version: 1\nprovider: fake\n"
    assert [d.model for d in bench.drafts("params: {prompt: x}\nmatrix: {model: [ink, oil]}", head=head)] == [
        "ink",
        "oil-2",
    ]
    bench.write("r.csv", "prompt,model\na,oil\nb,ink\n")
    assert [d.model for d in bench.drafts("items: {file: r.csv}", head=head)] == ["oil-2", "ink"]
    assert [d.model for d in bench.drafts("items: {file: r.csv}")] == ["ink", "ink"]


def test_unchecked_models(bench):
    head = "version: 1\nprovider: fake\nmodel: any\nunchecked: true\n"
    assert bench.drafts("params: {prompt: x}", head=head)[0].model == "any"


def test_output_names(bench):
    text = "params: {prompt: '{{ s }}'}\nitems: [{s: 'a/b'}, {s: ../c}]\n"
    assert [d.name for d in bench.drafts(text)] == ["0001-a_b", "0002-.._c"]
    found = bench.drafts(text + "output: {name: '{{ s }}/{{ key }}-{{ index }}-{{ repeat }}'}")
    assert [d.name for d in found] == [f"a_b_{found[0].key[:8]}-0001-1", f"_c_{found[1].key[:8]}-0002-1"]


def test_default_name_without_a_prompt(bench):
    bench.catalogue.shapes["ink"].names = {"text": "text", "x": "x"}
    bench.catalogue.shapes["ink"].request = lambda params: (dict(params), [])
    assert bench.drafts("params: {x: one, text: two words}")[0].name == "0001-two_words"
    assert bench.drafts("params: {x: one}")[0].name == "0001"


@pytest.mark.parametrize(("one", "other"), [("a", "A"), ("é", "E\u0301"), ("a b", "a/b"), ("ß", "SS")])
def test_colliding_names_are_refused_before_any_request(one, other, bench):
    text = f"params: {{prompt: '{{{{ s }}}}'}}\nitems:\n- s: '{one}'\n- s: '{other}'\noutput: {{name: '{{{{ s }}}}'}}"
    message = bench.error(text)
    assert "job.yaml:8:16: output.name: task 1 (row in line 6) and task 2 (row in line 7) are both called" in message
    assert not bench.examine(text.replace("name: '", "name: '{{ index }}-")).merged


@pytest.mark.parametrize("name", ["x", "{{ index }}{{ s }}", "{{ index }}1"])
def test_unindexed_names_of_a_single_task_are_allowed(name, bench):
    text = f"params: {{prompt: '{{{{ s }}}}'}}\nitems: [{{s: 1}}]\noutput: {{name: '{name}'}}"
    assert bench.drafts(text)


def test_expand_stops_at_the_first_error(bench):
    parsed = bench.parsed("params: {prompt: x}\nmatrix: {clarity: [1024, 5, 2048]}")
    found = expand(parsed, bench.catalogue)
    assert next(found).request["clarity"] == 1024
    with pytest.raises(ManifestError):
        next(found)
    with pytest.raises(ManifestError):
        check(parsed, bench.catalogue)


def test_drafts_come_one_by_one(bench):
    bench.write("r.txt", "".join(f"prompt {number}\n" for number in range(100_000)))
    parsed = bench.parsed("items: {file: r.txt}\nlimits: {max_tasks: 1000000}")
    assert next(expand(parsed, bench.catalogue)).index == 1


def test_the_order_is_always_the_same(bench):
    text = "params: {prompt: '{{ s }}{{ t }}'}\nitems: [{s: b}, {s: a}]\nmatrix: {t: [2, 1]}"
    assert bench.drafts(text) == bench.drafts(text)
    other = parse(b"version: 1\nprovider: fake\nmodel: ink\n" + text.encode(), bench.home / "other.yaml")
    assert [replace(d) for d in expand(other, bench.catalogue)] == bench.drafts(text)


@pytest.mark.slow
def test_speed(bench):
    bench.write("r.csv", "subject\n" + "".join(f"cat {number}\n" for number in range(2_000)))
    text = """
        params: {prompt: "{{ subject }}, {{ style }}, studio light", clarity: 2048}
        items: {file: r.csv}
        matrix: {style: [a, b, c, d, e], aspect_ratio: [1:1, 9:16]}
        limits: {max_tasks: 100000}
    """
    began = time.process_time()
    assert bench.examine(text).tasks == 20_000
    assert time.process_time() - began < 2


@pytest.mark.skipif(not PARTI.exists(), reason="the shared data are not here")
def test_parti_prompts_expand_completely(bench):
    text = f"version: 1\nprovider: fake\nmodel: ink\nparams: {{prompt: '{{{{ Prompt }}}}'}}\nitems: {{file: {PARTI}}}\n"
    parsed, summary = parse_and_check(text.encode(), bench.home / "job.yaml", bench.catalogue)
    assert summary.tasks + summary.merged == 1632
    names = [draft.name for draft in expand(parsed, bench.catalogue)]
    assert len({name.casefold() for name in names}) == summary.tasks


def test_metadata_of_a_benchmark_is_usable_as_it_is(bench):
    """The evaluation file of GenEval: nested values make prompts, and stay whole in the variables of the task."""
    lines = [
        '{"tag": "single", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}',
        '{"tag": "two", "include": [{"class": "cat"}, {"class": "dog"}], "prompt": "a photo of a cat and a dog"}',
    ]
    bench.write("meta.jsonl", "\n".join(lines))
    drafts = bench.drafts("params: {prompt: 'one {{ include[0].class }}'}\nitems: {file: meta.jsonl}")
    assert [draft.request["ref_prompt"] for draft in drafts] == ["one bench", "one cat"]
    assert drafts[1].vars["include"] == [{"class": "cat"}, {"class": "dog"}]
    assert [draft.name for draft in drafts] == ["0001-one_bench", "0002-one_cat"]
    assert bench.prompts("items: {file: meta.jsonl}")[0] == "a photo of a bench"


def test_keys_of_objects_are_a_column(bench):
    bench.write("rows.json", '{"boat": {"style": {"name": "ink"}}, "bird": {"style": {"name": "oil"}}}')
    text = "params: {prompt: '{{ row.key }}, {{ style.name }}'}\nitems: {file: rows.json}"
    assert bench.prompts(text) == ["boat, ink", "bird, oil"]


def test_any_column_is_reached_by_row(bench):
    bench.write("rows.csv", "Product Name,型号/规格,a.b\ncup,A4,x\n")
    text = """params: {prompt: '{{ row["Product Name"] }} {{ row["型号/规格"] }} {{ row["a.b"]|upper }}'}
items: {file: rows.csv}"""
    assert bench.prompts(text) == ["cup A4 X"]
    assert bench.warnings(text) == []
    assert "unknown variable `Product`; did you mean" in bench.error(
        "params: {prompt: '{{ row.Product }} {{ Product_Name }}'}\nitems: {file: rows.csv}"
    )


def test_row_without_the_part_is_named(bench):
    bench.write("rows.jsonl", '{"a": {"b": "x"}}\n{"a": {"c": "y"}}\n')
    error = bench.error("params: {prompt: '{{ a.b }}'}\nitems: {file: rows.jsonl}")
    assert "there is no part `b` (with the row in rows.jsonl:2)" in error
