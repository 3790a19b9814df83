"""Notifications of a monitor over HTTP and through Apprise."""

import asyncio
import json
import logging
import sys
import time
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest

from runner.errors import ConfigError
from runner.net.transport import tls_context
from runner.net.webhooks import AppriseTarget, Monitor, Notification, clip

RID = "0b0e0b0e-0b0e-4b0e-8b0e-0b0e0b0e0b0e"
BEGINS = Notification(None, "job: a run begins", "")
ENDED = Notification(3, "job: exit 3", "2 done, 1 failed")


def monitor(url: str, **options) -> Monitor:
    return Monitor(url, RID, pauses=(0.0, 0.0), **options)


def in_turn(*raws):
    """Return an `act` that sends the answers in order, and repeats the last one."""
    remaining = list(raws)

    async def act(_wire, _seen, writer):
        writer.write(remaining.pop(0) if len(remaining) > 1 else remaining[0])
        await writer.drain()

    return act


async def test_start_and_end_follow_the_healthchecks_protocol(wires):
    async with wires.Wire(wires.always(wires.answer("OK"))) as wire:
        recipient = monitor(f"{wire.url}/ping/uuid-1")
        assert await recipient.notify(BEGINS) is None
        assert await recipient.notify(ENDED) is None
    start, end = wire.seen
    assert (start.method, start.path, start.body) == ("GET", f"/ping/uuid-1/start?rid={RID}", b"")
    assert (end.method, end.path) == ("POST", f"/ping/uuid-1/3?rid={RID}")
    assert end.body == b"job: exit 3\n2 done, 1 failed"
    assert end.headers["user-agent"].startswith("genrunner/")


@pytest.mark.parametrize("end", ["", "/"])
async def test_query_stays_after_the_added_path(wires, end):
    async with wires.Wire(wires.always(wires.answer())) as wire:
        assert await monitor(f"{wire.url}/key/slug{end}?create=1").notify(ENDED) is None
    parts = urlsplit(wire.seen[0].path)
    assert (parts.path, parse_qs(parts.query)) == ("/key/slug/3", {"create": ["1"], "rid": [RID]})


@pytest.mark.parametrize(
    ("status", "asked", "why"),
    [(200, 1, None), (204, 1, None), (301, 1, "301"), (404, 1, "404"), (429, 3, "429"), (500, 3, "500")],
)
async def test_only_transient_failures_are_retried(wires, status, asked, why):
    async with wires.Wire(wires.always(wires.answer(status=status, location="http://127.0.0.1:9/"))) as wire:
        reason = await monitor(wire.url).notify(ENDED)
    assert reason == (why and f"HTTP {why}")
    assert len(wire.seen) == asked


async def test_second_attempt_succeeds(wires):
    async with wires.Wire(in_turn(wires.answer(status=503), wires.answer())) as wire:
        assert await monitor(wire.url).notify(ENDED) is None
    assert len(wire.seen) == 2


async def test_hanging_monitor_ends_at_the_deadline(wires):
    async def hang(_wire, _seen, _writer):
        await asyncio.sleep(60)

    async with wires.Wire(hang) as wire:
        began = time.monotonic()
        assert await monitor(wire.url, deadline=0.1).notify(ENDED) == "no answer within 0.1 s"
        assert time.monotonic() - began < 5
        assert len(wire.seen) == 3


async def test_unreachable_monitor_raises_nothing_and_stays_secret(closed_port):
    reason = await monitor(f"http://127.0.0.1:{closed_port}/secret-uuid").notify(ENDED)
    assert "ConnectError" in reason
    assert "secret-uuid" not in reason
    assert "secret-uuid" not in repr(monitor("https://example.com/secret-uuid"))


async def test_wrong_certificate_is_not_retried(wires, self_signed):
    server, certificate = self_signed
    async with wires.Wire(wires.always(wires.answer()), tls=server) as wire:
        with anyio.fail_after(20):  # another attempt would come after a minute
            assert "certificate" in await Monitor(wire.url, RID, pauses=(60.0,)).notify(ENDED)
        assert await monitor(wire.url, context=tls_context(certificate)).notify(ENDED) is None
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
def test_invalid_address_is_rejected_without_quoting_it(url):
    with pytest.raises(ConfigError) as caught:
        Monitor(url, RID)
    assert "notify.url cannot be used" in str(caught.value)
    assert "secret-uuid" not in str(caught.value)


def test_body_is_cut_between_characters():
    assert clip("猫" * 1000).decode() == "猫" * 333
    assert clip("a\udc80b") == b"a?b"


# targets of Apprise


def test_missing_apprise_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError, match=r"genrunner\[notify\]") as caught:
        Monitor("tgram://secret-token/1", RID)
    assert "secret-token" not in str(caught.value)


async def test_apprise_delivers(wires):
    async with wires.Wire(wires.always(wires.answer())) as wire:
        assert await monitor(wire.url.replace("http", "json")).notify(ENDED) is None
    sent = json.loads(wire.seen[0].body)
    assert (sent["title"], sent["message"]) == (ENDED.title, ENDED.body)


async def test_failing_target_is_not_logged(wires, caplog):
    caplog.set_level(logging.DEBUG)
    async with wires.Wire(wires.always(wires.answer(status=500))) as wire:
        recipient = monitor(wire.url.replace("http://", "json://user:secret-pw@"))
        assert await recipient.notify(ENDED) == "Apprise could not deliver it"
        assert len(wire.seen) == 3
    assert "secret-pw" not in caplog.text


@pytest.mark.slow
async def test_hanging_target_does_not_keep_the_process(wires):
    """The process ends although the thread of the notification still waits; tested in a subprocess."""
    code = """if True:
        import sys, anyio
        from runner.net.webhooks import Monitor, Notification
        monitor = Monitor(sys.argv[1], "rid", deadline=0.2, pauses=(0.0,))
        print(anyio.run(monitor.notify, Notification(3, "t", "b")))
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
        redirect = wires.always(wires.answer(status=307, location=other.url))
        async with wires.Wire(redirect) as wire:
            assert await monitor(wire.url.replace("http", "json")).notify(ENDED) is not None
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
def test_invalid_target_is_rejected_without_quoting_it(url, why, capfd):
    with pytest.raises(ConfigError, match=why) as caught:
        Monitor(url, RID)
    assert "secret-uuid" not in str(caught.value) + "".join(capfd.readouterr())


@pytest.mark.parametrize("url", ["jsons://hc.example/1", "mailtos://me:pw@example.com", "json://127.0.0.1:1/1"])
def test_safe_target_is_accepted(url):
    assert repr(Monitor(url, RID)) == f"Monitor({AppriseTarget.__name__})"
