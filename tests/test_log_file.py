import os
import stat

import pytest

from runner.logs import LogFile


@pytest.fixture
def file(tmp_path):
    log_file = LogFile(tmp_path / "run.log")
    yield log_file
    log_file.close()


def test_log_file_is_private(tmp_path, file):
    assert stat.S_IMODE((tmp_path / "run.log").stat().st_mode) == 0o600


def test_moved_file_is_created_again(tmp_path, file):
    file.write("one")
    (tmp_path / "run.log").rename(tmp_path / "run.log.1")
    file.write("two")
    file.write("three")
    assert (tmp_path / "run.log.1").read_text() == "one\n"
    assert (tmp_path / "run.log").read_text() == "two\nthree\n"


def test_existing_file_is_appended_to(tmp_path, file):
    file.write("one")
    again = LogFile(tmp_path / "run.log")
    again.write("two")
    again.close()
    assert (tmp_path / "run.log").read_text() == "one\ntwo\n"


def test_failed_rotation_keeps_the_descriptor(tmp_path, file):
    (tmp_path / "run.log").rename(tmp_path / "run.log.1")
    (tmp_path / "run.log").mkdir()
    with pytest.raises(OSError, match="directory"):
        file.write("lost")
    (tmp_path / "run.log").rmdir()
    file.write("kept")
    assert (tmp_path / "run.log").read_text() == "kept\n"


def test_other_than_a_plain_file_is_rejected(tmp_path):
    """A pipe without a reader does not block."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("pipe", "link", "."):
        with pytest.raises(OSError):  # noqa: PT011 - each has its own message
            LogFile(tmp_path / name)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="plain file"):
        LogFile(tmp_path / "pipe")
    os.close(reader)
    assert not (tmp_path / "elsewhere").exists()
