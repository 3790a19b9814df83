"""The command before any verb."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("rum", "There is no verb 'rum'. Did you mean 'run'?"),
        ("Plan", "Did you mean 'plan'?"),
        ("my job.yaml", "For a manifest: runner plan 'my job.yaml', then runner run 'my job.yaml'."),
        ("help", "For all verbs: runner --help; for one: runner run --help."),
        ("xyzzy", "There is no verb 'xyzzy'."),
    ],
)
def test_a_word_that_is_no_verb_is_told_with_what_may_be_meant(desk, word, said):
    done = desk.run(word)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].endswith(said)


def test_options_are_not_taken_for_verbs(desk):
    done = desk.run("--quiet")
    assert done.code == 2
    assert "No such option" in done.err
