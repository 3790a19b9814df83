from __future__ import annotations

import re

from runner.lifecycle.task import State, reference

JOB, KEY = "0123456789abcdef" * 2, "9" * 32


def test_reference_is_path_safe_and_not_numeric():
    """A reference fits into a URL path, and cannot be taken for a numeric id."""
    ref = reference(JOB, KEY, 1)
    assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", ref)
    assert not ref.isdigit()


def test_reference_is_unique_per_job_task_and_purchase():
    refs = {reference(job, key, n) for job in (JOB, "f" * 32) for key in (KEY, "8" * 32) for n in (1, 2, 11)}
    assert len(refs) == 12


def test_reference_is_the_same_for_every_submit():
    assert reference(JOB, KEY, 3) == reference(JOB, KEY, 3)


def test_state_values_are_those_of_the_database():
    assert [str(state) for state in State] == [
        "queued", "submitting", "in_doubt", "held", "running", "ready", "done", "failed", "stranded",
    ]  # fmt: skip
