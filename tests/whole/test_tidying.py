"""Files that were moved, deleted or are to be called something else: fetched again or renamed, never bought again."""

from __future__ import annotations

from .conftest import images, sandbox

FAST = ("--seconds", "0.1,0.2")


def pictures(desk):
    return sorted(path.name for path in (desk.root / "out/job").glob("*.png"))


def test_a_new_output_name_renames_files_and_buys_nothing(desk):
    text = images(3)
    desk.write("job.yaml", text)
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        before = {line["key"]: line["outputs"][0]["sha256"] for line in desk.results()}
        desk.write("job.yaml", text + 'output: {name: "{{ subject }}-{{ key }}"}\n')
        summary = desk.job()
        assert (summary["submitted"], summary["downloaded"], box.stats["accepted"]) == (0, 0, 3)
        assert pictures(desk) == sorted(f"thing_{line['index'] - 1}-{line['key'][:8]}.png" for line in desk.results())
        assert {line["key"]: line["outputs"][0]["sha256"] for line in desk.results()} == before
        assert {line["outputs"][0]["file"] for line in desk.results()} == set(pictures(desk))
        assert desk.run("verify", "job.yaml").returncode == 0
        desk.write("job.yaml", text)
        assert desk.job()["downloaded"] == 0
        assert [name[:4] for name in pictures(desk)] == ["0001", "0002", "0003"]


def test_a_name_that_somebody_else_has_is_left_to_them(desk):
    text = images(2)
    desk.write("job.yaml", text)
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        (desk.root / "out/job/thing_0.png").write_bytes(b"mine")
        desk.write("job.yaml", text + 'output: {name: "{{ subject }}"}\n')
        assert desk.job()["exit_code"] == 0
        assert (desk.root / "out/job/thing_0.png").read_bytes() == b"mine"
        key = desk.results()[0]["key"]
        assert pictures(desk) == sorted(["thing_0.png", f"thing_0-{key[:8]}.png", "thing_1.png"])


def test_rows_in_front_leave_the_names_of_what_is_finished_alone(desk):
    text = images(2)
    desk.write("job.yaml", text)
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        before = pictures(desk)
        desk.write("job.yaml", text.replace("items:\n", "items:\n  - {subject: first}\n"))
        desk.job()
        assert set(before) < set(pictures(desk))


def test_a_run_fetches_what_is_missing_and_buys_nothing(desk):
    desk.write("job.yaml", images(3))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        gone = (desk.root / "out/job") / pictures(desk)[1]
        data = gone.read_bytes()
        gone.unlink()
        summary = desk.job()
        assert (summary["submitted"], summary["downloaded"], summary["counts"]) == (0, 1, {"done": 3})
        assert gone.read_bytes() == data
        assert box.stats["accepted"] == 3
