"""The check of commit messages, and that the hook uses it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci"
_SPEC = importlib.util.spec_from_file_location("check_commits", CI / "check_commits.py")
check = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check)

BODY = "\n\nWaiters of the second stage were never called. Tested by a new test.\n"
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.mark.parametrize(
    "subject",
    [
        "scheduler: Fix lost wake-ups between stages with the same name",
        "cli, report: Print the summary's path",
        "tests/docs: Add a check of commit messages",
        ".ci: Run the slow tests last",
        "net: Embed the address in the error",
        "store: Bring back the index of due tasks",
        "docs: Focus the contributing page on one idea",
        "a: " + "A" * 69,
    ],
)
def test_good_subjects(subject):
    assert check.check_subject(subject + BODY) == []


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("Fix lost wake-ups" + BODY, "area: Imperative subject"),
        ("Scheduler: Fix lost wake-ups" + BODY, "area: Imperative subject"),
        ("scheduler:Fix lost wake-ups" + BODY, "area: Imperative subject"),
        ("scheduler net: Fix lost wake-ups" + BODY, "area: Imperative subject"),
        ("scheduler: fix lost wake-ups" + BODY, "capital letter"),
        ("scheduler: Fixed lost wake-ups" + BODY, "no imperative"),
        ("scheduler: Fixes lost wake-ups" + BODY, "no imperative"),
        ("scheduler: Renaming lanes" + BODY, "no imperative"),
        ("scheduler: Simplified lanes" + BODY, "no imperative"),
        ("scheduler: Fix lost wake-ups." + BODY, "full stop"),
        ("a: " + "A" * 70 + BODY, "73 characters"),
        ("scheduler: Fix lost wake-ups", "body is missing"),
        ("scheduler: Fix lost wake-ups\n\n  \n", "body is missing"),
        ("scheduler: Fix lost wake-ups\nbetween stages\n\nWhy.", "not blank"),
        ("", "area: Imperative subject"),
    ],
)
def test_bad_messages(message, problem):
    assert any(problem in each for each in check.check_subject(message))


def test_comments_of_the_editor_do_not_count():
    good = "scheduler: Fix lost wake-ups" + BODY
    assert check.check_message(f"# a hint\n{good}# Changes to be committed:\n") == []
    assert check.check_message("scheduler: Fix lost wake-ups\n\n# ---- >8 ----\ndiff --git\n") != []


def test_merges_are_exempt():
    assert check.check_message("Merge branch 'net'\n") == []


# history


@pytest.fixture
def git(tmp_path, monkeypatch):
    """A repository with one commit of the old kind; `git(...)` runs git in it."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    author = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **author, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def run(*words, check=True):
        return subprocess.run(["git", *words], env=env, capture_output=True, text=True, check=check)

    run("init", "-q", "-b", "main")
    run("commit", "-q", "--allow-empty", "-m", "What was written before the rule")
    run("tag", "base")
    return run


@needs_git
def test_commits_after_the_base_are_checked(git, capsys):
    git("commit", "-q", "--allow-empty", "-m", "store: Add an index" + BODY)
    assert check.check_history("base") == 0
    git("commit", "-q", "--allow-empty", "-m", "Added another")
    assert check.check_history("base") == 1
    assert "commits: 2 checked, 1 wrong" in capsys.readouterr().out


@needs_git
def test_merges_in_the_history_are_exempt(git):
    git("checkout", "-q", "-b", "side")
    git("commit", "-q", "--allow-empty", "-m", "store: Add an index" + BODY)
    git("checkout", "-q", "main")
    git("merge", "-q", "--no-ff", "-m", "Merge side", "side")
    assert check.check_history("base") == 0


@needs_git
def test_without_the_base_only_head_is_checked(git, capsys):
    git("commit", "-q", "--allow-empty", "-m", "net: Close idle connections" + BODY)
    assert check.check_history("0" * 40) == 0
    assert "only HEAD is checked" in capsys.readouterr().out


@needs_git
def test_without_history_nothing_is_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert check.check_history() == 0
    assert "nothing is checked" in capsys.readouterr().out


@needs_git
def test_hook_refuses_a_bad_message(git, tmp_path):
    shutil.copytree(CI, tmp_path / ".ci", ignore=shutil.ignore_patterns("*.lock"))
    git("config", "core.hooksPath", ".ci/hooks")
    refused = git("commit", "--allow-empty", "-m", "Added another", check=False)
    assert refused.returncode != 0
    assert "area: Imperative subject" in refused.stderr
    assert git("commit", "--allow-empty", "-m", "store: Add an index" + BODY).returncode == 0
