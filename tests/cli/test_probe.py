"""`probe` before anything is sent: mistakes, and the yes that it needs."""

from __future__ import annotations

import pytest

KEYS = {"KLING_API_KEY": "not-a-real-key", "KLING_BASE_URL": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("words", "env", "code", "message"),
    [
        (["kling"], {}, 7, "there are no credentials for kling"),
        (["klang"], KEYS, 2, "unknown provider 'klang'"),
        (["kling", "--model", "kling-v9"], KEYS, 2, "kling has no model 'kling-v9'"),
        (["kling", "--model", "image2video/kling-v3"], KEYS, 2, "image2video/kling-v3 is no model for this probe"),
        (["kling", "--spend", "-1"], KEYS, 2, "--spend"),
        (["kling", "--publish", "no/such/dir.txt"], KEYS, 2, "cannot be written"),
        (["kling"], KEYS, 2, "nobody is here to say yes to 3 tasks; nothing was sent"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(desk, words, env, code, message):
    done = desk.run("probe", *words, **env)
    assert done.code == code
    assert message in done.err
    assert not (desk.root / "home").exists()


def test_plan_names_what_it_buys_at_most(desk):
    done = desk.run("probe", "chanjing", "--model", "tx_kling-v3-0-text2video", CHANJING_ACCESS_TOKEN="not-a-real-one")
    assert done.code == 2
    assert "It buys 3 tasks at most, for 450 beans at most." in done.err
    assert "aspect_ratio = no-such-choice" in done.err


def test_publish_overwrites_nothing(desk):
    path = desk.write("facts.txt", "mine")
    done = desk.run("probe", "kling", "--yes", "--publish", "facts.txt", **KEYS)
    assert (done.code, path.read_text()) == (2, "mine")
    assert "is there already" in done.err
