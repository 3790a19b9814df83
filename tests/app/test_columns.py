from __future__ import annotations

import pytest

from runner.app.starter_manifest import sample_table
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
def test_finds_column_that_reads_like_a_prompt(tmp_path, text, column):
    assert sample_table(write(tmp_path, text)).prompt_column(lambda name: False) == column


def test_parameter_column_is_not_used_as_prompt(tmp_path):
    table = sample_table(write(tmp_path, "style,name\nwatercolour on old paper,heron\n"))
    assert table.prompt_column(lambda name: name == "style") == "name"


def test_counts_every_row_and_keeps_the_first(tmp_path):
    table = sample_table(write(tmp_path, "a\n" + "x\n" * 5_000))
    assert (table.rows, len(table.values["a"])) == (5_000, 200)


def test_byte_order_mark_is_not_part_of_a_name(tmp_path):
    assert list(sample_table(write(tmp_path, "产品,b\n茶壶,\n", encoding="utf-8-sig")).values) == ["产品", "b"]


def test_finds_column_of_links(tmp_path):
    text = "a,url\nx,https://example.com/1.png\ny,\n"
    assert sample_table(write(tmp_path, text)).image_column() == "url"
    assert sample_table(write(tmp_path, text.replace("y,", "y,none"))).image_column() is None


@pytest.mark.parametrize(("encoding", "called"), [("gb18030", "GB18030"), ("gbk", "GB18030"), ("utf-16", "UTF-16")])
def test_names_spreadsheet_encoding_with_a_hint(tmp_path, encoding, called):
    path = write(tmp_path, "产品,场景\n青瓷茶壶,竹影\n", encoding=encoding)
    with pytest.raises(UsageError) as caught:
        sample_table(path)
    assert f"reads as {called}" in caught.value.message
    assert f"iconv -f {called} -t UTF-8 {path} > {tmp_path}/rows-utf8.csv" in caught.value.hint


def test_does_not_guess_other_encodings(tmp_path):
    with pytest.raises(UsageError, match="not UTF-8") as caught:
        sample_table(write(tmp_path, "café,b\nthé,1\n", encoding="latin-1"))
    assert "GB18030" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("rows.xls", "x", "a data file ends in"),
        ("rows.csv", "", "no header"),
        ("rows.csv", "a,b\n1\n", "1 field where the header has 2"),
        ("rows.csv", 'a\n"open\n', "quote"),
    ],
)
def test_refuses_unreadable_table(tmp_path, name, text, word):
    with pytest.raises(UsageError) as caught:
        sample_table(write(tmp_path, text, name=name))
    assert word in str(caught.value)


def test_refuses_missing_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        sample_table(tmp_path / "none.csv")
