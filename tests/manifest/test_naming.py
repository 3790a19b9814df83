"""Default names of outputs: the index, the prompt and the varying values."""

from __future__ import annotations

import pytest

from runner.manifest.names import MAX_BYTES, slug

LONG = "{{ s }} in the light of a very long afternoon at the sea, {{ style }}, highly detailed"
#: two texts that differ at their ends
ALIKE = ["a lighthouse on a distant rocky shore at the end of the world " + end for end in ("at dawn", "in winter")]


def names(bench, text: str, **options: str) -> list[str]:
    return [draft.name for draft in bench.drafts(text, **options)]


def test_short_prompt_and_other_varying_values(bench):
    text = "params: {prompt: '{{ s }}, {{ style }}'}\nitems: [{s: cat}]\nmatrix: {style: [ink], clarity: [1024, 2048]}"
    assert names(bench, text) == ["0001-cat_ink-1024", "0002-cat_ink-2048"]


def test_long_prompt_is_named_by_its_varying_values(bench):
    text = f"params: {{prompt: '{LONG}'}}\nitems: [{{s: cat}}, {{s: a dog}}]\nmatrix: {{style: [ink, oil]}}"
    assert names(bench, text) == ["0001-cat-ink", "0002-cat-oil", "0003-a_dog-ink", "0004-a_dog-oil"]


def test_constant_values_are_not_in_names(bench):
    text = f"params: {{prompt: '{LONG}'}}\nitems: [{{s: cat}}, {{s: cat, seed: 5}}]\nmatrix: {{style: [ink], n: [1]}}"
    assert names(bench, text)[0].startswith("0001-cat_in_the_light_of_a_very")
    assert names(bench, text)[1].endswith("detailed-5")


def test_values_are_shortened_in_the_middle(bench):
    text = f"params: {{prompt: '{LONG}'}}\nitems: [{{s: {ALIKE[0]}}}, {{s: {ALIKE[1]}}}]\nmatrix: {{style: [ink, oil]}}"
    assert names(bench, text) == [
        "0001-a_lighthouse_on_a_distant_rocky..he_world_at_dawn-ink",
        "0002-a_lighthouse_on_a_distant_rocky..he_world_at_dawn-oil",
        "0003-a_lighthouse_on_a_distant_rocky.._world_in_winter-ink",
        "0004-a_lighthouse_on_a_distant_rocky.._world_in_winter-oil",
    ]


def test_long_prompt_of_a_file_keeps_both_ends(bench):
    bench.write("r.txt", "\n".join(ALIKE))
    found = names(bench, "items: {file: r.txt}")
    assert found == [
        "0001-a_lighthouse_on_a_distant_rocky_sh.._the_world_at_dawn",
        "0002-a_lighthouse_on_a_distant_rocky_sh..he_world_in_winter",
    ]


def test_short_values_leave_space_for_long_ones(bench):
    text = f"params: {{prompt: x}}\nmatrix: {{aspect_ratio: [1:1, 9:16], x: ['{ALIKE[0]}', b], n: [1, 2]}}"
    assert names(bench, text)[:3] == [
        "0001-x-1_1-a_lighthouse_on_a_distant_ro..e_world_at_dawn-1",
        "0002-x-1_1-a_lighthouse_on_a_distant_ro..e_world_at_dawn-2",
        "0003-x-1_1-b-1",
    ]


def test_columns_without_effect_are_not_in_names(bench):
    bench.write("r.csv", "prompt,id,seed\na,77,5\nb,78,6\n")
    assert names(bench, "items: {file: r.csv}") == ["0001-a-5", "0002-b-6"]
    assert names(bench, "params: {seed: 1}\nitems: {file: r.csv}") == ["0001-a", "0002-b"]


def test_varying_models_are_in_names(bench):
    head = "version: 1\nprovider: fake\n"
    text = "params: {prompt: x}\nmatrix: {model: [ink, oil]}"
    assert names(bench, text, head=head) == ["0001-x-ink", "0002-x-oil"]
    bench.write("r.csv", "prompt,model\nx,ink\nx,oil\n")
    assert names(bench, "items: {file: r.csv}", head=head) == ["0001-x-ink", "0002-x-oil"]
    assert names(bench, "items: {file: r.csv}") == ["0001-x"]


def test_added_and_changed_values_are_in_names(bench):
    text = """
        params: {prompt: "{{ a }}"}
        matrix: {a: [1, 2], add: [{a: 3, seed: 7}], set: [{when: {a: 2}, then: {clarity: 1024}}]}
    """
    assert names(bench, text) == ["0001-1", "0002-2-1024", "0003-3-7"]


def test_empty_values_are_not_in_names(bench):
    bench.write("r.csv", "prompt,seed,x\na,,1\nb,2,\n")
    assert names(bench, "items: {file: r.csv}") == ["0001-a-1", "0002-b-2"]


@pytest.mark.parametrize("value", ["字" * 300, "é" * 300, "x" * 300, "/" * 300, "😀" * 100])
def test_names_are_bounded_and_keep_the_last_value(value, bench):
    text = (
        f"params: {{prompt: '{LONG}', x: '{{{{ t }}}}'}}\nmatrix: {{s: ['{value}', b], style: [ink, oil], t: [p, q]}}"
    )
    found = names(bench, text)
    assert [name[-3:] for name in found[:2]] == ["k-p", "k-q"] or value == "/" * 300
    assert all(len(name.encode()) <= MAX_BYTES and slug(name) == name for name in found)
    assert len(set(found)) == 8


def test_names_show_at_most_six_values(bench):
    axes = ", ".join(f"a{number}: ['{'v' * 30}{number}', w]" for number in range(9))
    prompt = " ".join(f"{{{{ a{number} }}}}" for number in range(9))
    text = f"params: {{prompt: '{prompt}'}}\nmatrix: {{{axes}}}"
    assert names(bench, text)[0] == "0001-vvvv..v0-vvvv..v1-vvvv..v2-vvvv..v3-vvvv..v4-vvvv..v5"


def test_names_do_not_depend_on_the_other_tasks(bench):
    text = "params: {prompt: '{{ s }}, {{ t }}'}\nitems: [%s]\nmatrix: {t: [1, 2]}"
    before = names(bench, text % "{s: cat}, {s: dog}")
    assert names(bench, text % "{s: cat}, {s: dog}, {s: owl}")[:4] == before
