from __future__ import annotations

import pytest

from runner.app.columns import look
from runner.errors import UsageError


def write(tmp_path, text: str, *, name="rows.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("id,product,scene\n1,celadon teapot,slate\n2,wooden bird,oak table\n", "product"),
        ("编号,产品,场景描述\n1,青瓷茶壶,竹影下的清晨光线\n2,木鸟,雪地\n", "场景描述"),
        ("note,Prompt\na very long remark about nothing at all,heron\n", "Prompt"),
        ("note,提示词\na very long remark about nothing at all,鹭\n", "提示词"),
        ("link,sku,name\nhttps://example.com/a-very-long-link.png,000012345678,bird\n", "name"),
        ("gaps,full\na long text with many words,bird\n,heron\n,crane\n,stork\n,swift\n", "full"),
        ("product name,2nd,if\na teapot of celadon,b,c\n", None),
    ],
)
def test_the_column_that_reads_like_a_wish_is_found(tmp_path, text, column):
    assert look(write(tmp_path, text)).prompt(lambda name: False) == column


def test_a_column_that_is_a_parameter_is_no_wish(tmp_path):
    table = look(write(tmp_path, "style,name\nwatercolour on old paper,heron\n"))
    assert table.prompt(lambda name: name == "style") == "name"


def test_every_row_is_counted_and_the_first_are_kept(tmp_path):
    table = look(write(tmp_path, "a\n" + "x\n" * 5_000))
    assert (table.rows, len(table.values["a"])) == (5_000, 200)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    assert list(look(write(tmp_path, "产品,b\n茶壶,\n", encoding="utf-8-sig")).values) == ["产品", "b"]


def test_a_column_of_links_is_known(tmp_path):
    text = "a,url\nx,https://example.com/1.png\ny,\n"
    assert look(write(tmp_path, text)).image() == "url"
    assert look(write(tmp_path, text.replace("y,", "y,none"))).image() is None


@pytest.mark.parametrize(("encoding", "called"), [("gb18030", "GB18030"), ("gbk", "GB18030"), ("utf-16", "UTF-16")])
def test_a_spreadsheet_s_encoding_is_named_with_its_cure(tmp_path, encoding, called):
    path = write(tmp_path, "产品,场景\n青瓷茶壶,竹影\n", encoding=encoding)
    with pytest.raises(UsageError) as told:
        look(path)
    assert f"reads as {called}" in told.value.message
    assert f"iconv -f {called} -t UTF-8 {path} > {tmp_path}/rows-utf8.csv" in told.value.hint


def test_what_is_no_spreadsheet_s_encoding_is_not_guessed(tmp_path):
    with pytest.raises(UsageError, match="not UTF-8") as told:
        look(write(tmp_path, "café,b\nthé,1\n", encoding="latin-1"))
    assert "GB18030" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("rows.xlsx", "x", "a data file ends in"),
        ("rows.csv", "", "no header"),
        ("rows.csv", "a,b\n1\n", "1 field where the header has 2"),
        ("rows.csv", 'a\n"open\n', "quote"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path, name, text, word):
    with pytest.raises(UsageError) as told:
        look(write(tmp_path, text, name=name))
    assert word in str(told.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        look(tmp_path / "none.csv")
