"""Local pictures in requests: checked against what a provider takes, marked by content, replaced when they are sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.lifecycle.task import State, Task
from runner.providers.catalogue import Catalogue
from runner.providers.dialect import Dialect
from runner.providers.pictures import Picture, Unfit, brought, holds_mark, placed, places, unfit
from runner.providers.reading import echoed
from runner.providers.spec import ImageLimits, Spec, load

URL = "https://files.example/a.png"
GOOD = Picture("png", 640, 480, 1000, "ab" * 32)
LIMITS = ImageLimits(kinds=("png", "jpeg"), max_bytes=2000, min_side=300, ratio=2.5)


class Shelf:
    """Pictures by path."""

    def __init__(self, **found):
        self.found = {"boat.png": GOOD, "quay.png": replace(GOOD, sha256="cd" * 32), **found}
        self.looked = []

    def look(self, path):
        self.looked.append(path)
        if path not in self.found:
            raise Unfit("is not here", "put it there")
        return self.found[path]


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def shape(shelf):
    return Catalogue(None, shelf).find


def told(found, params):
    request, mistakes = found.request(params)
    return request, [(mistake.name, mistake.message, mistake.hint) for mistake in mistakes]


@pytest.mark.parametrize(
    ("changed", "said", "hint"),
    [
        ({}, None, None),
        ({"kind": "webp"}, "is a WEBP", "expected PNG or JPEG"),
        ({"bytes": 2001}, "has 2,001 bytes", "expected at most 2,000"),
        ({"height": 299}, "is 640 × 299 pixels", "expected sides of at least 300 pixels"),
        ({"width": 300, "height": 750}, None, None),
        ({"width": 300, "height": 751}, "is 300 × 751 pixels", "expected a ratio from 1:2.5 to 2.5:1"),
        ({"width": 751, "height": 300}, "is 751 × 300 pixels", "expected a ratio from 1:2.5 to 2.5:1"),
    ],
)
def test_a_picture_is_what_the_provider_takes_or_it_is_told_why_not(changed, said, hint):
    assert unfit(LIMITS, replace(GOOD, **changed)) == (said and (said, hint))
    assert unfit(ImageLimits(), replace(GOOD, **changed)) is None


@pytest.mark.parametrize("value", [URL, "http://files.example/a", "A" * 200, "iVBOR" * 50 + "=="])
def test_urls_and_base64_are_no_paths(shelf, value):
    assert brought(value, LIMITS, shelf) == (value, None)
    assert shelf.looked == []


@pytest.mark.parametrize(
    ("value", "limits", "pictures", "said"),
    [
        ("data:image/png;base64,AA", LIMITS, Shelf(), "a data: URL is not taken"),
        ("file:///etc/passwd", LIMITS, Shelf(), "is neither a URL nor Base64"),
        ("", LIMITS, Shelf(), "is neither a URL nor Base64"),
        ("boat.png", None, Shelf(), "is neither a URL nor Base64"),
        ("boat.png", LIMITS, None, "is neither a URL nor Base64"),
        ("raft.png", LIMITS, Shelf(), "'raft.png' is not here"),
        ("boat.png", ImageLimits(max_bytes=999), Shelf(), "'boat.png' has 1,000 bytes"),
        (GOOD.mark, LIMITS, Shelf(), "is not here"),
    ],
)
def test_what_cannot_be_sent_is_told(value, limits, pictures, said):
    """A mark that a person writes is a path like any other, and never taken for a picture."""
    _, wrong = brought(value, limits, pictures)
    assert said in wrong[0]
    assert wrong[1]


def test_a_path_becomes_the_mark_of_its_content(shape):
    request, mistakes = told(shape("kling", "image2video/kling-v2-6"), {"image": "boat.png"})
    assert (request, mistakes) == ({"image": f"sha256:{GOOD.sha256}"}, [])


def test_the_same_content_under_another_name_is_the_same_request():
    one, other = (Catalogue(None, Shelf(**{name: GOOD})).find for name in ("a.png", "b.png"))
    first, _ = told(one("chanjing", "tx_kling2.5"), {"image": "a.png", "duration": 5})
    second, _ = told(other("chanjing", "tx_kling2.5"), {"image": "b.png", "duration": 5})
    assert first == second


def test_pictures_urls_and_several_common_names_fill_one_list(shape):
    found = shape("chanjing", "tx_kling-v2-1-master")
    request, mistakes = told(found, {"image": "boat.png", "image_tail": "quay.png", "duration": 5})
    assert (request["ref_img_url"], mistakes) == ([GOOD.mark, "sha256:" + "cd" * 32], [])
    assert found.images == ("ref_img_url",)
    request, mistakes = told(
        shape("chanjing", "doubao-seedream-4.0"), {"prompt": "x", "ref_img_url": [URL, "boat.png"]}
    )
    assert (request["ref_img_url"], mistakes) == ([URL, GOOD.mark], [])


def test_the_first_entry_of_a_list_that_cannot_be_sent_is_told_by_the_name_that_was_written(shape):
    _, mistakes = told(shape("chanjing", "doubao-seedream-4.0"), {"prompt": "x", "ref_img_url": ["boat.png", "x.png"]})
    assert mistakes == [("ref_img_url", "'x.png' is not here", "put it there")]
    _, mistakes = told(shape("chanjing", "doubao-seedream-4.0"), {"prompt": "x", "image": "x.png"})
    assert mistakes == [("image", "'x.png' is not here", "put it there")]


def test_a_parameter_may_have_limits_of_its_own():
    big = Shelf(**{"big.png": replace(GOOD, bytes=6 * 2**20), "wide.png": replace(GOOD, width=1300)})
    shape = Catalogue(None, big).find
    assert told(shape("chanjing", "tx_kling2.5"), {"duration": 5, "image": "big.png"})[1] == []
    ((_, said, _),) = told(shape("chanjing", "kling2.5"), {"prompt": "x", "duration": 5, "image": "big.png"})[1]
    assert said == "'big.png' has 6,291,456 bytes"
    ((_, _, hint),) = told(shape("chanjing", "Doubao-Seedance-1.0-pro"), {"prompt": "x", "duration": 5, "image": "wide.png"})[1]  # noqa: E501  # fmt: skip
    assert hint == "expected a ratio from 1:2 to 2:1"


def test_an_unchecked_model_takes_pictures_by_their_common_names_only(shape):
    found = shape("kling", "image2video/kling-v99", unchecked=True)
    assert told(found, {"image": "boat.png", "x": "boat.png"}) == ({"image": GOOD.mark, "x": "boat.png"}, [])
    found = shape("chanjing", "video/new", unchecked=True)
    assert found.request({"start_frame": "file-17"}) == ({"start_frame": "file-17"}, [])


def test_a_provider_that_says_nothing_of_pictures_takes_none(shelf):
    spec = load("kling").model_copy(update={"images": None})
    assert spec.images is None
    assert Spec.model_validate(spec.model_dump(by_alias=True)).images is None
    assert "is neither" in brought("boat.png", None, shelf)[1][0]


# marks


@given(
    st.dictionaries(
        st.sampled_from(["image", "image_tail", "ref_img_url"]),
        st.one_of(st.just(URL), st.just(GOOD.mark), st.lists(st.sampled_from([URL, GOOD.mark]), max_size=4)),
    )
)
def test_every_mark_is_found_and_replaced_and_nothing_else_is(request_):
    found = places(request_, request_)
    sent = placed(request_, dict.fromkeys(found, "sent"))
    text = repr(request_)
    assert text.count("sha256:") == len(found)
    assert repr(sent) == text.replace(GOOD.mark, "sent")
    assert [holds_mark(value) for value in sent.values()] == [False] * len(sent)


def test_only_the_fields_of_pictures_are_looked_at():
    assert places({"prompt": GOOD.mark, "image": URL}, ["image"]) == {}
    assert places({"ref_img_url": [URL, GOOD.mark]}, ["ref_img_url", "end_frame"]) == {"ref_img_url/1": GOOD.sha256}


def test_what_is_sent_stands_in_the_body_where_the_mark_stood():
    task = Task(1, "k" * 32, "kling", "image2video", "kling-v2-6", State.QUEUED, 0.0, ref="r0-1-g1",
                request=b'{"image": "%s", "prompt": "x"}' % GOOD.mark.encode())  # fmt: skip
    request = Dialect(load("kling")).submit(task, {"image": "QUJD"})
    assert request.body == {"model_name": "kling-v2-6", "image": "QUJD", "prompt": "x", "external_task_id": "r0-1-g1"}


def test_what_a_list_shows_of_a_picture_is_not_compared():
    """What is shown instead differs always, and would teach that the list shows nothing faithfully."""
    spec = load("chanjing")
    listing = spec.look_up.listing.model_copy(update={"echo": {"start_frame": "start_frame", "ref_prompt": "p"}})
    spec = spec.model_copy(update={"look_up": spec.look_up.model_copy(update={"listing": listing})})
    shown = {"start_frame": "https://cdn.example/1.png", "p": "boat"}
    assert echoed(spec, {"start_frame": GOOD.mark, "ref_prompt": "boat"}, shown) == {"ref_prompt": True}
    assert echoed(spec, {"start_frame": URL, "ref_prompt": "boat"}, shown) == {"start_frame": False, "ref_prompt": True}
