"""Output files that were moved or deleted, or get a new name: they are fetched again or renamed, never bought again."""

from __future__ import annotations

import pytest

from .conftest import images, sandbox

FAST = ("--seconds", "0.1,0.2")


def image_files(desk):
    return sorted(path.name for path in (desk.root / "out/job").glob("*.png"))


@pytest.mark.slow
def test_new_output_name_renames_files_and_buys_nothing(desk):
    text = images(3)
    desk.write("job.yaml", text)
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        before = {line["key"]: line["outputs"][0]["sha256"] for line in desk.results()}
        desk.write("job.yaml", text + 'output: {name: "{{ subject }}-{{ key }}"}\n')
        summary = desk.job()
        assert (summary["submitted"], summary["downloaded"], box.stats["accepted"]) == (0, 0, 3)
        assert image_files(desk) == sorted(
            f"thing_{line['index'] - 1}-{line['key'][:8]}.png" for line in desk.results()
        )
        assert {line["key"]: line["outputs"][0]["sha256"] for line in desk.results()} == before
        assert {line["outputs"][0]["file"] for line in desk.results()} == set(image_files(desk))
        assert desk.run("verify", "job.yaml").returncode == 0
        desk.write("job.yaml", text)
        assert desk.job()["downloaded"] == 0
        assert [name[:4] for name in image_files(desk)] == ["0001", "0002", "0003"]


def files_of(desk):
    return [output["file"] for line in desk.results() for output in line["outputs"]]


@pytest.mark.slow
def test_shards_move_files_and_buy_nothing(desk):
    """Outputs go to directories and back; one that is lost there is fetched again."""
    text, directory = images(4), desk.root / "out/job"
    desk.write("job.yaml", text + "output: {shards: 256}\n")
    with sandbox(*FAST) as box:
        desk.env = box.env
        assert desk.job()["exit_code"] == 0
        keys = [line["key"] for line in desk.results()]
        shards = [file.split("/")[0] for file in files_of(desk)]
        assert shards == [key[:2] for key in keys]
        assert all((directory / file).is_file() for file in files_of(desk))
        assert desk.job()["downloaded"] == 0
        (directory / files_of(desk)[2]).unlink()
        again = desk.job()
        assert (again["downloaded"], again["submitted"]) == (1, 0)
        assert desk.run("verify", "job.yaml").returncode == 0
        assert desk.run("gallery", "job.yaml").returncode == 0
        first = directory / files_of(desk)[0]
        desk.write("job.yaml", text)
        assert desk.job()["downloaded"] == 0
        assert [name[:4] for name in image_files(desk)] == ["0001", "0002", "0003", "0004"]
        assert not first.parent.exists(), "the empty directory is gone"
        desk.write("job.yaml", text + "output: {shards: 4096}\n")
        assert desk.job()["downloaded"] == 0
        assert [file.split("/")[0] for file in files_of(desk)] == [key[:3] for key in keys]
        assert all((directory / file).is_file() for file in files_of(desk))
        assert box.stats["accepted"] == 4


@pytest.mark.slow
def test_file_of_another_program_is_not_replaced(desk):
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
        assert image_files(desk) == sorted(["thing_0.png", f"thing_0-{key[:8]}.png", "thing_1.png"])


@pytest.mark.slow
def test_inserted_rows_keep_names_of_finished_outputs(desk):
    text = images(2)
    desk.write("job.yaml", text)
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        before = image_files(desk)
        desk.write("job.yaml", text.replace("items:\n", "items:\n  - {subject: first}\n"))
        desk.job()
        assert set(before) < set(image_files(desk))


@pytest.mark.slow
def test_run_fetches_missing_files_and_buys_nothing(desk):
    desk.write("job.yaml", images(3))
    with sandbox(*FAST) as box:
        desk.env = box.env
        desk.job()
        gone = (desk.root / "out/job") / image_files(desk)[1]
        data = gone.read_bytes()
        gone.unlink()
        summary = desk.job()
        assert (summary["submitted"], summary["downloaded"], summary["counts"]) == (0, 1, {"done": 3})
        assert gone.read_bytes() == data
        assert box.stats["accepted"] == 3
