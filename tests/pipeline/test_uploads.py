"""Pictures on their way to a provider: once each, never for ever, and never another picture than was planned."""

from __future__ import annotations

import base64
import hashlib
from contextlib import asynccontextmanager
from types import SimpleNamespace

import anyio
import orjson
import pytest

from runner.lifecycle.events import Refused, Setback
from runner.lifecycle.task import Fault, State, Task
from runner.pipeline import uploads
from runner.pipeline.attach import Inline, attached, files
from runner.pipeline.bell import Bell
from runner.pipeline.breaker import Breaker
from runner.pipeline.uploads import Uploaded
from runner.providers.exchange import NotSent, Reply
from runner.providers.pictures import Picture, Unfit
from runner.providers.spec import load
from runner.store.uploads import Upload, Uploads

SPEC = load("chanjing")
CONTENT = {name: name.encode() * 50 for name in ("a.png", "b.png")}
SHA = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
DAY = 86_400.0


def task(number, **pictures):
    """A queued task with these pictures, by field."""
    request = {"ref_prompt": "x"} | {field: f"sha256:{SHA[path]}" for field, path in pictures.items()}
    return Task(number, f"{number:032x}", "chanjing", "video", "tx_kling2.5", State.QUEUED, 0.0,
                request=orjson.dumps(request),
                pictures=orjson.dumps(pictures).decode() if pictures else "")  # fmt: skip


class Provider:
    """Answers as Chanjing does; `script` gives other answers first, by the first words of a path."""

    def __init__(self):
        self.asked, self.put_, self.script = [], [], {}
        self.faults, self.gate, self.statuses = [], None, {}
        self.entered, self.bell = [], Bell()

    async def send(self, request):
        word = "place" if "create_upload_url" in request.path else "detail"
        self.asked.append(word)
        await anyio.lowlevel.checkpoint()
        if self.script.get(word):
            return self.script[word].pop(0)
        if word == "place":
            number = self.asked.count("place")
            data = {"sign_url": f"https://oss.example/{number}?s=1", "full_path": f"https://files.example/{number}"}
            return self._good(data | {"mime_type": "image/png", "file_id": f"f{number}"})
        file_id = request.path.rpartition("=")[2]
        left = self.statuses.get(file_id, [1])
        return self._good({"status": left.pop(0) if len(left) > 1 else left[0]})

    async def put(self, url, data, media_type, headers):
        self.entered.append(url)
        self.bell.ring("put")
        if self.gate is not None:
            await self.gate.wait()
        self.put_.append((url, data, media_type))
        return self.faults.pop(0) if self.faults else None

    @staticmethod
    def _good(data):
        return Reply(200, {"code": 0, "msg": "success", "data": data})


class Bench:
    """One lane's uploads at a provider of one's own, with the account's real memory."""

    def __init__(self, home):
        self.now, self.provider, self.bugs = 1_800_000_000.0, Provider(), []
        self.contents, self.reads = dict(CONTENT), []
        self.known = Uploads(home)
        self.lane = self.new_lane()

    def new_lane(self):
        clock = SimpleNamespace(now=lambda: self.now)
        return SimpleNamespace(name="chanjing", spec=SPEC, clock=clock, bell=Bell(), breaker=Breaker(), attach=None,
                               send=self.provider.send, offload=anyio.to_thread.run_sync)  # fmt: skip

    def read(self, path, sha256):
        self.reads.append(path)
        data = self.contents.get(path)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            raise Unfit("has changed", "run again")
        return Picture("png", 320, 320, len(data), sha256), data

    @asynccontextmanager
    async def working(self, **words):
        spec = SPEC.upload.model_copy(update=words)
        made = self.lane.attach = Uploaded(self.lane, spec, self.read, self.provider, self.known)
        async with anyio.create_task_group() as group:
            await group.start(made.run, self.bugs.append)
            with anyio.fail_after(20):
                yield made
            group.cancel_scope.cancel()

    async def until(self, made, *tasks):
        while not all(made.ready(each) for each in tasks):
            await self.lane.bell.wait(("chanjing", State.QUEUED))


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(uploads, "_SOON", 0.01)
    monkeypatch.setattr(uploads, "_PAUSE", 0.01)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def test_a_task_waits_for_its_picture_and_then_holds_its_address(bench):
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        assert not made.ready(one)
        assert made.begin(one)
        assert list(made.held) == [1]
        await bench.until(made, one)
        assert list(made.held) == []
        assert await made.values(one) == {"start_frame": "https://files.example/1"}
    assert bench.provider.put_ == [("https://oss.example/1?s=1", CONTENT["a.png"], "image/png")]


async def test_a_task_without_pictures_waits_for_nothing(bench):
    async with bench.working() as made:
        assert made.ready(task(1))
        assert await attached(bench.lane, task(1)) == {}
    assert bench.provider.asked == []


async def test_tasks_with_the_same_picture_upload_it_once(bench):
    tasks = [task(number, start_frame="a.png") for number in range(1, 17)]
    async with bench.working() as made:
        assert all(made.begin(each) for each in tasks)
        assert not made.begin(task(17, start_frame="b.png")), "no more than so many wait"
        await bench.until(made, *tasks)
        assert made.begin(task(17, start_frame="b.png"))
    assert bench.provider.asked.count("place") == 1
    assert len(bench.provider.put_) == 1


async def test_two_pictures_of_one_task_are_both_waited_for(bench):
    one = task(1, start_frame="a.png", end_frame="b.png")
    async with bench.working() as made:
        made.begin(one)
        await bench.until(made, one)
        assert len(set((await made.values(one)).values())) == 2


async def test_no_more_than_a_few_are_sent_at_once(bench):
    for number in range(10):
        CONTENT[f"{number}"] = bench.contents[f"{number}"] = b"%d" % number * 9
        SHA[f"{number}"] = hashlib.sha256(CONTENT[f"{number}"]).hexdigest()
    bench.provider.gate = anyio.Event()
    tasks = [task(number, start_frame=f"{number}") for number in range(10)]
    async with bench.working() as made:
        for each in tasks:
            made.begin(each)
        while len(bench.provider.entered) < 4:
            await bench.provider.bell.wait("put")
        await anyio.wait_all_tasks_blocked()
        assert len(bench.reads) == len(bench.provider.entered) == 4
        bench.provider.gate.set()
        await bench.until(made, *tasks)


async def test_the_next_run_asks_whether_it_is_there_and_uploads_nothing(bench):
    one = task(1, start_frame="a.png")
    for number in range(2):
        bench.now += 60
        async with bench.working() as made:
            made.begin(one)
            await bench.until(made, one)
            assert await made.values(one) == {"start_frame": "https://files.example/1"}
            assert bench.provider.asked == ["place", "detail", *["detail"] * number]


@pytest.mark.parametrize(
    ("days", "detail", "uploads_"),
    [(24, [], 1), (26, [], 2), (1, [Reply(200, {"code": 0, "data": {"status": 99}})], 2), (1, [Reply(502, "x")], 2)],
    ids=["young", "old", "deleted", "nobody knows"],
)
async def test_what_is_old_or_gone_is_uploaded_anew(bench, days, detail, uploads_):
    await bench.known.put(Upload(SHA["a.png"], "f0", "https://files.example/0", bench.now - days * DAY), 0.0)
    bench.provider.script = {"detail": list(detail)}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.begin(one)
        await bench.until(made, one)
        (url,) = (await made.values(one)).values()
    assert url == f"https://files.example/{uploads_ - 1}"


async def test_another_job_s_upload_of_this_very_hour_is_used(bench, tmp_path):
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        await bench.known.put(Upload(SHA["a.png"], "f9", "https://files.example/9", bench.now), 0.0)
        made.begin(one)
        await bench.until(made, one)
        assert await made.values(one) == {"start_frame": "https://files.example/9"}
    assert bench.provider.asked == []


async def test_a_file_that_is_pending_is_waited_for(bench):
    bench.provider.statuses = {"f1": [0, 0, 0, 1]}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.begin(one)
        await bench.until(made, one)
        assert isinstance(await made.values(one), dict)
    assert bench.provider.asked.count("detail") == 4


async def test_what_breaks_is_tried_again_with_a_fresh_address(bench):
    bench.provider.faults = [Fault("network", None, "reset"), Fault("http", "403", "SignatureDoesNotMatch")]
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.begin(one)
        await bench.until(made, one)
        assert await made.values(one) == {"start_frame": "https://files.example/3"}
    assert bench.provider.asked.count("place") == 3


@pytest.mark.parametrize("answer", [Reply(500, "x"), NotSent("no network"), Reply(200, {"code": 50000, "msg": "?"})])
async def test_what_cannot_be_uploaded_costs_its_task_an_attempt_and_is_tried_again_later(bench, answer):
    bench.provider.script = {"place": [answer] * 3}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.begin(one)
        await bench.until(made, one)
        event = await made.values(one)
        assert isinstance(event, Setback)
        assert event.wait >= 30
        bench.now += event.wait
        assert not made.ready(one)
        made.begin(one)
        await bench.until(made, one)
        assert isinstance(await made.values(one), dict)


async def test_a_picture_that_never_can_is_given_up_in_the_end(bench):
    """However often its tasks come, a run asks a bounded number of times."""
    bench.provider.script = {"place": [Reply(500, "x")] * 1000}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        for _ in range(40):
            if not made.ready(one):
                made.begin(one)
                await bench.until(made, one)
            assert isinstance(await made.values(one), Setback)
            bench.now += 60
    assert bench.provider.asked.count("place") == 3 * 8


async def test_an_upload_that_is_never_ready_ends_with_its_patience(bench):
    bench.provider.statuses = {f"f{number}": [0] for number in range(1, 9)}
    one = task(1, start_frame="a.png")
    async with bench.working(patience=0.05) as made:
        made.begin(one)
        await bench.until(made, one)
        event = await made.values(one)
    assert isinstance(event, Setback)
    assert "too long" in event.fault.message


async def test_content_that_the_provider_refuses_is_refused_once(bench):
    bench.provider.statuses = {"f1": [98]}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.begin(one)
        await bench.until(made, one)
        event = await made.values(one)
        bench.now += DAY
        assert await made.values(one) == event
    assert isinstance(event, Refused)
    assert event.fault.reason == "moderation"
    assert bench.provider.asked.count("place") == 1


async def test_a_file_that_has_changed_gives_up_its_task_and_nothing_is_asked(bench):
    bench.contents["a.png"] = b"another"
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.begin(one)
        await bench.until(made, one)
        event = await made.values(one)
    assert isinstance(event, Refused)
    assert (event.fault.reason, "a.png" in event.fault.message) == ("image", True)
    assert bench.provider.asked == []


async def test_a_bug_is_told_and_the_other_pictures_go_on(bench):
    bench.contents["a.png"] = None
    bench.read = lambda path, sha256: {}["bug"] if path == "a.png" else Bench.read(bench, path, sha256)
    bad, good = task(1, start_frame="a.png"), task(2, start_frame="b.png")
    async with bench.working() as made:
        made.begin(bad)
        made.begin(good)
        await bench.until(made, bad, good)
        assert isinstance(await made.values(bad), Setback)
        assert isinstance(await made.values(good), dict)
    assert [type(bug) for bug in bench.bugs] == [KeyError]


async def test_nobody_is_asked_in_an_outage(bench):
    for _ in range(5):
        bench.lane.breaker.answered(properly=False)
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.begin(one)
        await anyio.wait_all_tasks_blocked()
        assert (bench.provider.asked, made.ready(one)) == ([], False)
        bench.lane.breaker.answered(properly=True)
        await bench.until(made, one)


async def test_after_its_end_nothing_is_begun(bench):
    async with bench.working() as made:
        pass
    assert not made.begin(task(1, start_frame="a.png"))


async def test_the_ends_that_are_remembered_are_bounded(bench, monkeypatch):
    monkeypatch.setattr(uploads, "_KEPT", 1)
    one, two = task(1, start_frame="a.png"), task(2, start_frame="b.png")
    async with bench.working() as made:
        for each in (one, two):
            made.begin(each)
            await bench.until(made, each)
        assert isinstance(await made.values(one), Setback), "forgotten, so that it is asked for again"
        made.begin(one)
        await bench.until(made, one)
        assert await made.values(one) == {"start_frame": "https://files.example/1"}
    assert bench.provider.asked.count("place") == 2


# Base64


async def test_base64_is_read_when_it_is_sent(bench):
    bench.lane.attach = Inline(bench.lane, bench.read)
    one = task(1, image="a.png")
    assert bench.lane.attach.ready(one)
    assert await attached(bench.lane, one) == {"image": base64.b64encode(CONTENT["a.png"]).decode()}
    bench.contents["a.png"] = b"another"
    assert isinstance(await attached(bench.lane, one), Refused)


async def test_a_provider_that_takes_no_pictures_any_more_is_sent_none(bench):
    event = await attached(bench.lane, task(1, image="a.png"))
    assert isinstance(event, Refused)
    assert event.fault.reason == "image"


def test_a_text_that_looks_like_a_mark_is_no_picture():
    one = Task(1, "k", "kling", "image", "m", State.QUEUED, 0.0, request=b'{"prompt": "sha256:%s"}' % (b"a" * 64))
    assert files(one) == []
