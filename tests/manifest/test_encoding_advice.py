"""Advice about encodings is tried on the file before it is given."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from runner.manifest.diagnostics import Diagnostics
from runner.manifest.rows import read_rows


def advice(bench, content: bytes) -> tuple[str, str]:
    diagnostics = Diagnostics("job.yaml")
    list(read_rows(bench.write("r.csv", content), "r.csv", diagnostics))
    (error,) = diagnostics.error().diagnostics
    return error.message, error.hint


TABLES = [
    ("GB18030", "gb18030", "品名,说明\n茶壶,放在湿石板上的青瓷茶壶\n"),
    ("CP950", "big5", "品名,說明\n茶壺,放在濕潤石板上的青瓷茶壺\n"),
    ("CP932", "shift_jis", "商品名\nティーポット\n木の鳥\n"),
    ("EUC-JP", "euc_jp", "商品名\nティーポット\n木の鳥\n"),
    ("CP949", "euc_kr", "품명,설명\n찻주전자,젖은 석판 위에 놓인 주전자\n"),
    ("CP1252", "cp1252", "produit\nthéière\nœuf à la coque\n"),
    ("UTF-16LE", "utf-16-le", "品名,说明\r\n茶壶,青瓷\r\n"),
    ("UTF-16BE", "utf-16-be", "product\ncup\n"),
    ("UTF-16", "utf-16", "品名\n茶壶\n"),
]


@pytest.mark.parametrize(("name", "codec", "text"), TABLES)
def test_command_gives_the_very_text(name, codec, text, bench):
    message, hint = advice(bench, text.encode(codec))
    assert f"it reads as {name}" in message
    assert f"iconv -f {name} -t UTF-8 r.csv > r-utf8.csv" in hint
    if shutil.which("iconv"):
        command = hint.partition("or: ")[2]
        subprocess.run(command, shell=True, cwd=bench.home, check=True)
        assert (bench.home / "r-utf8.csv").read_bytes().removeprefix(b"\xef\xbb\xbf").decode() == text


def test_all_that_it_may_be_is_shown_where_little_decides(bench):
    """Four letters of Chinese are letters of Korean too."""
    message, hint = advice(bench, "품명\n주전자\n".encode("euc_kr"))
    assert "it reads as CP949, as spreadsheets save it (“품명”), or as GB18030 (“前疙”)" in message
    assert hint.startswith("take the one that reads right")


@pytest.mark.parametrize(
    ("codec", "line", "shown"),
    [("gbk", "纹样", "GB18030 (“纹样”)"), ("big5", "說明在濕潤石板", "CP950"), ("cp1252", "café", "CP1252 (“café”)")],
)
def test_mixed_file_is_told_by_line(codec, line, shown, bench):
    """A command for the whole file would spoil the lines that are right, and the next run would buy that."""
    message, hint = advice(bench, "a\n青瓷\n".encode() + f"{line}\n".encode(codec) + "鸟\n".encode())
    assert message.startswith("line 3 is not UTF-8, and 2 others are, so this was joined from two encodings; read as")
    assert shown in message
    assert "iconv" not in hint


def test_mixed_file_names_the_first_lines_and_the_count(bench):
    message, _ = advice(bench, "青瓷\n".encode() + "纹样\n".encode("gbk") * 40)
    assert message.startswith("40 lines (2, 3, 4, …) are not UTF-8, and 1 other line is")


@pytest.mark.parametrize("broken", ["茶壶".encode()[:-1], "茶\ud83d".encode("utf-8", "surrogatepass")])
def test_cut_character_is_no_encoding(broken, bench):
    """Exports cut cells to a number of bytes."""
    message, hint = advice(bench, b"a\n" + broken + b"\n")
    assert message == "line 2 is not UTF-8: a character is cut there"
    assert "iconv" not in hint


def test_no_command_for_bytes_that_are_no_text(bench):
    assert "iconv" not in advice(bench, b"a\n\xff\xfe\xfd\x81\n")[1]


def test_command_for_nul_bytes_works(bench):
    _, hint = advice(bench, b"a,b\n1,x\0\n")
    subprocess.run(hint.partition("without them: ")[2], shell=True, cwd=bench.home, check=True)
    assert (bench.home / "r-clean.csv").read_bytes() == b"a,b\n1,x\n"
