from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.errors import ManifestError
from runner.manifest.diagnostics import MAX_SHOWN
from runner.manifest.model import Items, JobLimits, Retry
from runner.manifest.parser import parse
from runner.manifest.schema import json_schema
from runner.units import Rate

WHOLE = """
name: posters 2
unchecked: true
params: {aspect_ratio: 9:16, clarity: 2048, prompt: "{{ subject }}"}
items: [{subject: cat}, {subject: dog}]
matrix: {style: [ink, oil], aspect_ratio: [1:1, 9:16]}
repeat: 2
output: {dir: ../out/posters, name: "{{ index }}"}
limits: {qps: 10/min, in_flight: 20, downloads: 4, max_tasks: 2000, deadline: 6h}
retry: {attempts: 3, patience: 1d, doubt: 2m, absence: witnessed}
"""


def test_complete_manifest(bench):
    manifest = bench.parsed(WHOLE).manifest
    assert (manifest.name, manifest.provider, manifest.model) == ("posters 2", "fake", "ink")
    assert manifest.params == {"aspect_ratio": "9:16", "clarity": 2048, "prompt": "{{ subject }}"}
    assert manifest.items == Items(rows=({"subject": "cat"}, {"subject": "dog"}))
    axes = {name: axis.values for name, axis in manifest.matrix.axes.items()}
    assert axes == {"style": ["ink", "oil"], "aspect_ratio": ["1:1", "9:16"]}
    assert manifest.limits == JobLimits(Rate(10, 60), 20, None, 4, 2000, 21600)
    assert manifest.retry == Retry(3, 86400, 120, absence="witnessed")
    assert manifest.directory == bench.home.parent / "out/posters"
    assert (manifest.root, manifest.repeat, manifest.output_name, manifest.unchecked) == (
        bench.home,
        2,
        "{{ index }}",
        True,
    )


def test_defaults(bench):
    manifest = bench.parsed("").manifest
    assert (manifest.name, manifest.directory) == ("job", bench.home / "out/job")
    assert (manifest.limits, manifest.retry, manifest.items) == (JobLimits(), Retry(), None)


def test_out_overrides_the_directory(bench, monkeypatch):
    monkeypatch.chdir(bench.home)
    assert bench.parsed(WHOLE, out=Path("a/../b")).manifest.directory == bench.home / "b"


def test_paths_do_not_depend_on_the_working_directory(bench, monkeypatch):
    text = b"version: 1\nprovider: p\nmodel: m\n"
    monkeypatch.chdir(bench.home)
    here = parse(text, Path("job.yaml")).manifest
    assert here.directory == parse(text, bench.home / "job.yaml").manifest.directory
    assert here.file == "job.yaml"


def test_invalid_file_stem_becomes_a_valid_name(bench):
    assert parse(b"version: 1\nprovider: p\nmodel: m\n", bench.home / "-we!rd.yaml").manifest.name == "we_rd"


def test_locations_of_values_and_keys(bench):
    source_map = bench.parsed(WHOLE).source_map
    assert source_map.location("items", 1, "subject") == (8, 35)
    assert source_map.key_location("limits") == (12, 1)


WRONG = [
    ("prams: {}", 4, 1, "prams", "no such key; did you mean `params`?"),
    (
        "aspect_ratio: 1:1",
        4,
        1,
        "aspect_ratio",
        "no such key; a parameter of the model belongs under `params:`; else it",
    ),
    ("max_tasks: 5", 4, 1, "max_tasks", "it belongs under `limits:`"),
    ("limits: {in_fligt: 5}", 4, 10, "limits.in_fligt", "did you mean `in_flight`?"),
    ("limits: {in_flight: x}", 4, 21, "limits.in_flight", "expected a whole number, found the text `x`"),
    ("limits: {in_flight: 0}", 4, 21, "limits.in_flight", "at least 1, found the number 0"),
    ("limits: {max_tasks: 1_000}", 4, 21, "limits.max_tasks", "expected a whole number, found the text `1_000`"),
    ("limits: {qps: fast}", 4, 15, "limits.qps", "expected a rate"),
    ("limits: {qps: 0}", 4, 15, "limits.qps", "expected a rate"),
    ("limits: {deadline: 5x}", 4, 20, "limits.deadline", "expected a duration"),
    ("limits: {max_cost: -5}", 4, 20, "limits.max_cost", "at least 0"),
    ("cost: free", 4, 7, "cost", "the price is not a number"),
    ("cost: {kling-v2-1: .inf}", 4, 7, "cost", "the price for kling-v2-1 is not a number"),
    ("limits:", 4, 8, "limits", "expected a mapping (`key: value`), found nothing"),
    ("retry: [1]", 4, 8, "retry", "expected a mapping (`key: value`), found a list"),
    ("retry: {patience: 0}", 4, 19, "retry.patience", "expected a duration"),
    ("notify: {url: https://hc.example/1}", 4, 15, "notify.url", "is a secret"),
    ('notify: {url: "${KLING_API_KEY}"}', 4, 15, "notify.url", "credential has no place"),
    ('notify: {url: "https://hc.example/$ID"}', 4, 15, "notify.url", "begins no `${NAME}`"),
    ('notify: {url: "${URL}", on: [begin]}', 4, 30, "notify.on[0]", "'start'"),
    ('notify: {url: "${URL}", when: [start]}', 4, 25, "notify.when", "no such key"),
    ("notify: {on: [start]}", 4, 9, "notify", "`url` is missing"),
    ("notify: https://hc.example/1", 4, 9, "notify", "a mapping"),
    ("name: 2024", 4, 7, "name", 'expected text, found the number 2024; put it in quotes: "2024"'),
    ("name: ../x", 4, 7, "name", "cannot name a job"),
    ("name: ..", 4, 7, "name", "cannot name a job"),
    ("name: 'a '", 4, 7, "name", "cannot name a job"),
    ("unchecked: yes", 4, 12, "unchecked", "expected `true` or `false`, found the text `yes`; write `true`"),
    ("repeat: 1001", 4, 9, "repeat", "at most 1,000"),
    ("repeat: true", 4, 9, "repeat", "expected a whole number, found `true`"),
    ("output: {dir: ''}", 4, 15, "output.dir", "an empty text"),
    ('output: {dir: "a\\0b"}', 4, 15, "output.dir", "NUL"),
    ("output: {name: 5}", 4, 16, "output.name", "expected text"),
    ("params: [a]", 4, 9, "params", "expected a mapping"),
    ("params:", 4, 8, "params", "expected a mapping"),
    ("params: {api_key: x}", 4, 10, "params.api_key", "credential"),
    ("params: {prompt: x, seed: {Access-Key: x}}", 4, 28, "params.seed.Access-Key", "credential"),
    ("items: x", 4, 8, "items", "expected rows, found the text `x`"),
    ("items: []", 4, 8, "items", "expected rows, found none"),
    ("items:", 4, 7, "items", "expected rows, found nothing"),
    ("items: [a]", 4, 9, "items[0]", "expected a mapping, found the text `a`"),
    ("items: [{a: {b: 1}}]", 4, 13, "items[0].a", "found a mapping"),
    ("items: [{a: [[1]]}]", 4, 13, "items[0].a", "found a list"),
    ("items: [{token: x}]", 4, 10, "items[0].token", "credential"),
    ("items: {file: gone.csv}", 4, 15, "items.file", "there is no such file"),
    ("items: {file: 5}", 4, 15, "items.file", "expected the path of a data file"),
    ("items: {}", 4, 8, "items.file", "expected the path of a data file"),
    ("items: {file: rows.xls}", 4, 15, "items.file", "a data file ends in .csv"),
    ("items: {file: rows.csv.gz}", 4, 15, "items.file", "a data file ends in .csv"),
    ('items: {file: "a\\0.csv"}', 4, 15, "items.file", "cannot be read"),
    ("matrix: [a]", 4, 9, "matrix", "expected axes"),
    ("matrix: {a: []}", 4, 13, "matrix.a", "at least one value, found an empty list"),
    ("matrix: {a: x}", 4, 13, "matrix.a", "expected a list"),
    ("matrix: {index: [1]}", 4, 10, "matrix.index", "variable of every template"),
    ("matrix: {token: [1]}", 4, 10, "matrix.token", "credential"),
    ("retry: {absence: guessed}", 4, 18, "retry.absence", "measured"),
]


@pytest.mark.parametrize(("text", "line", "column", "key", "message"), WRONG)
def test_error_has_its_location(text, line, column, key, message, bench):
    with pytest.raises(ManifestError) as caught:
        bench.parsed(text)
    (error,) = caught.value.diagnostics
    assert (error.line, error.column, error.key) == (line, column, key)
    assert message in str(error)
    assert error.hint
    assert caught.value.exit_code == 2


HEADS = [
    ("provider: p\nmodel: m\n", "version", "missing"),
    ("version: 2\nprovider: p\nmodel: m\n", "version", "version 2 is unknown"),
    ("version: 1.0\nprovider: p\nmodel: m\n", "version", "expected a whole number"),
    ("version: 1\nmodel: m\n", "provider", "missing"),
    ("version: 1\nprovider: p\n", "model", "missing"),
    ("version: 1\nprovider: p\nmodel: [a]\n", "model", "expected text, found a list"),
    ("version: 1\nprovider: p\nmodel:\n", "model", "expected text, found nothing"),
]


@pytest.mark.parametrize(("head", "key", "message"), HEADS)
def test_errors_in_the_required_keys(head, key, message, bench):
    with pytest.raises(ManifestError) as caught:
        bench.parsed("", head=head)
    assert [(each.key, message in each.message) for each in caught.value.diagnostics] == [(key, True)]


def test_all_errors_in_the_order_of_the_file(bench):
    found = bench.errors("""
        repeat: 0
        repeat: 1
        params: {prompt: "{{ subjet }}", clarity: 5, b: !x 1}
        prams: {}
        items: [{subject: cat}]
        limits: {qps: x, in_flight: 0}
    """)
    assert [(each.line, each.column) for each in found] == [
        (5, 9), (6, 1), (7, 18), (7, 43), (7, 49), (7, 49), (8, 1), (10, 15), (10, 29),
    ]  # fmt: skip
    assert [each.key for each in found][2:4] == ["params.prompt", "params.clarity"]


def test_fifty_errors_are_shown_and_the_rest_counted(bench):
    with pytest.raises(ManifestError) as caught:
        bench.parsed("\n".join(f"k{number}: 1" for number in range(80)))
    assert len(caught.value.diagnostics) == MAX_SHOWN
    assert caught.value.omitted == 30
    assert "and 30 more" in str(caught.value)


def test_environment_is_not_substituted(bench, monkeypatch):
    monkeypatch.setenv("CANARY", "leaked")
    draft = bench.drafts("params: {prompt: '${CANARY} $CANARY', x: ['${CANARY}']}")[0]
    assert draft.request == {"ref_prompt": "${CANARY} $CANARY", "x": ["${CANARY}"]}


@pytest.mark.parametrize("kind", ["directory", "fifo", "device"])
def test_data_file_must_be_a_regular_file(kind, bench):
    path = bench.home / "rows.csv"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
    assert "items.file: not a regular file" in bench.error("items: {file: rows.csv}")


def test_data_file_path_is_relative_or_absolute(bench, tmp_path):
    path = bench.write("rows.csv", "a\n1\n")
    assert bench.parsed("items: {file: rows.csv}").manifest.items.file == path
    assert bench.parsed(f"items: {{file: {path}}}").manifest.items.file == path


def test_json_schema():
    schema = json_schema()
    assert set(schema["properties"]) >= {"version", "provider", "model", "items", "matrix", "limits"}
    assert schema["additionalProperties"] is False
