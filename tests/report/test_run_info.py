from __future__ import annotations

import pytest

from runner.report.run_info import RunInfo, read_run_info, write_run_info


def test_run_info_is_readable_by_its_owner_only(tmp_path):
    info = RunInfo("boats", {"chanjing": "beans"}, 500.0, {"chanjing": 5.0})
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
