"""`zip`, `add`, `set`, `exclude`, and axes that are counted or come from files."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from runner.errors import ManifestError
from runner.manifest.schema import json_schema

#: a manifest with every part of the matrix
WHOLE = """
params: {prompt: "{{ s }} {{ style }} {{ lens|default(0) }} {{ mood|default('-') }}", clarity: 2048}
items: [{s: cat}, {s: dog}]
matrix:
  style: [ink, oil, photo]
  aspect_ratio: [1:1, 9:16]
  zip: [{lens: [35, 85], mood: [calm, tense]}]
  add:
    - {style: neon, aspect_ratio: 16:9}
  set:
    - {when: {style: photo}, then: {clarity: 1024}}
  exclude:
    - {style: ink, aspect_ratio: 1:1}
"""


def requests(bench, text: str) -> list[str]:
    """Return the values of each request, joined by spaces."""
    return [" ".join(map(str, draft.request.values())) for draft in bench.drafts(text)]


def test_full_matrix(bench):
    expected = [
        (f"{animal} {style} {lens} {mood}", ratio, 1024 if style == "photo" else 2048)
        for animal in ("cat", "dog")
        for style, ratio, lens, mood in [
            *(
                (style, ratio, lens, mood)
                for style in ("ink", "oil", "photo")
                for ratio in ("1:1", "9:16")
                for lens, mood in ((35, "calm"), (85, "tense"))
                if (style, ratio) != ("ink", "1:1")
            ),
            ("neon", "16:9", 0, "-"),
        ]
    ]
    found = bench.drafts(WHOLE)
    assert [(d.request["ref_prompt"], d.request["aspect_ratio"], d.request["clarity"]) for d in found] == expected
    assert [draft.index for draft in found] == list(range(1, 23))
    assert found[0].vars == {"s": "cat", "style": "ink", "aspect_ratio": "9:16", "lens": 35, "mood": "calm"}
    assert bench.drafts(WHOLE) == found


def test_key_does_not_depend_on_the_source_of_a_value(bench):
    plain = bench.drafts("params: {prompt: a cat, clarity: 1024}")[0].key
    for matrix in (
        "{add: [{clarity: 1024}]}",
        "{zip: [{clarity: [1024], x_: [1]}], set: [{when: {x_: 1}, then: {x_: 2}}]}",
        "{t: [1], set: [{when: {t: 1}, then: {clarity: 1024}}]}",
        "{clarity: {from: 1024, to: 1024}}",
    ):
        assert [draft.key for draft in bench.drafts(f"params: {{prompt: a cat}}\nmatrix: {matrix}")] == [plain]


def test_zip_varies_at_its_position(bench):
    text = "params: {prompt: '{{ a }}{{ b }}{{ c }}'}\nmatrix: {%s}"
    pairs = "zip: [{b: [1, 2], c: [x, y]}]"
    assert bench.prompts(text % f"a: [p, q], {pairs}") == ["p1x", "p2y", "q1x", "q2y"]
    assert bench.prompts(text % f"{pairs}, a: [p, q]") == ["p1x", "q1x", "p2y", "q2y"]
    several = "zip: [{a: [1, 2], b: [x, y]}, {c: [8, 9]}]"
    assert bench.prompts(text % several) == ["1x8", "1x9", "2y8", "2y9"]


def test_added_rows_follow_the_product_of_each_row(bench):
    text = "params: {prompt: '{{ s }}{{ a }}'}\nitems: [{s: x}, {s: y}]\nmatrix: {add: [{a: 9}, {a: 8, seed: 1}]%s}"
    assert bench.prompts(text % ", a: [1]") == ["x1", "x9", "x8", "y1", "y9", "y8"]
    assert bench.prompts(text % "") == ["x9", "x8", "y9", "y8"]
    assert [draft.request.get("seed") for draft in bench.drafts(text % "")] == [None, 1, None, 1]


def test_set_changes_columns_axes_and_parameters_in_order(bench):
    found = bench.drafts("""
        params: {prompt: "{{ s }} {{ a }}", clarity: 2048, seed: 5}
        items: [{s: cat}, {s: dog}]
        matrix:
          a: [1, 2]
          set:
            - {when: {s: cat, a: 2}, then: {s: kitten, clarity: 1024}}
            - {when: {s: kitten}, then: {a: two, seed: null}}
    """)
    assert [(d.request["ref_prompt"], d.request["clarity"], d.request.get("seed")) for d in found] == [
        ("cat 1", 2048, 5), ("kitten two", 1024, None), ("dog 1", 2048, 5), ("dog 2", 2048, 5),
    ]  # fmt: skip
    assert found[1].vars == {"s": "kitten", "a": "two", "clarity": 1024, "seed": None}


def test_exclude_is_applied_last(bench):
    text = "params: {prompt: '{{ a }}'}\nmatrix: {a: [1, 2], add: [{a: 3}, {a: 4}], set: [%s], exclude: [%s]}"
    assert bench.prompts(text % ("{when: {a: 1}, then: {a: 3}}", "{a: 3}")) == ["2", "4"]


def test_conditions_compare_values_as_text(bench):
    bench.write("r.csv", "s,n,flag,note\na,5,true,x\nb,6,false,\nc,7,,x\n")
    text = "params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\nmatrix: {exclude: [%s]}"
    assert bench.prompts(text % "{n: 5}") == ["b", "c"]
    assert bench.prompts(text % "{n: '5'}, {s: c}") == ["b"]
    assert bench.prompts(text % "{n: [5, 7]}") == ["b"]
    assert bench.prompts(text % "{flag: true}") == ["b", "c"]
    assert bench.prompts(text % "{note: null}") == ["a", "c"]
    assert bench.prompts(text % "{note: x, s: [b, c]}") == ["a", "b"]


def test_conditions_can_use_provider_and_model(bench):
    text = "params: {prompt: '{{ s }}'}\nitems: [{s: a}, {s: b}]\nmatrix: {set: [{when: {%s}, then: {seed: 1}}]}"
    assert [d.request.get("seed") for d in bench.drafts(text % "model: ink, s: a")] == [1, None]
    assert [d.request.get("seed") for d in bench.drafts(text % "provider: [fake, other]")] == [1, 1]


def test_axis_from_a_file(bench):
    bench.write("styles.csv", 'style,seed\nink,1\n,2\n"oil, thick",3\n')
    bench.write("subjects.txt", "a cat\n\n  a dog  \n")
    bench.write("more.jsonl", '{"n": 2}\n{"n": 3}\n')
    text = """
        params: {prompt: "{{ subject }}, {{ style }}"}
        matrix: {style: {file: styles.csv#style}, subject: {file: subjects.txt}, n: {file: more.jsonl#n}}
    """
    assert requests(bench, text) == [
        f"{subject}, {style} {n}" for style in ("ink", "oil, thick") for subject in ("a cat", "a dog") for n in (2, 3)
    ]
    manifest = bench.parsed(text).manifest
    assert [file.name for file in manifest.data_files] == ["styles.csv", "subjects.txt", "more.jsonl"]


def test_axis_values_of_a_file_are_not_templates(bench):
    bench.write("a.txt", "{{ index }}\n")
    assert bench.prompts("params: {prompt: '{{ a }}'}\nmatrix: {a: {file: a.txt}}") == ["{{ index }}"]


COUNTED = [
    ("{from: 1, to: 3}", ["1", "2", "3"]),
    ("{from: 1, to: 10, step: 4}", ["1", "5", "9"]),
    ("{from: 3, to: 1, step: -1}", ["3", "2", "1"]),
    ("{from: -1, to: 1}", ["-1", "0", "1"]),
    ("{from: 7, to: 7}", ["7"]),
    ("{from: 0.1, to: 0.5, step: 0.1}", ["0.1", "0.2", "0.3", "0.4", "0.5"]),
    ("{from: 1, to: 2, step: 0.5}", ["1.0", "1.5", "2.0"]),
    ("{from: 18446744073709551614, to: 18446744073709551615}", ["18446744073709551614", "18446744073709551615"]),
]


@pytest.mark.parametrize(("written", "values"), COUNTED)
def test_counted_axes_include_both_ends(written, values, bench):
    assert bench.prompts(f"params: {{prompt: '{{{{ a }}}}'}}\nmatrix: {{a: {written}}}") == values


WRONG = [
    # zip
    ("zip: [{a: [1, 2], b: [1]}, {c: [1]}]", 5, 16, "matrix.zip[0]",
     "axes in pairs need as many values each: `a` has 2, `b` has 1; give them the same number"),
    ("zip: {a: [1], b: [1]}", 5, 15, "matrix.zip",
     "expected a list, found a mapping; write `zip: [{a: [1, 2], b: [x, y]}]`"),
    ("zip: [[1]]", 5, 16, "matrix.zip[0]", "expected a mapping (`name: value`), found a list"),
    ("zip: [{}]", 5, 16, "matrix.zip[0]", "expected a mapping (`name: value`), found an empty one"),
    ("zip: [{a: []}]", 5, 20, "matrix.zip[0].a", "expected a list with at least one value, found an empty list"),
    ("b: [1], zip: [{a: [1], b: [2]}]", 5, 33, "matrix.zip[0].b", "`b` is an axis already; keep one of the two"),
    ("zip: [{index: [1]}]", 5, 17, "matrix.zip[0].index", "`index` is a variable of every template already"),
    ("zip: [{token: [1]}]", 5, 17, "matrix.zip[0].token", "looks like a credential"),
    # add
    ("add: x", 5, 15, "matrix.add", "expected a list, found the text `x`; write `add: [{a: 1, b: x}]`"),
    ("add: [x]", 5, 16, "matrix.add[0]", "expected a mapping (`name: value`), found the text `x`"),
    ("add: [{repeat: 1}]", 5, 17, "matrix.add[0].repeat", "`repeat` is a variable of every template already"),
    ("add: [{api-key: 1}]", 5, 17, "matrix.add[0].api-key", "looks like a credential"),
    # set
    ("set: [{when: {s: 1}}]", 5, 16, "matrix.set[0]",
     "`then` is missing; write `set: [{when: {a: 1}, then: {b: x}}]`"),
    ("set: [{when: {}, then: {s: 1}}]", 5, 23, "matrix.set[0].when", "found an empty one"),
    ("set: [{when: {s: 1}, then: 5}]", 5, 37, "matrix.set[0].then", "found the number 5"),
    ("set: [{whn: {s: 1}, then: {s: 1}}]", 5, 17, "matrix.set[0].whn", "no such key here; did you mean `when`?"),
    ("set: [{when: {s: {a: 1}}, then: {s: 1}}]", 5, 27, "matrix.set[0].when.s",
     "expected a value, or a list of values it may be, found a mapping; write `name: value` or `name: [a, b]`"),
    ("set: [{when: {s: 1}, then: {index: 1}}]", 5, 38, "matrix.set[0].then.index", "rename it"),
    ("set: [{when: {z: 1}, then: {s: 1}}]", 5, 24, "matrix.set[0].when.z",
     "no column, axis or added value is called so; there are `model`, `provider`, `s`"),
    ("style: [ink, oil], set: [{when: {style: inc}, then: {seed: 1}}]", 5, 42, "matrix.set[0].when",
     "matches nothing; for `style`: did you mean `ink`?"),
    ("set: [{when: {s: 1}, then: {seeds: 1}}]", 5, 38, "matrix.set[0].then.seeds",
     "changes nothing: no text uses `seeds`, and fake image/ink has no such parameter; remove it"),
    # exclude
    ("exclude: 5", 5, 19, "matrix.exclude", "expected a list, found the number 5; write `exclude: [{a: 1, b: x}]`"),
    ("exclude: [{s: []}]", 5, 24, "matrix.exclude[0].s", "found a list"),
    ("exclude: [{sub: 1}]", 5, 21, "matrix.exclude[0].sub", "no column, axis or added value is called so"),
    ("exclude: [{index: 1}]", 5, 21, "matrix.exclude[0].index", "no column, axis or added value is called so"),
    ("exclude: [{s: 3}]", 5, 20, "matrix.exclude[0]",
     "matches nothing; no task has all of these values; correct them, or take the entry away"),
    ("exclude: [{s: [1, 2]}]", 5, 19, "matrix.exclude", "takes every task out; take an entry away"),
    # axes
    ("a: {file: gone.csv#b}", 5, 20, "matrix.a.file", "there is no such file"),
    ("a: {file: r.xls#b}", 5, 20, "matrix.a.file", "a data file ends in .csv"),
    ("a: {file: 5}", 5, 20, "matrix.a.file", "expected the path of a data file, found the number 5"),
    ("a: {file: r.csv}", 5, 20, "matrix.a.file", "which column? the file has `b`, `c`; write `r.csv#b`"),
    ("a: {file: r.csv#cc}", 5, 20, "matrix.a.file", "the file has no column `cc`; did you mean `c`?"),
    ("a: {file: r.csv#c}", 5, 20, "matrix.a.file", "the column `c` is empty; fill it, or name another one"),
    ("a: {file: r.txt#b}", 5, 20, "matrix.a.file", "a .txt has lines and no columns; write the path alone"),
    ("a: {file: r.csv#b, column: b}", 5, 29, "matrix.a.column", "no such key here; it may be `file`"),
    ("a: {from: 2, to: 1}", 5, 13, "matrix.a",
     "from 2 to 1 there is nothing to count in steps of 1; write `from: 1, to: 2`, or a `step` below 0"),
    ("a: {from: 1, to: x}", 5, 27, "matrix.a.to", "expected a number, found the text `x`"),
    ("a: {from: 1, to: true}", 5, 27, "matrix.a.to", "expected a number, found `true`"),
    ("a: {from: 1}", 5, 13, "matrix.a.to", "expected a number, found nothing"),
    ("a: {from: 1, to: 2, step: 0}", 5, 36, "matrix.a.step", "expected a number other than 0, found the number 0"),
    ("a: {from: 1, too: 2}", 5, 23, "matrix.a.too", "no such key here; did you mean `to`?"),
    ("a: {from: 0, to: 10_000}", 5, 27, "matrix.a.to", "expected a number, found the text `10_000`"),
    ("a: {from: 0, to: 10000}", 5, 13, "matrix.a",
     "10,001 values, and at most 10,000 tasks are allowed; take some away, or raise `limits.max_tasks`"),
    ("a: {from: 1e-300, to: 1e300, step: 1e-300}", 5, 13, "matrix.a", "values, and at most 10,000 tasks"),
    ("a: {range: [1, 2]}", 5, 13, "matrix.a",
     "found a mapping; write `[a, b]`, `{from: 1, to: 9}` or `{file: rows.csv#column}`"),
]  # fmt: skip


@pytest.mark.parametrize(("matrix", "line", "column", "key", "message"), WRONG)
def test_matrix_error_has_its_location(matrix, line, column, key, message, bench):
    bench.write("r.csv", "b,c\n1,\n2,\n")
    bench.write("r.txt", "one\n")
    head = "version: 1\nprovider: fake\nmodel: ink\n"
    text = f"params: {{prompt: '{{{{ s }}}}'}}\nmatrix: {{{matrix}}}\nitems: [{{s: 1}}, {{s: 2}}]\n"
    (error,) = bench.errors(text, head=head)
    assert (error.line, error.column, error.key) == (line, column, key)
    assert message in str(error)
    assert error.hint


def test_bad_axis_value_is_located_in_its_file(bench):
    bench.write("r.csv", "c\n1024\n\n7\n")
    error = bench.error("params: {prompt: x}\nmatrix: {clarity: {file: r.csv#c}}")
    assert error == "r.csv:4:1: clarity: 7 is not 1024 or 2048; choose one"


def test_broken_axis_file_is_reported_with_its_line(bench):
    bench.write("r.csv", "a,b\n1,2\n1\n")
    error = bench.error("params: {prompt: '{{ x }}'}\nmatrix: {x: {file: r.csv#a}}")
    assert error.startswith("r.csv:3:1: 1 field where the header has 2")


def test_bad_values_of_add_and_set_are_located(bench):
    found = bench.errors("""
        params: {prompt: "{{ a }}"}
        matrix:
          a: [1, 2]
          add:
            - {a: 3, clarity: 5}
            - {clarity: 1024}
            - {a: 4, clarty: 1024}
          set:
            - {when: {a: 2}, then: {clarity: 6}}
            - {when: {a: 1}, then: {model: inq}}
    """)
    assert [str(each).replace(f"{bench.home}/", "") for each in found] == [
        "job.yaml:9:23: matrix.add[0].clarity: 5 is not 1024 or 2048; choose one",
        "job.yaml:10:7: matrix.add[1]: gives no `a`, but `params.prompt` uses it; add `a: …` to this row",
        "job.yaml:13:38: matrix.set[0].then.clarity: 6 is not 1024 or 2048; choose one",
        "job.yaml:14:36: matrix.set[1].then.model: fake has no model 'inq'; did you mean ink?",
    ]


def test_unused_added_name_is_reported(bench):
    error = bench.error("params: {prompt: '{{ a }}'}\nmatrix: {a: [1], add: [{a: 2, clarty: 5}]}")
    assert error == (
        "job.yaml:5:39: matrix.add[0].clarty: no text uses `clarty`, "
        "and fake image/ink has no such parameter; remove it"
    )


def test_variable_of_some_tasks_needs_a_default(bench):
    text = "params: {prompt: '{{ a }} {{ b%s }}'}\nmatrix: {a: [1], set: [{when: {a: 2}, then: {b: 3}}], add: [{a: 2}]}"
    assert bench.error(text % "").startswith(
        "job.yaml:4:18: params.prompt: `b` is given by `matrix.add` or `matrix.set` to some tasks, and this is used by"
    )
    assert bench.prompts(text % "|default(0)") == ["1 0", "2 3"]


def test_matrix_name_equal_to_a_column_is_refused(bench):
    text = "params: {prompt: '{{ s }}'}\nitems: [{s: 1}]\nmatrix: {%s}"
    taken = "is the name of a column of `items` as well; rename one of them"
    assert bench.error(text % "add: [{s: 2}]") == f"job.yaml:6:17: matrix.add[0].s: {taken}"
    assert bench.error(text % "zip: [{s: [2]}]") == f"job.yaml:6:17: matrix.zip[0].s: {taken}"
    text = "params: {prompt: x}\nitems: [{s: 1}]\nmatrix: {a: [1], add: [{a: 2, s: 2}]}"
    assert bench.error(text) == f"job.yaml:6:31: matrix.add[0].s: {taken}"


def test_rules_on_unreadable_rows_are_not_reported(bench):
    bench.write("r.jsonl", '{"s": "a"}\n{"s": \n')
    text = "params: {prompt: '{{ s }}'}\nitems: {file: r.jsonl}\nmatrix: {t: [1], exclude: [{s: b}, {t: 2}]}"
    assert [(each.line, each.key) for each in bench.errors(text)] == [(6, "matrix.exclude[1]"), (2, "")]


def test_unmatched_rule_is_reported_after_the_last_row(bench):
    bench.write("r.txt", "".join(f"prompt {number}\n" for number in range(500)))
    text = "items: {file: r.txt}\nmatrix: {exclude: [{prompt: %s}]}"
    assert len(bench.drafts(text % "prompt 499")) == 499
    with pytest.raises(ManifestError, match="matches nothing"):
        bench.drafts(text % "prompt 500")


def test_json_schema_describes_the_matrix(bench):
    matrix = json_schema()["properties"]["matrix"]
    assert set(matrix["properties"]) == {"zip", "add", "set", "exclude"}
    forms = matrix["additionalProperties"]["anyOf"]
    assert [(form["type"], form.get("required")) for form in forms] == [
        ("array", None), ("object", ["from", "to"]), ("object", ["file"]),
    ]  # fmt: skip
    assert matrix["properties"]["set"]["items"]["required"] == ["when", "then"]


# the whole matrix against a slow and obvious reading

NAMES = ("a", "b", "c")
VALUES = st.integers(0, 3)
LISTS = st.lists(VALUES, min_size=1, max_size=3)
SOME = st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1)
MATRICES = st.fixed_dictionaries(
    {},
    optional={
        "a": LISTS,
        "zip": st.integers(1, 3).flatmap(
            lambda size: st.fixed_dictionaries({name: st.lists(VALUES, min_size=size, max_size=size) for name in "bc"})
        ).map(lambda group: [group]),
        "add": st.lists(SOME, max_size=2),
        "set": st.lists(st.fixed_dictionaries({"when": SOME, "then": SOME}), max_size=2),
        "exclude": st.lists(SOME, max_size=2),
    },
)  # fmt: skip


def naive(matrix: dict) -> tuple[list[dict], bool]:
    """Return the rows of a matrix by its documentation, and whether every part of it has an effect."""
    rows, axes = [{}], False
    for name, written in matrix.items():
        for group in written if name == "zip" else [{name: written}] if name in NAMES else []:
            turns = [dict(zip(group, values, strict=True)) for values in zip(*group.values(), strict=True)]
            rows, axes = [row | more for row in rows for more in turns], True
    rows = (rows if axes or not matrix.get("add") else []) + matrix.get("add", [])
    matched = []
    for rule in matrix.get("set", []):
        hit = [rule["when"].items() <= row.items() for row in rows]
        rows = [row | rule["then"] if yes else row for row, yes in zip(rows, hit, strict=True)]
        matched.append(any(hit))
    out = [[rule.items() <= row.items() for row in rows] for rule in matrix.get("exclude", [])]
    kept = [row for at, row in enumerate(rows) if not any(each[at] for each in out)]
    return kept, all(matched) and all(map(any, out)) and bool(kept)


def names(matrix: dict) -> list[str]:
    """Return the names that the matrix gives."""
    rows = [matrix, *matrix.get("zip", []), *matrix.get("add", []), *(rule["then"] for rule in matrix.get("set", []))]
    return [name for name in NAMES if any(name in row for row in rows)]


@pytest.mark.slow
@given(MATRICES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_matrix_agrees_with_a_naive_reading(bench, matrix):
    prompt = "x" + "".join(f"{{{{ {name}|default('-') }}}}" for name in names(matrix))
    text = f'params: {{prompt: "{prompt}"}}\nmatrix: {json.dumps(matrix)}\nlimits: {{max_tasks: 1000}}'
    kept, effective = naive(matrix)
    event("expanded" if effective else "refused")
    if not effective:
        errors = bench.errors(text)
        assert all(each.message.startswith(("matches", "takes every", "no column")) for each in errors)
        return
    prompts = ["x" + "".join(str(row.get(name, "-")) for name in names(matrix)) for row in kept]
    assert bench.prompts(text) == list(dict.fromkeys(prompts))


WORDS = st.sampled_from(["a", "b", "when", "then", "from", "to", "step", "file", "clarity", "model", "index", "token"])
PLAIN = st.sampled_from([0, 1, -1, 1.5, "x", None, True, "ink", "oil", 1024, "r.csv#a", "r.txt", "{{ a }}", 2**64 - 1])
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))
PARTS = st.sampled_from(["a", "b", "zip", "add", "set", "exclude", "clarity", "model"])
ROWS = st.sampled_from(
    ["", "items: [{a: 1, Clarity: 5}]\n", "items: [{t: 2, clarity: 1024}]\n", "items: {file: r.csv}\n"]
)


@pytest.mark.slow
@given(st.dictionaries(PARTS, ANY, max_size=4), ROWS, st.sampled_from(["model: ink\n", ""]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_matrix_gives_tasks_or_located_errors(bench, matrix, rows, model):
    bench.write("r.csv", "a,b\n1,2\n3,\n")
    bench.write("r.txt", "x\ny\n")
    head = f"version: 1\nprovider: fake\n{model}params: {{prompt: \"x{{{{ a|default('') }}}}\"}}\n"
    text = f"{rows}limits: {{max_tasks: 200}}\nmatrix: {json.dumps(matrix)}"
    try:
        assert bench.examine(text, head=head).tasks
    except ManifestError as error:
        unhelpful = [each for each in error.diagnostics if not (each.hint and each.line)]
        assert unhelpful == []
