from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest

from runner.errors import ConfigError, UsageError
from runner.providers import spec as specs
from runner.providers.catalogue import Catalogue
from runner.providers.expressions import compile_expression

FOLDER = Path(str(resources.files("runner.providers") / "specs"))
MINIMAL = """
name: tiny
title: Tiny
env: TINY
base_url: https://tiny.example
auth: {scheme: bearer}
limits: {submit: 1/s, query: 5/s}
doubt: 60
operations:
  image: {path: /make, media: image}
submit: {accept: "body.ok == `true`", id: body.id, model_fields: [model]}
query:
  path: /job/{id}
  valid: "status == `200`"
  task: body
  state: state
  map: {done: succeeded}
  outputs: "[url][?@].{url: @}"
  error: why
errors: []
models:
  ink: {operation: image, parameters: {prompt: {required: true}, ratio: {choices: [9:16, "no", 010]}}}
"""


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_every_bundled_spec_loads_under_its_name(name):
    spec = specs.load(name)
    assert spec.name == name
    assert spec.models
    assert spec.not_established
    assert spec.doubt >= 300, "it is not proved how soon a lost submit appears in the list"


def test_which_providers_can_reconcile():
    assert {name: specs.load(name).can_reconcile for name in specs.spec_paths()} == {
        "chanjing": True,
        "kling": True,
        "kling-gateway": False,
    }
    assert specs.load("chanjing").reconcile.listing.proof == ("model_code", "creation_type", "ref_prompt")


def test_spec_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        specs.load("kling").name = "x"


def test_scalars_are_those_of_yaml_1_2():
    spec = specs.parse(MINIMAL, "tiny.yaml")
    assert spec.models["ink"].parameters["ratio"].choices == ("9:16", "no", "010")
    loaded = specs.yaml.load(
        "{a: 16:9, b: no, c: on, d: 010, e: 2024-11-06, f: 1_000, g: 0x1f, h: yes, i: '5'}",
        Loader=specs._Loader,
    )
    assert loaded == {
        "a": "16:9", "b": "no", "c": "on", "d": "010", "e": "2024-11-06", "f": "1_000", "g": "0x1f",
        "h": "yes", "i": "5",
    }  # fmt: skip
    plain = "{a: 5, b: -3, c: 0, d: 0.5, e: 1.5e3, f: true, g: false, h: null, i: ~, j: }"
    assert specs.yaml.load(plain, Loader=specs._Loader) == {
        "a": 5, "b": -3, "c": 0, "d": 0.5, "e": 1500.0, "f": True, "g": False, "h": None, "i": None, "j": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Tiny", "titel: Tiny", "titel"),
        ("id: body.id", "id: 'body['", "JMESPath"),
        ("operation: image", "operation: video", "operation that is not there"),
        ("done: succeeded", "done: finished", "succeeded"),
        ("doubt: 60", "doubt: soon", "doubt"),
        ("auth: {scheme: bearer}", "auth: {scheme: magic}", "scheme"),
        ("name: tiny", "name: [", "not a provider spec"),
        ("name: tiny", "name: !!python/object/apply:os.system [ls]", "not a provider spec"),
        ("errors: []", "errors: [{when: status, means: bad_luck}]", "means"),
        ("title: Tiny", "- x", "not a provider spec"),
        ("errors: []", "eror: []", "eror: no such field; did you mean `error`?"),
        ("doubt: 60", "doubt: soon", "doubt: expected a valid number"),
        (
            "submit: 1/s",
            "submit: 1 per s",
            "limits.submit: expected a rate like `5/s`, `10/min` or `100/h`; found '1 p",
        ),
        ("query: 5/s", "query: 0/s", "limits.query: expected a rate"),
        ("errors: []", "errors: [{when: a, means: doubt}, {when: b}]", "errors[1].means: is missing"),
        ("name: tiny", "name: tony", "it says `name: tony`, and the file is called tiny.yaml"),
    ],
)
def test_broken_spec_names_file_and_error(tmp_path, old, new, message):
    assert old in MINIMAL
    path = tmp_path / "tiny.yaml"
    path.write_text(MINIMAL.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        specs.load("tiny", tmp_path)
    assert str(path) in caught.value.message
    assert "pydantic" not in caught.value.message
    assert message in caught.value.message
    assert caught.value.hint


def test_empty_spec_is_rejected():
    with pytest.raises(ConfigError, match=r"empty\.yaml"):
        specs.parse("", "empty.yaml")


def test_all_errors_of_a_spec_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        specs.parse(MINIMAL.replace("title", "titel").replace("doubt: 60", "doubt: x"), "x.yaml")
    assert {"titel:", "title:", "doubt:"} <= set(caught.value.message.split())


def test_extra_directory_adds_and_overrides_specs(tmp_path):
    (tmp_path / "tiny.yaml").write_text(MINIMAL, encoding="utf-8")
    shutil.copy(FOLDER / "kling.yaml", tmp_path / "kling.yaml")
    known = specs.spec_paths(tmp_path)
    assert set(known) == {"chanjing", "kling", "kling-gateway", "tiny"}
    assert known["kling"] == tmp_path / "kling.yaml"
    schema = Catalogue(tmp_path).find("tiny", "ink")
    assert schema.request({"prompt": "x", "ratio": "9:16"}) == ({"prompt": "x", "ratio": "9:16"}, [])
    with pytest.raises(UsageError):
        Catalogue().find("tiny", "ink")


def rules():
    for name in specs.spec_paths():
        spec = specs.load(name)
        for number, rule in enumerate((*spec.errors, *spec.task_errors)):
            yield pytest.param(rule, id=f"{name}-{number}")


@pytest.mark.parametrize("rule", list(rules()))
@pytest.mark.parametrize(
    "seen",
    [
        {"status": 200, "headers": {}, "body": None},
        {"status": 200, "headers": {}, "body": "text"},
        {"status": 200, "headers": {}, "body": {}},
        {"status": 200, "headers": {}, "body": {"code": 0, "msg": "审核", "message": "risk"}},
        {"status": 200, "headers": {}, "body": []},
    ],
    ids=range(5),
)
def test_no_error_rule_holds_without_a_failing_code(rule, seen):
    """`body.code != 0` would be true of a text and of an empty body."""
    if rule.means == "absent":
        return
    assert not compile_expression(rule.when).is_true(seen)
