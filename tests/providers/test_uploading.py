"""Build the requests of an upload and read any response to them."""

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
UPLOAD = SPEC.upload
IMAGE = Picture("jpeg", 640, 480, 1000, "ab" * 32)
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


def test_uploaded_file_is_named_after_its_content():
    request = ask_place(UPLOAD, IMAGE)
    assert (request.method, request.endpoint, request.body) == ("GET", "upload", None)
    assert request.path == f"/open/v1/common/create_upload_url?service=ai_creation&name={'ab' * 16}.jpg"


def test_file_id_is_percent_encoded():
    assert ask_ready(UPLOAD, "a/../b?x=1").path == "/open/v1/common/file_detail?id=a%2F..%2Fb%3Fx%3D1"


def test_target_is_read_and_its_signed_url_never_shown():
    target = read_place(SPEC, UPLOAD, reply(DATA | {"file_id": "f1"}))
    assert target == Place("f1", DATA["sign_url"], "image/jpeg", DATA["full_path"])
    assert "s3cr3t" not in repr(target)


def test_only_storage_headers_are_sent():
    given_ = {"x-oss-acl": "private", "Authorization": "k", "Host": "h", "x-bad": "a\r\nb", "X-Amz-Date": "1", "x-n": 5}
    target = read_place(SPEC, UPLOAD, reply(DATA | {"file_id": 17, "headers": given_}))
    assert (target.file_id, target.headers) == ("17", {"x-oss-acl": "private", "x-amz-date": "1"})


@pytest.mark.parametrize(
    "answer",
    [
        reply(None),
        reply(DATA),  # an id with a space
        reply({name: value for name, value in DATA.items() if name != "mime_type"}),
        reply(DATA | {"file_id": "f1", "mime_type": "image/jpeg\r\nx: y"}),
        reply(DATA | {"file_id": True}),
        reply(DATA, code=50000),
        Reply(502, "<html>"),
        NoAnswer("cut"),
        NotSent("refused"),
    ],
)
def test_response_without_a_target_is_retryable(answer):
    assert isinstance(read_place(SPEC, UPLOAD, answer), Setback)


def test_throttling_and_expired_token_are_recognized():
    assert read_place(SPEC, UPLOAD, reply(None, code=40001)).kind == "throttled"
    assert isinstance(read_place(SPEC, UPLOAD, reply(None, code=10400)), Blocked)


@pytest.mark.parametrize(("status", "expected"), [(1, "ready"), (0, "pending")])
def test_file_is_ready_or_pending(status, expected):
    assert read_ready(SPEC, UPLOAD, reply({"status": status})) == expected


def test_rejected_content_is_final_and_deleted_is_not():
    rejected = read_ready(SPEC, UPLOAD, reply({"status": 98}))
    assert isinstance(rejected, Fault)
    assert rejected.reason == "moderation"
    for answer in (
        reply({"status": 99}),
        reply({"status": 100}),
        reply(None),
        reply({}),
        Reply(500, "x"),
        NoAnswer("x"),
    ):
        assert isinstance(read_ready(SPEC, UPLOAD, answer), Setback)


@given(JSON, st.sampled_from([200, 403, 500]))
def test_no_response_raises(body, status):
    for answer in (Reply(status, body), reply(body, status=status)):
        assert isinstance(read_place(SPEC, UPLOAD, answer), Place | Setback | Blocked)
        assert isinstance(read_ready(SPEC, UPLOAD, answer), str | Fault | Setback | Blocked)
