"""Files of the user are left alone."""

from __future__ import annotations

import pytest

from runner.errors import UsageError
from runner.report.gallery import page

from .conftest import row


def write(directory, info):
    page.write(page.open_gallery(directory), [row()], info)


@pytest.mark.parametrize("text", ["<!doctype html>\n<p>mine", "", "<!-- made by runner -->"])
def test_foreign_page_is_kept(tmp_path, info, text):
    (tmp_path / "index.html").write_text(text)
    with pytest.raises(UsageError, match=r"(?s)index\.html is there already.*Move it away"):
        write(tmp_path, info)
    assert (tmp_path / "index.html").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_foreign_folder_is_kept(tmp_path, info):
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery/data-mine.js").write_text("kept")
    with pytest.raises(UsageError, match="gallery is there already"):
        write(tmp_path, info)
    assert [path.name for path in tmp_path.rglob("*")] == ["gallery", "data-mine.js"]


@pytest.mark.parametrize("name", ["index.html", "gallery"])
def test_no_link_is_followed(tmp_path, info, name):
    """A link is refused even if it leads to another gallery of ours."""
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    for directory in (elsewhere, here):
        directory.mkdir()
    write(elsewhere, info)
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    (here / name).symlink_to(elsewhere / name)
    with pytest.raises(UsageError, match="left as it is"):
        page.write(page.open_gallery(here), [row(key="k2")], info)
    assert {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()} == before


def test_empty_folder_is_taken_over(tmp_path, info):
    (tmp_path / "gallery").mkdir()
    write(tmp_path, info)
    write(tmp_path, info)
    assert (tmp_path / "index.html").read_bytes().startswith(page.MARK)
