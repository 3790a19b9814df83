"""An edit of a finished job that nobody sees buys nothing; one that asks for something else does."""

from __future__ import annotations

import json
import unicodedata
from importlib import resources

import pytest

from .conftest import sandbox

FAST = ("--seconds", "0.1,0.2")
MANIFEST = """\
version: 1
provider: chanjing
model: kling-v2-1
params: {prompt: "{{ subject }}", aspect_ratio: "1:1"}
items: {file: rows.csv}
limits: {qps: 50}
"""
#: a cell of several lines, composed letters, and plain text
CELLS = ("a café\nby the sea", "Ångström’s heron", "江南水乡的乌篷船", "two boats")


def table(cells, *, encoding: str = "utf-8", end: str = "\n") -> bytes:
    lines = ["subject", *(f'"{cell}"' for cell in cells)]
    return "".join(f"{line}\n" for line in lines).replace("\n", end).encode(encoding)


HARMLESS = {
    "CRLF": table(CELLS, end="\r\n"),
    "CR in cells": table([cell.replace("\n", "\r") for cell in CELLS]),
    "NFD": table([unicodedata.normalize("NFD", cell) for cell in CELLS]),
    "BOM": table(CELLS, encoding="utf-8-sig"),
    "BOM in a cell": table([f"\ufeff{cell}" for cell in CELLS]),
    "blanks": table([f" {cell} ".replace("\n", " \t\n") for cell in CELLS]),
    "another order": table(reversed(CELLS)),
}


@pytest.fixture
def finished(desk):
    """Run a job of four tasks to its end in a sandbox, and return the sandbox."""
    desk.write("job.yaml", MANIFEST)
    (desk.root / "rows.csv").write_bytes(table(CELLS))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["counts"] == {"done": 4}
        yield box


@pytest.mark.slow
def test_harmless_edits_buy_nothing(desk, finished):
    first = {row["key"]: row for row in desk.results()}
    for name, content in HARMLESS.items():
        (desk.root / "rows.csv").write_bytes(content)
        summary = desk.job()
        assert (summary["counts"], summary["submitted"]) == ({"done": 4}, 0), name
        rows = {row["key"]: row for row in desk.results()}
        assert {key: row["outputs"] for key, row in rows.items()} == {key: row["outputs"] for key, row in first.items()}
        assert sorted(row["index"] for row in rows.values()) == [1, 2, 3, 4], name
    assert len(finished.accepted) == 4


@pytest.mark.slow
def test_text_of_a_new_task_is_sent_as_it_is_written(desk, finished):
    (desk.root / "rows.csv").write_bytes(table([f"{cell} " for cell in CELLS] + [" a new row \r\nof two lines "]))
    assert desk.job()["submitted"] == 1
    assert finished.accepted[-1]["request"]["ref_prompt"] == " a new row \r\nof two lines "


@pytest.mark.slow
def test_real_edits_are_bought(desk, finished):
    edits = [CELLS[0].upper(), CELLS[1].replace("’", "'"), CELLS[2] + "。", "two  boats"]
    (desk.root / "rows.csv").write_bytes(table(edits))
    assert desk.job()["submitted"] == 4
    assert len(finished.accepted) == 8


@pytest.mark.slow
def test_recovered_state_knows_what_was_bought(desk, finished):
    (desk.root / "rows.csv").write_bytes(HARMLESS["blanks"])
    assert json.loads(desk.run("recover", "job.yaml", "--json").stdout)
    assert desk.job()["submitted"] == 0
    assert len(finished.accepted) == 4


@pytest.mark.slow
def test_plan_and_run_tell_what_is_kept(desk, finished):
    (desk.root / "rows.csv").write_bytes(HARMLESS["CR in cells"].replace(b"two boats", b"two boats "))
    said = "2 differ from what was bought only in line ends and blanks, or in how letters are coded"
    report = json.loads(desk.run("plan", "job.yaml", "--json").stdout)
    assert (report["new"], report["known"], report["gone"], report["changed"]) == (0, {"done": 4}, {}, [])
    assert report["restated"] == {"unseen": 2, "values": [], "more": 0}
    assert f"  kept       {said}" in desk.run("plan", "job.yaml").stdout.splitlines()
    tasks = [json.loads(line) for line in desk.run("plan", "job.yaml", "--tasks", "--json").stdout.splitlines()][:-1]
    assert [(task["plan"], task["state"]) for task in tasks] == [("kept", "done")] * 4
    assert {task["key"] for task in tasks} == {row["key"] for row in desk.results()}
    assert f"{said}: kept, and not bought again" in desk.run("run", "job.yaml").stderr
    assert len(finished.accepted) == 4


def spec(**n) -> str:
    """Return the shipped spec with other values of the number of images."""
    text = (resources.files("runner.providers") / "specs" / "chanjing.yaml").read_text(encoding="utf-8")
    count = "  count: &count {type: integer, min: 1, max: 4, common: [n]}\n"
    assert count in text
    return text.replace(
        count, count.replace("common", "".join(f"{name}: {each}, " for name, each in n.items()) + "common")
    )


@pytest.mark.slow
def test_another_default_of_a_spec_buys_nothing(desk):
    """A spec gains a default, changes it, and gives it up; the value that is sent is then written down."""
    providers = desk.root / "providers"
    providers.mkdir()
    desk.write("job.yaml", MANIFEST)
    (desk.root / "rows.csv").write_bytes(table(CELLS))
    with sandbox(*FAST) as box:
        desk.env = {**box.env, "RUNNER_PROVIDERS": str(providers)}
        assert desk.job()["counts"] == {"done": 4}
        bought, field = len(box.accepted), "number_of_images"
        for step, (n, said) in enumerate(
            [
                ({"default": 1}, f"4 would be sent with {field} = 1 today, and were bought without {field}"),
                ({"default": 2}, f"4 would be sent with {field} = 2 today, and were bought without {field}"),
                ({"assumed": 1}, ""),
            ]
        ):
            (providers / "chanjing.yaml").write_text(spec(**n), encoding="utf-8")
            assert said in desk.run("plan", "job.yaml").stdout
            assert json.loads(desk.run("plan", "job.yaml", "--json").stdout)["new"] == 0
            # another row, since an unchanged manifest is not read again
            (desk.root / "rows.csv").write_bytes(table([*CELLS, *(f"row {number}" for number in range(step + 1))]))
            ran = desk.run("run", "job.yaml", "--json")
            assert json.loads(ran.stdout.splitlines()[-1])["submitted"] == 1, n
            bought += 1
        desk.write("job.yaml", MANIFEST.replace("aspect", "n: 1, aspect"))
        assert desk.job()["submitted"] == 0, "what is assumed anyway is no change"
        assert len(box.accepted) == bought


@pytest.mark.slow
def test_run_tells_and_refuses_many_changes(desk, finished):
    edited = MANIFEST.replace('"1:1"', '"16:9"')
    desk.write("job.yaml", edited)
    (desk.root / "rows.csv").write_bytes(table(["in front", *CELLS]))
    said = "4 new tasks stand where bought ones stood, and differ: aspect_ratio in 4"
    for _ in range(2):
        refused = desk.run("run", "job.yaml", "--changes", "3")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"{said}; without an answer at a terminal at most 3 are bought" in refused.stderr
        assert "--changes 4" in refused.stderr
    assert desk.run("retry", "job.yaml").returncode == 0
    assert len(finished.accepted) == 4
    desk.write("job.yaml", MANIFEST)
    assert desk.job()["submitted"] == 1, "the edit was taken back"
    desk.write("job.yaml", edited)
    ran = desk.run("run", "job.yaml", "--changes", "5")
    assert ran.returncode == 0, ran.stderr
    assert "5 new tasks stand where bought ones stood" in ran.stderr
    assert desk.job()["counts"] == {"done": 10}


@pytest.mark.slow
def test_new_table_of_every_night_is_no_change(desk, finished):
    """Rows of which no value is as before are new rows, whatever stood in their lines."""
    (desk.root / "rows.csv").write_bytes(table([f"night {number}" for number in range(4)]))
    ran = desk.run("run", "job.yaml", "--changes", "0")
    assert (ran.returncode, len(finished.accepted)) == (0, 8), ran.stderr


@pytest.mark.slow
def test_same_goods_twice_in_a_manifest_are_told(desk):
    desk.write("job.yaml", MANIFEST.replace("{file: rows.csv}", '\n- {subject: "a cat"}\n- {subject: "a cat "}'))
    done = desk.run("validate", "job.yaml")
    assert done.stdout == "job.yaml: valid, 1 task (1 identical one merged; `repeat` makes several of each)\n"
    assert "1 task asks for the same as an earlier one in another way" in done.stderr
    assert "job.yaml:7 as line 6" in done.stderr


WRITTEN = """\
version: 1
provider: chanjing
model: kling-v2-1
params: {prompt: "iOS {{ version }}, {{ price }} euro", aspect_ratio: "1:1"}
items:
"""


@pytest.mark.slow
def test_numbers_that_earlier_versions_rewrote_are_not_bought_again(desk):
    """Earlier versions sent `iOS 1.1, 9.9 euro` for `version: 1.10, price: 9.90`; this one sends what is written.

    What they bought so is kept when the manifest gets another row, and `plan` and `run` say in what it differs.
    """
    row = "  - {version: %s, price: %s}\n"
    # what an earlier version made of 1.10 and 9.90, to the last byte of its request
    desk.write("job.yaml", WRITTEN + row % ("1.1", "9.9") + row % ("2.0", "3"))
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["submitted"] == 2
        desk.write("job.yaml", WRITTEN + row % ("1.10", "9.90") + row % ("2.0", "3") + row % ("0x10", "7.70"))
        report = json.loads(desk.run("plan", "job.yaml", "--json").stdout)
        assert (report["new"], report["known"], report["gone"], report["changed"]) == (1, {"done": 2}, {}, [])
        value = {"field": "ref_prompt", "was": "iOS 1.1, 9.9 euro", "is": "iOS 1.10, 9.90 euro", "tasks": 1}
        assert report["restated"]["values"] == [value]
        ran = desk.run("run", "job.yaml")
        assert "and was bought with ref_prompt" in ran.stderr
        assert [each["request"]["ref_prompt"] for each in box.accepted[2:]] == ["iOS 0x10, 7.70 euro"]
        assert [row["vars"]["version"] for row in desk.results()] == ["1.10", 2.0, "0x10"]
        assert desk.job()["submitted"] == 0
        # 1.1 beside 1.10 is something else
        desk.write("job.yaml", WRITTEN + row % ("1.10", "9.90") + row % ("1.1", "9.90"))
        assert desk.job()["submitted"] == 1
        assert box.accepted[-1]["request"]["ref_prompt"] == "iOS 1.1, 9.90 euro"
