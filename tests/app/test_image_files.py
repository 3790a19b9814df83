"""A manifest may come from another author: only images below its directory are read to be sent."""

from __future__ import annotations

import hashlib
import io
import os
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

from runner.app.image_files import LocalImages
from runner.app.job import Fingerprints
from runner.providers import images
from runner.providers.images import ImageError
from runner.settings import Settings


def png(colour=0):
    file = io.BytesIO()
    Image.new("L", (320, 300), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def desk(tmp_path):
    """Make a manifest directory with an image in it, and a private image outside of it."""
    (tmp_path / "job/photos").mkdir(parents=True)
    (tmp_path / "job/photos/a.png").write_bytes(png())
    (tmp_path / "private").mkdir()
    (tmp_path / "private/passport.png").write_bytes(png(7))
    return tmp_path


@pytest.fixture
def local_images(desk):
    return LocalImages(desk / "job")


def error_message(local_images, path):
    with pytest.raises(ImageError) as caught:
        local_images.inspect(path)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("path", ["photos/a.png", "./photos/../photos/a.png"])
def test_finds_image_below_manifest_directory(local_images, path):
    found = local_images.inspect(path)
    assert (found.kind, found.width, found.height, found.bytes) == ("png", 320, 300, len(png()))
    assert found.sha256 == hashlib.sha256(png()).hexdigest()


def test_accepts_absolute_path_below_directory(local_images, desk):
    assert local_images.inspect(str(desk / "job/photos/a.png")).width == 320


@pytest.mark.parametrize("path", ["../private/passport.png", "photos/../../private/passport.png", "/etc/passwd",
                                  "/proc/self/environ", "/dev/zero", "../nowhere.png"])  # fmt: skip
def test_refuses_path_outside_of_directory(local_images, path):
    """Missing files outside give the same error, so that a manifest cannot probe for files."""
    assert error_message(local_images, path) == "is outside of the manifest's directory"


def test_refuses_link_out_of_directory(local_images, desk):
    """Links are followed before the check."""
    (desk / "job/link.png").symlink_to(desk / "private/passport.png")
    (desk / "job/way").symlink_to(desk / "private")
    assert error_message(local_images, "link.png") == "is outside of the manifest's directory"
    assert error_message(local_images, "way/passport.png") == "is outside of the manifest's directory"


def test_follows_link_within_directory(local_images, desk):
    (desk / "job/link.png").symlink_to("photos/a.png")
    assert local_images.inspect("link.png") == local_images.inspect("photos/a.png")


def test_accepts_image_in_allowed_directory(desk):
    local_images = LocalImages(desk / "job", [desk / "private"])
    assert local_images.inspect("../private/passport.png").width == 320
    assert error_message(local_images, "../elsewhere.png") == "is outside of the manifest's directory"


def test_manifest_directory_may_be_a_link(desk):
    (desk / "alias").symlink_to("job")
    assert LocalImages(desk / "alias").inspect("photos/a.png").width == 320


def test_refuses_pipe_directory_and_link_loop(local_images, desk):
    """None of them is read or waited for."""
    os.mkfifo(desk / "job/pipe.png")
    assert error_message(local_images, "pipe.png") == "is not a regular file"
    assert error_message(local_images, "photos") == "is not a regular file"
    (desk / "job/loop.png").symlink_to("loop.png")
    assert "loop" in error_message(local_images, "loop.png").lower()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("photos/b.png", "there is no such file"),
        ("photos/a.png/b.png", "Not a directory"),
        ("a\0b.png", "null byte"),
        ("x" * 5000, "File name too long"),
        ("\ud800.png", "surrogates"),
    ],
)
def test_impossible_path_gives_a_plain_message(local_images, path, message):
    assert message in error_message(local_images, path)


def test_refuses_private_file_that_is_no_image(local_images, desk):
    (desk / "job/id_rsa").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (desk / "job/.env").write_text("KLING_API_KEY=x\n")
    assert error_message(local_images, "id_rsa") == "is no picture"
    assert error_message(local_images, ".env") == "is no picture"


def test_refuses_file_over_the_size_limit(local_images, desk, monkeypatch):
    monkeypatch.setattr("runner.app.image_files.MAX_IMAGE_BYTES", 1000)
    (desk / "job/large.png").write_bytes(png() + bytes(10_000))
    assert error_message(local_images, "large.png") == "has more than 1,000 bytes"
    assert images.MAX_IMAGE_BYTES == 64 * 2**20


def test_inspects_each_path_once(local_images, desk):
    first = local_images.inspect("photos/a.png")
    (desk / "job/photos/a.png").write_bytes(png(9))
    assert local_images.inspect("photos/a.png") == first
    assert error_message(local_images, "b.png") == error_message(local_images, "b.png")
    (desk / "job/b.png").write_bytes(png())
    assert "there is no such file" in error_message(local_images, "b.png")


def test_read_refuses_content_that_changed(local_images, desk):
    found = local_images.inspect("photos/a.png")
    assert local_images.read("photos/a.png", found.sha256) == (found, png())
    (desk / "job/photos/a.png").write_bytes(png(9))
    with pytest.raises(ImageError, match="has changed"):
        local_images.read("photos/a.png", found.sha256)
    (desk / "job/photos/a.png").unlink()
    with pytest.raises(ImageError, match="no such file"):
        local_images.read("photos/a.png", found.sha256)


def test_request_images_are_found_by_their_hash(local_images, desk):
    (desk / "job/copy.png").write_bytes(png())
    placeholder = local_images.inspect("photos/a.png").placeholder
    assert local_images.inspect("copy.png").placeholder == placeholder
    request = {
        "image": placeholder,
        "prompt": placeholder,
        "list": ["https://x.example", placeholder],
        "other": "sha256:" + "0" * 64,
    }
    assert local_images.image_paths(request, ["image", "list", "other"]) == {
        "image": "photos/a.png",
        "list/1": "photos/a.png",
    }
    assert [path for path, _ in local_images.inventory] == ["copy.png", "photos/a.png"]


def test_fingerprint_ignores_local_images(desk):
    """Tasks that differ only in their image look alike in a provider's list, even in one that shows images.

    The list never shows what a request holds. So such tasks are held and not confused.
    """
    (desk / "specs").mkdir()
    text = (Path(str(resources.files("runner.providers"))) / "specs/chanjing.yaml").read_text(encoding="utf-8")
    shown = text.replace("      model_code: model_code\n", "      model_code: model_code\n      start_frame: start\n")
    assert shown != text
    (desk / "specs/chanjing.yaml").write_text(shown, encoding="utf-8")
    fingerprints = Fingerprints(Settings({"RUNNER_PROVIDERS": str(desk / "specs")}))
    frames = ("sha256:" + "a" * 64, "sha256:" + "b" * 64, "https://files.example/1.png", "https://files.example/2.png")
    hashes = [fingerprints.of("chanjing", "video", "tx_kling2.5", {"start_frame": frame}) for frame in frames]
    assert (hashes[0] == hashes[1], len(set(hashes))) == (True, 3)
