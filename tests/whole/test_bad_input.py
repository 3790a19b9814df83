"""Invalid input gives exit 2 and a diagnostic with location for every error, and nothing is sent."""

from __future__ import annotations

import json

import pytest

from .conftest import images, sandbox

GOOD = images(2)

MISTAKES = {
    "unknown key": (GOOD + "colour: red\n", "job.yaml:10:1", "colour"),
    "duplicate key": (GOOD + "repeat: 1\nrepeat: 2\n", "job.yaml:11:1", "repeat"),
    "wrong type": (GOOD.replace("limits: {qps: 50}", "limits: fast"), "job.yaml:8:9", "limits"),
    "unknown parameter": (GOOD.replace("aspect_ratio", "aspect_ration"), "job.yaml:4:", "did you mean aspect_ratio"),
    "out of range": (GOOD.replace('"1:1"', '"1:1", n: 9'), "job.yaml:4:", "at most 4"),
    "not a choice": (GOOD.replace('"1:1"', '"2:1"'), "job.yaml:4:", "1:1, 3:4"),
    "unknown variable": (GOOD.replace("{{ subject }}", "{{ subjekt }}"), "job.yaml:4:", "subject"),
    "unknown model": (GOOD.replace("kling-v2-1", "kling-v21"), "job.yaml:3:", "did you mean kling-v2-1"),
    "unknown provider": (GOOD.replace("provider: chanjing", "provider: chanjin"), "job.yaml:2:", "chanjing"),
    "missing parameter": (GOOD.replace('prompt: "{{ subject }}", ', ""), "job.yaml:", "needs prompt"),
    "an alias bomb": ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
    ), "job.yaml:", "alias"),
    "no yaml": ("version: [1\n", "job.yaml:2:", "not closed"),
    "a tag": ("version: !!python/object/apply:os.system ['touch here']\n", "job.yaml:1:", "tag"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISTAKES)
def test_diagnostic_has_location_and_nothing_is_sent(desk, kind):
    text, place, word = MISTAKES[kind]
    desk.write("job.yaml", text)
    done = desk.run("run", "job.yaml", "--sandbox")
    assert done.returncode == 2, done.stderr
    assert place in done.stderr
    assert word.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert not (desk.root / "out").exists()
    assert not (desk.root / "here").exists()


def test_all_diagnostics_are_reported_at_once(desk):
    text = GOOD.replace("aspect_ratio", "aspect_ration").replace("limits: {qps: 50}", "limits: {qps: fast}")
    desk.write("job.yaml", text + "colour: red\n")
    done = desk.run("validate", "job.yaml", "--json")
    problems = json.loads(done.stdout)["problems"]
    assert done.returncode == 2
    assert len(problems) == 3
    assert [problem["line"] for problem in problems] == sorted(problem["line"] for problem in problems)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("rows.csv", "subject,mood\na,b\nc\n", "rows.csv:3"),
        ("rows.csv", "subject,subject\na,b\n", "rows.csv:1"),
        ("rows.csv", 'subject\n"open\n', "rows.csv:2"),
        ("rows.jsonl", '{"subject": "a"}\n{"subject": \n', "rows.jsonl:2"),
        ("rows.json", '{"subject": "a"}', "rows.json"),
        ("nowhere.csv", None, "job.yaml:5:"),
    ],
)
def test_broken_rows_are_reported_with_line(desk, name, content, place):
    head = 'version: 1\nprovider: chanjing\nmodel: kling-v2-1\nparams: {prompt: "x {{ subject }}"}\n'
    desk.write("job.yaml", f"{head}items: {{file: {name}}}\n")
    if content is not None:
        desk.write(name, content)
    with sandbox() as box:
        done = desk.run("run", "job.yaml", env=box.env)
        assert box.requests() == 0
    assert done.returncode == 2, done.stderr
    assert place in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_manifest_is_a_plain_message(desk):
    done = desk.run("run", "nowhere.yaml")
    assert done.returncode == 2
    assert "nowhere.yaml" in done.stderr


def test_too_many_tasks_are_refused_before_any_request(desk):
    """More tasks than allowed are refused before anything is sent."""
    desk.write("job.yaml", images(5).replace("limits: {qps: 50}", "limits: {qps: 50, max_tasks: 4}"))
    with sandbox() as box:
        done = desk.run("run", "job.yaml", env=box.env)
        assert box.requests() == 0
    assert done.returncode == 2
    assert "max_tasks" in done.stderr


@pytest.mark.parametrize("words", [["run"], ["run", "job.yaml", "--nonsense"], ["resolve", "job.yaml", "abc"], ["fly"]])
def test_wrong_command_line_is_usage_error(desk, words):
    desk.write("job.yaml", GOOD)
    done = desk.run(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_missing_credentials_name_the_variables(desk):
    desk.write("job.yaml", GOOD)
    done = desk.run("run", "job.yaml")
    assert done.returncode == 7
    assert "CHANJING_APP_ID" in done.stderr
    assert "CHANJING_ACCESS_TOKEN" in done.stderr


def test_plain_http_url_is_refused(desk):
    desk.write("job.yaml", GOOD)
    env = {"CHANJING_BASE_URL": "http://example.com", "CHANJING_ACCESS_TOKEN": "x"}
    done = desk.run("run", "job.yaml", env=env)
    assert done.returncode == 7
    assert "https" in done.stderr


def test_credential_file_readable_by_others_is_refused(desk):
    desk.write("job.yaml", GOOD)
    path = desk.write("token", "tok")
    path.chmod(0o644)
    done = desk.run("run", "job.yaml", env={"CHANJING_ACCESS_TOKEN_FILE": str(path)})
    assert done.returncode == 7
    assert "chmod 600" in done.stderr


@pytest.mark.slow
def test_two_manifests_never_share_a_directory(desk):
    desk.write("one.yaml", images(1))
    desk.write("two.yaml", images(2))
    assert desk.run("run", "one.yaml", "two.yaml", "--sandbox", "--out", "x").returncode == 2
    assert desk.run("run", "one.yaml", "--sandbox", "--out", "x").returncode == 0
    done = desk.run("run", "two.yaml", "--sandbox", "--out", "x")
    assert done.returncode == 13
    assert "'one'" in done.stderr
