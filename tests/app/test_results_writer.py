"""When results.jsonl is written, of a real store: what it shows then, and what it costs."""

from __future__ import annotations

import asyncio

import pytest

from runner.app import results_writer
from runner.app.results_writer import ResultsWriter
from runner.errors import DiskError
from runner.report import results
from runner.store.read_only import open_read_only
from runner.tasks.models import State
from tests.store.conftest import bench, home

__all__ = ["bench", "home"]


class Watch:
    """A clock that goes on by a step at each look at it."""

    def __init__(self, step=0.0):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def writer_of(made, home, step=0.0):
    return ResultsWriter(made.store, home.parent, home, Watch(step))


def lines_now(home):
    with open_read_only(home) as seen:
        results.write(home / "expected.jsonl", seen.results())
    return (home / "expected.jsonl").read_bytes()


@pytest.fixture
def counted(monkeypatch):
    """Count the lines that are encoded."""
    encode, seen = results.result_dict, []
    monkeypatch.setattr("runner.report.results_file.result_dict", lambda row: seen.append(row["id"]) or encode(row))
    return seen


async def test_only_changed_lines_are_made(bench, home, counted):
    async with bench() as made:
        await made.add(*range(1, 21))
        writer, path = writer_of(made, home), home.parent / "results.jsonl"
        assert await writer.finish(in_hurry=False) == ""
        assert len(counted) == 20
        counted.clear()
        tasks = [await made.to(State.RUNNING) for _ in range(3)]
        assert await writer.finish(in_hurry=True) == ""
        assert sorted(counted) == [task.id for task in tasks]
        assert path.read_bytes() == lines_now(home)
        before = path.stat()
        assert await writer.finish(in_hurry=False) == ""
        assert path.stat() == before, "nothing had changed"


async def test_next_run_goes_on_where_the_last_one_wrote(bench, home, counted):
    async with bench() as made:
        await made.add(*range(1, 21))
        await writer_of(made, home).finish(in_hurry=False)
    async with bench() as made:
        counted.clear()
        task = await made.to(State.RUNNING)
        await writer_of(made, home).finish(in_hurry=False)
        assert counted == [task.id]
        assert (home.parent / "results.jsonl").read_bytes() == lines_now(home)


async def test_other_drafts_write_every_line(bench, home):
    async with bench() as made:
        await made.add(*range(1, 21))
        writer, path = writer_of(made, home), home.parent / "results.jsonl"
        await writer.finish(in_hurry=False)
        await made.add(*range(30, 3, -1), digest="d2")
        await writer.finish(in_hurry=False)
        assert path.read_bytes() == lines_now(home)
        assert path.read_bytes().count(b"\n") == 30


async def test_death_between_file_and_record_is_noticed(bench, home):
    """The index is of newer results than the state knows, so no line of them is taken for granted."""
    async with bench() as made:
        await made.add(*range(1, 21))
        writer, path = writer_of(made, home), home.parent / "results.jsonl"
        await writer.finish(in_hurry=False)
        await made.to(State.RUNNING)
        state = await made.store.take_changes()
        assert writer._write_files(state, lambda _: None)  # and no set_results
        await made.to(State.RUNNING)
        await writer.finish(in_hurry=False)
        assert path.read_bytes() == lines_now(home)


async def test_older_state_beside_newer_results_is_noticed(bench, home):
    """Put back from a copy, a state does not know what was bought since: its results are written whole."""
    path = home.parent / "results.jsonl"
    async with bench() as made:
        await made.add(*range(1, 21))
        await writer_of(made, home).finish(in_hurry=False)
    names = ("state.db", "journal.jsonl")
    copies = {name: (home / name).read_bytes() for name in names}
    async with bench() as made:
        await made.to(State.RUNNING)
        await writer_of(made, home).finish(in_hurry=False)
    newer = path.read_bytes()
    for name in names:
        (home / name).write_bytes(copies[name])
    async with bench() as made:
        await made.to(State.HELD)
        await writer_of(made, home).finish(in_hurry=False)
        assert path.read_bytes() == lines_now(home) != newer


async def test_after_a_signal_what_takes_long_is_left(bench, home):
    async with bench() as made:
        await made.add(*range(1, 21))
        path = home.parent / "results.jsonl"
        assert "no time" in await writer_of(made, home, step=1.0).finish(in_hurry=True)
        assert not path.exists()
        assert not (home.parent / ".results.jsonl.new").exists()
        assert await writer_of(made, home, step=1.0).finish(in_hurry=False) == ""
        before = path.read_bytes()
        await made.to(State.RUNNING)
        assert "no time" in await writer_of(made, home, step=1.0).finish(in_hurry=True)
        assert path.read_bytes() == before
        assert await writer_of(made, home, step=0.01).finish(in_hurry=True) == ""
        assert path.read_bytes() == lines_now(home)


async def test_no_space_is_an_error_of_the_disk(bench, home, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    async with bench() as made:
        await made.add(1)
        monkeypatch.setattr("os.write", full)
        with pytest.raises(DiskError, match="No space left"):
            await writer_of(made, home).finish(in_hurry=False)


async def test_later_run_writes_the_results(bench, home):
    async with bench() as made:
        await made.add(1)
        async with bench() as later:
            assert "another run" in await writer_of(made, home).finish(in_hurry=False)
            assert await writer_of(later, home).finish(in_hurry=False) == ""


class Reader:
    """An observer that keeps what it is warned of."""

    def __init__(self):
        self.warnings, self.bugs = [], []
        self.warn, self.report_bug = self.warnings.append, self.bugs.append


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come")


async def test_results_are_written_while_the_run_goes_on(bench, home, monkeypatch):
    monkeypatch.setattr(results_writer, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(results_writer, "_INTERVAL", 0.01)
    path, reader = home.parent / "results.jsonl", Reader()
    async with bench() as made:
        await made.add(*range(1, 21))
        writer = writer_of(made, home)
        async with writer.writing_at_intervals(reader):
            await until(path.exists)
            await made.to(State.RUNNING)
            expected = lines_now(home)
            await until(lambda: path.read_bytes() == expected)
        assert (reader.warnings, reader.bugs) == ([], [])


@pytest.mark.parametrize(("error", "is_bug"), [(OSError(28, "No space left on device"), False), (KeyError(), True)])
async def test_failure_in_between_does_not_end_the_run(bench, home, monkeypatch, error, is_bug):
    monkeypatch.setattr(results_writer, "_FIRST_PAUSE", 0.0)
    reader = Reader()

    def fail(*_):
        raise error

    async with bench() as made:
        await made.add(1)
        writer = writer_of(made, home)
        with monkeypatch.context() as patched:
            patched.setattr("runner.app.results_writer.write_all", fail)
            async with writer.writing_at_intervals(reader):
                await until(lambda: reader.bugs or reader.warnings)
        assert bool(reader.bugs) == is_bug
        assert await writer.finish(in_hurry=False) == ""


async def test_nothing_is_written_while_drafts_come_in_pages(bench, home, monkeypatch):
    monkeypatch.setattr(results_writer, "_FIRST_PAUSE", 0.005)
    path = home.parent / "results.jsonl"
    async with bench() as made:
        await made.store.begin_pages("d1", "", 2, "")
        await made.store.add_page([made.draft(1)], 0.0)
        asked = []
        is_adding = made.store.is_adding

        async def watched():
            asked.append(await is_adding())
            return asked[-1]

        monkeypatch.setattr(made.store, "is_adding", watched)
        async with writer_of(made, home).writing_at_intervals(Reader()):
            await until(lambda: len(asked) > 2)
            assert not path.exists()
            await made.store.add_page([made.draft(2)], 0.0)
            await made.store.end_pages()
            await until(path.exists)
        assert path.read_bytes() == lines_now(home)


async def test_end_of_a_run_waits_for_no_rest(bench, home, monkeypatch):
    """Writing beside a run rests after each step; the end of the run ends the rest."""
    monkeypatch.setattr(results_writer, "_FIRST_PAUSE", 0.0)
    monkeypatch.setattr(results_writer, "_REST", 1e6)
    async with bench() as made:
        await made.add(*range(1, 21))
        writer = writer_of(made, home, step=1e-3)
        steps = []
        rest = writer._resting

        def watched(stopped):
            inner = rest(stopped)
            return lambda part: (steps.append(part), inner(part))

        monkeypatch.setattr(writer, "_resting", watched)
        async with asyncio.timeout(20):
            async with writer.writing_at_intervals(Reader()):
                await until(lambda: steps)
        assert not (home.parent / "results.jsonl").exists()
        assert await writer.finish(in_hurry=False) == ""
