"""`--strict` takes warnings as errors and buys nothing; `--all` shows every line of a kind."""

from __future__ import annotations

import json

import pytest

from .conftest import sandbox

WARNED = """\
version: 1
provider: chanjing
model: kling-v2-1
params: {prompt: "{{ subject }}", aspect_ratio: "1:1"}
items:
  - {subject: red fox, aspect_ration: a, sku: k1}
  - aspect_ration: b
    subject: poster #1 of the series
limits: {qps: 50}
"""


@pytest.mark.slow
def test_strict_refuses_what_is_warned_of(desk):
    desk.write("job.yaml", WARNED)
    with sandbox("--seconds", "0.1,0.2") as box:
        desk.env = box.env
        for verb in ("validate", "plan", "run"):
            done = desk.run(verb, "job.yaml", "--strict")
            assert done.returncode == 2, verb
            assert "nothing uses the column `aspect_ration` (is `aspect_ratio` meant?)" in done.stderr
            assert "since ` #` begins a comment" in done.stderr
            assert "--strict takes warnings as errors" in done.stderr
        entry = json.loads(desk.run("validate", "job.yaml", "--strict", "--json").stdout)
        assert (entry["valid"], entry["problems"], len(entry["warnings"])) == (False, [], 2)
        assert desk.run("validate", "job.yaml", "--strict", "--json").returncode == 2
        assert box.requests() == 0
        assert not (desk.root / "out").exists()
        desk.write(
            "job.yaml",
            WARNED.replace("poster #1 of the series", "owl")
            .replace(", aspect_ration: a", "")
            .replace("aspect_ration: b\n    ", ""),
        )
        assert desk.run("run", "job.yaml", "--strict").returncode == 0
        assert [line["vars"].get("sku") for line in desk.results()] == ["k1", None]
        # what the last run has checked is not checked again, and its warnings count all the same
        desk.write("job.yaml", WARNED)
        assert desk.run("run", "job.yaml").returncode == 0
        assert desk.run("run", "job.yaml", "--strict", "--quiet").returncode == 2


@pytest.mark.parametrize("verb", ["validate", "plan", "run"])
def test_all_shows_every_line_of_a_kind(desk, verb):
    rows = "".join(f"row {number},x{number}\n" for number in range(60))
    desk.write("rows.csv", f"subject,number_of_images\n{rows}")
    desk.write("job.yaml", WARNED.partition("items:")[0] + "items: {file: rows.csv}\n")
    done = desk.run(verb, "job.yaml", env={"CHANJING_APP_ID": "app-1234567", "CHANJING_SECRET_KEY": "key-1234567"})
    assert done.returncode == 2
    assert done.stderr.count("rows.csv:") == 1
    assert "(60 of this kind, also at 3:7 and 4:7, …)" in done.stderr
    full = desk.run(verb, "job.yaml", "--all")
    assert (full.returncode, full.stderr.count("rows.csv:")) == (2, 60)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["validate", "plan", "run"])
def test_errors_come_first_and_warnings_after(desk, verb):
    desk.write("rows.csv", "subject,number_of_images,aspect_ration\n#N/A,x,1\nowl,1,2\n#N/A,y,3\n")
    desk.write("job.yaml", WARNED.partition("items:")[0] + "items: {file: rows.csv}\n")
    done = desk.run(verb, "job.yaml", env={"CHANJING_APP_ID": "app-1234567", "CHANJING_SECRET_KEY": "key-1234567"})
    assert (done.returncode, done.stdout) == (2, "")
    lines = [line for line in done.stderr.splitlines() if "rows.csv:" in line]
    assert ["warning: " in line for line in lines] == [False, False, True, True]
    assert "nothing uses the column `aspect_ration`" in lines[2]
    assert "`#N/A` is an error of a spreadsheet (and 1 more in this column)" in lines[3]
    entry = json.loads(desk.run("validate", "job.yaml", "--json").stdout)
    assert [len(entry[name]) for name in ("problems", "warnings")] == [2, 2]
