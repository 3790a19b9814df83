"""Output that users read: a terminal, a log, a spreadsheet, a command to copy. Hostile text has no effect in it."""

from __future__ import annotations

import csv
import io
import json
import shlex
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import Diagnostic, ManifestError, RunnerError, escape_control
from runner.report.results import ColumnTypes, write_csv
from runner.text import sanitize
from tests.whole.conftest import images

#: clears the screen, fills the clipboard, is a C1 sequence, a link, turns the line around, forges a line
HOSTILE = (
    "\x1b[2J\x1b]52;c;QUFB\x07\x9b31m\x1b]8;;http://thief\x07\u202eevil\u2066\r\n2026-01-01 ERROR forged\u2028x\x00"
)


def steering(text):
    """Return the control characters of a text, except for line ends."""
    return {char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - {"\n"}


@pytest.mark.slow
@given(text=st.text() | st.just(HOSTILE))
def test_x31_error_messages_hold_no_control_characters(text):
    printed = str(RunnerError(text, hint=text)) + escape_control(text)
    assert steering(printed) == set()


@pytest.mark.slow
@given(text=st.text() | st.just(HOSTILE))
def test_x31_diagnostic_is_one_line(text):
    problem = Diagnostic("a.yaml", 1, 1, text, text, text)
    assert steering(str(problem)) == set()
    assert "\n" not in str(problem)
    assert len(str(ManifestError([problem, problem])).splitlines()) == 3


@given(text=st.text() | st.just(HOSTILE))
def test_x31_provider_message_is_one_sanitized_line(text):
    assert steering(sanitize(text)) == set()
    assert "\n" not in sanitize(text)
    assert len(sanitize(text)) <= 200


@pytest.mark.slow
def test_x31_no_verb_prints_control_characters_of_manifest(desk):
    spelled = json.dumps(HOSTILE)
    keys = f"version: 1\nprovider: {spelled}\nmodel: {spelled}\n{spelled}: 1\nparams: {{{spelled}: x}}\n"
    desk.write("keys.yaml", keys)
    text = images(1).replace("{subject: thing 0}", f"{{subject: {spelled}, {spelled}: 1}}")
    desk.write("good.yaml", text)
    desk.write("model.yaml", text.replace("kling-v2-1", json.dumps(f"image/{HOSTILE}") + "\nunchecked: true"))
    run = ("run", "good.yaml", "--sandbox", "--log-format", "console")
    for words in (("validate", "keys.yaml"), ("plan", "model.yaml"), run, ("status", "good.yaml", "--sandbox")):
        done = desk.run(*words)
        assert done.stdout + done.stderr, words
        assert steering(done.stderr) | steering(done.stdout) == set(), (words, done.stdout, done.stderr)
        lines = (done.stdout + done.stderr).splitlines()
        assert not [line for line in lines if line.startswith("2026-01-01 ERROR")], words
        assert done.returncode == (2 if words[0] in {"validate", "plan"} else 0), (words, done.stderr)


def row(text):
    return {
        "key": "k" * 16, "position": 1, "repeat": 1, "vars": {text: text}, "provider": text, "model": text,
        "request": {"p": text}, "state": "failed", "remote_id": text, "outputs": [], "reason": text, "code": text,
        "message": text, "attempts": 1, "doubts": 0,
        "cost": None, "spent": 0.0, "queued_at": 0.0, "submitted_at": None, "finished_at": None,
    }  # fmt: skip


FORMULAS = ("=cmd|'/C calc'!A0", "+1+cmd", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1", "＝1+1", "＋1", "－1+x",
            "＠A1", "\ufeff=1", "\u200b=1", "\x00=1", '=HYPERLINK("http://thief")')  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_x30_no_cell_is_a_formula(text):
    file = io.BytesIO()
    write_csv([row(text)], ColumnTypes().scan([row(text)]), file)
    table = list(csv.reader(io.StringIO(file.getvalue().decode("utf-8-sig"), newline="")))
    cells = [cell for cell in table[1] if "'" in cell]
    assert len(cells) >= 6
    for cell in table[1]:
        seen = cell.lstrip(" \t\r\n\x00\ufeff\u200b")
        assert not seen.startswith(("=", "+", "@", "＝", "＋", "＠")), cell


@given(text=st.text(max_size=20))
def test_x30_value_stays_in_its_cell(text):
    file = io.BytesIO()
    write_csv([row(text), row("x")], ColumnTypes().scan([row(text), row("x")]), file)
    table = list(csv.reader(io.StringIO(file.getvalue().decode("utf-8-sig"), newline="")))
    assert len(table) == 3
    assert len({len(line) for line in table}) == 1


@pytest.mark.slow
def test_x35_copied_hint_runs_nothing_else(desk):
    name = "a;touch pwned $(touch pwned) `touch pwned` & 'x.yaml"
    desk.write(name, images(1, provider="kling-gateway", model="image/kling-v1-5"))
    done = desk.run("run", name, "--sandbox", "--json")
    shown = [line for line in (done.stdout + done.stderr).splitlines() if "runner " in line]
    for line in shown:
        command = json.loads(line)["next"] or "" if line.startswith("{") else line.partition("runner ")[2]
        if name[:3] in command:
            assert name in shlex.split(command)
    assert not (desk.root / "pwned").exists()
