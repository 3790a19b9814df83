"""Jobs with several models: the choice of the model, and values that only some of the models take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.manifest.expand import expand
from runner.providers.catalogue import Catalogue

HEAD = "version: 1\nprovider: fake\n"


@pytest.fixture
def two(bench):
    """Return a bench with `ink` and `oil`, of which only `ink` has a clarity and only `oil` a gloss."""
    shapes = bench.catalogue.shapes
    shapes["ink"] = replace(shapes["ink"], names={"prompt": "prompt", "clarity": "clarity"})
    shapes["oil"] = replace(shapes["oil"], names={"prompt": "prompt", "gloss": "gloss"})
    return bench


def test_model_precedence_is_matrix_manifest_column(bench):
    columns = "params: {prompt: x}\nitems: [{model: oil}]\n"
    assert [d.model for d in bench.drafts(columns, head=HEAD)] == ["oil-2"]
    assert [d.model for d in bench.drafts(columns)] == ["ink"]
    assert [d.model for d in bench.drafts("params: {prompt: x}\nmatrix: {model: [oil]}")] == ["oil-2"]


def test_every_part_of_the_matrix_can_choose_the_model(two):
    text = """
        params: {prompt: "{{ s }}"}
        matrix:
          zip: [{s: [a, b], model: [ink, oil]}]
          add: [{s: c, model: oil}]
          set: [{when: {s: a}, then: {model: oil}}]
    """
    assert [(d.vars["s"], d.model) for d in two.drafts(text, head=HEAD)] == [("a", "oil-2"), ("b", "oil-2"),
                                                                            ("c", "oil-2")]  # fmt: skip
    given = "params: {prompt: x}\nmatrix: {t: [1, 2], set: [{when: {t: 1}, then: {model: ink}}]}"
    assert two.error(given, head=HEAD) == (
        "job.yaml:1:1: model: expected the name of a model, found nothing; `runner models` lists what there is"
    )


def test_key_does_not_depend_on_the_other_models(two):
    alone = two.drafts("params: {prompt: x, clarity: 1024}")[0].key
    text = "params: {prompt: x}\nmatrix: {model: [oil, ink], set: [{when: {model: ink}, then: {clarity: 1024}}]}"
    assert [d.key for d in two.drafts(text, head=HEAD)][1] == alone


KEYS = [
    "484b6952ba0b384334100d89e8060289",
    "c06815ce054744b7d4befe09460fa3fb",
    "bfd98fcfa3ab271f89b5a03aabdf7b96",
    "7a88ad77823076a8d1b4ce8591c4f8d6",
]


def test_keys_of_version_0_1_0_stay(bench):
    """Keys of a job bought with version 0.1.0, before the matrix grew: no task of it may be paid again."""
    text = """version: 1
provider: chanjing
params: {prompt: "{{ s }}, {{ style }}", clarity: 2048}
items: [{s: a cat, model: kling-v2-1}, {s: 猫, model: doubao-seedream-4.0, n: 2}]
matrix: {style: [ink, oil], aspect_ratio: [1:1]}
"""
    parsed = bench.parsed(text, head="")
    assert [draft.key for draft in expand(parsed, Catalogue())] == KEYS


def test_parameter_unknown_to_one_model_is_reported(two):
    text = "params: {prompt: x, clarity: 1024}\nmatrix: {model: [ink, oil]}"
    assert two.error(text, head=HEAD) == (
        "job.yaml:3:30: params.clarity: is no parameter (the model of `matrix.model[1]`); remove it; "
        "or give it only to models that have it, with `matrix.set`"
    )
    rows = "params: {prompt: x, clarity: 1024}\nitems:\n- {model: ink}\n- {model: oil}\n- {model: oil, t: 1}"
    assert two.error(rows, head=HEAD).startswith(
        "job.yaml:3:30: params.clarity: is no parameter (the model of job.yaml:6); remove it; or give it only to"
    )


def test_axis_unknown_to_one_model_is_reported(two):
    message = "is no parameter of fake image/oil-2, but of fake image/ink"
    hint = "take it out, or give it with `matrix.set` to the models that have it"
    text = "params: {prompt: x}\nmatrix: {model: [ink, oil], clarity: [1024, 2048]}"
    assert two.error(text, head=HEAD) == f"job.yaml:4:39: matrix.clarity[0]: {message}; {hint}"
    two.write("r.csv", "c\n1024\n")
    text = "params: {prompt: x}\nmatrix: {model: [ink, oil], clarity: {file: r.csv#c}}"
    assert two.error(text, head=HEAD) == f"r.csv:2:1: clarity: {message}; {hint}"
    text = (
        "params: {prompt: x}\nmatrix: {model: [ink], add: [{model: oil, clarity: 1024}, {model: ink, clarity: 2048}]}"
    )
    assert two.error(text, head=HEAD) == f"job.yaml:4:52: matrix.add[0].clarity: {message}; {hint}"


def test_axis_may_be_null_for_one_model(two):
    text = """
        params: {prompt: x}
        matrix:
          model: [ink, oil]
          clarity: [1024, 2048, null]
          exclude: [{model: oil, clarity: [1024, 2048]}, {model: ink, clarity: null}]
    """
    assert [(d.model, d.request.get("clarity")) for d in two.drafts(text, head=HEAD)] == [
        ("ink", 1024), ("ink", 2048), ("oil-2", None),
    ]  # fmt: skip


def test_axis_in_a_template_need_not_be_a_parameter(two):
    text = "params: {prompt: 'x {{ clarity }}'}\nmatrix: {model: [ink, oil], clarity: [1024]}"
    assert [d.request for d in two.drafts(text, head=HEAD)] == [{"prompt": "x 1024", "clarity": 1024},
                                                               {"prompt": "x 1024"}]  # fmt: skip


def test_cell_unknown_to_one_model_is_reported(two):
    two.write("r.csv", "model,clarity\nink,1024\noil,\noil,2048\noil,1024\n")
    assert two.error("params: {prompt: x}\nitems: {file: r.csv}", head=HEAD) == (
        "r.csv:4:5: clarity: is no parameter of fake image/oil-2, but of fake image/ink; "
        "take it out, or give it with `matrix.set` to the models that have it"
    )
    rows = "params: {prompt: x}\nitems:\n- {model: oil, clarity: 1024}\n- {model: ink, clarity: 1024}"
    assert two.error(rows, head=HEAD).startswith("job.yaml:5:25: clarity: is no parameter of fake image/oil-2, but")


def test_set_value_reaches_only_models_with_the_parameter(two):
    text = "params: {prompt: '{{ s }}'}\nmatrix: {model: [ink, oil], s: [a, b], set: [%s]}"
    text %= "{when: {s: a}, then: {clarity: 1024}}"
    assert [d.request.get("clarity") for d in two.drafts(text, head=HEAD)] == [1024, None, None, None]
    only = "params: {prompt: x}\nmatrix: {model: [ink, oil], set: [{when: {model: %s}, then: {clarity: 1024}}]}"
    assert [d.request.get("clarity") for d in two.drafts(only % "ink", head=HEAD)] == [1024, None]
    assert two.error(only % "oil", head=HEAD) == (
        "job.yaml:4:63: matrix.set[0].then.clarity: changes nothing: no text uses `clarity`, "
        "and fake image/oil-2 has no such parameter; remove it"
    )


def test_set_with_null_removes_a_parameter(two):
    text = """
        params: {prompt: x, clarity: 1024}
        matrix: {model: [ink, oil], set: [{when: {model: oil}, then: {clarity: null, gloss: 3}}]}
    """
    assert [d.request for d in two.drafts(text, head=HEAD)] == [
        {"prompt": "x", "clarity": 1024}, {"prompt": "x", "gloss": 3},
    ]  # fmt: skip


def test_misspelled_model_column_gets_a_hint(bench):
    bench.write("r.csv", "prompt,Model\na,ink\nb,oil\n")
    assert bench.error("items: {file: r.csv}", head=HEAD) == (
        "job.yaml:1:1: model: expected the name of a model, found nothing; call the column `Model` `model`"
    )
