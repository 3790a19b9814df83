from __future__ import annotations

import re

import pytest
import yaml

from runner.app.columns import Table
from runner.app.starter import compose, start
from runner.errors import ManifestError, UsageError
from runner.manifest.expand import examine
from runner.manifest.reader import scan
from runner.providers import spec as specs
from runner.providers.catalogue import Catalogue

CATALOGUE = Catalogue()
MODELS = [(name, model) for name in specs.names() for model in specs.load(name).models]
KEYS = (("AN_ID", "A_SECRET"), ("A_TOKEN",))


def options(provider="chanjing", model=None, **fields):
    given = {"manifest": "job.yaml", "schema": ".schema.json", "credentials": KEYS, **fields}
    return start(CATALOGUE, specs.load(provider), model, **given)


def examined(text: str, tmp_path):
    """Return the drafts of a manifest; raise ManifestError if it is wrong."""
    drafts = []
    _, summary = examine(text.encode(), tmp_path / "job.yaml", CATALOGUE, each=lambda _, draft: drafts.append(draft))
    assert (summary.merged, summary.warnings) == (0, ())
    return drafts


@pytest.mark.parametrize(("provider", "model"), MODELS)
def test_manifest_and_its_commented_lines_are_valid(provider, model, tmp_path):
    """Every commented line is tried on its own, for every model of every provider."""
    text = compose(options(provider, model))
    assert len(examined(text, tmp_path)) == 4
    lines = text.splitlines()
    assert max(map(len, lines)) <= 118
    commented = [number for number, line in enumerate(lines) if re.match(r" *# \w+:", line)]
    assert len(commented) >= 4
    for number in commented:
        tried = [*lines[:number], lines[number].replace("# ", "", 1), *lines[number + 1 :]]
        assert examined("\n".join(tried), tmp_path), lines[number]


@pytest.mark.parametrize("provider", specs.names())
def test_default_model_needs_only_a_prompt(provider):
    params = yaml.safe_load(compose(options(provider)))["params"]
    assert params == {"prompt": "{{ subject }}, {{ light }}"}


def test_first_line_names_the_schema_for_editors():
    first, *rest = compose(options(schema=".runner-schema.json")).splitlines()
    assert first == "# yaml-language-server: $schema=.runner-schema.json"
    assert "AN_ID + A_SECRET or A_TOKEN" in "\n".join(rest)


@pytest.mark.parametrize(("provider", "model"), MODELS)
def test_yaml_1_1_reads_the_same_values(provider, model):
    """An editor may use YAML 1.1, to which `9:16` is a number."""
    text = re.sub(r"^  # (\w+:)", r"  \1", compose(options(provider, model)), flags=re.MULTILINE)
    ours, problems = scan(text.encode(), "job.yaml")
    assert problems == []
    assert yaml.safe_load(text)["params"] == ours["params"]
    assert len(ours["params"]) == len(specs.load(provider).models[model].parameters)


def rows(tmp_path, text: str, count: int = 2):
    (tmp_path / "rows.csv").write_text(text)
    names, *lines = [line.split(",") for line in text.splitlines()]
    values = {name: [line[number] for line in lines if line[number]] for number, name in enumerate(names)}
    return {"table": Table(count, values), "data": "rows.csv"}


def test_parameter_set_by_a_column_is_left_out(tmp_path):
    given = rows(tmp_path, "subject,aspect_ratio,n\nheron,1:1,2\nbird,,1\n")
    text = compose(options(**given))
    assert yaml.safe_load(text)["params"] == {"prompt": "{{ subject }}"}
    assert [dict(draft.request) for draft in examined(text, tmp_path)] == [
        {"aspect_ratio": "1:1", "number_of_images": 2, "ref_prompt": "heron"},
        {"number_of_images": 1, "ref_prompt": "bird"},
    ]


def test_prompt_column_needs_no_template(tmp_path):
    text = compose(options(**rows(tmp_path, "prompt\nheron\nbird\n")))
    assert "params" not in yaml.safe_load(text)
    assert [draft.request["ref_prompt"] for draft in examined(text, tmp_path)] == ["heron", "bird"]


def test_column_of_links_becomes_the_required_image(tmp_path):
    given = rows(tmp_path, "subject,url\nheron,https://example.com/1.png\nbird,https://example.com/2.png\n")
    text = compose(options("kling", "image2video/kling-v2-6", **given))
    assert [draft.request["image"][-5:] for draft in examined(text, tmp_path)] == ["1.png", "2.png"]


def test_large_table_sets_max_tasks(tmp_path):
    large = yaml.safe_load(compose(options(**rows(tmp_path, "subject\nheron\n", 25_000))))
    assert large["limits"] == {"max_tasks": 25_000}
    small = yaml.safe_load(compose(options(**rows(tmp_path, "subject\nheron\n", 10_000))))
    assert "limits" not in small


def test_refuses_table_without_a_usable_column(tmp_path):
    with pytest.raises(UsageError, match="no column that a prompt can be made of"):
        compose(options(**rows(tmp_path, "product name,if\nheron,x\n")))


def test_column_name_cannot_break_out_of_its_line(tmp_path):
    names = {"subject": ["heron"], "x\nprovider: kling": [], "\x07\u2028y": [], "n" * 500: []}
    text = compose(options(table=Table(1, names), data="rows.csv"))
    assert yaml.safe_load(text)["provider"] == "chanjing"
    assert "# column x provider: kling: to use it" in text
    assert max(map(len, text.splitlines())) < 200


def test_long_path_is_never_cut(tmp_path):
    text = compose(options(table=Table(1, {"subject": ["heron"]}), data="d/" * 100 + "rows.csv"))
    assert yaml.safe_load(text)["items"] == {"file": "d/" * 100 + "rows.csv"}


def test_model_and_provider_columns_are_ignored(tmp_path):
    (tmp_path / "rows.csv").write_text("subject,model,provider\nheron,X-200,acme\n")
    given = {"table": Table(1, {"subject": ["heron"], "model": ["X-200"], "provider": ["acme"]}), "data": "rows.csv"}
    seen = []
    examine(
        compose(options(**given)).encode(), tmp_path / "job.yaml", CATALOGUE, each=lambda _, draft: seen.append(draft)
    )
    assert [(draft.provider, draft.model) for draft in seen] == [("chanjing", "kling-v2-1")]


def test_refuses_unknown_model():
    with pytest.raises(UsageError, match="no model 'kling-v9'"):
        options("kling", "kling-v9")


def test_check_of_these_tests_finds_errors(tmp_path):
    """Otherwise the tests above could not fail."""
    with pytest.raises(ManifestError, match="is not a parameter"):
        examined(compose(options()).replace("params:", "params:\n  nonsense: 1 #", 1), tmp_path)
