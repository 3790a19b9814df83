from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.manifest.decoding import MAX_CELL, MAX_LINE
from runner.manifest.diagnostics import Diagnostics
from runner.manifest.model import SourceRow
from runner.manifest.rows import look_ahead, read_rows

PARTI = Path(__file__).resolve().parents[3] / "shared/data/PartiPrompts.tsv"


def read(bench, name: str, content: str | bytes) -> list[tuple[int, dict]]:
    diagnostics = Diagnostics("job.yaml")
    found = [(row.line, row.values) for row in read_rows(bench.write(name, content), name, diagnostics)]
    diagnostics.raise_any()
    return found


def wrong(bench, name: str, content: str | bytes) -> list[tuple[int, str]]:
    diagnostics = Diagnostics("job.yaml")
    list(read_rows(bench.write(name, content), name, diagnostics))
    assert {each.file for each in diagnostics.error().diagnostics} == {name}
    return [(each.line, each.message) for each in diagnostics.error().diagnostics]


TWO = [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]
READ = [
    ("r.csv", "a,b\n1,x\n2,y\n", [2, 3]),
    ("r.csv", b"\xef\xbb\xbfa, b \r\n1,x\r\n\r\n2,y", [2, 4]),
    ("r.CSV", '"a","b"\n"1","x"\n2,"y"\n', [2, 3]),
    ("r.tsv", "a\tb\n1\tx\n2\ty\n", [2, 3]),
    ("r.jsonl", '{"a":"1","b":"x"}\n\n{"a":"2","b":"y"}', [1, 3]),
    ("r.ndjson", b'\xef\xbb\xbf{"a":"1","b":"x"}\r\n{"a":"2","b":"y"}\r\n', [1, 2]),
    ("r.json", '[{"a":"1","b":"x"},\n\n {"a":"2",\n"b":"y"}\n]\n', [1, 3]),
    ("r.json", b'\xef\xbb\xbf\n[ {"a":"1","b":"x"} , {"a":"2","b":"y"} ]', [2, 2]),
    ("r.yaml", "- {a: '1', b: x}\n- a: '2'\n  b: y\n", [1, 2]),
    ("r.yml", "- a: '1'\n  b: x\n- a: '2'\n  b: y\n", [1, 3]),
    ("r.csv", "a,b\r1,x\r2,y\r", [2, 3]),
    ("r.csv", "a,b\n1,x\r2,y\n", [2, 3]),
    ("r.tsv", b"\xef\xbb\xbfa\tb\r1\tx\r2\ty", [2, 3]),
    ("r.jsonl", '{"a":"1","b":"x"}\r{"a":"2","b":"y"}', [1, 2]),
    ("r.csv", b"\xef\xbb\xbfsep=;\r\na;b\r\n1;x\r\n2;y\r\n", [3, 4]),
    ("r.csv", '"SEP=\t"\na\tb\n1\tx\n2\ty\n', [3, 4]),
]


@pytest.mark.parametrize(("name", "content", "lines"), READ)
def test_every_format(name, content, lines, bench):
    assert read(bench, name, content) == list(zip(lines, TWO, strict=True))


def test_txt_line_is_a_prompt(bench):
    text = "a cat\r\n\r\n# a dog\n  {{ a }}  \n"
    assert read(bench, "r.txt", text) == [
        (1, {"prompt": "a cat"}),
        (3, {"prompt": "# a dog"}),
        (4, {"prompt": "{{ a }}"}),
    ]


def test_old_mac_lines_are_prompts_and_quoted_returns_stay(bench):
    assert read(bench, "r.txt", "a cat\ra dog\r") == [(1, {"prompt": "a cat"}), (2, {"prompt": "a dog"})]
    assert read(bench, "r.csv", 'a,b\n1,"x\ry"\n') == [(2, {"a": "1", "b": "x\ry"})]


def test_line_ends_hold_across_chunks(bench):
    """A file is split in chunks, and one may end between the two characters of a line end."""
    text = "a,b\r" + "1,x\r" * 500_000
    assert sum(values == {"a": "1", "b": "x"} for _, values in read(bench, "r.csv", text)) == 500_000


def test_objects_by_their_keys_are_rows(bench):
    text = '{"boat": {"a": 1},\n "鸟": {"a": {"b": [2, {"c": null}]}}}'
    assert read(bench, "r.json", text) == [
        (1, {"key": "boat", "a": 1}),
        (2, {"key": "鸟", "a": {"b": [2, {"c": None}]}}),
    ]


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.yaml"])
def test_nested_values_are_kept(name, bench):
    line = '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a bench"}'
    (row,) = read(bench, name, f"[{line}]" if name != "r.jsonl" else line)
    assert row[1]["include"] == [{"class": "bench", "count": 1}]


def test_pairs_of_surrogates_are_read_as_characters(bench):
    """Java, MySQL and Oracle write emoji so (CESU-8)."""
    text = b"a,b\n1," + "\ud83d\ude00x".encode("utf-8", "surrogatepass") + b"\n"
    assert read(bench, "r.csv", text) == [(2, {"a": "1", "b": "😀x"})]


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.jsonl", "r.txt"])
def test_large_cells_are_read(name, bench):
    cell = "A" * (MAX_CELL - 100)
    text = {"r.csv": f"prompt\n{cell}\n", "r.tsv": f"prompt\n{cell}\n", "r.jsonl": f'{{"prompt": "{cell}"}}'}
    assert [values for _, values in read(bench, name, text.get(name, cell))] == [{"prompt": cell}]


def test_rows_ahead_are_bounded_by_their_length(bench):
    """A thousand rows with an image each would be 16 GB."""
    rows = iter([SourceRow({"a": "x" * (1 << 20)}, "r.csv", 1, 1)] * 1_000)
    assert len(look_ahead(rows, 1_000)) == 65
    assert len(list(rows)) == 935
    assert len(look_ahead(iter([SourceRow({"a": 1}, "r.csv", 1, 1)] * 1_000), 10)) == 10


def test_quoted_line_breaks_keep_the_lines_right(bench):
    text = 'a,b\n"1\n""2""\n3",x\n4,"y,z"\n5\n'
    assert wrong(bench, "r.csv", text) == [(6, "1 field where the header has 2")]
    assert read(bench, "r.csv", text[:-2]) == [(2, {"a": '1\n"2"\n3', "b": "x"}), (5, {"a": "4", "b": "y,z"})]


def test_quotes_in_tsv_are_text(bench):
    assert read(bench, "r.tsv", 'a\tb\n"open\tsay "hi"\n') == [(2, {"a": '"open', "b": 'say "hi"'})]


def test_empty_cells_are_empty_texts(bench):
    assert read(bench, "r.csv", "a,b\n1,\n") == [(2, {"a": "1", "b": ""})]


@pytest.mark.parametrize(("name", "mark"), [("r.csv", ","), ("r.tsv", "\t")])
def test_empty_rows_are_skipped_with_a_warning(name, mark, bench):
    """Spreadsheets leave them behind a table, and each would be a task with an empty request."""
    text = f"a{mark}b\n{mark}\n1{mark}x\n\n{mark}{mark}{mark}\n2{mark}y\n{mark}\n"
    diagnostics = Diagnostics("job.yaml")
    found = [row.values for row in read_rows(bench.write(name, text), name, diagnostics)]
    assert (found, len(diagnostics)) == (TWO, 0)
    (warning,) = diagnostics.warnings
    assert (warning.file, warning.line) == (name, 2)
    assert warning.message == "every cell of this row is empty, and it is passed over, and so are 2 more"


def test_empty_columns_to_the_right_are_ignored(bench):
    """Spreadsheets leave them beside a table."""
    assert [values for _, values in read(bench, "r.csv", "a,b,,\n1,x,,\n2,y,,\n")] == TWO
    assert wrong(bench, "r.csv", "a,b,,\n1,x,,z\n2,y\n3,,\n") == [
        (2, "there is a value in column 4, which has no name"),
        (3, "2 fields where the header has 4"),
        (4, "3 fields where the header has 4"),
    ]


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_spreadsheet_encoding_is_named_with_a_conversion(encoding, bench):
    called = {"gbk": "GB18030", "utf-16": "UTF-16"}[encoding]
    path = bench.write("我的 表.csv", "品名\n茶壶\n".encode(encoding))
    diagnostics = Diagnostics("job.yaml")
    assert list(read_rows(path, "我的 表.csv", diagnostics)) == []
    (error,) = diagnostics.error().diagnostics
    assert f"it reads as {called}, as spreadsheets save it" in error.message
    assert error.hint.endswith(f"iconv -f {called} -t UTF-8 '我的 表.csv' > '我的 表-utf8.csv'")


def test_values_of_json(bench):
    text = '{"a": 1, "b": 1.5, "c": true, "d": null, "e": ["x", 2], "f": "\\ud83d\\ude00"}\n'
    assert read(bench, "r.jsonl", text) == [(1, {"a": 1, "b": 1.5, "c": True, "d": None, "e": ["x", 2], "f": "😀"})]
    assert read(bench, "r.json", f"[{text}]")[0][1]["f"] == "😀"


WRONG = [
    ("r.csv", "", 1, "no header"),
    ("r.csv", "a,b\n", 1, "no rows"),
    ("r.csv", "a,a\n1,2\n", 1, "two columns are called `a`"),
    ("r.csv", "a,,b\n1,2,3\n", 1, "column 2 has no name"),
    ("r.csv", "a,b\n1,2\n1,2,3\n", 3, "3 fields where the header has 2"),
    ("r.csv", "a,b\n1,2\n1\n", 3, "1 field where the header has 2"),
    ("r.csv", 'a,b\n1,2\n"1,2\n3,4\n', 3, "not readable from here on"),
    ("r.csv", "a,b\n1," + "x" * (MAX_CELL + 1) + "\n", 2, "a cell of more than 16 MiB"),
    ("r.csv", 'a,b\n1,"x\n' + "1,2\n" * (MAX_CELL >> 2), 2, "is a quote opened and never closed?"),
    ("r.jsonl", '{"a": "' + "x" * (MAX_CELL + 1) + '"}', 1, "a cell of more than 16 MiB"),
    ("r.txt", "x" * (MAX_CELL + 1), 1, "a cell of more than 16 MiB"),
    ("r.csv", b"a,b\n1,x\0\n", 2, "a NUL byte"),
    ("r.jsonl", b'{"a": "\0"}', 1, "a NUL byte"),
    ("r.csv", "sep=;\n", 2, "no header"),
    ("r.csv", "sep=;\na;b\n1;2\n3\n", 4, "1 field where the header has 2"),
    ("r.csv", b"a,b\n1,2\n1,\xff\n", 3, "not UTF-8"),
    ("r.csv", "a,b\n1,2\n".encode("utf-16"), 1, "looks like UTF-16"),
    ("r.csv", "a,b\n1,鱼\n".encode("gb18030"), 2, "not UTF-8"),
    ("r.tsv", "a\tb\n1\n", 2, "1 field where the header has 2"),
    ("r.jsonl", '{"a": 1}\n{"a": }\n', 2, "not JSON"),
    ("r.jsonl", "[1]\n", 1, "expected an object, found a list"),
    ("r.jsonl", '{"a": ' + '{"b": ' * 100 + "1" + "}" * 101 + "\n", 1, "nested deeper than 100 levels"),
    ("r.jsonl", '{"a": {"b": [12345678901234567890123]}}\n', 1, "too big to be exact"),
    ("r.jsonl", '{"a": 123456789012345678901234567890}\n', 1, "too big to be exact"),
    ("r.jsonl", "[" * 100_000, 1, "not JSON"),
    ("r.jsonl", "", 1, "no rows"),
    ("r.json", '{"a": 1}', 1, "not a JSON list: expected `[`"),
    ("r.json", '[{"a": 1}\n{"a": 2}]', 2, "expected `,`"),
    ("r.json", '[{"a": 1},\n{"a": 1, "a": 2}]', 2, "twice"),
    ("r.json", '[{"a": 1},\n{"a": NaN}]', 2, "NaN"),
    ("r.json", '[{"a": 1},\n3]', 2, "expected an object"),
    ("r.json", '[{"a": 1}]\n]', 1, "something follows"),
    ("r.json", '[{"a": 1}', 1, "expected `,`"),
    ("r.json", '{"a": {"b": 1},\n"a": {"b": 2}}', 2, "the key `a` stands twice"),
    ("r.json", '{"a": {"b": 1}}\n{"a": {"b": 2}}', 1, "something follows the object"),
    ("r.json", '{"a": {"key": 1}}', 1, "has a `key` of its own"),
    ("r.json", '{"rows": [{"a": 1}]}', 1, "found a list in one"),
    ("r.json", "{}", 1, "no rows"),
    ("r.json", "[" * 100_000, 1, "nested too deeply"),
    ("r.json", "[]", 1, "no rows"),
    ("r.json", b'[{"a":\n"\xff"}]', 2, "not UTF-8"),
    ("r.yaml", "a: 1\n", 1, "expected a list of rows"),
    ("r.yaml", "- a: 1\n- b\n", 2, "expected a mapping"),
    ("r.yaml", "- a: 1\n  a: 2\n", 2, "twice"),
    ("r.txt", "\n \n", 1, "no rows"),
    ("r.txt", "a" * (MAX_LINE + 1), 1, "a line of more than 32 MiB"),
]


@pytest.mark.parametrize(("name", "content", "line", "message"), WRONG)
def test_data_error_has_its_line(name, content, line, message, bench):
    found = wrong(bench, name, content)
    assert found[0][0] == line
    assert message in found[0][1]


def test_all_bad_rows_are_reported_at_once(bench):
    assert [line for line, _ in wrong(bench, "r.csv", "a,b\n1\n1,2\n1,2,3\n")] == [2, 4]


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "missing"])
def test_only_regular_files_are_opened(kind, bench):
    path = bench.home / "r.csv"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
    diagnostics = Diagnostics("job.yaml")
    assert list(read_rows(path, "r.csv", diagnostics)) == []
    assert diagnostics


def test_rows_are_read_lazily(bench):
    found = read_rows(bench.write("r.csv", "a\n" + "1\n" * 100_000), "r.csv", Diagnostics("job.yaml"))
    assert next(found).line == 2


@pytest.mark.skipif(not PARTI.exists(), reason="the shared data are not here")
def test_parti_prompts(bench):
    found = list(read_rows(PARTI, "parti", Diagnostics("job.yaml")))
    assert len(found) == 1632
    assert all(row.values["Prompt"] and len(row.values) == 4 for row in found)
    assert any(row.values["Prompt"].startswith('A green sign that says "Very Deep Learning"') for row in found)


def test_quotes_of_a_word_processor_hold_no_comma(bench):
    bench.write("r.csv", "s,n\n“red, blue”,1\nred, blue,1\n")
    first, second = bench.errors("params: {prompt: '{{ s }}'}\nitems: {file: r.csv}")
    assert first.message == second.message == "3 fields where the header has 2"
    assert "straight ones" in first.hint
    assert "straight" not in second.hint
