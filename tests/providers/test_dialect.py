from __future__ import annotations

from urllib.parse import unquote, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.providers.dialect import Dialect
from runner.providers.exchange import Request
from runner.providers.spec import load

CHANJING, KLING, GATEWAY = (Dialect(load(name)) for name in ("chanjing", "kling", "kling-gateway"))
PAGE = "/open/v1/ai_creation/task/page"


def test_chanjing_image_and_video_differ_by_a_constant(task):
    image = task("chanjing", "image", "kling-v2-1", {"ref_prompt": "纸船", "number_of_images": 2})
    assert CHANJING.submit(image) == Request(
        "submit",
        "POST",
        "/open/v1/ai_creation/task/submit",
        "submit",
        {"creation_type": 3, "model_code": "kling-v2-1", "ref_prompt": "纸船", "number_of_images": 2},
    )
    video = task("chanjing", "video", "tx_kling2.5", {"video_duration": 5})
    assert CHANJING.submit(video).body == {"creation_type": 4, "model_code": "tx_kling2.5", "video_duration": 5}


def test_kling_submit_holds_the_reference(task):
    created = task("kling", "image2video", "kling-v2-6", {"image": "https://files.example/1.png", "duration": "5"})
    assert KLING.submit(created) == Request(
        "submit",
        "POST",
        "/v1/videos/image2video",
        "submit",
        {
            "model_name": "kling-v2-6",
            "image": "https://files.example/1.png",
            "duration": "5",
            "external_task_id": "r0-1-g1",
        },
    )


def test_gateway_submit_holds_both_model_fields_only(task):
    """It holds no reference, because gateways keep none."""
    request = GATEWAY.submit(task("kling-gateway", "text2video", "kling-v2-6", {"prompt": "x"}))
    assert request.path == "/kling/v1/videos/text2video"
    assert request.body == {"model_name": "kling-v2-6", "model": "kling-v2-6", "prompt": "x"}


def test_same_task_makes_the_same_request(task):
    created = task("kling")
    assert orjson.dumps(KLING.submit(created).body) == orjson.dumps(KLING.submit(created).body)


def test_query_is_by_remote_id(task):
    assert CHANJING.query(task("chanjing")) == Request(
        "query", "GET", "/open/v1/ai_creation/task?unique_id=u-1", "query"
    )
    assert KLING.query(task(remote_id="9")) == Request("query", "GET", "/v1/images/generations/9", "query")
    asked = GATEWAY.query(task("kling-gateway", "image2video", remote_id="g-a"))
    assert asked == Request("query", "GET", "/kling/v1/videos/image2video/g-a", "query")


def test_batched_query_holds_all_ids(task):
    tasks = [task("chanjing", "video", remote_id=id_) for id_ in ("u-1", "u-2")]
    body = {"page": 1, "page_size": 50, "is_success": False, "type": 4, "unique_ids": ["u-1", "u-2"]}
    assert CHANJING.query_many(tasks) == Request("query", "POST", PAGE, "query", body)
    with pytest.raises(TypeError):
        KLING.query_many([task()])


def test_query_by_reference_only_if_the_provider_keeps_it(task):
    assert KLING.by_reference(task()) == Request("lookup", "GET", "/v1/images/generations/r0-1-g1", "query")
    assert CHANJING.by_reference(task("chanjing")) is None
    assert GATEWAY.by_reference(task("kling-gateway")) is None


def test_list_is_requested_page_by_page():
    body = {"page": 3, "page_size": 50, "is_success": False, "type": 3}
    assert CHANJING.page("image", 3) == Request("lookup", "POST", PAGE, "query", body)
    path = "/v1/videos/text2video?pageNum=2&pageSize=500"
    assert KLING.page("text2video", 2) == Request("lookup", "GET", path, "query")
    assert GATEWAY.page("image", 1) is None


def test_probe_is_free_of_charge():
    for dialect in (CHANJING, KLING, GATEWAY):
        probe = dialect.probe()
        assert probe.phase != "submit"
        assert probe.endpoint == "query"
        assert "submit" not in probe.path


def test_group_is_path_and_constants_of_an_operation():
    """Operations share a list only if they share path and constants."""
    assert CHANJING.group("image") != CHANJING.group("video")
    assert len({KLING.group(name) for name in KLING.spec.operations}) == 3


HOSTILE = [
    "../../account/costs",
    "a/b",
    "a?x=1#y",
    "a b",
    "a%2e%2e",
    "é纸",
    "{path}",
    "{ref}",
    "a&unique_id=b",
    "a\r\nX: y",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_id_is_percent_encoded(task, hostile):
    path = KLING.query(task(remote_id=hostile)).path
    assert unquote(path.removeprefix("/v1/images/generations/")) == hostile
    assert path.count("/") == 4
    assert path.isascii()
    assert not set(path) & set(" ?#\r\n")
    asked = urlsplit(CHANJING.query(task("chanjing", remote_id=hostile)).path)
    assert asked.path == "/open/v1/ai_creation/task"
    assert unquote(asked.query) == f"unique_id={hostile}"
    assert asked.query.count("&") == asked.query.count("#") == 0
    assert KLING.by_reference(task(ref=hostile)).path.count("/") == 4


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_id_is_percent_encoded(hostile):
    path = Dialect._fill("{path}/{id}", KLING.spec.operations["image"], id=hostile)
    head, _, tail = path.rpartition("/")
    assert head == "/v1/images/generations"
    assert unquote(tail) == hostile
