"""`doctor`: output and exit code; the single checks are tested in tests/app."""

from __future__ import annotations

import json

import pytest

MANIFEST = "version: 1\nprovider: kling\nmodel: image/kling-v2-1\nparams: {prompt: a heron}\n"


def checks(desk, *words, **env) -> tuple[int, list[dict]]:
    report = json.loads(desk.run("doctor", *words, "--json", **env).out)
    return report["exit_code"], report["checks"]


def test_new_machine_passes_with_hints(desk):
    """Missing credentials are no error, since the sandbox works without them."""
    done = desk.run("doctor")
    assert (done.code, done.err) == (0, "")
    assert "none has credentials, so that only --sandbox works" in done.out
    assert "--online asks" in done.out


def test_doctor_creates_no_files(desk):
    desk.write("job.yaml", MANIFEST)
    before = sorted(desk.root.rglob("*"))
    desk.run("doctor", "job.yaml")
    assert sorted(desk.root.rglob("*")) == before


def test_manifest_limits_checks_to_its_providers(desk):
    desk.write("job.yaml", MANIFEST)
    code, found = checks(desk, "job.yaml", KLING_API_KEY="k" * 20)
    assert code == 0
    assert {"job", "kling"} <= {check["check"] for check in found}
    assert not {"chanjing", "kling-gateway"} & {check["check"] for check in found}
    assert any("elsewhere" in check["said"] for check in checks(desk, "job.yaml", "--out", "elsewhere")[1])


@pytest.mark.parametrize(
    ("env", "code"),
    [
        ({}, 12),
        ({"KLING_API_KEY": "k", "KLING_BASE_URL": "http://example.com"}, 7),
        ({"KLING_ACCESS_KEY": "k", "KLING_BASE_URL": "http://example.com"}, 12),
        ({"RUNNER_HOME": "/proc/none"}, 14),
    ],
)
def test_the_worst_gives_the_exit_code(desk, env, code):
    desk.write("job.yaml", MANIFEST)
    done = desk.run("doctor", "job.yaml", **env)
    assert done.code == code, done.out
    assert checks(desk, "job.yaml", **env)[0] == code


def test_every_failed_check_has_a_next_step(desk):
    desk.write("job.yaml", MANIFEST)
    _, found = checks(
        desk, "job.yaml", HTTPS_PROXY="http://u:p@x", SSL_CERT_FILE="/x", KLING_BASE_URL="x", RUNNER_HOME="/proc/x"
    )
    assert len([check for check in found if check["level"] != "ok"]) == 5
    assert all(check["next"] for check in found if check["level"] != "ok")


def test_no_value_of_a_credential_is_shown(desk):
    env = {"CHANJING_APP_ID": "the-app-id", "CHANJING_SECRET_KEY": "the-secret", "KLING_API_KEY": "the-kling-key"}
    for words in ((), ("--json",)):
        done = desk.run("doctor", *words, **env)
        assert "CHANJING_SECRET_KEY #" in done.out
        assert not any(value in done.out + done.err for value in env.values())


def test_invalid_manifest_is_a_usage_error(desk):
    desk.write("job.yaml", MANIFEST + "nonsense: 1\n")
    done = desk.run("doctor", "job.yaml")
    assert (done.code, "no such key" in done.err) == (2, True)
