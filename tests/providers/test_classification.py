"""Classify every combination of status, code and phase."""

from __future__ import annotations

import itertools
import math

import pytest

from runner.providers.requests import Reply
from runner.providers.responses import (
    classify_response,
    read_query,
    read_submit,
    retry_after,
    sanitize_reply,
    server_time,
)
from runner.providers.spec import load
from runner.tasks.events import Accepted, AccountBlocked, Interrupted, Pending, Rejected, RetryableFailure
from runner.tasks.remote_ids import parse_remote_id

STATUSES = (
    200,
    201,
    301,
    302,
    307,
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    422,
    425,
    429,
    499,
    500,
    502,
    503,
    504,
    524,
    599,
)
CODES = (
    0, 1, 400, 10400, 10401, 40000, 40001, 40002, 50000, 50011, 51000,
    1000, 1001, 1002, 1003, 1004, 1100, 1101, 1102, 1103, 1200, 1201, 1202, 1203,
    1300, 1301, 1302, 1303, 1304, 1999, 5000, 5001, 5002, -1, 10**30,
    None, "", "0", "1302", "success", "task_failed", "quota_not_enough", "fail_to_fetch_task", True, False, 0.5, [], {},
)  # fmt: skip
TEXTS = ("", "internal", "审核", "余额不足", "模型不存在", '{"code": 1301}', '{"code": 1102}', '{"code": 1200}')

#: the only business codes that settle a submit, with the event of each; every other code is a doubt
DEFINITE = {
    "chanjing": {
        10400: AccountBlocked, 10401: AccountBlocked, 40000: Rejected, 40001: RetryableFailure,
        40002: AccountBlocked, 50011: Rejected,
    },
    "kling": {
        **dict.fromkeys((1000, 1001, 1002, 1003, 1004, 1100, 1101, 1102, 1103, 1304), AccountBlocked),
        **dict.fromkeys((1200, 1201, 1202, 1203, 1300, 1301), Rejected),
        **dict.fromkeys((1302, 1303), RetryableFailure),
    },
}  # fmt: skip


def body(code, text):
    return {"code": code, "msg": text, "message": text, "data": None}


def whole(code):
    """Return the code if it is a whole number: in JSON neither true nor 0.5 is a code."""
    return code if isinstance(code, int) and not isinstance(code, bool) else None


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["chanjing", "kling"])
def test_only_listed_codes_settle_a_submit(provider):
    """No HTTP status alone settles a submit."""
    spec = load(provider)
    for status, code, text in itertools.product(STATUSES, CODES, TEXTS):
        event = read_submit(spec, Reply(status, body(code, text)))
        unclear = status >= 500 or 300 <= status < 400  # the request may have been processed, whatever the body says
        expected = Interrupted if unclear else DEFINITE[provider].get(whole(code), Interrupted)
        if provider == "chanjing" and not unclear and whole(code) in {400, 40000, 50000}:
            expected = {"余额不足": AccountBlocked, "审核": Rejected, "模型不存在": Rejected}.get(text, expected)
        assert type(event) is expected, (status, code, text, event)


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["chanjing", "kling", "kling-gateway"])
def test_no_acceptance_without_a_usable_id(provider):
    """A 5xx settles nothing, whatever its body says."""
    spec = load(provider)
    ids = (None, "", " ", "..", "../x", "x" * 1025, "a\0b", "\n", True, 1.5, [], {}, ["x"])
    for status, code, bad in itertools.product(STATUSES, CODES, ids):
        for answer in (
            {"code": code, "data": bad},
            {"code": code, "data": {"task_id": bad}, "task_id": bad, "id": bad},
        ):
            event = read_submit(spec, Reply(status, answer))
            assert not isinstance(event, Accepted), (status, answer)
            assert status < 300 or 400 <= status < 500 or isinstance(event, Interrupted), (status, answer, event)


@pytest.mark.parametrize("provider", ["chanjing", "kling", "kling-gateway"])
@pytest.mark.parametrize("good", ["u-1", "A.b:c_d-9", "9" * 18, "x" * 128])
def test_usable_id_is_accepted_on_2xx_only(provider, good):
    spec = load(provider)
    data = good if provider == "chanjing" else {"task_id": good}
    for status in (*STATUSES, 202, 206, 299):
        event = read_submit(spec, Reply(status, {"code": 0, "data": data}))
        assert isinstance(event, Accepted) is (200 <= status < 300), (status, event)


def test_wrapped_code_of_a_gateway_settles_no_429():
    spec = load("kling-gateway")
    for code in CODES:
        wrapped = {"code": "fail_to_fetch_task", "message": f'{{"code": {code if whole(code) else 0}}}', "data": None}
        assert type(read_submit(spec, Reply(429, wrapped))) is Interrupted, code


@pytest.mark.parametrize("text", ["busy", '{"code": 1302}', '{"code": 5000}', "{", "null", "[]", '{"code": "1301"}'])
@pytest.mark.parametrize("status", [400, 408, 409, 422, 425, 499])
def test_unlisted_4xx_of_a_gateway_is_a_doubt(status, text):
    answer = {"code": "fail_to_fetch_task", "message": text, "data": None}
    assert type(read_submit(load("kling-gateway"), Reply(status, answer))) is Interrupted


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["chanjing", "kling", "kling-gateway"])
def test_query_response_never_fails_or_doubts_a_task(provider):
    """Only the task object itself can report a failure."""
    spec = load(provider)
    for status, code, text in itertools.product(STATUSES, CODES, TEXTS):
        event = read_query(spec, Reply(status, body(code, text)))
        assert not isinstance(event, Rejected | Interrupted | Accepted), (status, code, text, event)
        if provider == "kling-gateway" and status == 200 and code is not False and code in (0, "success"):
            assert event == Pending(unknown_state=True), "a successful envelope without a task object counts as running"
        else:
            assert isinstance(event, RetryableFailure | AccountBlocked), (status, code, text, event)


@pytest.mark.parametrize("provider", ["chanjing", "kling", "kling-gateway"])
@pytest.mark.parametrize("phase", ["submit", "query"])
def test_every_classification_has_code_and_message(provider, phase):
    for status, code in itertools.product(STATUSES, CODES):
        classification = classify_response(load(provider), Reply(status, body(code, "m")), phase)
        assert classification.error.code
        assert classification.error.message


# parts of a response


@pytest.mark.parametrize(
    "good", ["a", "9", "A.b:c_d-9", "x" * 1024, 7, 910000000000000001, 10**40, 0, " a", "a/b", "a?b%2F", "a\n", "纸船"]
)
def test_usable_ids(good):
    assert parse_remote_id(good) == str(good)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        True,
        False,
        "",
        " ",
        "\n",
        ".",
        "..",
        "a/../b",
        "a\\..",
        "a\0b",
        "x" * 1025,
        "纸" * 342,
        1.0,
        [],
        {},
        b"a",
        10**128,
        "\ud800",
    ],
)
def test_unusable_ids(bad):
    assert parse_remote_id(bad) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20", 20.0),
        ("0", 0.5),
        ("999999", 900.0),
        ("1.5", None),
        ("-1", None),
        ("", None),
        ("٣", None),
        ("1234567", None),
    ],
)
def test_retry_after_takes_plain_seconds_within_bounds(text, seconds):
    assert retry_after(Reply(429, None, {"retry-after": text})) == seconds


def test_retry_after_date_counts_from_the_servers_clock():
    until = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert retry_after(Reply(429, None, {"retry-after": until})) is None
    assert retry_after(Reply(429, None, {"retry-after": until, "date": "Sun, 06 Nov 1994 08:49:07 GMT"})) == 30.0
    assert retry_after(Reply(429, None)) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),
        ("", None),
        ("soon", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 +999999", None),
        ("9" * 5000, None),
        ("\ud800", None),
    ],
    ids=range(7),
)
def test_server_time_needs_a_valid_date(text, seconds):
    assert server_time(Reply(200, None, {"date": text})) == seconds
    assert server_time(Reply(200, None)) is None


HOSTILE_TEXTS = ("a\x1b[31mb\u202ec\x00", "\ud800" * 900, "x" * 10_000, 10**5000, [[["x"]]], math.inf, None)


@pytest.mark.parametrize("value", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_sanitized_text_fits_database_and_terminal(value):
    text = sanitize_reply(value)
    assert len(text) <= 500
    assert text.isprintable()
    assert text.encode("utf-8")
