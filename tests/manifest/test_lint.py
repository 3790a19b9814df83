"""Warnings of a manifest that is valid and probably not meant so, and errors in the spelling of names."""

from __future__ import annotations

import pytest

from runner.errors import ManifestError, escape_control

UNUSED = "what is here stands in results.jsonl only"
ROWS_HINT = (
    "`repeat` makes several of each; rows that differ elsewhere keep a line and, by `output.name`, a file of their own"
)


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


def test_columns_for_results_alone_give_no_warning(bench):
    bench.write("r.csv", "s,id,note,sku,name,code,price_eur,image_2\na,1,x,k1,A,7,9.5,u\nb,2,y,k2,B,8,9.5,v\n")
    text = "params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\n"
    assert bench.warnings(text) == []
    assert bench.drafts(text)[1].vars["sku"] == "k2"
    assert bench.warnings("params: {prompt: '{{ s }}'}\nitems:\n- {s: a, sku: k}\n- {s: b, id: 1}") == []


@pytest.mark.parametrize(("written", "intended"), [
    ("sed", "seed"), ("seeds", "seed"), ("claritty", "clarity"), ("clarty", "clarity"), ("clairty", "clarity"),
    ("aspect_ration", "aspect_ratio"), ("aspectratio", "aspect_ratio"), ("Aspekt-Ratio", "aspect_ratio"),
    ("modle", "model"), ("provder", "provider"), ("ref_promt", "ref_prompt"), ("clariti", "clarity"),
])  # fmt: skip
def test_column_that_nearly_fits_gives_a_warning(written, intended, bench):
    bench.write("r.csv", f"prompt,{written},sku\na,1,k\n")
    assert bench.warnings("items: {file: r.csv}") == [
        f"r.csv:1:8: nothing uses the column `{written}` (is `{intended}` meant?); {UNUSED}"
    ]


@pytest.mark.parametrize("written", ["code", "need", "side", "sad", "xx", "s", "seed2", "clear", "charity_id", "id_2"])
def test_column_with_a_name_of_its_own_gives_none(written, bench):
    bench.write("r.csv", f"prompt,{written}\na,1\n")
    assert bench.warnings("items: {file: r.csv}") == []


def test_column_that_nearly_is_a_used_one(bench):
    """A mistyped name stands in the place of the right one, and never beside it."""
    text = "params: {prompt: '{{ s }} {{ mood | default(\"\") }}'}\nitems: {file: %s}\n"
    bench.write("r.jsonl", '{"s": "a", "mood": "calm"}\n{"s": "b", "moood": "wild"}\n')
    (warning,) = bench.warnings(text % "r.jsonl")
    assert "nothing uses the column `moood` (is `mood` meant?)" in warning
    bench.write("r.csv", "s,mood,moods\na,calm,x\nb,,y\n")
    assert not any("nothing uses" in each for each in bench.warnings(text % "r.csv"))


def test_column_that_other_models_take_gives_a_warning(bench):
    bench.write("r.csv", "prompt,negative_prompt\na,blur\n")
    assert bench.warnings("items: {file: r.csv}") == [
        f"r.csv:1:8: nothing uses the column `negative_prompt` (other models of fake take it); {UNUSED}"
    ]


def test_overridden_columns_give_the_reason(bench):
    bench.write("r.csv", "prompt,seed,model\na,1,oil\n")
    assert bench.warnings("params: {seed: 5}\nitems: {file: r.csv}") == [
        "r.csv:1:8: nothing uses the columns `seed` (`params` sets it), `model` (the manifest names it); " + UNUSED
    ]


def test_many_columns_that_nearly_fit_are_counted(bench):
    names = [f"clar{letter}ty" for letter in "abcdefghjklmnopqrstuvwxyz"] + [f"c{number}" for number in range(2_000)]
    bench.write("r.csv", "prompt," + ",".join(names) + "\na" + ",1" * len(names) + "\n")
    (warning,) = bench.warnings("items: {file: r.csv}")
    assert warning.startswith("r.csv:1:8: nothing uses the columns `claraty` (is `clarity` meant?), `clarbty`")
    assert warning.endswith(f"(is `clarity` meant?) and 5 more; {UNUSED}")


def test_column_is_used_if_one_model_takes_it(bench):
    shapes = bench.catalogue.shapes
    shapes["ink"].names = {"prompt": "prompt", "seed": "seed"}
    shapes["oil"].names = {"prompt": "prompt"}
    bench.write("r.csv", "prompt,model,seed,promt\na,ink,1,7\nb,oil,,8\n")
    assert bench.warnings("items: {file: r.csv}", head="version: 1\nprovider: fake\n") == []
    shapes["oil"].names |= {"mask": "mask"}
    bench.write("r.csv", "prompt,model,seed,masks\na,ink,1,7\nb,oil,,8\n")
    assert bench.warnings("items: {file: r.csv}", head="version: 1\nprovider: fake\n") == [
        f"r.csv:1:19: nothing uses the column `masks` (is `mask` meant?); {UNUSED}"
    ]


@pytest.mark.parametrize(
    "written", ["Clarity", "CLARITY", "ｃｌａｒｉｔｙ", "cla\u200brity", "clarity\ufeff", "\u3000clarity"]
)
def test_column_misspelling_a_parameter_is_an_error(written, bench):
    bench.write("r.jsonl", f'{{"prompt": "a", "{written}": 1024}}\n')
    assert bench.error("items: {file: r.jsonl}") == (
        f"r.jsonl:1:1: no text uses the column `{escape_control(written)}`, and the parameter is called `clarity`; "
        "call it `clarity`, or something else if it is not meant for the model"
    )


@pytest.mark.parametrize("written", ["aspect ratio", "Aspect-Ratio", "aspectRatio", "ASPECT_RATIO"])
def test_column_with_other_word_separators_is_an_error(written, bench):
    bench.write("r.csv", f"prompt,{written}\na,1:1\n")
    assert "the parameter is called `aspect_ratio`" in bench.error("items: {file: r.csv}")


def test_misspelled_column_is_allowed_if_used_or_set(bench):
    bench.write("r.csv", "Prompt,Clarity\na,1024\n")
    text = "params: {prompt: '{{ Prompt }}'%s}\nitems: {file: r.csv}\n"
    assert "the parameter is called `clarity`" in bench.error(text % "")
    assert bench.warnings(text % ", clarity: 2048") == [
        f"r.csv:1:8: nothing uses the column `Clarity` (is `clarity` meant?); {UNUSED}"
    ]
    assert bench.warnings(text % ", clarity: '{{ Clarity }}'") == []


def test_spaces_around_csv_headers_are_stripped(bench):
    bench.write("r.csv", " prompt ,\u3000seed\na,5\n")
    assert bench.drafts("items: {file: r.csv}")[0].request == {"ref_prompt": "a", "seed": "5"}


DELIMITERS = [
    ("r.csv", ";", "semicolons stand where commas should; save it with commas between the columns"),
    ("r.csv", "\t", "tabs stand where commas should; call the file .tsv, or save it with commas between the columns"),
    ("r.csv", "|", "bars stand where commas should"),
    ("r.csv", "，", "full-width commas stand where commas should"),
    ("r.csv", "；", "full-width semicolons stand where commas should"),
    ("r.csv", "、", "enumeration commas stand where commas should"),
    ("r.tsv", ",", "commas stand where tabs should; call the file .csv, or save it with tabs between the columns"),
    ("r.tsv", ";", "semicolons stand where tabs should; save it with tabs between the columns"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "delimiter", "message"), DELIMITERS)
def test_other_delimiter_in_the_header_is_named(name, delimiter, message, bench):
    bench.write(name, f"prompt{delimiter}seed\na{delimiter}5\n")
    found = bench.error(f"items: {{file: {name}}}")
    assert found.startswith(f"{name}:1:1: `prompt{escape_control(delimiter)}seed` is one column: {message}")


def test_single_column_is_valid(bench):
    bench.write("r.csv", "prompt\na;b|c\n")
    assert bench.prompts("items: {file: r.csv}") == ["a;b|c"]
    bench.write("r.csv", '"prompt","a;b"\nx,y\n')
    assert bench.prompts("items: {file: r.csv}") == ["x"]


# axes


def test_unused_axis(bench):
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
    assert bench.error(text) == (
        "job.yaml:5:18: matrix.Clarity: no text uses this axis, and fake image/ink has no such parameter; "
        "call it `clarity`"
    )


def test_templates_in_data_give_warnings(bench):
    message = "is sent as it stands, braces and all; only texts of `params` and `output.name` are templates"
    assert bench.warnings("""
        items: [{prompt: "{{ s }}"}]
        matrix: {x: [1, "{{ n }}"], add: [{x: "{% if x %}"}], set: [{when: {x: 1}, then: {seed: "{{ seed }}"}}]}
    """) == [
        f"job.yaml:5:18: items[0].prompt: {message}",
        f"job.yaml:6:17: matrix.x[1]: {message}",
        f"job.yaml:6:39: matrix.add[0].x: {message}",
        f"job.yaml:6:89: matrix.set[0].then.seed: {message}",
    ]


# duplicates


def test_merged_tasks_are_shown_with_their_lines(bench):
    bench.write("r.csv", "prompt\na\nb\na\nb\na\n")
    (warning,) = bench.warnings("items: {file: r.csv}")
    assert warning == (
        "job.yaml:4:1: items: 3 tasks are identical to earlier ones and merge with them: "
        "r.csv:4 as line 2, r.csv:5 as line 3, r.csv:6 as line 2; " + ROWS_HINT
    )
    (warning,) = bench.warnings("items:\n- {prompt: a}\n- {prompt: a}")
    assert warning == (
        "job.yaml:4:1: items: 1 task is identical to an earlier one and merges with it: "
        "job.yaml:6 as line 5; " + ROWS_HINT
    )


def test_few_of_many_merged_tasks_are_shown(bench):
    bench.write("r.txt", "same\n" * 2_000)
    (warning,) = bench.warnings("items: {file: r.txt}")
    assert "1,999 tasks are identical to earlier ones and merge with them: r.txt:2 as line 1, " in warning
    assert "r.txt:6 as line 1, …; `repeat`" in warning


def test_long_values_are_shortened_in_a_warning(bench):
    text = f"params: {{prompt: x}}\nmatrix: {{seed: [1, 1], n: ['{'9' * 500}']}}"
    (warning,) = bench.warnings(text)
    assert len(warning) < 300


def test_repeat_merges_nothing(bench):
    assert bench.warnings("params: {prompt: x}\nrepeat: 3") == []
    assert bench.drafts("params: {prompt: x}\nrepeat: 3")[2].repeat == 3


def test_error_is_reported_without_warnings(bench):
    assert "clarity" in bench.error("params: {prompt: x}\nmatrix: {clarity: [1024, 5], unused: [1]}")


# empty values


def test_empty_cell_in_a_template_gives_a_warning(bench):
    bench.write("r.csv", "s,mood\na,x\n,y\nb,\n,z\n")
    text = "params: {prompt: '{{ s }}, {{ mood }}'}\nitems: {file: r.csv}\n"
    first, second = bench.warnings(text)
    assert first == (
        "r.csv:3:1: s: is empty in this row and in 1 more, but `params.prompt` puts it in as it is; "
        "fill it in, or write {% if s %}…{% endif %} around it"
    )
    assert second.startswith("r.csv:4:3: mood: is empty in this row, but `params.prompt` puts it in as it is; ")


@pytest.mark.parametrize("written", ["{% if s %}{{ s }}{% endif %}", "{{ s or 'x' }}", "{{ s | trim }}"])
def test_template_that_handles_empty_cells_gives_none(written, bench):
    bench.write("r.csv", "s,t\n,b\n")
    assert bench.warnings(f'params: {{prompt: "a {written} {{{{ t }}}}"}}\nitems: {{file: r.csv}}\n') == []


def test_excluded_row_may_be_empty(bench):
    bench.write("r.csv", "s,is_video\na,yes\n,\nb,yes\n,no\n")
    text = "params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\nmatrix: {exclude: [{is_video: 'no'}]}\n"
    (warning,) = bench.warnings(text)
    assert warning.startswith("r.csv:3:1: every cell of this row is empty")


@pytest.mark.parametrize("written", ["{s}", "{ s }", "${s}", "｛｛s｝｝", "｛ s ｝"])
def test_variable_in_wrong_braces_gives_a_warning(written, bench):
    bench.write("r.csv", "s\na\n")
    warnings = bench.warnings(f'params: {{prompt: "draw {written}"}}\nitems: {{file: r.csv}}\n')
    shown = escape_control(written.removeprefix("$"))
    assert f"job.yaml:4:18: params.prompt: `{shown}` stays as it stands; a variable is written {{{{ s }}}}" in warnings


@pytest.mark.parametrize("written", ["{other}", "{{ s }}", "${{ s }}", '{\\"s\\": 1}', "{s, t}"])
def test_other_braces_give_no_warning(written, bench):
    bench.write("r.csv", "s\na\n")
    warnings = bench.warnings(f'params: {{prompt: "draw {written} {{{{ s }}}}"}}\nitems: {{file: r.csv}}\n')
    assert warnings == []


def test_output_name_in_wrong_braces_gives_a_warning(bench):
    bench.write("r.csv", "s\na\n")
    warnings = bench.warnings("params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\noutput: {name: '{s}'}\n")
    assert warnings == ["job.yaml:6:16: output.name: `{s}` stays as it stands; a variable is written {{ s }}"]


# errors of spreadsheets, and texts that a comment cuts short


def test_error_of_a_spreadsheet_gives_a_warning(bench):
    bench.write("r.csv", "s,other\n#REF!,#REF!\na,b\n #N/A ,c\nErr:502,d\n#1 in the list,e\n")
    assert bench.warnings("params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\n")[0] == (
        "r.csv:2:1: s: `#REF!` is an error of a spreadsheet (and 2 more in this column), and `params.prompt` sends it; "
        "mend the formula, and save the table again"
    )


@pytest.mark.parametrize(
    "text", ["poster #1 of the series", "a logo, background #FF8800, centred", "茶杯 #2", "two\n      lines #3"]
)
def test_text_that_a_comment_cuts_short_gives_a_warning(bench, text):
    (warning,) = bench.warnings(f"items:\n  - prompt: {text}\n")
    assert f"ends before `{text[text.index('#') :]}`, since ` #` begins a comment" in warning


def test_texts_that_comments_cut_short_are_one_warning(bench):
    rows = "".join(f"  - prompt: poster #{number}\n    seed: {number}\n" for number in range(9))
    (warning,) = bench.warnings(f"items:\n{rows}")
    assert "ends before `#0`" in warning
    assert "(also in line 7, 9, 11, …)" in warning


@pytest.mark.parametrize("rest", ["  # 3 cups", " # a note", "  #! ruff", " ## part", "", "#1", " # "], ids=repr)
def test_comment_that_is_one_gives_no_warning(bench, rest):
    assert bench.warnings(f"items:\n  - prompt: a cup{rest}\n  - prompt: 'a cup #1'\n") == []


# warnings beside errors


def warnings_beside(bench, text):
    with pytest.raises(ManifestError) as caught:
        bench.examine(text)
    return [str(each).replace(f"{bench.home}/", "") for each in caught.value.warnings]


def test_warnings_of_rows_stand_beside_errors(bench):
    bench.write("r.csv", "s,clarity,sed\nfox,1024,1\n#REF!,1024,2\n“hen”,5,3\n")
    spreadsheet, quotes, column = sorted(
        warnings_beside(bench, "params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\n"), key=lambda each: each[8:]
    )[::-1]
    assert "s: stands in quotes" in spreadsheet
    assert "`#REF!` is an error of a spreadsheet" in quotes
    assert "nothing uses the column `sed` (is `seed` meant?)" in column


def test_warnings_of_a_manifest_stand_beside_errors(bench):
    text = "items:\n  - prompt: poster #1 of 3\n    clarity: 5\nmatrix: {style: [a]}\n"
    comment, axis = warnings_beside(bench, text)
    assert "ends before `#1 of 3`" in comment
    assert "matrix.style: no text uses this axis" in axis
    (parse_only,) = warnings_beside(bench, "items:\n  - prompt: poster #1 of 3\nretry: {patience: soon}\nzip: 1\n")
    assert "ends before `#1 of 3`" in parse_only


def test_warning_that_an_error_explains_is_left_out(bench):
    bench.write("r.csv", "s,style\n,x\n")
    text = "params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\n"
    assert warnings_beside(bench, text.replace("{{ s }}", "{{ stile }}")) == []
    assert warnings_beside(bench, text.replace("{{ s }}", "{{ s ")) == []
    assert warnings_beside(bench, text + "matrix: {clarity: [5]}") != []


def test_more_warnings_than_are_kept_keep_every_kind(bench):
    rows = "".join(f"- {{prompt: '{{{{ x }}}}', seed: {number}}}\n" for number in range(2_100))
    warnings = bench.warnings(f"items:\n{rows}- {{prompt: a, other: '{{{{ x }}}}'}}\nmatrix: {{z: [1]}}")
    assert len(warnings) == 2_002
    assert any("matrix.z" in each for each in warnings)
    assert any("other: is sent as it stands" in each for each in warnings)


def test_wrong_tasks_are_not_called_identical(bench):
    bench.write("r.csv", "prompt,clarity\na,5\na,6\nb,1024\nb,1024\n")
    (merged,) = warnings_beside(bench, "items: {file: r.csv}")
    assert "1 task is identical to an earlier one and merges with it: r.csv:5 as line 4" in merged
