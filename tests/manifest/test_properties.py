"""Any input gives tasks or located errors, and the key of a task depends on its content alone.

Larger: `EXAMPLES_TIMES=50 pytest tests/manifest/test_properties.py`.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from datetime import timedelta

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner.errors import ManifestError
from runner.manifest.expand import expand, parse_and_check
from runner.manifest.parser import parse
from runner.manifest.rows import SUFFIXES
from runner.providers.catalogue import Catalogue

TIMES = int(os.environ.get("EXAMPLES_TIMES", "1"))
#: processor seconds that any small manifest may take; the deadline of hypothesis allows for a busy machine
BOUND = 1.0
LIMITED = settings(deadline=timedelta(seconds=20), suppress_health_check=list(HealthCheck))
FUZZ = settings(LIMITED, max_examples=150 * TIMES)
PROOF = settings(LIMITED, max_examples=60 * TIMES)

BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
HEAD = "version: 1\nprovider: chanjing\nmodel: kling-v2-1\n"
WHOLE = HEAD + "params: {prompt: x}\n"
CATALOGUE = Catalogue()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    made = tmp_path_factory.mktemp("manifests")
    (made / "rows.csv").write_text("a,prompt,clarity\n1,x,1024\n2,,2048\n")
    (made / "rows.json").write_text('[{"a": 1, "b": [1, 2]}, {"a": null}]')
    return made


def storable(_parsed, draft):
    """Assert that an accepted draft survives being written to disk and sent."""
    content = [draft.vars, draft.request, draft.name, draft.key, draft.model]
    assert orjson.loads(orjson.dumps(content)) == content
    assert draft.slots > 0


def check_location(error, home, text):
    """Assert that an error has a valid location. An error of a whole file has no line."""
    if error.message == "the file is empty" or error.message.startswith("not a workbook that can be read"):
        assert error.line == 0
        return
    if error.file != str(home / "job.yaml"):
        assert error.file.startswith(str(home))
        assert min(error.line, error.column) >= 1
        return
    lines = BREAK.split(text)
    assert 1 <= error.line <= len(lines) + 1, str(error)
    assert 1 <= error.column <= max(map(len, lines)) + 2, str(error)
    assert str(error).startswith(f"{home / 'job.yaml'}:{error.line}:{error.column}: ")


def ends_well(home, text):
    """Assert that `text` quickly gives tasks or located errors, and return the number of tasks."""
    began = time.thread_time()
    tasks, errors = examined(home, text)
    assert time.thread_time() - began < BOUND
    assert bool(errors) != bool(tasks)
    for error in errors:
        check_location(error, home, text)
        assert error.message
    return tasks


def examined(home, text):
    try:
        _, summary = parse_and_check(
            text.encode("utf-8", "surrogatepass"), home / "job.yaml", CATALOGUE, on_draft=storable
        )
    except ManifestError as error:
        return 0, error.diagnostics
    return summary.tasks, ()


# near-manifests: valid and invalid YAML as users and their tools write it

SCALARS = st.sampled_from([
    "NO", "no", "on", "Yes", "true", "True", "null", "~", "", "1", "0", "-1", "1001", "0x1F", "0o17", "012", "1_000",
    "12:30:45", "9:16", "2024-01-01", "2024-01-01T10:00:00Z", "1e400", ".inf", "-.INF", ".nan", "1.5", "+.5e-3",
    "99999999999999999999", "9" * 5000, "-" * 30, "kling-v2-1", "image/kling-v2-1", "kling", "nobody", "1/s", "10/min",
    "6h", "1h30m", "0s", "99999d", "'{{ a }}'", "'{{ a | upper }}-{{ index }}'", "{{ a }}", "'{{ a.b }}'", "'{{ (a'",
    "'{{ 1 // 0 }}'", "'{% if a %}x{% endif %}'", "'{% for x in a %}{% endfor %}'", "\"{{ '\\\\ud800' }}\"",
    "'{{ a | int - 1 }}'", "'{{ a | truncate(a, a, a) }}'", "'{{ 1 is divisibleby a }}'", '"\\0"', '"\\ud83d\\ude00"',
    '"\\uD800"', "\ufeff", "!!python/object/apply:os.system [x]", "!!binary aGk=", "!x y", "*a", "*b", "&a x",
    "&a [1, *a]", "&b {x: *a}", "<<", "<<: *a", "&a <<", "? x", "- x", "|\n   x", ">-\n   x\n   y", "\t", "# x", "'",
    '"', "%", "@", "`", "...", "---", "https://files.example/1.png", "rows.csv", "rows.json", "../x.yaml", "/dev/zero",
    "x" * 100_000, "青瓷茶壶", "\u202e",
])  # fmt: skip
NAMES = st.sampled_from([
    "a", "b", "prompt", "n", "clarity", "aspect_ratio", "image", "index", "key", "model", "provider", "file", "token",
    "repeat", "'a b'", "<<", "? [a]", "12", "~", "no", "''", "zip",
])  # fmt: skip
FLOW = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda each: f"[{', '.join(each)}]"),
        st.lists(st.tuples(NAMES, inner), max_size=3).map(
            lambda each: "{" + ", ".join(f"{name}: {value}" for name, value in each) + "}"
        ),
    ),
    max_leaves=8,
)
DEEP = st.builds(
    lambda open_, depth, close: open_ * depth + "x" + close * depth,
    st.sampled_from(["[", "{a: ", "- ", "? ", "!x [", "&a ["]),
    st.integers(1, 500),
    st.sampled_from(["", "]", "}"]),
)
STEPS = st.integers(1, 500).map(lambda depth: "\n" + "\n".join(" " * step + "a:" for step in range(1, depth)))
KEYS = st.sampled_from([
    "version", "name", "provider", "model", "params", "items", "matrix", "repeat", "output", "limits", "retry",
    "unchecked", "notify", "<<", "nmae",
])  # fmt: skip
LISTS = st.lists(FLOW, max_size=3).map(lambda each: f"[{', '.join(each)}]")


def pairs(names, values=FLOW):
    return st.lists(
        st.tuples(names if isinstance(names, st.SearchStrategy) else st.sampled_from(names), values), max_size=3
    )


def mapped(each):
    return "{" + ", ".join(f"{name}: {value}" for name, value in each) + "}"


NUMBERS = st.sampled_from(
    ["1", "0", "9", "-3", "0.1", "1e308", "1e-300", "-0.0", "18446744073709551615", "x", "~", "*a"]
)
COUNTS = pairs(("from", "to", "step", "stop"), NUMBERS).map(mapped)
COLUMNS = st.sampled_from(
    ["rows.csv#a", "rows.csv#", "rows.csv", "rows.csv#zz", "rows.json#b", "../x.csv#a", "x.txt", "[1]"]
)
VALUES_OF_AXES = st.one_of(LISTS, LISTS, COUNTS, COLUMNS.map(lambda column: f"{{file: '{column}'}}"), FLOW)
AXES_IN_PAIRS = pairs(NAMES, VALUES_OF_AXES).map(mapped)
RULES = st.one_of(pairs(NAMES).map(mapped), pairs(("when", "then", "whn"), pairs(NAMES).map(mapped)).map(mapped))
ENTRIES = st.tuples(
    st.sampled_from(["zip", "add", "set", "exclude"]), st.lists(st.one_of(AXES_IN_PAIRS, RULES, FLOW), max_size=3)
)
MATRIX = st.one_of(
    st.tuples(NAMES, VALUES_OF_AXES),
    ENTRIES.map(lambda each: (each[0], f"[{', '.join(each[1])}]")),
    st.tuples(NAMES, FLOW),
)
PARTS = {
    "params": pairs(NAMES),
    "matrix": st.lists(MATRIX, max_size=3),
    "notify": pairs(("url", "on", "off")),
    "output": pairs(("dir", "name", "nam")),
    "limits": pairs(("qps", "in_flight", "downloads", "max_tasks", "max_cost")),
    "retry": pairs(("attempts", "patience", "doubt")),
}
GOOD = st.sampled_from([
    "items:\n- {a: cat}\n- {a: '犬'}\n", "matrix: {a: [x, y], clarity: [1024, 2048]}\n", "repeat: 3\n", "name: a job\n",
    "output: {name: '{{ index }}-{{ repeat }}'}\n", "limits: {qps: 10/min, max_tasks: 4}\n", "retry: {doubt: 5m}\n",
    "items:\n- {a: &x cat, b: [1, 2]}\n- {a: *x, clarity: 1024}\n", "unchecked: false\n",
    "matrix:\n  zip: [{a: [x, y], clarity: [1024, 2048]}]\n  add: [{a: z}]\n",
    "notify: {url: '${HOOK}', on: [failure]}\n",
    "matrix:\n  a: {from: 1, to: 3}\n  exclude: [{a: 2}]\n  set: [{when: {a: 3}, then: {clarity: 2048}}]\n",
    "matrix: {a: {file: 'rows.csv#a'}}\n",
])  # fmt: skip


@st.composite
def entries(draw):
    """Draw `key: value` lines of a manifest, most of them of the right kind."""
    if draw(st.booleans()):
        return draw(GOOD)
    key = draw(KEYS)
    if key in PARTS and draw(st.integers(0, 3)):
        return f"{key}:\n" + "".join(f"  {name}: {value}\n" for name, value in draw(PARTS[key]))
    if key == "items" and draw(st.integers(0, 3)):
        rows = draw(st.lists(pairs(NAMES), max_size=3))
        return "items:\n" + "".join("- {" + ", ".join(f"{n}: {v}" for n, v in row) + "}\n" for row in rows)
    return f"{key}: {draw(st.one_of(FLOW, FLOW, DEEP, STEPS))}\n"


@st.composite
def near_manifests(draw):
    """Draw a manifest, or nearly one, with a few typing errors."""
    head = draw(st.sampled_from([HEAD, WHOLE, WHOLE, "version: 1\n", "", "---\n", "%YAML 1.1\n---\n"]))
    text = head + "".join(draw(st.lists(entries(), max_size=5)))
    for _ in range(max(0, draw(st.integers(-2, 2)))):
        at, size = draw(st.integers(0, len(text))), draw(st.integers(0, 8))
        with_ = draw(st.one_of(SCALARS, st.text(max_size=3), st.just(text[at : at + 3 * size])))
        text = text[:at] + with_ + text[at + size :]
    return text


@FUZZ
@given(text=st.text(st.characters(), max_size=200))
@example("")
@example("\ufeff")
@example("\0")
@example("\ud800")
@example("\x85- a")
@example("a: !!python/object/apply:os.system [x]")
@example("&a <<: 1\nb: *a")
@example("*a : 1")
@example("? - x\n: y")
@example("--- x\n--- y")
@example("00\r0\x1f")
@example("version: 1\r\nprovider: chanjing\r\nmodel: [\r\n")
def test_any_text_gives_tasks_or_located_errors(home, text):
    ends_well(home, text)


@FUZZ
@given(data=st.binary(max_size=200))
def test_any_bytes_give_tasks_or_manifest_error(home, data):
    with suppress(ManifestError):
        parse_and_check(data, home / "job.yaml", CATALOGUE)


@pytest.mark.slow
@settings(LIMITED, max_examples=400 * TIMES)
@given(text=near_manifests())
@example(HEAD + "params: {prompt: &a <<, n: *a}")
@example(HEAD + "params: {prompt: x, &a <<: 1, n: *a}")
@example(HEAD + "params: &a {prompt: *a}")
@example(HEAD + "params: {prompt: x}\nmatrix: {provider: [{a: b}], model: [[x]]}")
@example(HEAD + "params:\n" + "\n".join(" " * depth + "a:" for depth in range(1, 500)))
def test_near_manifest_gives_tasks_or_located_errors(home, text):
    ends_well(home, text)


# as Python's own library writes JSON: NaN, lone surrogates and whole numbers of any size
CELLS = st.one_of(st.text(max_size=6), st.integers(), st.floats(), st.none(), st.booleans())
TABLES = st.lists(
    st.dictionaries(st.sampled_from(["a", "prompt", "n", "index", "", "\ud800"]), CELLS, max_size=3), max_size=3
)
FILES = st.one_of(
    st.binary(max_size=120),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text("\ufeff[]{},:\"'\\\t\n\r 019eEudprompta-", max_size=80).map(str.encode),
    TABLES.map(lambda rows: "\n".join(map(json.dumps, rows)).encode("utf-8", "surrogatepass")),
    TABLES.map(lambda rows: json.dumps(rows).encode("utf-8", "surrogatepass")),
)


@FUZZ
@given(suffix=st.sampled_from(SUFFIXES), data=FILES, prompt=st.sampled_from(["x", "'{{ a }}'", "'{{ prompt }}'"]))
@example(".json", b'[{"a": 123456789012345678901234567890}]', "x")
@example(".json", b'[{"a": "\\ud800"}]', "x")
@example(".json", b'[{"\\ud800": "a"}]', "x")
@example(".json", b'[{"a": [1e999]}]', "'{{ a }}'")
@example(".json", b'[{"prompt": 1e999}]', "x")
@example(".json", b'[{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}]", "x")
@example(".csv", b'a\n"' + b"x" * 200_000, "x")
@example(".csv", b"a\n\0\n", "x")
def test_any_data_file_gives_tasks_or_located_errors(home, suffix, data, prompt):
    (home / f"data{suffix}").write_bytes(data)
    ends_well(home, HEAD + f"params: {{prompt: {prompt}}}\nitems: {{file: data{suffix}}}\n")


def test_too_many_tasks_are_refused_quickly(home):
    axes = "".join(f"  {name}: [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" for name in "abcdefgh")
    assert ends_well(home, HEAD + "params: {prompt: x}\nrepeat: 10\nlimits: {max_tasks: 1000}\nmatrix:\n" + axes) == 0


@pytest.mark.slow
def test_grammar_also_writes_valid_manifests(home):
    """A grammar that only writes errors would prove nothing about tasks."""
    found = []

    @settings(LIMITED, max_examples=200, database=None, derandomize=True)
    @given(text=near_manifests())
    def count(text):
        found.append(ends_well(home, text))

    count()
    assert sum(map(bool, found)) >= 5


# the key of a task

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
VALUES = st.one_of(WORDS, st.integers(-(2**63), 2**64 - 1), st.floats(-1e9, 1e9), st.booleans())
ROWS = st.lists(st.fixed_dictionaries({"a": WORDS, "b": VALUES}), min_size=1, max_size=6)
AXES = st.dictionaries(st.sampled_from(["c", "d"]), st.lists(VALUES, min_size=1, max_size=3), max_size=2)
TEXT = "{{ a }}, {{ b }}"


def written(rows, axes, repeat=1, name=None, directory=None, params=()):
    """Return a manifest as YAML, of which JSON is a subset."""
    prompt = TEXT + "".join(f", {{{{ {axis} }}}}" for axis in sorted(axes))
    whole = {
        "version": 1,
        "provider": "chanjing",
        "model": "kling-v2-1",
        "params": {"prompt": prompt, **dict(params)},
        "items": rows,
        "matrix": axes,
        "repeat": repeat,
        "output": {"name": name or "{{ index }}", "dir": directory or "out"},
    }
    return orjson.dumps(whole)


def keys(home, text):
    return [draft.key for draft in expand(parse(text, home / "job.yaml"), CATALOGUE)]


@PROOF
@given(rows=ROWS, axes=AXES, repeat=st.integers(1, 3))
def test_expanding_twice_gives_the_same_tasks(home, rows, axes, repeat):
    text = written(rows, axes, repeat)
    first, second = ([*expand(parse(text, home / "job.yaml"), Catalogue())] for _ in range(2))
    assert first == second
    assert len({draft.key for draft in first}) == len(first)
    assert [draft.index for draft in first] == [*range(1, len(first) + 1)]


@pytest.mark.slow
@PROOF
@given(rows=ROWS.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))), axes=AXES)
def test_order_of_rows_changes_no_key(home, rows, axes):
    before, after = rows
    assert set(keys(home, written(before, axes))) == set(keys(home, written(after, axes)))


@pytest.mark.slow
@PROOF
@given(axes=AXES, rows=ROWS)
def test_order_of_axes_and_columns_changes_no_key(home, axes, rows):
    turned = [dict(reversed(row.items())) for row in rows]
    assert set(keys(home, written(rows, axes))) == set(keys(home, written(turned, dict(reversed(axes.items())))))


@PROOF
@given(rows=ROWS, name=WORDS.map(lambda text: "{{ index }}-" + text.replace("{", "")), directory=WORDS)
def test_output_options_change_no_key(home, rows, name, directory):
    assert keys(home, written(rows, {}, name=name, directory=directory)) == keys(home, written(rows, {}))


@PROOF
@given(rows=ROWS, more=ROWS)
def test_more_rows_keep_the_first_keys(home, rows, more):
    assert keys(home, written([*rows, *more], {}))[: len(keys(home, written(rows, {})))] == keys(
        home, written(rows, {})
    )


@PROOF
@given(rows=ROWS, repeat=st.integers(1, 4))
def test_higher_repeat_adds_tasks(home, rows, repeat):
    assert set(keys(home, written(rows, {}, repeat))) < set(keys(home, written(rows, {}, repeat + 1)))


@pytest.mark.slow
@PROOF
@given(rows=ROWS)
def test_other_prompts_have_other_keys(home, rows):
    """A key that ignored the prompt would pass every test above."""
    prompts = [draft.request["ref_prompt"] for draft in expand(parse(written(rows, {}), home / "job.yaml"), CATALOGUE)]
    assert len(prompts) == len(set(prompts)) == len({f"{row['a']}, {row['b']}" for row in rows})
