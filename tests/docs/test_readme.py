"""Both READMEs match the program and each other."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import yaml

from benchmarks import quoted
from benchmarks.__main__ import MEASURES
from runner.manifest.rows import READERS
from runner.providers import spec as specs
from runner.scheduler.outcome import PRECEDENCE, Exit
from runner.tasks.retry_policy import RetryPolicy

READMES = ("README.md", "README.zh-CN.md")
both = pytest.mark.parametrize("name", READMES)


def _codes(document) -> list[int]:
    head = "code" if document.path.name == "README.md" else "退出码"
    return [int(code) for row in document.table(head) for code in row[0].split(",")]


@both
def test_every_manifest_is_valid(name, desk, document):
    manifests = [file for file in desk.lay_out(document(name)) if file.endswith(".yaml")]
    assert len(manifests) == len(document(name).of("yaml")) > 2
    output = desk.runner("validate", "--json", *manifests)
    assert (output.returncode, output.stderr) == (0, "")
    assert all(json.loads(line)["tasks"] for line in output.stdout.splitlines())


@pytest.mark.slow
def test_runnable_commands_make_what_is_shown(desk, document):
    """Commands with requests use the sandbox. Those that cannot run have a reason. Both READMEs have the same."""
    readme = document("README.md")
    desk.lay_out(readme)
    commands = [command for block in readme.of("sh") if block.runs for command in block.commands]
    assert len(commands) >= 7
    for command in commands:
        verb, *words = shlex.split(command)
        assert verb == "runner"
        assert words[0] != "run" or "--sandbox" in words
        done = desk.runner(*words)
        assert (done.returncode, done.stdout != "") == (0, True), f"{command}\n{done.stderr}"
    _compare_results(desk.path / "out/products-sandbox", json.loads(readme.noted("a line of results.jsonl").text))
    _compare_summary(desk, json.loads(readme.noted("the summary").text))


def _compare_results(directory, sample):
    lines = [json.loads(line) for line in (directory / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    first = lines[0]
    assert list(first) == list(sample)
    assert list(first["outputs"][0]) == list(sample["outputs"][0])
    assert first["outputs"][0]["file"] == sample["outputs"][0]["file"]
    assert {kind for kind, value in first.items() if value is None} == {"cost", "bought_in", "evidence"}
    assert [line["request"].get("aspect_ratio") for line in lines] == ["1:1", "9:16", None]
    assert sorted(path.name for path in directory.glob("*.png")) == [line["outputs"][0]["file"] for line in lines]


def _compare_summary(desk, sample):
    """Compare the summary of a second run, which submits nothing."""
    done = desk.runner("run", "products.yaml", "--sandbox", "--json", "--summary-file", "summary.json")
    output = json.loads(done.stdout.splitlines()[-1])
    assert output == json.loads((desk.path / "summary.json").read_text(encoding="utf-8"))
    assert list(output) == list(sample)
    assert (output["submitted"], output["counts"]) == (0, sample["counts"])


@both
def test_exit_codes_match_program(name, document):
    codes = _codes(document(name))
    assert codes == sorted(Exit)
    first = ("When several hold", "几种情况同时成立")
    order = next(line for line in document(name).prose.splitlines() if line.startswith(first))
    signals = {Exit.HUP, Exit.INT, Exit.TERM}
    assert [int(code) for code in re.findall(r"\d+", order)] == [code for code in PRECEDENCE if code not in signals]


@both
def test_every_verb_is_listed(name, desk, document):
    output = desk.runner("--help").stdout.partition("Verbs:")[2].partition("Exit codes:")[0]
    verbs = re.findall(r"^  (\w+)  ", output, re.MULTILINE)
    assert [verb for verb in verbs if f"runner {verb}" not in document(name).text] == []


def test_help_has_same_exit_codes(desk, document):
    output = desk.runner("--help").stdout.partition("Exit codes:")[2]
    codes = [int(code) for line in output.splitlines() for code in re.findall(r"\d+", line.strip()[:14])]
    assert codes == _codes(document("README.md"))


@both
def test_credential_names_match_program(name, desk, document):
    head = "provider" if name == "README.md" else "服务商"
    *_, rows = document(name).tables(head)  # the first one is about lost answers
    output = {entry["name"]: entry for entry in map(json.loads, desk.runner("providers", "--json").stdout.splitlines())}
    assert [row[0].strip("`") for row in rows] == list(output)
    for row, entry in zip(rows, output.values(), strict=True):
        assert re.findall(r"`(\w+)`", row[1]) == re.findall(r"[A-Z_]{4,}", entry["credentials"])
        assert re.findall(r"`(\w+)`", row[2]) == [entry["base_url_variable"]]


def test_statements_on_lost_responses_match_specs():
    kling, chanjing, gateway = (specs.load(name) for name in ("kling", "chanjing", "kling-gateway"))
    assert (kling.submit.reference, bool(kling.reconcile.by_reference)) == ("external_task_id", True)
    assert kling.reconcile.listing is not None
    assert (chanjing.reconcile.by_reference, bool(chanjing.reconcile.listing)) == (None, True)
    assert not gateway.can_reconcile
    assert {kling.doubt, chanjing.doubt} == {300}
    assert (RetryPolicy().required_absences, RetryPolicy().max_doubts) == (2, 3)


@both
def test_every_common_name_is_listed(name, document):
    known = {
        common
        for provider in specs.spec_paths()
        for model in specs.load(provider).models.values()
        for parameter in model.parameters.values()
        for common in parameter.common
    }
    text = document(name).prose
    output = text[text.index("`negative_prompt`") - 12 :].partition("`quality`")[0] + "`quality`"
    assert set(re.findall(r"`(\w+)`", output)) == known


@both
def test_every_data_file_format_is_listed(name, document):
    named = set(re.findall(r"`(\.\w+)`", document(name).prose))
    assert named == set(READERS) - {".ndjson", ".yml"}  # other names of the same


def test_both_readmes_have_same_content(document):
    english, chinese = map(document, READMES)
    assert english.headings == chinese.headings
    assert [(block.language, block.note) for block in english.blocks] == [
        (block.language, block.note) for block in chinese.blocks
    ]
    for ours, theirs in zip(english.blocks, chinese.blocks, strict=True):
        match ours.language:
            case "sh":
                assert ours.commands == theirs.commands
            case "yaml":
                assert yaml.safe_load(ours.text) == yaml.safe_load(theirs.text)
            case "csv" | "json":
                assert ours.text == theirs.text
    assert _codes(english) == _codes(chinese)
    translated = {link for link in chinese.links if "reliability.zh-CN.md" in link}
    assert len(translated) == sum("reliability.md" in link for link in english.links)
    assert sorted(link for link in english.links[1:] if "reliability.md" not in link) == sorted(
        link for link in chinese.links[1:] if link not in translated
    )
    assert (english.links[0], chinese.links[0]) == ("README.zh-CN.md", "README.md")


def test_both_readmes_have_same_sections(document):
    """Everything except prose is equal: code, and the numbers of list items, rows and emphases."""
    for ours, theirs in zip(*(_sections(document(name)) for name in READMES), strict=True):
        assert _facts(ours) == _facts(theirs), ours.strip()[:60]


def _sections(document) -> list[str]:
    return re.split(r"^#+ .*$", document.prose, flags=re.MULTILINE)


def _facts(section: str) -> tuple[set[str], int, int, int]:
    counts = (len(re.findall(sign, section, re.MULTILINE)) for sign in (r"^- ", r"^\|", r"\*\*"))
    return set(re.findall(r"`([^`\n]+)`", section)), *counts


@both
def test_named_make_targets_exist(name, document):
    makefile = (document(name).path.parent / "Makefile").read_text(encoding="utf-8")
    targets = [command.split()[1] for block in document(name).of("sh") for command in block.commands
               if command.startswith("make ")]  # fmt: skip
    assert targets == ["demo", "test"]
    assert all(f"\n{target}: " in makefile for target in targets)


@both
def test_shown_faults_exist(name, desk, document):
    shown = re.findall(r"--fault (\w+)=", document(name).text)
    output = desk.runner("sandbox", "--help").stdout
    assert shown
    assert all(fault in output for fault in shown)


@both
def test_figures_match_performance_page(name, document):
    """`python -m benchmarks.quoted` writes them, and a full `make bench` does so by itself."""
    page = document("docs/performance.md").text
    assert quoted.quoted(document(name).text) == quoted.block(page, name)


@both
def test_quoted_figures_are_measured(name, document):
    lines = [line for line in document("docs/performance.md").text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    measured = {(measure, what): [figure, goal] for measure, what, figure, goal, _ in rows}
    quotes = {(quote.measure, quote.what): quote for quote in quoted.QUOTES}
    assert {measure for measure, _ in quotes} <= set(MEASURES)
    texts = [quote.english if name == "README.md" else quote.chinese for quote in quotes.values()]
    table = document(name).table("what" if name == "README.md" else "测量项")
    assert [row[0] for row in table] == [text for text, key in zip(texts, quotes, strict=True) if key in measured]
    assert [row[1:] for row in table] == [measured[key] for key in quotes if key in measured]
