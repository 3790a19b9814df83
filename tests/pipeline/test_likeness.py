"""What a row of a list proves about a request, and what it does not."""

import pytest

from runner.pipeline.likeness import likeness
from runner.providers import spec
from runner.providers.reading import Row

CHANJING = spec.load("chanjing")
BODY = {"creation_type": 3, "model_code": "kling-v2", "ref_prompt": "boat", "aspect_ratio": "1:1"}
KNOWN = {"creation_type": True, "model_code": True, "ref_prompt": True, "aspect_ratio": True}


def row(**shown) -> Row:
    photo = {"ref_prompt": "boat", "aspect_ratio": "1:1", **shown}
    return Row("u-1", None, 0.0, {"model_code": "kling-v2", "type": 3, "photo_info": photo}, {})


@pytest.mark.parametrize(
    ("shown", "trusted", "verdict"),
    [
        ({}, {}, "ours"),
        ({}, KNOWN, "ours"),
        ({"ref_prompt": "house"}, KNOWN, "no"),
        ({"ref_prompt": "house"}, {}, "no"),
        ({"aspect_ratio": "9:16"}, KNOWN, "no"),
        ({"aspect_ratio": "9:16"}, {"ref_prompt": True}, "perhaps"),
        ({"aspect_ratio": "9:16"}, {**KNOWN, "aspect_ratio": False}, "ours"),
    ],
)
def test_only_what_is_known_to_be_shown_faithfully_tells_requests_apart(shown, trusted, verdict):
    assert likeness(CHANJING, BODY, row(**shown), trusted, rivals=False) == verdict


def test_requests_that_the_list_shows_alike_are_never_adopted_by_guess():
    body = {**BODY, "ref_img_url": ["https://files.example/1.png"]}
    assert likeness(CHANJING, body, row(), KNOWN, rivals=True) == "perhaps"
    assert likeness(CHANJING, body, row(), KNOWN, rivals=False) == "ours"
