"""Local images in requests: checked against limits, replaced by placeholders, and filled in for the submit."""

from __future__ import annotations

import base64
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.providers.catalogue import Catalogue
from runner.providers.images import (
    ImageError,
    ImageInfo,
    check_image,
    fill_placeholders,
    find_placeholders,
    has_placeholder,
    resolve_image,
)
from runner.providers.requests import Dialect
from runner.providers.responses import compare_echo
from runner.providers.spec import ImageLimits, Spec, load
from runner.tasks.models import State, Task

URL = "https://files.example/a.png"
GOOD = ImageInfo("png", 640, 480, 1000, "ab" * 32)
LIMITS = ImageLimits(kinds=("png", "jpeg"), max_bytes=2000, min_side=300, ratio=2.5)


class FakeFiles:
    """Images by path, as `ImageFiles`."""

    def __init__(self, **images):
        self.images = {"boat.png": GOOD, "quay.png": replace(GOOD, sha256="cd" * 32), **images}
        self.inspected = []

    def inspect(self, path):
        self.inspected.append(path)
        if path not in self.images:
            raise ImageError("is not here", "put it there")
        return self.images[path]


@pytest.fixture
def files():
    return FakeFiles()


@pytest.fixture
def find_model(files):
    return Catalogue(None, files).find


def build(schema, params):
    """Return the request and its diagnostics as (name, message, hint)."""
    request, diagnostics = schema.request(params)
    return request, [(each.name, each.message, each.hint) for each in diagnostics]


@pytest.mark.parametrize(
    ("changed", "message", "hint"),
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
def test_image_outside_the_limits_is_reported(changed, message, hint):
    assert check_image(LIMITS, replace(GOOD, **changed)) == (message and (message, hint))
    assert check_image(ImageLimits(), replace(GOOD, **changed)) is None


@pytest.mark.parametrize("value", [URL, "http://files.example/a", "A" * 200, "iVBOR" * 50 + "=="])
def test_urls_and_base64_are_not_read_as_paths(files, value):
    assert resolve_image(value, LIMITS, files) == (value, None)
    assert files.inspected == []


@pytest.mark.parametrize(
    ("value", "limits", "files", "message"),
    [
        ("data:image/png;base64,AA", LIMITS, FakeFiles(), "a data: URL is not taken"),
        ("file:///etc/passwd", LIMITS, FakeFiles(), "is neither a URL nor Base64"),
        ("", LIMITS, FakeFiles(), "is neither a URL nor Base64"),
        ("boat.png", None, FakeFiles(), "is neither a URL nor Base64"),
        ("boat.png", LIMITS, None, "is neither a URL nor Base64"),
        ("raft.png", LIMITS, FakeFiles(), "'raft.png' is not here"),
        ("boat.png", ImageLimits(max_bytes=999), FakeFiles(), "'boat.png' has 1,000 bytes"),
        (GOOD.placeholder, LIMITS, FakeFiles(), "is not here"),
    ],
)
def test_unusable_image_value_is_reported(value, limits, files, message):
    """A placeholder that a user writes is a path like any other, and never taken for an image."""
    _, violation = resolve_image(value, limits, files)
    assert message in violation[0]
    assert violation[1]


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (320).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0\0\0\0\0" + bytes(200)
TEXT = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "value",
    [
        f"data:image/png;base64,{TEXT}",
        f"DATA:;BASE64,{quote(TEXT)}",
        f"data:image/png;name=a.png;base64,{TEXT.replace('+', '-').replace('/', '_')}",
        f"data:image/png,{quote(PNG)}",
        "data:image/png;base64," + "\r\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
        "\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)) + "\n",
    ],
)
def test_image_in_a_cell_becomes_plain_base64(value):
    """However it is written, it is one request, and so one purchase."""
    assert resolve_image(value, LIMITS, FakeFiles(), inline=True) == (TEXT, None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("data:image/png;base64", "is not a whole data: URL"),
        ("data:image/png;base64,iVBORw0KGg", "is not a whole data: URL"),
        ("data:text/plain,hello", "is no picture"),
        ("data:image/png;base64," + base64.b64encode(PNG.replace(b"\x01\x40", b"\0\x09")).decode(), "9 × 9 pixels"),
    ],
)
def test_wrong_image_in_a_cell_is_reported(value, message):
    _, violation = resolve_image(value, LIMITS, FakeFiles(), inline=True)
    assert message in violation[0]


def test_image_in_a_cell_is_refused_where_only_files_are_taken(find_model):
    params = {"prompt": "a", "image": f"data:image/png;base64,{TEXT}"}
    ((_, message, hint),) = build(find_model("chanjing", "kling-v2"), params)[1]
    assert message == "a data: URL is not taken"
    assert hint == "give a plain URL, or put the image into a file and write its path"


def test_path_becomes_a_placeholder(find_model):
    request, diagnostics = build(find_model("kling", "image2video/kling-v2-6"), {"image": "boat.png"})
    assert (request, diagnostics) == ({"image": f"sha256:{GOOD.sha256}"}, [])


def test_same_content_under_another_name_is_the_same():
    one, other = (Catalogue(None, FakeFiles(**{name: GOOD})).find for name in ("a.png", "b.png"))
    first, _ = build(one("chanjing", "tx_kling2.5"), {"image": "a.png", "duration": 5})
    second, _ = build(other("chanjing", "tx_kling2.5"), {"image": "b.png", "duration": 5})
    assert first == second


def test_local_images_and_urls_fill_one_list(find_model):
    schema = find_model("chanjing", "tx_kling-v2-1-master")
    request, diagnostics = build(schema, {"image": "boat.png", "image_tail": "quay.png", "duration": 5})
    assert (request["ref_img_url"], diagnostics) == ([GOOD.placeholder, "sha256:" + "cd" * 32], [])
    assert schema.images == ("ref_img_url",)
    request, diagnostics = build(
        find_model("chanjing", "doubao-seedream-4.0"), {"prompt": "x", "ref_img_url": [URL, "boat.png"]}
    )
    assert (request["ref_img_url"], diagnostics) == ([URL, GOOD.placeholder], [])


def test_first_bad_entry_of_a_list_is_reported(find_model):
    """The diagnostic uses the parameter name as written in the manifest."""
    _, diagnostics = build(
        find_model("chanjing", "doubao-seedream-4.0"), {"prompt": "x", "ref_img_url": ["boat.png", "x.png"]}
    )
    assert diagnostics == [("ref_img_url", "'x.png' is not here", "put it there")]
    _, diagnostics = build(find_model("chanjing", "doubao-seedream-4.0"), {"prompt": "x", "image": "x.png"})
    assert diagnostics == [("image", "'x.png' is not here", "put it there")]


def test_parameter_may_have_its_own_limits():
    big = FakeFiles(**{"big.png": replace(GOOD, bytes=6 * 2**20), "wide.png": replace(GOOD, width=1300)})
    find_model = Catalogue(None, big).find
    assert build(find_model("chanjing", "tx_kling2.5"), {"duration": 5, "image": "big.png"})[1] == []
    ((_, message, _),) = build(find_model("chanjing", "kling2.5"), {"prompt": "x", "duration": 5, "image": "big.png"})[
        1
    ]
    assert message == "'big.png' has 6,291,456 bytes"
    ((_, _, hint),) = build(find_model("chanjing", "Doubao-Seedance-1.0-pro"), {"prompt": "x", "duration": 5, "image": "wide.png"})[1]  # noqa: E501  # fmt: skip
    assert hint == "expected a ratio from 1:2 to 2:1"


def test_unchecked_model_takes_images_by_common_name(find_model):
    schema = find_model("kling", "image2video/kling-v99", unchecked=True)
    assert build(schema, {"image": "boat.png", "x": "boat.png"}) == ({"image": GOOD.placeholder, "x": "boat.png"}, [])
    schema = find_model("chanjing", "video/new", unchecked=True)
    assert schema.request({"start_frame": "file-17"}) == ({"start_frame": "file-17"}, [])


def test_provider_without_images_section_takes_none(files):
    spec = load("kling").model_copy(update={"images": None})
    assert spec.images is None
    assert Spec.model_validate(spec.model_dump(by_alias=True)).images is None
    assert "is neither" in resolve_image("boat.png", None, files)[1][0]


# placeholders


@given(
    st.dictionaries(
        st.sampled_from(["image", "image_tail", "ref_img_url"]),
        st.one_of(
            st.just(URL), st.just(GOOD.placeholder), st.lists(st.sampled_from([URL, GOOD.placeholder]), max_size=4)
        ),
    )
)
def test_placeholders_are_found_and_filled_exactly(request_):
    found = find_placeholders(request_, request_)
    sent = fill_placeholders(request_, dict.fromkeys(found, "sent"))
    text = repr(request_)
    assert text.count("sha256:") == len(found)
    assert repr(sent) == text.replace(GOOD.placeholder, "sent")
    assert [has_placeholder(value) for value in sent.values()] == [False] * len(sent)


def test_only_image_fields_are_searched():
    assert find_placeholders({"prompt": GOOD.placeholder, "image": URL}, ["image"]) == {}
    assert find_placeholders({"ref_img_url": [URL, GOOD.placeholder]}, ["ref_img_url", "end_frame"]) == {
        "ref_img_url/1": GOOD.sha256
    }


def test_submit_fills_the_placeholder():
    task = Task(1, "k" * 32, "kling", "image2video", "kling-v2-6", State.QUEUED, 0.0, ref="r0-1-g1",
                request=b'{"image": "%s", "prompt": "x"}' % GOOD.placeholder.encode())  # fmt: skip
    request = Dialect(load("kling")).submit(task, {"image": "QUJD"})
    assert request.body == {"model_name": "kling-v2-6", "image": "QUJD", "prompt": "x", "external_task_id": "r0-1-g1"}


def test_echo_of_an_image_is_not_compared():
    """The list always shows another value, so a comparison would mark its echoes as unreliable."""
    spec = load("chanjing")
    listing = spec.reconcile.listing.model_copy(update={"echo": {"start_frame": "start_frame", "ref_prompt": "p"}})
    spec = spec.model_copy(update={"reconcile": spec.reconcile.model_copy(update={"listing": listing})})
    shown = {"start_frame": "https://cdn.example/1.png", "p": "boat"}
    assert compare_echo(spec, {"start_frame": GOOD.placeholder, "ref_prompt": "boat"}, shown) == {"ref_prompt": True}
    assert compare_echo(spec, {"start_frame": URL, "ref_prompt": "boat"}, shown) == {
        "start_frame": False,
        "ref_prompt": True,
    }
