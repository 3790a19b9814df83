"""What is valid and probably not meant: told, and never a reason to stop; what only spelling keeps from being heard."""

from __future__ import annotations

import pytest

from runner.errors import visible

NOWHERE = "what is here stands in results.jsonl only"


def test_a_valid_manifest_has_no_warnings(bench):
    bench.write("r.csv", "s,seed,model,n\na,1,ink,\nb,2,oil,\n")
    head = "version: 1\nprovider: fake\n"
    text = """
        params: {prompt: "{{ s }}, {{ style }}"}
        items: {file: r.csv}
        matrix: {style: [x, y], set: [{when: {n: ""}, then: {clarity: 1024}}]}
        output: {name: "{{ index }}"}
    """
    assert bench.warnings(text, head=head) == []


# columns


def test_columns_that_nothing_uses_are_told_once_a_file(bench):
    bench.write("r.csv", "s,id,note\na,1,x\nb,2,y\n")
    text = "params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\n"
    assert bench.warnings(text) == [f"r.csv:1:1: nothing uses the columns `id`, `note`; {NOWHERE}"]
    assert bench.warnings(text + "output: {name: '{{ index }}-{{ id }}'}") == [
        f"r.csv:1:1: nothing uses the column `note`; {NOWHERE}"
    ]
    assert bench.warnings(text + "matrix: {exclude: [{note: y}]}") == [
        f"r.csv:1:1: nothing uses the column `id`; {NOWHERE}"
    ]


def test_columns_of_rows_in_the_manifest(bench):
    text = "params: {prompt: '{{ s }}'}\nitems:\n- {s: a}\n- {s: b, id: 1}"
    assert bench.warnings(text) == [f"job.yaml:6:1: items: nothing uses the column `id`; {NOWHERE}"]


def test_columns_that_come_second_say_why(bench):
    bench.write("r.csv", "prompt,seed,model\na,1,oil\n")
    assert bench.warnings("params: {seed: 5}\nitems: {file: r.csv}") == [
        "r.csv:1:1: nothing uses the columns `seed` (`params` sets it), `model` (the manifest names it); " + NOWHERE
    ]


def test_many_columns_are_counted(bench):
    bench.write("r.csv", "prompt," + ",".join(f"c{number}" for number in range(30)) + "\na" + ",1" * 30 + "\n")
    (told,) = bench.warnings("items: {file: r.csv}")
    assert told.startswith("r.csv:1:1: nothing uses the columns `c0`, `c1`")
    assert told.endswith(f"`c19` and 10 more; {NOWHERE}")


def test_a_column_is_used_when_one_model_of_several_takes_it(bench):
    shapes = bench.catalogue.shapes
    shapes["ink"].names = {"prompt": "prompt", "seed": "seed"}
    shapes["oil"].names = {"prompt": "prompt"}
    bench.write("r.csv", "prompt,model,seed,id\na,ink,1,7\nb,oil,,8\n")
    assert bench.warnings("items: {file: r.csv}", head="version: 1\nprovider: fake\n") == [
        f"r.csv:1:1: nothing uses the column `id`; {NOWHERE}"
    ]


@pytest.mark.parametrize(
    "written", ["Clarity", "CLARITY", "ｃｌａｒｉｔｙ", "cla\u200brity", "clarity\ufeff", "\u3000clarity"]
)
def test_a_column_that_only_its_spelling_keeps_from_being_a_parameter(written, bench):
    bench.write("r.jsonl", f'{{"prompt": "a", "{written}": 1024}}\n')
    assert bench.problem("items: {file: r.jsonl}") == (
        f"r.jsonl:1:1: no text uses the column `{visible(written)}`, and the parameter is called `clarity`; "
        "call it `clarity`, or something else if it is not meant for the model"
    )


@pytest.mark.parametrize("written", ["aspect ratio", "Aspect-Ratio", "aspectRatio", "ASPECT_RATIO"])
def test_words_that_are_joined_otherwise(written, bench):
    bench.write("r.csv", f"prompt,{written}\na,1:1\n")
    assert "the parameter is called `aspect_ratio`" in bench.problem("items: {file: r.csv}")


def test_spelling_is_no_mistake_where_a_text_uses_the_column_or_the_parameter_is_set(bench):
    bench.write("r.csv", "Prompt,Clarity\na,1024\n")
    text = "params: {prompt: '{{ Prompt }}'%s}\nitems: {file: r.csv}\n"
    assert "the parameter is called `clarity`" in bench.problem(text % "")
    assert bench.warnings(text % ", clarity: 2048") == [f"r.csv:1:1: nothing uses the column `Clarity`; {NOWHERE}"]
    assert bench.warnings(text % ", clarity: '{{ Clarity }}'") == []


def test_blanks_around_a_name_of_a_csv_are_nothing(bench):
    bench.write("r.csv", " prompt ,\u3000seed\na,5\n")
    assert bench.drafts("items: {file: r.csv}")[0].request == {"ref_prompt": "a", "seed": "5"}


MARKS = [
    ("r.csv", ";", "semicolons stand where commas should; save it with commas between the columns"),
    ("r.csv", "\t", "tabs stand where commas should; call the file .tsv, or save it with commas between the columns"),
    ("r.csv", "|", "bars stand where commas should"),
    ("r.csv", "，", "full-width commas stand where commas should"),
    ("r.csv", "；", "full-width semicolons stand where commas should"),
    ("r.csv", "、", "enumeration commas stand where commas should"),
    ("r.tsv", ",", "commas stand where tabs should; call the file .csv, or save it with tabs between the columns"),
    ("r.tsv", ";", "semicolons stand where tabs should; save it with tabs between the columns"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mark", "told"), MARKS)
def test_a_header_that_is_one_column(name, mark, told, bench):
    bench.write(name, f"prompt{mark}seed\na{mark}5\n")
    found = bench.problem(f"items: {{file: {name}}}")
    assert found.startswith(f"{name}:1:1: `prompt{visible(mark)}seed` is one column: {told}")


def test_one_column_of_anything_is_right(bench):
    bench.write("r.csv", "prompt\na;b|c\n")
    assert bench.prompts("items: {file: r.csv}") == ["a;b|c"]
    bench.write("r.csv", '"prompt","a;b"\nx,y\n')
    assert bench.prompts("items: {file: r.csv}") == ["x"]


# axes


def test_an_axis_that_nothing_uses(bench):
    text = "params: {prompt: '{{ s }}'}\nmatrix: {s: [a, b], aspect_ration: [1:1, 9:16]}"
    merged, unused = bench.warnings(text)
    assert merged == (
        "job.yaml:5:1: matrix: 2 tasks are identical to earlier ones and merge with them: "
        "s: a, aspect_ration: 9:16 as task 1, s: b, aspect_ration: 9:16 as task 2; `repeat` makes several of each"
    )
    assert unused == (
        "job.yaml:5:21: matrix.aspect_ration: no text uses this axis, "
        "and fake image/ink has no such parameter; remove it"
    )
    text = "params: {prompt: '{{ s }}'}\nmatrix: {s: [a], Clarity: [1024]}"
    assert bench.problem(text) == (
        "job.yaml:5:18: matrix.Clarity: no text uses this axis, and fake image/ink has no such parameter; "
        "call it `clarity`"
    )


def test_braces_in_data(bench):
    told = "is sent as it stands, braces and all; only texts of `params` and `output.name` are templates"
    assert bench.warnings("""
        items: [{prompt: "{{ s }}"}]
        matrix: {x: [1, "{{ n }}"], add: [{x: "{% if x %}"}], set: [{when: {x: 1}, then: {seed: "{{ seed }}"}}]}
    """) == [
        f"job.yaml:5:18: items[0].prompt: {told}",
        f"job.yaml:6:17: matrix.x[1]: {told}",
        f"job.yaml:6:39: matrix.add[0].x: {told}",
        f"job.yaml:6:89: matrix.set[0].then.seed: {told}",
    ]


# twins


def test_tasks_that_merge_are_told_with_their_lines(bench):
    bench.write("r.csv", "prompt\na\nb\na\nb\na\n")
    (told,) = bench.warnings("items: {file: r.csv}")
    assert told == (
        "job.yaml:4:1: items: 3 tasks are identical to earlier ones and merge with them: "
        "r.csv:4 as line 2, r.csv:5 as line 3, r.csv:6 as line 2; `repeat` makes several of each"
    )
    (told,) = bench.warnings("items:\n- {prompt: a}\n- {prompt: a}")
    assert told == (
        "job.yaml:4:1: items: 1 task is identical to an earlier one and merges with it: "
        "job.yaml:6 as line 5; `repeat` makes several of each"
    )


def test_a_few_of_many_are_shown(bench):
    bench.write("r.txt", "same\n" * 2_000)
    (told,) = bench.warnings("items: {file: r.txt}")
    assert "1,999 tasks are identical to earlier ones and merge with them: r.txt:2 as line 1, " in told
    assert "r.txt:6 as line 1, …; `repeat`" in told


def test_long_values_are_cut_in_a_warning(bench):
    text = f"params: {{prompt: x}}\nmatrix: {{seed: [1, 1], n: ['{'9' * 500}']}}"
    (told,) = bench.warnings(text)
    assert len(told) < 300


def test_repeat_merges_nothing(bench):
    assert bench.warnings("params: {prompt: x}\nrepeat: 3") == []
    assert bench.drafts("params: {prompt: x}\nrepeat: 3")[2].repeat == 3


def test_a_mistake_leaves_warnings_for_later(bench):
    assert "clarity" in bench.problem("params: {prompt: x}\nmatrix: {clarity: [1024, 5], unused: [1]}")


# what is paid for and empty


def test_an_empty_cell_that_a_text_puts_in_is_told_with_its_row(bench):
    bench.write("r.csv", "s,mood\na,x\n,y\nb,\n,z\n")
    text = "params: {prompt: '{{ s }}, {{ mood }}'}\nitems: {file: r.csv}\n"
    first, second = bench.warnings(text)
    assert first == (
        "r.csv:3:1: s: is empty in this row and in 1 more, but `params.prompt` puts it in as it is; "
        "fill it in, or write {% if s %}…{% endif %} around it"
    )
    assert second.startswith("r.csv:4:1: mood: is empty in this row, but `params.prompt` puts it in as it is; ")


@pytest.mark.parametrize("written", ["{% if s %}{{ s }}{% endif %}", "{{ s or 'x' }}", "{{ s | trim }}"])
def test_a_text_that_has_thought_of_empty_cells_is_left_alone(written, bench):
    bench.write("r.csv", "s,t\n,b\n")
    assert bench.warnings(f'params: {{prompt: "a {written} {{{{ t }}}}"}}\nitems: {{file: r.csv}}\n') == []


def test_a_row_that_makes_no_task_may_be_empty(bench):
    bench.write("r.csv", "s,film\na,yes\n,\nb,yes\n,no\n")
    text = "params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\nmatrix: {exclude: [{film: 'no'}]}\n"
    (told,) = bench.warnings(text)
    assert told.startswith("r.csv:3:1: every cell of this row is empty")


@pytest.mark.parametrize("written", ["{s}", "{ s }", "${s}", "｛｛s｝｝", "｛ s ｝"])
def test_a_variable_in_the_wrong_braces_is_told(written, bench):
    bench.write("r.csv", "s\na\n")
    told = bench.warnings(f'params: {{prompt: "draw {written}"}}\nitems: {{file: r.csv}}\n')
    shown = visible(written.removeprefix("$"))
    assert f"job.yaml:4:18: params.prompt: `{shown}` stays as it stands; a variable is written {{{{ s }}}}" in told


@pytest.mark.parametrize("written", ["{other}", "{{ s }}", "${{ s }}", '{\\"s\\": 1}', "{s, t}"])
def test_other_braces_are_text(written, bench):
    bench.write("r.csv", "s\na\n")
    told = bench.warnings(f'params: {{prompt: "draw {written} {{{{ s }}}}"}}\nitems: {{file: r.csv}}\n')
    assert told == []


def test_a_name_of_outputs_in_the_wrong_braces_is_told(bench):
    bench.write("r.csv", "s\na\n")
    told = bench.warnings("params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\noutput: {name: '{s}'}\n")
    assert told == ["job.yaml:6:16: output.name: `{s}` stays as it stands; a variable is written {{ s }}"]
