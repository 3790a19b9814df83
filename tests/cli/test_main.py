"""The command line before any verb is called."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rum", "There is no verb 'rum'. Did you mean 'run'?"),
        ("Plan", "Did you mean 'plan'?"),
        ("my job.yaml", "For a manifest: runner plan 'my job.yaml', then runner run 'my job.yaml'."),
        ("help", "For all verbs: runner --help; for one: runner run --help."),
        ("xyzzy", "There is no verb 'xyzzy'."),
    ],
)
def test_unknown_verb_gets_a_suggestion(desk, word, message):
    done = desk.run(word)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].endswith(message)


def test_unknown_option_is_no_verb(desk):
    done = desk.run("--quiet")
    assert done.code == 2
    assert "No such option" in done.err
