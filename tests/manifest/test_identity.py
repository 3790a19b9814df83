"""Keys are promises: a change would buy every task again, so the vectors never change."""

from __future__ import annotations

import pytest

from runner.manifest.identity import key

VECTORS = [
    (("chanjing", "image", "kling-v2-1", {"ref_prompt": "cat"}, 1), "e77a6fdb273255890f6dba52be627b36"),
    (("chanjing", "image", "kling-v2-1", {"ref_prompt": "cat"}, 2), "aa54c8eb928d6abe6e8f5f6df1c11d6e"),
    (("chanjing", "image", "kling-v2-1", {"ref_prompt": "水墨猫 🐈", "n": 2}, 1), "7dd8dd786f3dd28b01d076623c290003"),
    (
        ("kling", "text2video", "kling-v1", {"cfg_scale": 0.1, "x": 1e-7, "y": 1e22, "z": 5.0}, 1),
        "7bf4f71cceddbe36af060f75e2836d50",
    ),
    (
        ("kling", "text2video", "kling-v1", {"camera": {"b": [1, None, True], "a": {"d": "", "c": -0.0}}}, 1),
        "17dbb9ec6730748bcaef8378c0ae0796",
    ),
    (("kling", "text2video", "kling-v1", {}, 1000), "0c2531c61303acb148cdf1399998f5aa"),
]


@pytest.mark.parametrize(("content", "expected"), VECTORS)
def test_keys_match_the_recorded_vectors(content, expected):
    assert key(*content) == expected


def test_order_of_parameters_does_not_change_the_key():
    assert key("p", "o", "m", {"a": 1, "b": {"c": 2, "d": 3}}, 1) == key(
        "p", "o", "m", {"b": {"d": 3, "c": 2}, "a": 1}, 1
    )


def test_integers_and_floats_have_different_keys():
    assert key("p", "o", "m", {"a": 5}, 1) != key("p", "o", "m", {"a": 5.0}, 1)


def test_numbers_beyond_json_raise_type_error():
    with pytest.raises(TypeError):
        key("p", "o", "m", {"a": 2**64}, 1)
