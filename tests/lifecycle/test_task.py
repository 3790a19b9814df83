from __future__ import annotations

import re

from runner.lifecycle.task import State, reference

JOB, KEY = "0123456789abcdef" * 2, "9" * 32


def test_a_reference_is_safe_in_a_path_and_cannot_be_taken_for_an_id():
    ref = reference(JOB, KEY, 1)
    assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", ref)
    assert not ref.isdigit()


def test_a_reference_belongs_to_one_purchase_of_one_task_of_one_job():
    refs = {reference(job, key, n) for job in (JOB, "f" * 32) for key in (KEY, "8" * 32) for n in (1, 2, 11)}
    assert len(refs) == 12


def test_a_reference_is_the_same_over_all_its_sends():
    assert reference(JOB, KEY, 3) == reference(JOB, KEY, 3)


def test_states_are_called_as_in_the_database():
    assert [str(state) for state in State] == [
        "queued", "submitting", "in_doubt", "held", "running", "ready", "done", "failed", "stranded",
    ]  # fmt: skip
