"""`doctor --online` against a provider."""

from __future__ import annotations

import json

import pytest

from .conftest import sandbox


def checks(desk, *words: str, env) -> tuple[int, dict[str, list[dict]]]:
    done = desk.run("doctor", *words, "--json", env=env)
    report = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    found: dict[str, list[dict]] = {}
    for check in report["checks"]:
        found.setdefault(check["check"], []).append(check)
    return done.returncode, found


@pytest.mark.slow
def test_free_query_checks_account_and_clock(desk):
    """A query that is free of charge checks the account and the clock."""
    desk.write("job.yaml", "version: 1\nprovider: kling\nmodel: image/kling-v2-1\nparams: {prompt: a heron}\n")
    with sandbox() as box:
        assert checks(desk, env=box.env)[0] == 0
        assert box.requests() == 0
        code, found = checks(desk, "--online", env=box.env)
        assert code == 0
        for name in ("chanjing", "kling", "kling-gateway"):
            assert found[name][-1]["said"] == "answers, and takes the credentials"
        assert [check["level"] for check in found["clock"]] == ["ok"] * 4
        assert box.accepted == []
        code, found = checks(desk, "job.yaml", "--online", env={**box.env, "KLING_API_KEY": "a-wrong-key"})
        assert (code, found["kling"][-1]["level"]) == (12, "problem")
        assert "refuses the credentials" in found["kling"][-1]["said"]
        assert "a-wrong-key" not in json.dumps(found)
    code, found = checks(desk, "job.yaml", "--online", env=box.env)
    assert (code, "cannot be reached" in found["kling"][-1]["said"]) == (7, True)
