"""A secret is in a header and nowhere else: not in an argument, a file, a message or a core dump."""

from __future__ import annotations

import base64
import json
import os
import resource
import subprocess
import sys
import traceback
import urllib.parse

import click
import pytest

from runner.cli.main import runner as command
from runner.errors import ConfigError
from runner.settings import Secret, Settings
from tests.whole.conftest import images, sandbox

CANARY = "canary-9c41d7-secret"
FAST = ("--seconds", "0.1,0.3")


def spellings(secret):
    """Return the spellings that a file may hold."""
    raw = secret.encode()
    doubled = base64.b64encode(raw).rstrip(b"=")
    return {raw, doubled, raw.hex().encode(), urllib.parse.quote(secret, safe="").encode(), raw[::-1]}


def leaks(root, *texts):
    """Return every file under a directory, and every text, that holds the canary in any spelling."""
    found = [
        path
        for path in root.rglob("*")
        if path.is_file() and any(one in path.read_bytes() for one in spellings(CANARY))
    ]
    return [*map(str, found), *(text[:200] for text in texts if any(one.decode() in text for one in spellings(CANARY)))]


#: each of them, where things go wrong
FAULTS = {
    "everything goes well": (),
    "answers are lost": ("--fault", "lost_reply=@2"),
    "credentials are refused": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_x23_files_of_a_run_hold_no_secret(desk, kind):
    desk.write("job.yaml", images(3))
    with sandbox(*FAST, *FAULTS[kind]) as box:
        app = "nobody" if kind == "credentials are refused" else box.env.get("CHANJING_APP_ID", "app")
        env = {**box.env, "CHANJING_SECRET_KEY": CANARY, "CHANJING_APP_ID": app}
        words = (
            "--log-format",
            "json",
            "--log-file",
            "run.log",
            "--summary-file",
            "summary.json",
            "--metrics-file",
            "m.prom",
        )
        printed = [desk.run("run", "job.yaml", *words, env=env)]
        printed += [
            desk.run(*verb.split(), env=env) for verb in ("status job.yaml", "export job.yaml", "audit job.yaml --json")
        ]
    assert leaks(desk.root, *(done.stdout + done.stderr for done in printed)) == []
    assert (desk.root / "run.log").read_bytes()


@pytest.mark.slow
def test_x24_token_has_own_file_and_links_stay_out_of_results(desk):
    """A token is stored in a file of its own, and results hold no download links."""
    desk.write("job.yaml", images(2))
    with sandbox(*FAST) as box:
        desk.job(env=box.env)
        (token,) = (desk.root / "home").rglob("token.json")
        value = json.loads(token.read_text())["value"]
        printed = desk.run("export", "job.yaml", "--format", "csv", env=box.env).stdout
    holding = [path for path in desk.root.rglob("*") if path.is_file() and value.encode() in path.read_bytes()]
    assert holding == [token]
    assert token.stat().st_mode & 0o777 == 0o600
    for text in ((desk.root / "out/job/results.jsonl").read_text(), printed):
        assert "http://" not in text
        assert "/files/" not in text


def every(group, context=None):
    context = context or click.Context(group)
    for name in group.list_commands(context):
        yield name, group.get_command(context, name)


def test_x25_no_option_takes_a_secret():
    for verb, made in every(command):
        names = {name for parameter in made.params for name in (*parameter.opts, *parameter.secondary_opts)}
        strange = {name for name in names if any(word in name for word in ("key", "secret", "token", "pass", "cred"))}
        assert strange - {"key", "keys"} == set(), verb  # those of tasks


def test_x26_secret_is_absent_from_its_own_messages():
    secret = Secret(CANARY)
    for printed in (repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", repr([secret]), repr({"a": secret})):
        assert CANARY not in printed
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises((TypeError, AttributeError)):
        vars(secret)
    with pytest.raises(ConfigError) as caught:
        raise ConfigError(f"this is {secret}")
    assert CANARY not in "".join(traceback.format_exception(caught.value))


CRASH = """
import sys
from runner.app import run_context
def broken(*args, **named):
    raise RuntimeError("a bug")
run_context._downloader = broken
from runner.__main__ import main
main()
"""


@pytest.mark.slow
def test_x26_crash_shows_no_values_of_variables(desk):
    desk.write("job.yaml", images(1))
    env = {"CHANJING_SECRET_KEY": CANARY, "CHANJING_APP_ID": CANARY + "x", "CHANJING_BASE_URL": "http://127.0.0.1:9"}
    whole = {**os.environ, **env, "RUNNER_HOME": str(desk.root / "home")}
    words = [sys.executable, "-c", CRASH, "run", "job.yaml", "--log-format", "json"]
    done = subprocess.run(words, cwd=desk.root, env=whole, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode != 0
    assert "a bug" in done.stderr
    assert leaks(desk.root, done.stdout, done.stderr) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o620])
def test_x27_key_file_readable_by_others_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    path.write_text(CANARY)
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        Settings({"KEY_FILE": str(path)}).secret("KEY")
    assert "chmod 600" in str(caught.value)
    assert CANARY not in str(caught.value)
    path.chmod(0o600)
    assert Settings({"KEY_FILE": str(path)}).secret("KEY").reveal() == CANARY


@pytest.mark.parametrize("kind", ["pipe", "directory", "/dev/zero", "nothing"])
def test_x27_key_must_be_regular_file(tmp_path, kind):
    path = tmp_path / "key"
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "directory":
        path.mkdir(mode=0o700)
    elif kind == "/dev/zero":
        path = kind
    with pytest.raises(ConfigError):
        Settings({"KEY_FILE": str(path)}).secret("KEY")


@pytest.mark.slow
def test_x44_crash_leaves_no_core_dump():
    code = (
        "import resource; from runner.cli.main import run; run(['providers']); "
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    )
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]

    def allow():
        resource.setrlimit(resource.RLIMIT_CORE, (hard if hard != resource.RLIM_INFINITY else 4096, hard))

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=allow, timeout=40, check=True
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr
