"""Providers that differ from their documents: nothing is paid twice, and what cannot be known is left open and told."""

from __future__ import annotations

import pytest

from tests.whole.conftest import images, sandbox

FAST = ("--seconds", "0.1,0.3")
PROVIDERS = {"kling": "image/kling-v2-1", "chanjing": "kling-v2-1"}
#: options of the sandbox, by the lie that they tell
LIES = {
    "honest": (),
    "drops our reference": ("--fault", "no_reference=1"),
    "answers any reference": ("--fault", "no_reference=1", "--fault", "any_reference=1"),
    "is later than the quiet time": ("--list-lag-s", "4"),
    "shows references late": ("--reference-lag-s", "4"),
    "shows the newest five": ("--list-newest", "5"),
    "shows the newest one": ("--list-newest", "1"),
    "shows the oldest three": ("--list-oldest", "3"),
    "leaves out every other row": ("--fault", "list_holes=1"),
    "is empty": ("--fault", "list_blank=1"),
    "shows one page": ("--fault", "list_one_page=1"),
    "has no order": ("--fault", "list_unordered=1"),
    "is oldest first": ("--fault", "list_oldest_first=1"),
    "hides the prompt": ("--fault", "list_hides_prompt=1"),
    "hides the prompt now and then": ("--fault", "list_hides_prompt=0.3"),
    "has no times": ("--fault", "list_no_times=1"),
    "has times as text": ("--fault", "list_text_times=1"),
}
#: which submits are accepted without an answer, and which are not accepted at all
TROUBLE = {
    "in the middle and at the end": ("--fault", "lost_reply=@5,12", "--fault", "reset_before=@8"),
    "at the start": ("--fault", "lost_reply=@1", "--fault", "reset_before=@2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_lie_of_a_list_makes_a_task_paid_twice(desk, provider, lie, trouble):
    desk.write("job.yaml", images(12, provider=provider, model=PROVIDERS[provider]))
    with sandbox(*FAST, *LIES[lie], *TROUBLE[trouble]) as box:
        desk.env = box.env
        for _ in range(2):
            summary = desk.job()
            assert box.stats["duplicates"] == 0, f"paid twice: {summary}"
            if summary["exit_code"] == 0:
                break
        assert summary["exit_code"] == 0 or summary["exit_code"] in {4, 5}
        assert (summary["exit_code"] == 0) == (summary["counts"] == {"done": 12})
        owners = {task["id"]: task["request"] for task in box.accepted}
        for line in desk.results():
            if line["remote_id"] is not None:
                prompt = {"kling": "prompt", "chanjing": "ref_prompt"}[provider]
                assert owners[line["remote_id"]][prompt] == line["request"][prompt], "somebody else's task"
        if lie in {"honest", "has times as text"} and trouble == "in the middle and at the end":
            assert summary["counts"] == {"done": 12}, "an honest list needs no person"
