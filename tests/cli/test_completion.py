"""Shell completion through the scripts of real shells."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
eval "$(runner completion bash)"
complete -p runner
compopt() { :; }
_runner_completion runner
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(tmp_path):
    """Return a function that asks bash for its completions of a command line."""
    command = tmp_path / "bin/runner"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m runner "$@"\n')
    command.chmod(0o755)

    def complete(words: str, incomplete: str, **env: str) -> list[str]:
        every = [*words.split(), incomplete]
        script = f"COMP_WORDS=({' '.join(every)}); COMP_CWORD={len(every) - 1}\n{SCRIPT}"
        env["PATH"] = f"{command.parent}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        first, *offered = done.stdout.splitlines()
        assert first == "complete -o nosort -F _runner_completion runner"
        return [each for each in offered if each]

    return complete


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ("runner", "re", ["retry", "reconcile", "recover", "resolve"]),
        ("runner init", "kling", ["kling", "kling-gateway"]),
        ("runner export", "--fo", ["--format"]),
        ("runner export x.yaml --format", "c", ["csv"]),
        ("runner models", "kling-g", ["kling-gateway"]),
        ("runner models kling", "image/kling-v2", ["image/kling-v2-1", "image/kling-v2"]),
        ("runner init chanjing --model", "doubao-seedream-4.", ["doubao-seedream-4.0", "doubao-seedream-4.5"]),
    ],
)
def test_bash_completes_matching_words(complete, words, incomplete, offered):
    assert complete(words, incomplete) == offered


def test_custom_provider_is_offered(complete, tmp_path):
    (tmp_path / "paintbox.yaml").touch()
    assert complete("runner init", "pa", RUNNER_PROVIDERS=str(tmp_path)) == ["paintbox"]


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ("runner plan", "", ["a.yaml", "jobs/b.yml", "jobs/deep/c.yaml"]),
        ("runner run a.yaml", "jobs/", ["jobs/b.yml", "jobs/deep/c.yaml"]),
        ("runner status", "j", ["jobs/b.yml", "jobs/deep/c.yaml"]),
        ("runner init --items", "", []),
        ("runner validate", "nowhere/", []),
    ],
)
def test_manifests_are_offered_before_other_files(complete, tmp_path, monkeypatch, words, incomplete, offered):
    """An empty answer leaves file names to the shell."""
    for name in ("a.yaml", "rows.csv", "jobs/b.yml", "jobs/deep/c.yaml", ".hidden/d.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert complete(words, incomplete or "''") == offered


@pytest.mark.parametrize(
    ("shell", "word"),
    [("bash", "complete -o"), ("zsh", "#compdef runner"), ("fish", "complete --no-files --command runner")],
)
def test_each_shell_has_a_script(desk, shell, word):
    done = desk.run("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert word in done.out
    assert "_RUNNER_COMPLETE" in done.out


def test_verb_completion_imports_no_verb_module():
    code = "import sys; from runner.cli.main import run\ntry:\n  run([])\nexcept SystemExit: pass\n"
    code += "print(*sorted(name for name in sys.modules if name.startswith('runner.')))"
    env = {**os.environ, "_RUNNER_COMPLETE": "bash_complete", "COMP_WORDS": "runner ", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "plain,doctor" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["runner.cli", "runner.cli.main", "runner.errors", "runner.text"]
