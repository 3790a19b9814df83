"""Manifests of Python values: the same checks, the same keys, and no templates in data."""

from __future__ import annotations

import datetime as dt
import math
import sys
from collections import UserDict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import pytest

import runner
from runner.manifest import yaml_reader

MANIFESTS = (
    """\
version: 1
name: posters
provider: chanjing
model: kling-v2-1
params: {prompt: "{{ product }} in {{ light }}, no. {{ index }}"}
items:
  - {product: cup, aspect_ratio: "1:1"}
  - {product: 茶壶, aspect_ratio: "9:16"}
  - {product: "{{ braces }}"}
  - {product: 3}
  - {product: 2.5}
  - {product: true}
matrix:
  light: [dawn, dusk]
  exclude: [{product: cup, light: dusk}]
repeat: 2
output: {name: "{{ index }}-{{ product }}-{{ repeat }}"}
limits: {qps: 5/s, max_tasks: 100, deadline: 6h}
retry: {doubt: 1s}
cost: 4
""",
    """\
version: 1
name: films
provider: kling
model: text2video/kling-v2-1-master
params: {prompt: "a {{ n }}", duration: "5"}
matrix: {n: {from: 1, to: 3}}
""",
    """\
version: 1
name: models
params: {prompt: "a heron"}
matrix:
  zip:
    - {provider: [chanjing, kling], model: [kling-v2-1, image/kling-v2-1]}
""",
)
BASE = {"name": "job", "provider": "chanjing", "model": "kling-v2-1", "params": {"prompt": "{{ subject }}"}}


def errors_of(**keys) -> list[str]:
    with pytest.raises(runner.ManifestError) as raised:
        runner.Job({**BASE, **keys})
    assert {(each.file, each.line, each.column) for each in raised.value.diagnostics} == {("<python>", 0, 0)}
    return [f"{each.key}: {each.message}" for each in raised.value.diagnostics]


def variables(job: runner.Job) -> list[dict]:
    return [dict(draft.vars) for draft in job.loaded.drafts()]


@pytest.mark.parametrize("text", MANIFESTS)
def test_keys_equal_those_of_a_file(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path("file.yaml").write_text(text, encoding="utf-8")
    from_file = runner.load("file.yaml")
    from_values = runner.Job(dict(yaml_reader.read(text.encode(), "file.yaml")))
    assert [*from_values.loaded.drafts()] == [*from_file.loaded.drafts()]
    assert (from_values.directory, from_values.task_count) == (from_file.directory, from_file.task_count)


def test_error_of_a_file_has_line_and_column(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(MANIFESTS[0].replace('"9:16"', '"9:17"'), encoding="utf-8")
    with pytest.raises(runner.ManifestError) as raised:
        runner.load(path)
    (found,) = raised.value.diagnostics
    assert (found.file, found.line, found.column, found.key) == (str(path), 8, 33, "aspect_ratio")
    assert "'9:17' is not one of its values" in found.message
    assert "1:1" in found.hint


# what is wrong


def test_every_error_names_its_path():
    rows = [{"subject": "a"}, {"subject": "b", "aspect_ratio": "7:1"}, 7, {"subject": b"x"}, {"aspect_ratio": "1:1"}]
    assert errors_of(items=rows, repeat=0, limit={}, params={"prompt": "{{ subject }}", "seed": math.inf}) == [
        "repeat: at least 1, found the number 0",
        "limit: no such key",
        "params.seed: an infinite number",
        "params.seed: is not a parameter of kling-v2-1",
        "items[2]: expected a mapping, found the number 7",
        "items[1].aspect_ratio: '7:1' is not one of its values",
        "items[3].subject: expected text, a number, True, False, a list or a mapping, found 'bytes'",
        "items[4].subject: has no value in this row, but `params.prompt` uses it",
    ]


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"items": "a,b"}, "items: expected rows, found the text `a,b`"),
        ({"items": []}, "items: expected rows, found none"),
        ({"items": iter(())}, "items: expected rows, found none"),
        ({"items": None}, "items: expected rows, found nothing"),
        ({"items": [{1: "x", "subject": "a"}]}, "items[0].1: a key must be text, found 1"),
        ({"items": [{"subject": 2**64}]}, "items[0].subject: a whole number beyond 64 bits"),
        ({"items": [{"subject": -math.inf}]}, "items[0].subject: an infinite number"),
        (
            {"items": [{"subject": {"a", "b"}}]},
            "items[0].subject: expected text, a number, True, False, a list or a mapping, found 'set'",
        ),
        (
            {"items": [{"subject": "\ud800"}]},
            "items[0].subject: expected text, a number, True, False, a list or a mapping, found text with half of",
        ),
        (
            {"items": [{"subject": {"a": 1}}]},
            "items[0].subject: expected text, a number, true, false or a list of them",
        ),
        ({"items": [{"subject": "a", "api_key": "x"}]}, "items[0].api_key: looks like a credential"),
        ({"params": "prompt"}, "params: expected a mapping (`key: value`), found the text `prompt`"),
        ({"version": 2}, "version: version 2 is unknown here"),
        ({"items": {"file": "none.csv"}}, "items.file: there is no such file"),
    ],
)
def test_error_in_a_value(keys, error):
    assert any(found.startswith(error) for found in errors_of(**keys)), errors_of(**keys)


def test_job_needs_a_name_or_a_directory(tmp_path):
    keys = {**BASE, "params": {"prompt": "a heron"}}
    del keys["name"]
    with pytest.raises(runner.ManifestError, match=r"^<python>: name: missing; write name="):
        runner.Job(keys)
    assert runner.Job(keys, out=tmp_path / "x").directory == tmp_path / "x"
    assert runner.Job(keys, output={"dir": "here"}).directory == Path.cwd() / "here"


def test_value_that_holds_itself_is_reported():
    loop = []
    loop.append(loop)
    assert any("nested deeper than 64 levels" in found for found in errors_of(params={"prompt": "a", "seed": loop}))


def test_endless_rows_are_too_many_tasks():
    def rows():
        while True:
            yield {"subject": "a"}

    (found,) = errors_of(items=rows(), limits={"max_tasks": 50})
    assert found.startswith("limits.max_tasks: at least 501 tasks")


def test_warnings_name_rows():
    job = runner.Job({**BASE, "items": [{"subject": "a"}, {"subject": "b"}, {"subject": "a"}]})
    (found,) = job.warnings
    assert (found.file, found.key) == ("<python>", "items")
    assert found.message.endswith(": items[2] as items[0]")
    assert (job.task_count, job.merged_count) == (2, 1)


# what is accepted


def test_rows_are_data_and_never_templates():
    job = runner.Job({**BASE, "items": [{"subject": "{{ index }} ${HOME}"}]})
    assert [draft.request["ref_prompt"] for draft in job.loaded.drafts()] == ["{{ index }} ${HOME}"]


@pytest.mark.parametrize(
    "rows",
    [
        [{"subject": "a"}, {"subject": "b"}],
        ({"subject": "a"}, {"subject": "b"}),
        ({"subject": each} for each in "ab"),
        map(UserDict, [{"subject": "a"}, {"subject": "b"}]),
        {1: MappingProxyType({"subject": "a"}), 2: MappingProxyType({"subject": "b"})}.values(),
    ],
    ids=["list", "tuple", "generator", "user dictionaries", "values"],
)
def test_rows_may_be_any_iterable(rows):
    job = runner.Job({**BASE, "items": rows})
    assert variables(job) == variables(job) == [{"subject": "a"}, {"subject": "b"}]


class Scalar:
    """A scalar or an array of numpy: it has a shape, and turns into plain values."""

    shape = ()

    def __init__(self, value):
        self.value = value

    def tolist(self):
        return self.value


class NAType:
    """The missing value of pandas, which cannot be compared."""

    def __eq__(self, other):
        raise TypeError

    __hash__ = None


class Frame:
    """A data frame, whose iterator yields names of columns."""

    columns = ("subject",)

    def __iter__(self):
        return iter(self.columns)

    def to_dict(self, orient):
        assert orient == "records"
        return [{"subject": Scalar("a")}]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Scalar(7), 7),
        (Scalar(1.5), 1.5),
        (Scalar(True), True),  # noqa: FBT003 - a value
        (Scalar(["a", 1]), ["a", 1]),
        (Scalar(math.nan), None),
        (math.nan, None),
        (NAType(), None),
        (Decimal("1.5"), 1.5),
        (Decimal("NaN"), None),
        (Fraction(1, 2), 0.5),
        (("a", 2), ["a", 2]),
        (range(3), [0, 1, 2]),
        (dt.date(2026, 3, 1), "2026-03-01"),
        (Path("a/b.png"), "a/b.png"),
        (sys.float_info.epsilon, sys.float_info.epsilon),
    ],
    ids=[
        *("integer", "float", "truth", "array", "array nan", "nan", "missing", "decimal", "decimal nan", "fraction"),
        *("tuple", "range", "date", "path", "epsilon"),
    ],
)
def test_value_becomes_plain(value, plain):
    job = runner.Job({**BASE, "params": {"prompt": "a {{ n }}"}, "items": [{"subject": "a", "x": value, "n": 1}]})
    (found,) = variables(job)
    assert found["x"] == plain
    assert isinstance(found["x"], type(plain))


def test_data_frame_is_read_by_its_records():
    assert variables(runner.Job({**BASE, "items": Frame()})) == [{"subject": "a"}]


def test_keywords_and_mapping_add_up():
    job = runner.Job(BASE, items=[{"subject": "a"}], repeat=2)
    assert (job.name, job.task_count) == ("job", 2)
    assert repr(job).startswith("<Job 'job': 2 tasks in ")


def test_environment_is_the_callers(monkeypatch, tmp_path):
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path))
    job = runner.Job(BASE, items=[{"subject": "a"}])
    assert job.loaded.settings.home == tmp_path
    assert runner.Job(BASE, items=[{"subject": "a"}], env={"RUNNER_HOME": "/x"}).loaded.settings.home == Path("/x")


async def coroutine_listener(event):
    """Never awaited by a run."""


def test_whole_numbers_of_a_column_with_a_gap_are_whole():
    """A data frame holds a column with a missing cell as floats: 2048.0 would be another task than 2048."""
    rows = [{"subject": "a", "clarity": 2048}, {"subject": "b", "clarity": 1024}]
    frame = [
        {"subject": "a", "clarity": 2048.0},
        {"subject": "b", "clarity": 1024.0},
        {"subject": "c", "clarity": math.nan},
    ]
    first, second = (runner.Job(BASE | {"items": items}) for items in (rows, frame))
    assert [draft.key for draft in second.loaded.drafts()][:2] == [draft.key for draft in first.loaded.drafts()]


def test_nan_outside_of_rows_is_an_error():
    assert errors_of(params={"prompt": "a", "clarity": math.nan}) == ["params.clarity: not a number (NaN)"]


@pytest.mark.parametrize("call", [runner.run, runner.plan], ids=["run", "plan"])
def test_a_path_in_the_place_of_a_job_is_explained(call):
    with pytest.raises(runner.RunnerError, match=r"runner\.load"):
        call("products.yaml")
    with pytest.raises(runner.RunnerError, match=r"runner\.load"):
        runner.Job("products.yaml")


@pytest.mark.parametrize("listener", [5, coroutine_listener], ids=["number", "async"])
def test_a_wrong_listener_is_refused_before_anything_is_bought(listener):
    job = runner.Job(BASE | {"items": [{"subject": "a"}]}, sandbox=True)
    with pytest.raises(runner.RunnerError, match="on_event"):
        runner.run(job, on_event=listener)
