import json

import pytest

from runner.report import results

ROW = {
    "key": "k", "position": 1, "repeat": 1, "vars": {"a": "猫"}, "provider": "p", "model": "m", "request": {"x": 1},
    "state": "done", "remote_id": "r", "reason": None, "code": None, "message": None, "attempts": 0, "doubts": 1,
    "cost": 4.0, "spent": 8.0, "queued_at": 0.0, "submitted_at": 1.5, "finished_at": None,
    "outputs": [{"number": 1, "file": "a.png", "bytes": 3, "sha256": "s", "media_type": "image/png"},
                {"number": 2, "file": None, "bytes": None, "sha256": None, "media_type": None}],
}  # fmt: skip


def test_line_has_the_documented_shape():
    line = results.result_dict(ROW)
    assert line["outputs"] == [{"file": "a.png", "bytes": 3, "sha256": "s", "media_type": "image/png"}]
    assert line["error"] == {"reason": None, "code": None, "message": None}
    assert (line["attempts"], line["submitted_at"], line["finished_at"]) == (2, "1970-01-01T00:00:01.500Z", None)


EVIDENCE = {
    "absent from a list that shows u-9, accepted 41 s after the quiet time": True, "adopted by ann": True,
    "found in the list by its reference": True, "bought in /srv/autumn": True,
    "http 200": False, "throttled": False, "retried": False, "": False,
}  # fmt: skip


@pytest.mark.parametrize(("text", "tells"), EVIDENCE.items())
def test_evidence_says_what_no_answer_did(text, tells):
    assert results.result_dict({**ROW, "evidence": text})["evidence"] == (text if tells else None)


def test_file_is_replaced_not_written_through_a_link(tmp_path):
    target, path = tmp_path / "elsewhere", tmp_path / "results.jsonl"
    target.write_text("mine")
    path.symlink_to(target)
    results.write(path, [ROW, ROW])
    assert target.read_text() == "mine"
    assert not path.is_symlink()
    assert [json.loads(line)["vars"] for line in path.read_text().splitlines()] == [{"a": "猫"}] * 2


def test_failure_leaves_the_old_file_only(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("old")

    def rows():
        yield ROW
        raise RuntimeError

    with pytest.raises(RuntimeError):
        results.write(path, rows())
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.jsonl"]
