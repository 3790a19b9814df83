"""What a row of a list proves about a request, and what it does not."""

import pytest

from runner.providers import spec
from runner.providers.responses import ListedTask
from runner.scheduler.row_match import match

CHANJING = spec.load("chanjing")
BODY = {"creation_type": 3, "model_code": "kling-v2", "ref_prompt": "boat", "aspect_ratio": "1:1"}
KNOWN = {"creation_type": True, "model_code": True, "ref_prompt": True, "aspect_ratio": True}


def row(**shown) -> ListedTask:
    photo = {"ref_prompt": "boat", "aspect_ratio": "1:1", **shown}
    return ListedTask("u-1", None, 0.0, {"model_code": "kling-v2", "type": 3, "photo_info": photo}, {})


@pytest.mark.parametrize(
    ("shown", "trusted", "expected"),
    [
        ({}, {}, "match"),
        ({}, KNOWN, "match"),
        ({"ref_prompt": "house"}, KNOWN, "none"),
        ({"ref_prompt": "house"}, {}, "none"),
        ({"aspect_ratio": "9:16"}, KNOWN, "none"),
        ({"aspect_ratio": "9:16"}, {"ref_prompt": True}, "possible"),
        ({"aspect_ratio": "9:16"}, {**KNOWN, "aspect_ratio": False}, "match"),
        # somebody else's, with a picture that this request does not have
        ({"ref_img_url": ["https://files.example/1.png"]}, KNOWN, "possible"),
        ({"ref_img_url": ["https://files.example/1.png"]}, {**KNOWN, "without ref_img_url": True}, "none"),
        # a list that shows some value for requests without a picture, too
        ({"ref_img_url": ["https://files.example/1.png"]}, {**KNOWN, "without ref_img_url": False}, "match"),
        ({"ref_img_url": []}, KNOWN, "match"),
    ],
)
def test_only_fields_known_to_come_back_distinguish_requests(shown, trusted, expected):
    assert match(CHANJING, BODY, row(**shown), trusted, ambiguous=False) == expected


def test_requests_the_list_shows_alike_are_not_adopted():
    body = {**BODY, "ref_img_url": ["https://files.example/1.png"]}
    assert match(CHANJING, body, row(), KNOWN, ambiguous=True) == "possible"
    assert match(CHANJING, body, row(), KNOWN, ambiguous=False) == "match"
