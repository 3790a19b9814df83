"""The questions of an upload: what is asked, and what any answer means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.lifecycle.events import Blocked, Setback
from runner.lifecycle.task import Fault
from runner.providers.exchange import NoAnswer, NotSent, Reply
from runner.providers.pictures import Picture
from runner.providers.spec import load
from runner.providers.uploading import Place, ask_place, ask_ready, read_place, read_ready

SPEC = load("chanjing")
WORDS = SPEC.upload
PICTURE = Picture("jpeg", 640, 480, 1000, "ab" * 32)
DATA = {
    "sign_url": "https://oss.example/k?Signature=s3cr3t",
    "full_path": "https://files.example/k.jpg",
    "key": "k",
    "mime_type": "image/jpeg",
    "file_id": "f 1/..",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from([*DATA, "status", "code", "data"]), each),
    max_leaves=6,
)


def reply(data, code=0, status=200):
    return Reply(status, {"trace_id": "t", "code": code, "msg": "m", "data": data})


def test_a_file_is_named_after_its_content_and_nothing_else():
    request = ask_place(WORDS, PICTURE)
    assert (request.method, request.endpoint, request.body) == ("GET", "upload", None)
    assert request.path == f"/open/v1/common/create_upload_url?service=ai_creation&name={'ab' * 16}.jpg"


def test_an_id_from_outside_is_quoted():
    assert ask_ready(WORDS, "a/../b?x=1").path == "/open/v1/common/file_detail?id=a%2F..%2Fb%3Fx%3D1"


def test_the_place_is_read_and_its_address_never_shown():
    place = read_place(SPEC, WORDS, reply(DATA | {"file_id": "f1"}))
    assert place == Place("f1", DATA["sign_url"], "image/jpeg", DATA["full_path"])
    assert "s3cr3t" not in repr(place)


def test_of_the_headers_only_the_storage_s_own_are_sent():
    given_ = {"x-oss-acl": "private", "Authorization": "k", "Host": "h", "x-bad": "a\r\nb", "X-Amz-Date": "1", "x-n": 5}
    place = read_place(SPEC, WORDS, reply(DATA | {"file_id": 17, "headers": given_}))
    assert (place.file_id, place.headers) == ("17", {"x-oss-acl": "private", "x-amz-date": "1"})


@pytest.mark.parametrize(
    "answer",
    [
        reply(None),
        reply(DATA),  # an id with a blank
        reply({name: value for name, value in DATA.items() if name != "mime_type"}),
        reply(DATA | {"file_id": "f1", "mime_type": "image/jpeg\r\nx: y"}),
        reply(DATA | {"file_id": True}),
        reply(DATA, code=50000),
        Reply(502, "<html>"),
        NoAnswer("cut"),
        NotSent("refused"),
    ],
)
def test_without_a_place_it_is_a_setback(answer):
    assert isinstance(read_place(SPEC, WORDS, answer), Setback)


def test_too_fast_and_a_dead_token_are_what_they_are_elsewhere():
    assert read_place(SPEC, WORDS, reply(None, code=40001)).kind == "throttled"
    assert isinstance(read_place(SPEC, WORDS, reply(None, code=10400)), Blocked)


@pytest.mark.parametrize(("status", "said"), [(1, "ready"), (0, "pending")])
def test_a_file_is_ready_or_pending(status, said):
    assert read_ready(SPEC, WORDS, reply({"status": status})) == said


def test_refused_content_is_final_and_what_is_gone_is_not():
    refused = read_ready(SPEC, WORDS, reply({"status": 98}))
    assert isinstance(refused, Fault)
    assert refused.reason == "moderation"
    for answer in (
        reply({"status": 99}),
        reply({"status": 100}),
        reply(None),
        reply({}),
        Reply(500, "x"),
        NoAnswer("x"),
    ):
        assert isinstance(read_ready(SPEC, WORDS, answer), Setback)


@given(JSON, st.sampled_from([200, 403, 500]))
def test_no_answer_raises(body, status):
    for answer in (Reply(status, body), reply(body, status=status)):
        assert isinstance(read_place(SPEC, WORDS, answer), Place | Setback | Blocked)
        assert isinstance(read_ready(SPEC, WORDS, answer), str | Fault | Setback | Blocked)
