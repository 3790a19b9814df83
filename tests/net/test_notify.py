import asyncio
import json
import logging
import sys
import time
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest

from runner.errors import ConfigError
from runner.net.notify import Monitor, Notice
from runner.net.targets import clipped
from runner.net.transport import tls_context

RID = "0b0e0b0e-0b0e-4b0e-8b0e-0b0e0b0e0b0e"
BEGINS = Notice(None, "job: a run begins", "")
ENDED = Notice(3, "job: exit 3", "2 done, 1 failed")


def monitor(url: str, **options) -> Monitor:
    return Monitor(url, RID, pauses=(0.0, 0.0), **options)


def in_turn(*raws):
    """Answers one after the other, the last one for ever."""
    left = list(raws)

    async def act(_wire, _seen, writer):
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    return act


async def test_a_start_and_an_end_are_told_as_healthchecks_wants_it(wires):
    async with wires.Wire(wires.always(wires.answer("OK"))) as wire:
        place = monitor(f"{wire.url}/ping/uuid-1")
        assert await place.tell(BEGINS) is None
        assert await place.tell(ENDED) is None
    start, end = wire.seen
    assert (start.method, start.path, start.body) == ("GET", f"/ping/uuid-1/start?rid={RID}", b"")
    assert (end.method, end.path) == ("POST", f"/ping/uuid-1/3?rid={RID}")
    assert end.body == b"job: exit 3\n2 done, 1 failed"
    assert end.headers["user-agent"].startswith("genrunner/")


@pytest.mark.parametrize("end", ["", "/"])
async def test_a_query_stays_behind_what_is_added(wires, end):
    async with wires.Wire(wires.always(wires.answer())) as wire:
        assert await monitor(f"{wire.url}/key/slug{end}?create=1").tell(ENDED) is None
    parts = urlsplit(wire.seen[0].path)
    assert (parts.path, parse_qs(parts.query)) == ("/key/slug/3", {"create": ["1"], "rid": [RID]})


@pytest.mark.parametrize(
    ("status", "asked", "why"),
    [(200, 1, None), (204, 1, None), (301, 1, "301"), (404, 1, "404"), (429, 3, "429"), (500, 3, "500")],
)
async def test_three_tries_where_another_may_help_and_no_redirect(wires, status, asked, why):
    async with wires.Wire(wires.always(wires.answer(status=status, location="http://127.0.0.1:9/"))) as wire:
        told = await monitor(wire.url).tell(ENDED)
    assert told == (why and f"HTTP {why}")
    assert len(wire.seen) == asked


async def test_a_second_try_is_enough(wires):
    async with wires.Wire(in_turn(wires.answer(status=503), wires.answer())) as wire:
        assert await monitor(wire.url).tell(ENDED) is None
    assert len(wire.seen) == 2


async def test_a_monitor_that_hangs_is_left_after_its_time(wires):
    async def hang(_wire, _seen, _writer):
        await asyncio.sleep(60)

    async with wires.Wire(hang) as wire:
        began = time.monotonic()
        assert await monitor(wire.url, deadline=0.1).tell(ENDED) == "no answer within 0.1 s"
        assert time.monotonic() - began < 5
        assert len(wire.seen) == 3


async def test_a_monitor_that_is_away_is_no_reason_to_raise_and_its_address_stays_secret(closed_port):
    told = await monitor(f"http://127.0.0.1:{closed_port}/secret-uuid").tell(ENDED)
    assert "ConnectError" in told
    assert "secret-uuid" not in told
    assert "secret-uuid" not in repr(monitor("https://example.com/secret-uuid"))


async def test_https_is_verified_and_a_wrong_certificate_is_not_tried_again(wires, self_signed):
    server, certificate = self_signed
    async with wires.Wire(wires.always(wires.answer()), tls=server) as wire:
        with anyio.fail_after(20):  # a further try would come after a minute
            assert "certificate" in await Monitor(wire.url, RID, pauses=(60.0,)).tell(ENDED)
        assert await monitor(wire.url, context=tls_context(certificate)).tell(ENDED) is None
    assert len(wire.seen) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://hc.example/secret-uuid",
        "https://user:pw@hc.example/secret-uuid",
        "https://hc.example/secret-uuid#x",
        "https:///secret-uuid",
        "https://hc.example/secret-uuid\nHost: elsewhere",
        "https://hc.example/1?key=secret-uuid\nHost: elsewhere",
        "https://hc.example/1?key=secret-uuid#x",
        "https://hc.example/secret-uuid\udc80",
    ],
)
def test_an_address_of_no_use_is_refused_before_anything_is_sent_and_not_repeated(url):
    with pytest.raises(ConfigError) as caught:
        Monitor(url, RID)
    assert "notify.url cannot be used" in str(caught.value)
    assert "secret-uuid" not in str(caught.value)


def test_a_body_is_cut_between_characters():
    assert clipped("猫" * 1000).decode() == "猫" * 333
    assert clipped("a\udc80b") == b"a?b"


# targets of Apprise


def test_without_apprise_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError, match=r"genrunner\[notify\]") as caught:
        Monitor("tgram://secret-token/1", RID)
    assert "secret-token" not in str(caught.value)


async def test_apprise_delivers(wires):
    async with wires.Wire(wires.always(wires.answer())) as wire:
        assert await monitor(wire.url.replace("http", "json")).tell(ENDED) is None
    told = json.loads(wire.seen[0].body)
    assert (told["title"], told["message"]) == (ENDED.title, ENDED.body)


async def test_apprise_says_nothing_of_a_target_that_fails(wires, caplog):
    caplog.set_level(logging.DEBUG)
    async with wires.Wire(wires.always(wires.answer(status=500))) as wire:
        place = monitor(wire.url.replace("http://", "json://user:secret-pw@"))
        assert await place.tell(ENDED) == "Apprise could not deliver it"
        assert len(wire.seen) == 3
    assert "secret-pw" not in caplog.text


async def test_a_target_that_hangs_is_left_behind_and_the_process_ends(wires):
    """In a process of its own: the end of one waits for threads that are not told apart."""
    code = """if True:
        import sys, anyio
        from runner.net.notify import Monitor, Notice
        place = Monitor(sys.argv[1], "rid", deadline=0.2, pauses=(0.0,))
        print(anyio.run(place.tell, Notice(3, "t", "b")))
    """

    async def hang(_wire, _seen, _writer):
        await asyncio.sleep(60)

    async with wires.Wire(hang) as wire:
        url = f"{wire.url.replace('http', 'json')}/?rto=60"
        with anyio.fail_after(30):
            done = await anyio.run_process([sys.executable, "-c", code, url])
    assert done.stdout.decode() == "no answer within 0.2 s\n"
    assert done.stderr == b""


async def test_apprise_follows_no_redirect(wires):
    async with wires.Wire(wires.always(wires.answer())) as other:
        there = wires.always(wires.answer(status=307, location=other.url))
        async with wires.Wire(there) as wire:
            assert await monitor(wire.url.replace("http", "json")).tell(ENDED) is not None
    assert other.seen == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("json://hc.example/secret-uuid", "plain text"),
        ("mailto://me:secret-uuid@hc.example", "plain text"),
        ("nonsense://secret-uuid", "does not know"),
        ("secret-uuid", "does not know"),
        ("tgram://secret-uuid", "does not know"),
    ],
)
def test_a_target_of_no_use_is_refused_and_not_repeated(url, why, capfd):
    with pytest.raises(ConfigError, match=why) as caught:
        Monitor(url, RID)
    assert "secret-uuid" not in str(caught.value) + "".join(capfd.readouterr())


@pytest.mark.parametrize("url", ["jsons://hc.example/1", "mailtos://me:pw@example.com", "json://127.0.0.1:1/1"])
def test_a_safe_target_is_taken(url):
    assert repr(Monitor(url, RID)) == "Monitor(Target)"
