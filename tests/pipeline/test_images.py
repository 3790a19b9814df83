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
from runner.pipeline import images
from runner.pipeline.images import InlineImages, UploadedImages, image_values, local_images
from runner.pipeline.session import CircuitBreaker
from runner.pipeline.stage import Notifier
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
        self.entered, self.notifier = [], Notifier()

    async def send(self, request):
        word = "place" if "create_upload_url" in request.path else "detail"
        self.asked.append(word)
        number = self.asked.count("place")  # before the checkpoint, since uploads run side by side
        await anyio.lowlevel.checkpoint()
        if self.script.get(word):
            return self.script[word].pop(0)
        if word == "place":
            data = {"sign_url": f"https://oss.example/{number}?s=1", "full_path": f"https://files.example/{number}"}
            return self._good(data | {"mime_type": "image/png", "file_id": f"f{number}"})
        file_id = request.path.rpartition("=")[2]
        left = self.statuses.get(file_id, [1])
        return self._good({"status": left.pop(0) if len(left) > 1 else left[0]})

    async def put(self, url, data, media_type, headers):
        self.entered.append(url)
        self.notifier.notify("put")
        if self.gate is not None:
            await self.gate.wait()
        self.put_.append((url, data, media_type))
        return self.faults.pop(0) if self.faults else None

    @staticmethod
    def _good(data):
        return Reply(200, {"code": 0, "msg": "success", "data": data})


class Bench:
    """One session's uploads at a provider of the test's own, with the account's real store of uploads."""

    def __init__(self, home):
        self.now, self.provider, self.bugs = 1_800_000_000.0, Provider(), []
        self.contents, self.reads = dict(CONTENT), []
        self.known = Uploads(home)
        self.images = None
        clock = SimpleNamespace(now=lambda: self.now)
        self.session = SimpleNamespace(
            name="chanjing",
            spec=SPEC,
            clock=clock,
            notifier=Notifier(),
            breaker=CircuitBreaker(),
            send=self.provider.send,
        )

    def read(self, path, sha256):
        self.reads.append(path)
        data = self.contents.get(path)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            raise Unfit("has changed", "run again")
        return Picture("png", 320, 320, len(data), sha256), data

    @asynccontextmanager
    async def working(self, **words):
        spec = SPEC.upload.model_copy(update=words)
        offload = anyio.to_thread.run_sync
        made = self.images = UploadedImages(self.session, spec, self.read, self.provider, self.known, offload)
        async with anyio.create_task_group() as group:
            await group.start(made.run, self.bugs.append)
            with anyio.fail_after(20):
                yield made
            group.cancel_scope.cancel()

    async def until(self, made, *tasks):
        while not all(made.is_ready(each) for each in tasks):
            await self.session.notifier.wait(("chanjing", State.QUEUED))


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(images, "_SOON", 0.01)
    monkeypatch.setattr(images, "_PAUSE", 0.01)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def test_a_task_waits_for_its_image_and_then_has_its_address(bench):
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        assert not made.is_ready(one)
        assert made.prepare(one)
        assert list(made.held) == [1]
        await bench.until(made, one)
        assert list(made.held) == []
        assert await made.values(one) == {"start_frame": "https://files.example/1"}
    assert bench.provider.put_ == [("https://oss.example/1?s=1", CONTENT["a.png"], "image/png")]


async def test_a_task_without_images_waits_for_no_upload(bench):
    async with bench.working() as made:
        assert made.is_ready(task(1))
        assert await image_values(bench.images, task(1), "chanjing") == {}
    assert bench.provider.asked == []


async def test_tasks_with_the_same_image_upload_it_once(bench):
    tasks = [task(number, start_frame="a.png") for number in range(1, 17)]
    async with bench.working() as made:
        assert all(made.prepare(each) for each in tasks)
        assert not made.prepare(task(17, start_frame="b.png")), "no more than so many wait"
        await bench.until(made, *tasks)
        assert made.prepare(task(17, start_frame="b.png"))
    assert bench.provider.asked.count("place") == 1
    assert len(bench.provider.put_) == 1


async def test_two_images_of_one_task_are_both_waited_for(bench):
    one = task(1, start_frame="a.png", end_frame="b.png")
    async with bench.working() as made:
        made.prepare(one)
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
            made.prepare(each)
        while len(bench.provider.entered) < 4:
            await bench.provider.notifier.wait("put")
        await anyio.wait_all_tasks_blocked()
        assert len(bench.reads) == len(bench.provider.entered) == 4
        bench.provider.gate.set()
        await bench.until(made, *tasks)


async def test_the_next_run_checks_an_upload_and_repeats_nothing(bench):
    one = task(1, start_frame="a.png")
    for number in range(2):
        bench.now += 60
        async with bench.working() as made:
            made.prepare(one)
            await bench.until(made, one)
            assert await made.values(one) == {"start_frame": "https://files.example/1"}
            assert bench.provider.asked == ["place", "detail", *["detail"] * number]


@pytest.mark.parametrize(
    ("days", "detail", "uploads_"),
    [(24, [], 1), (26, [], 2), (1, [Reply(200, {"code": 0, "data": {"status": 99}})], 2), (1, [Reply(502, "x")], 2)],
    ids=["young", "old", "deleted", "unknown"],
)
async def test_an_old_or_deleted_upload_is_repeated(bench, days, detail, uploads_):
    await bench.known.put(Upload(SHA["a.png"], "f0", "https://files.example/0", bench.now - days * DAY), 0.0)
    bench.provider.script = {"detail": list(detail)}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.prepare(one)
        await bench.until(made, one)
        (url,) = (await made.values(one)).values()
    assert url == f"https://files.example/{uploads_ - 1}"


async def test_an_upload_of_another_job_is_used(bench, tmp_path):
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        await bench.known.put(Upload(SHA["a.png"], "f9", "https://files.example/9", bench.now), 0.0)
        made.prepare(one)
        await bench.until(made, one)
        assert await made.values(one) == {"start_frame": "https://files.example/9"}
    assert bench.provider.asked == []


async def test_a_file_that_is_pending_is_waited_for(bench):
    bench.provider.statuses = {"f1": [0, 0, 0, 1]}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.prepare(one)
        await bench.until(made, one)
        assert isinstance(await made.values(one), dict)
    assert bench.provider.asked.count("detail") == 4


async def test_a_failed_upload_is_tried_again_with_a_fresh_address(bench):
    bench.provider.faults = [Fault("network", None, "reset"), Fault("http", "403", "SignatureDoesNotMatch")]
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.prepare(one)
        await bench.until(made, one)
        assert await made.values(one) == {"start_frame": "https://files.example/3"}
    assert bench.provider.asked.count("place") == 3


@pytest.mark.parametrize("answer", [Reply(500, "x"), NotSent("no network"), Reply(200, {"code": 50000, "msg": "?"})])
async def test_a_failed_upload_costs_an_attempt_and_is_retried_later(bench, answer):
    bench.provider.script = {"place": [answer] * 3}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.prepare(one)
        await bench.until(made, one)
        event = await made.values(one)
        assert isinstance(event, Setback)
        assert event.wait >= 30
        bench.now += event.wait
        assert not made.is_ready(one)
        made.prepare(one)
        await bench.until(made, one)
        assert isinstance(await made.values(one), dict)


async def test_an_image_that_never_uploads_is_tried_a_bounded_time(bench):
    """However often its tasks come, a run asks a bounded number of times."""
    bench.provider.script = {"place": [Reply(500, "x")] * 1000}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        for _ in range(40):
            if not made.is_ready(one):
                made.prepare(one)
                await bench.until(made, one)
            assert isinstance(await made.values(one), Setback)
            bench.now += 60
    assert bench.provider.asked.count("place") == 3 * 8


async def test_an_upload_that_is_never_ready_times_out(bench):
    bench.provider.statuses = {f"f{number}": [0] for number in range(1, 9)}
    one = task(1, start_frame="a.png")
    async with bench.working(patience=0.05) as made:
        made.prepare(one)
        await bench.until(made, one)
        event = await made.values(one)
    assert isinstance(event, Setback)
    assert "too long" in event.fault.message


async def test_content_that_the_provider_refuses_is_uploaded_once(bench):
    bench.provider.statuses = {"f1": [98]}
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.prepare(one)
        await bench.until(made, one)
        event = await made.values(one)
        bench.now += DAY
        assert await made.values(one) == event
    assert isinstance(event, Refused)
    assert event.fault.reason == "moderation"
    assert bench.provider.asked.count("place") == 1


async def test_a_changed_file_fails_its_task_and_nothing_is_sent(bench):
    bench.contents["a.png"] = b"another"
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.prepare(one)
        await bench.until(made, one)
        event = await made.values(one)
    assert isinstance(event, Refused)
    assert (event.fault.reason, "a.png" in event.fault.message) == ("image", True)
    assert bench.provider.asked == []


async def test_a_bug_is_reported_and_the_other_images_go_on(bench):
    bench.contents["a.png"] = None
    bench.read = lambda path, sha256: {}["bug"] if path == "a.png" else Bench.read(bench, path, sha256)
    bad, good = task(1, start_frame="a.png"), task(2, start_frame="b.png")
    async with bench.working() as made:
        made.prepare(bad)
        made.prepare(good)
        await bench.until(made, bad, good)
        assert isinstance(await made.values(bad), Setback)
        assert isinstance(await made.values(good), dict)
    assert [type(bug) for bug in bench.bugs] == [KeyError]


async def test_nothing_is_uploaded_in_an_outage(bench):
    for _ in range(5):
        bench.session.breaker.record_answer(proper=False)
    one = task(1, start_frame="a.png")
    async with bench.working() as made:
        made.prepare(one)
        await anyio.wait_all_tasks_blocked()
        assert (bench.provider.asked, made.is_ready(one)) == ([], False)
        bench.session.breaker.record_answer(proper=True)
        await bench.until(made, one)


async def test_nothing_is_prepared_after_the_end(bench):
    async with bench.working() as made:
        pass
    assert not made.prepare(task(1, start_frame="a.png"))


async def test_a_bounded_number_of_results_is_kept(bench, monkeypatch):
    monkeypatch.setattr(images, "_KEPT", 1)
    one, two = task(1, start_frame="a.png"), task(2, start_frame="b.png")
    async with bench.working() as made:
        for each in (one, two):
            made.prepare(each)
            await bench.until(made, each)
        assert isinstance(await made.values(one), Setback), "forgotten, so that it is asked for again"
        made.prepare(one)
        await bench.until(made, one)
        assert await made.values(one) == {"start_frame": "https://files.example/1"}
    assert bench.provider.asked.count("place") == 2


# Base64


async def test_base64_is_read_when_the_request_is_sent(bench):
    inline = InlineImages(bench.read, anyio.to_thread.run_sync)
    one = task(1, image="a.png")
    assert inline.is_ready(one)
    assert await image_values(inline, one, "chanjing") == {"image": base64.b64encode(CONTENT["a.png"]).decode()}
    bench.contents["a.png"] = b"another"
    assert isinstance(await image_values(inline, one, "chanjing"), Refused)


async def test_a_provider_that_takes_no_images_is_sent_none(bench):
    event = await image_values(None, task(1, image="a.png"), "chanjing")
    assert isinstance(event, Refused)
    assert event.fault.reason == "image"


def test_a_text_that_looks_like_a_hash_is_no_image():
    one = Task(1, "k", "kling", "image", "m", State.QUEUED, 0.0, request=b'{"prompt": "sha256:%s"}' % (b"a" * 64))
    assert local_images(one) == []
