"""Warnings on stderr change nothing, and files that a matrix reads are part of the job."""

from __future__ import annotations

import json

import pytest

from .conftest import sandbox

TEXT = """\
version: 1
provider: chanjing
params: {prompt: "{{ subject }}, {{ style }}"}
items: {file: rows.csv}
matrix:
  style: {file: styles.csv#style}
  model: [kling-v2-1, doubao-seedream-4.0]
  set: [{when: {model: doubao-seedream-4.0}, then: {clarity: 4096}}]
  exclude: [{style: ink, subject: dog}]
limits: {qps: 50}
retry: {doubt: 1s}
"""


@pytest.mark.slow
def test_warnings_go_to_stderr_and_change_no_exit_code(desk):
    desk.write("rows.csv", "subject,aspect\x1b_ratio,sku\ncat,1,a\ndog,2,b\ncat,3,c\n")
    desk.write("styles.csv", "style\nink\noil\n")
    desk.write("job.yaml", TEXT)
    merged = "job.yaml:4:1: items: 4 tasks are identical to earlier ones and merge with them: rows.csv:4 "
    unused = (
        "rows.csv:1:9: nothing uses the column `aspect\\x1b_ratio` (is `aspect_ratio` meant?); "
        "what is here stands in results.jsonl only"
    )
    for verb in ("validate", "plan"):
        done, as_json = desk.run(verb, "job.yaml"), desk.run(verb, "job.yaml", "--json")
        assert (done.returncode, as_json.returncode) == (0, 0)
        assert done.stderr == as_json.stderr
        first, second = done.stderr.splitlines()
        assert first.startswith(f"warning: {merged}")
        assert second == f"warning: {unused}"
        assert "6 tasks" in done.stdout
        warnings = json.loads(as_json.stdout)["warnings"]
        assert [(each["file"], each["line"], each["key"]) for each in warnings] == [
            ("job.yaml", 4, "items"), ("rows.csv", 1, ""),
        ]  # fmt: skip
    assert desk.run("run", "job.yaml", "--sandbox", "--quiet", "--yes").stderr == ""
    again = desk.run("run", "job.yaml", "--sandbox", "--log-format", "json")
    events = [json.loads(line)["event"] for line in again.stderr.splitlines()]
    assert [any(event.startswith(words) for event in events) for words in (merged, unused)] == [True, True]
    assert "nothing uses the column" not in desk.run("verify", "job.yaml", "--sandbox").stderr


@pytest.mark.slow
def test_models_axis_detects_changed_file(desk):
    """Models are compared, and a changed file of an axis is detected."""
    desk.write("rows.csv", "subject\ncat\ndog\n")
    desk.write("styles.csv", "style\nink\noil\n")
    desk.write("job.yaml", TEXT)
    with sandbox() as box:
        desk.env = box.env
        assert desk.job()["submitted"] == 6
        requested = {(line["vars"]["style"], line["model"], line["request"].get("clarity")) for line in desk.results()}
        assert requested == {
            (style, model, clarity)
            for style in ("ink", "oil")
            for model, clarity in (("kling-v2-1", None), ("doubao-seedream-4.0", 4096))
        }
        assert desk.job()["submitted"] == 0
        desk.write("styles.csv", "style\noil\nink\nneon\n")
        assert desk.job()["submitted"] == 4
        assert len(box.accepted) == 10
