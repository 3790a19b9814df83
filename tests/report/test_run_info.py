from __future__ import annotations

import pytest

from runner.report.run_info import RunInfo, read_run_info, wait_text, write_run_info


def test_run_info_is_readable_by_its_owner_only(tmp_path):
    info = RunInfo("boats", {"chanjing": "beans"}, 500.0, {"chanjing": 5.0}, {"chanjing": "no file comes"})
    write_run_info(tmp_path, info)
    assert read_run_info(tmp_path) == info
    assert (tmp_path / "facts.json").stat().st_mode & 0o777 == 0o600


LISTS = '{"job": "x", "units": [1], "max_cost": null, "limits": []}'
WORDS = '{"job": "x", "units": {}, "max_cost": "much", "limits": {"a": "often"}}'


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '{"job": "x"}', "\udce4", LISTS, WORDS])
def test_unreadable_run_info_is_empty(tmp_path, text):
    if text is not None:
        (tmp_path / "facts.json").write_bytes(text.encode(errors="surrogateescape"))
    assert read_run_info(tmp_path) == RunInfo("")


def test_info_of_an_earlier_version_says_no_wait(tmp_path):
    (tmp_path / "facts.json").write_text('{"job": "x", "units": {}, "max_cost": null, "limits": {}}')
    assert read_run_info(tmp_path) == RunInfo("x")


def test_wait_is_shown_while_something_is_left_to_submit():
    waits = {"kling": "what is paid is fetched first"}
    assert wait_text(waits, {"queued": 2}) == "submits wait: what is paid is fetched first"
    assert wait_text(waits, {"queued": 0, "ready": 9}) == ""
    assert wait_text({}, {"queued": 2}) == ""
    two = {"a": "no file comes", "b": "what is paid is fetched first"}
    assert wait_text(two, {"queued": 2}) == "submits wait: a: no file comes; b: what is paid is fetched first"
