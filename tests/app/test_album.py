"""A manifest may come from somebody else: only pictures beside it are ever read to be sent."""

from __future__ import annotations

import hashlib
import io
import os
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

from runner.app.album import Album
from runner.app.jobs import Fingerprints
from runner.providers import pictures
from runner.providers.pictures import Unfit
from runner.settings import Settings


def png(colour=0):
    file = io.BytesIO()
    Image.new("L", (320, 300), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def desk(tmp_path):
    """A manifest's directory with a picture in it, and something else beside it."""
    (tmp_path / "job/photos").mkdir(parents=True)
    (tmp_path / "job/photos/a.png").write_bytes(png())
    (tmp_path / "private").mkdir()
    (tmp_path / "private/passport.png").write_bytes(png(7))
    return tmp_path


@pytest.fixture
def album(desk):
    return Album(desk / "job")


def refusal(album, path):
    with pytest.raises(Unfit) as caught:
        album.look(path)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("path", ["photos/a.png", "./photos/../photos/a.png"])
def test_a_picture_beside_the_manifest_is_found(album, path):
    found = album.look(path)
    assert (found.kind, found.width, found.height, found.bytes) == ("png", 320, 300, len(png()))
    assert found.sha256 == hashlib.sha256(png()).hexdigest()


def test_a_whole_path_into_the_directory_is_as_good(album, desk):
    assert album.look(str(desk / "job/photos/a.png")).width == 320


@pytest.mark.parametrize("path", ["../private/passport.png", "photos/../../private/passport.png", "/etc/passwd",
                                  "/proc/self/environ", "/dev/zero", "../nowhere.png"])  # fmt: skip
def test_nothing_outside_is_looked_at_whether_it_is_there_or_not(album, path):
    assert refusal(album, path) == "is outside of the manifest's directory"


def test_a_link_out_of_the_directory_is_followed_before_it_is_judged(album, desk):
    (desk / "job/link.png").symlink_to(desk / "private/passport.png")
    (desk / "job/way").symlink_to(desk / "private")
    assert refusal(album, "link.png") == "is outside of the manifest's directory"
    assert refusal(album, "way/passport.png") == "is outside of the manifest's directory"


def test_a_link_within_the_directory_is_no_harm(album, desk):
    (desk / "job/link.png").symlink_to("photos/a.png")
    assert album.look("link.png") == album.look("photos/a.png")


def test_another_directory_is_open_where_its_owner_says_so(desk):
    album = Album(desk / "job", [desk / "private"])
    assert album.look("../private/passport.png").width == 320
    assert refusal(album, "../elsewhere.png") == "is outside of the manifest's directory"


def test_the_manifest_s_directory_may_be_a_link_itself(desk):
    (desk / "alias").symlink_to("job")
    assert Album(desk / "alias").look("photos/a.png").width == 320


def test_what_is_no_file_is_not_read_and_not_waited_for(album, desk):
    os.mkfifo(desk / "job/pipe.png")
    assert refusal(album, "pipe.png") == "is not a regular file"
    assert refusal(album, "photos") == "is not a regular file"
    (desk / "job/loop.png").symlink_to("loop.png")
    assert "loop" in refusal(album, "loop.png").lower()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("photos/b.png", "there is no such file"),
        ("photos/a.png/b.png", "Not a directory"),
        ("a\0b.png", "null byte"),
        ("x" * 5000, "File name too long"),
        ("\ud800.png", "surrogates"),
    ],
)
def test_a_path_that_cannot_be_is_a_plain_sentence(album, path, said):
    assert said in refusal(album, path)


def test_a_private_file_beside_the_manifest_is_no_picture(album, desk):
    (desk / "job/id_rsa").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (desk / "job/.env").write_text("KLING_API_KEY=x\n")
    assert refusal(album, "id_rsa") == "is no picture"
    assert refusal(album, ".env") == "is no picture"


def test_a_file_that_is_too_large_is_not_read_to_its_end(album, desk, monkeypatch):
    monkeypatch.setattr("runner.app.album.LARGEST", 1000)
    (desk / "job/large.png").write_bytes(png() + bytes(10_000))
    assert refusal(album, "large.png") == "has more than 1,000 bytes"
    assert pictures.LARGEST == 64 * 2**20


def test_a_path_is_looked_at_once(album, desk):
    first = album.look("photos/a.png")
    (desk / "job/photos/a.png").write_bytes(png(9))
    assert album.look("photos/a.png") == first
    assert refusal(album, "b.png") == refusal(album, "b.png")
    (desk / "job/b.png").write_bytes(png())
    assert "there is no such file" in refusal(album, "b.png")


def test_what_is_sent_is_what_was_planned_or_nothing(album, desk):
    found = album.look("photos/a.png")
    assert album.read("photos/a.png", found.sha256) == (found, png())
    (desk / "job/photos/a.png").write_bytes(png(9))
    with pytest.raises(Unfit, match="has changed"):
        album.read("photos/a.png", found.sha256)
    (desk / "job/photos/a.png").unlink()
    with pytest.raises(Unfit, match="no such file"):
        album.read("photos/a.png", found.sha256)


def test_a_request_s_pictures_are_found_again_by_their_content(album, desk):
    (desk / "job/copy.png").write_bytes(png())
    mark = album.look("photos/a.png").mark
    assert album.look("copy.png").mark == mark
    request = {"image": mark, "prompt": mark, "list": ["https://x.example", mark], "other": "sha256:" + "0" * 64}
    assert album.paths(request, ["image", "list", "other"]) == {"image": "photos/a.png", "list/1": "photos/a.png"}
    assert [path for path, _ in album.contents] == ["copy.png", "photos/a.png"]


def test_tasks_that_differ_only_in_their_picture_are_alike_to_a_list(desk):
    """Even one that shows pictures: what it shows is never what a request holds, so that they are held, not swapped."""
    (desk / "specs").mkdir()
    text = (Path(str(resources.files("runner.providers"))) / "specs/chanjing.yaml").read_text(encoding="utf-8")
    shown = text.replace("      model_code: model_code\n", "      model_code: model_code\n      start_frame: start\n")
    assert shown != text
    (desk / "specs/chanjing.yaml").write_text(shown, encoding="utf-8")
    prints = Fingerprints(Settings({"RUNNER_PROVIDERS": str(desk / "specs")}))
    frames = ("sha256:" + "a" * 64, "sha256:" + "b" * 64, "https://files.example/1.png", "https://files.example/2.png")
    marks = [prints.of("chanjing", "video", "tx_kling2.5", {"start_frame": frame}) for frame in frames]
    assert (marks[0] == marks[1], len(set(marks))) == (True, 3)
