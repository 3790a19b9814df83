"""The evidence table of reliability.md section 7, exhaustively: status x code x phase."""

from __future__ import annotations

import itertools
import math

import pytest

from runner.lifecycle.events import Accepted, Blocked, Interrupted, Pending, Refused, Setback
from runner.providers.evidence import clean, judge, remote_id, retry_after, server_time
from runner.providers.exchange import Reply
from runner.providers.reading import read_query, read_submit
from runner.providers.spec import load

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

#: the only business codes that settle a submit, by what they settle it to; everything else is a doubt
DEFINITE = {
    "chanjing": {
        10400: Blocked, 10401: Blocked, 40000: Refused, 40001: Setback, 40002: Blocked, 50011: Refused,
    },
    "kling": {
        **dict.fromkeys((1000, 1001, 1002, 1003, 1004, 1100, 1101, 1102, 1103, 1304), Blocked),
        **dict.fromkeys((1200, 1201, 1202, 1203, 1300, 1301), Refused),
        **dict.fromkeys((1302, 1303), Setback),
    },
}  # fmt: skip


def body(code, text):
    return {"code": code, "msg": text, "message": text, "data": None}


def whole(code):
    """A number that is one: in JSON neither true nor 0.5 is a code."""
    return code if isinstance(code, int) and not isinstance(code, bool) else None


@pytest.mark.parametrize("provider", ["chanjing", "kling"])
def test_only_listed_codes_settle_a_submit_and_no_status_alone_does(provider):
    spec = load(provider)
    for status, code, text in itertools.product(STATUSES, CODES, TEXTS):
        event = read_submit(spec, Reply(status, body(code, text)))
        unclear = status >= 500 or 300 <= status < 400  # it may have gone through, whatever the body says
        expected = Interrupted if unclear else DEFINITE[provider].get(whole(code), Interrupted)
        if provider == "chanjing" and not unclear and whole(code) in {400, 40000, 50000}:
            expected = {"余额不足": Blocked, "审核": Refused, "模型不存在": Refused}.get(text, expected)
        assert type(event) is expected, (status, code, text, event)


@pytest.mark.parametrize("provider", ["chanjing", "kling", "kling-gateway"])
def test_no_answer_without_a_good_id_is_an_acceptance_and_no_5xx_settles_anything(provider):
    spec = load(provider)
    ids = (None, "", " ", "a b", "x" * 129, "../x", "x\n", True, 1.5, [], {}, ["x"])
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
def test_a_good_id_is_taken_on_every_2xx_and_on_nothing_else(provider, good):
    spec = load(provider)
    data = good if provider == "chanjing" else {"task_id": good}
    for status in (*STATUSES, 202, 206, 299):
        event = read_submit(spec, Reply(status, {"code": 0, "data": data}))
        assert isinstance(event, Accepted) is (200 <= status < 300), (status, event)


def test_behind_a_gateway_nothing_wrapped_in_text_settles_a_429():
    spec = load("kling-gateway")
    for code in CODES:
        wrapped = {"code": "fail_to_fetch_task", "message": f'{{"code": {code if whole(code) else 0}}}', "data": None}
        assert type(read_submit(spec, Reply(429, wrapped))) is Interrupted, code


@pytest.mark.parametrize("text", ["busy", '{"code": 1302}', '{"code": 5000}', "{", "null", "[]", '{"code": "1301"}'])
@pytest.mark.parametrize("status", [400, 408, 409, 422, 425, 499])
def test_behind_a_gateway_an_unlisted_4xx_is_a_doubt(status, text):
    answer = {"code": "fail_to_fetch_task", "message": text, "data": None}
    assert type(read_submit(load("kling-gateway"), Reply(status, answer))) is Interrupted


@pytest.mark.parametrize("provider", ["chanjing", "kling", "kling-gateway"])
def test_no_answer_to_a_question_ever_fails_a_task_or_is_in_doubt(provider):
    """Only a task's own object says that it failed."""
    spec = load(provider)
    for status, code, text in itertools.product(STATUSES, CODES, TEXTS):
        event = read_query(spec, Reply(status, body(code, text)))
        assert not isinstance(event, Refused | Interrupted | Accepted), (status, code, text, event)
        if provider == "kling-gateway" and status == 200 and code is not False and code in (0, "success"):
            assert event == Pending(strange=True), (
                "a good envelope around nothing: still running, as far as anyone knows"
            )
        else:
            assert isinstance(event, Setback | Blocked), (status, code, text, event)


@pytest.mark.parametrize("provider", ["chanjing", "kling", "kling-gateway"])
@pytest.mark.parametrize("phase", ["submit", "query"])
def test_every_verdict_says_why(provider, phase):
    for status, code in itertools.product(STATUSES, CODES):
        verdict = judge(load(provider), Reply(status, body(code, "m")), phase)
        assert verdict.fault.code
        assert verdict.fault.message


# parts


@pytest.mark.parametrize("good", ["a", "9", "A.b:c_d-9", "x" * 128, 7, 910000000000000001, 0])
def test_what_an_id_is(good):
    assert remote_id(good) == str(good)


@pytest.mark.parametrize(
    "bad",
    [None, True, False, "", " a", "a ", "a/b", "a?b", "a\n", "ä", "x" * 129, 1.0, [], {}, b"a", 10**128, "\ud800"],
)
def test_what_no_id_is(bad):
    assert remote_id(bad) is None


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
def test_only_plain_seconds_are_believed_and_within_bounds(text, seconds):
    assert retry_after(Reply(429, None, {"retry-after": text})) == seconds


def test_a_date_counts_from_the_servers_own_clock_or_not_at_all():
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
def test_the_servers_clock_is_believed_only_where_it_says_a_time(text, seconds):
    assert server_time(Reply(200, None, {"date": text})) == seconds
    assert server_time(Reply(200, None)) is None


HOSTILE_TEXTS = ("a\x1b[31mb\u202ec\x00", "\ud800" * 900, "x" * 10_000, 10**5000, [[["x"]]], math.inf, None)


@pytest.mark.parametrize("value", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_text_from_the_other_side_is_fit_for_a_database_and_a_terminal(value):
    text = clean(value)
    assert len(text) <= 500
    assert text.isprintable()
    assert text.encode("utf-8")
