"""`models`: list models by any word of their names."""

from __future__ import annotations

import json

import pytest


def listed(desk, *words: str) -> list[dict]:
    done = desk.run("models", *words, "--json")
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.out.splitlines()]


def test_provider_name_selects_its_models_only(desk):
    assert {entry["provider"] for entry in listed(desk)} == {"chanjing", "kling", "kling-gateway"}
    assert {entry["provider"] for entry in listed(desk, "kling")} == {"kling"}
    assert {entry["provider"] for entry in listed(desk, "kling", "chanjing")} == {"chanjing", "kling"}


def test_words_match_names_and_media(desk):
    assert [entry["model"] for entry in listed(desk, "chanjing", "SeeDream-4.0")] == ["doubao-seedream-4.0"]
    every, videos = listed(desk, "kling"), listed(desk, "kling", "video")
    assert 0 < len(videos) < len(every)
    assert {entry["operation"] for entry in videos} == {"text2video", "image2video"}


def test_known_price_is_shown(desk):
    (priced,) = listed(desk, "tx_kling-v3-0-text2video")
    assert (priced["unit"], priced["price"]["by"], priced["price"]["times"]) == ("beans", "clarity", ["video_duration"])
    assert (
        "; clarity 720: 30, 1080: 35, 4K: 45 beans × video_duration; "
        in desk.run("models", "tx_kling-v3-0-text2video").out
    )
    assert listed(desk, "doubao-seedream-4.0")[0]["price"] is None
    assert "; price unknown; " in desk.run("models", "doubao-seedream-4.0").out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("chanjimg",), "Did you mean chanjing"),
        (("chanjing", "seedrem-4.0"), "Did you mean doubao-seedream-4.0"),
        (("nothing-like-it-at-all",), "`runner models` lists all"),
    ],
)
def test_no_match_suggests_similar_names(desk, words, hint):
    done = desk.run("models", *words)
    assert (done.code, done.out) == (2, "")
    assert hint in done.err
