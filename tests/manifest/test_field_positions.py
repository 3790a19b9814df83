"""Errors and warnings of data files stand at the line and column of the value."""

from __future__ import annotations

import pytest

TEXT = "params: {prompt: '{{ s }}'}\nitems: {file: %s}\n"


def place(bench, name, rows, text=TEXT):
    """Return the position of the only error."""
    bench.write(name, rows)
    (found,) = bench.errors(text % name)
    return found.line, found.column, found.key


@pytest.mark.parametrize(("rows", "line", "column"), [
    ("s,clarity\na,5\n", 2, 3),
    ('s,clarity\n"a, b",5\n', 2, 8),
    ('s,clarity\n"a ""b"", c",5\n', 2, 14),
    ('s,clarity\n"a",  5\n', 2, 5),
    ('s,clarity\na,"5"\n', 2, 3),
    ("s,x,clarity\nfox,,5\n", 2, 6),
    ('s,clarity\n"a\nb",5\n', 3, 4),
    ('s,clarity\n"a\n\n, b","5"\n', 4, 6),
    ('s,clarity\r\n"a\r\nb",5\r\n', 3, 4),
    ("s,clarity\ra,1024\rb,5\r", 3, 3),
    ('clarity,s\n"5\n",fox\n', 2, 1),
    ("\ufeffs,clarity\n狐狸,5\n", 2, 4),
    ("sep=;\ns;clarity\na,b;5\n", 3, 5),
    ('sep=|\ns|clarity\n"a|b"|5', 3, 7),
    ("clarity,s\n5,fox\n", 2, 1),
    ("s,clarity,,\na,5,,\n", 2, 3),
])  # fmt: skip
def test_value_of_a_csv(rows, line, column, bench):
    assert place(bench, "r.csv", rows.encode()) == (line, column, "clarity")


@pytest.mark.parametrize(("rows", "column"), [('s\tclarity\n"a\t5\n', 4), ('x\ts\tclarity\n\tb,"c\t5\n', 7)])
def test_value_of_a_tsv(rows, column, bench):
    assert place(bench, "r.tsv", rows) == (2, column, "clarity")


@pytest.mark.parametrize(("rows", "line", "column"), [
    ('{"s": "a", "clarity": 5}\n', 1, 23),
    ('{"s": "a"}\n\n  {"clarity":5,"s":"}, {"}\n', 3, 14),
    ('{"s": "a", "y": {"clarity": 1}, "x": ["\\"", {}], "clarity" : "5" }\n', 1, 62),
    ('{"clarity": 1024, "s": "a", "clarity": 5}\n', 1, 40),
    ('{"cl\\u0061rity": 5, "s": "a"}\n', 1, 18),
    ('{"s": "狐狸", "clarity": 5}\n', 1, 24),
])  # fmt: skip
def test_value_of_jsonl(rows, line, column, bench):
    assert place(bench, "r.jsonl", rows.encode()) == (line, column, "clarity")


@pytest.mark.parametrize(("rows", "line", "column"), [
    ('[{"s": "a", "clarity": 5}]', 1, 24),
    ('[\n  {"s": "a"},\n  {\n    "s": "b",\n    "clarity": 5\n  }\n]', 5, 16),
    ('{"one": {"s": "a", "clarity": 5}}', 1, 31),
    ('{\n "a{": {"s": "a"},\n "b":\n {"s": "b",\n "clarity":\n5}}', 6, 1),
])  # fmt: skip
def test_value_of_json(rows, line, column, bench):
    assert place(bench, "r.json", rows) == (line, column, "clarity")


def test_missing_value_stands_at_its_row(bench):
    bench.write("r.jsonl", '{"s": "a"}\n{"clarity": 1024}\n')
    assert bench.error(TEXT % "r.jsonl").startswith("r.jsonl:2:1: s: has no value in this row")
    bench.write("r.json", '{"k": {"clarity": 1024, "s": null}}')
    assert bench.error(TEXT % "r.json").startswith("r.json:1:30: s: has no value in this row")


def test_warnings_stand_at_their_values(bench):
    bench.write("r.csv", 's,t\n"a\nb",“x”\n"c",#REF!\n')
    quotes, error = bench.warnings("params: {prompt: '{{ s }} {{ t }}'}\nitems: {file: r.csv}\n")
    assert quotes.startswith("r.csv:3:4: t: stands in quotes")
    assert error.startswith("r.csv:4:5: t: `#REF!` is an error of a spreadsheet")


@pytest.mark.parametrize(("rows", "line", "column"), [
    ("s,x,s\na,1,b\n", 1, 5), ('"a,b",,s\n1,2,3\n', 1, 7), ("sep=;\ns;x;x\n1;2;3\n", 2, 5),
])  # fmt: skip
def test_names_in_a_header(rows, line, column, bench):
    assert place(bench, "r.csv", rows) == (line, column, "")


def test_column_names_in_messages_stand_in_the_header(bench):
    bench.write("r.csv", 'sep=;\n"s";Clarity;sed\na;1;2\n')
    assert bench.error(TEXT % "r.csv").startswith("r.csv:2:5: no text uses the column `Clarity`")


def test_value_without_a_name_stands_where_it_is(bench):
    assert place(bench, "r.csv", 's,x,,\n"a,b",1,,2\n') == (2, 10, "")


def test_value_of_an_axis_from_a_file(bench):
    bench.write("a.csv", "id,clarity\n1,1024\n2,5\n")
    found = bench.error("params: {prompt: x}\nmatrix: {clarity: {file: 'a.csv#clarity'}}\n")
    assert found.startswith("a.csv:3:3: clarity: 5 is not 1024 or 2048")


def test_cell_that_is_too_large_stands_where_it_is(bench, monkeypatch):
    monkeypatch.setattr("runner.manifest.rows.MAX_CELL", 10)
    bench.write("r.csv", "s,x\nfox,12345678901\n")
    (found,) = bench.errors(TEXT % "r.csv")
    assert (found.line, found.column) == (2, 5)


@pytest.mark.parametrize(("blanks", "column"), [(60_000, 60_024), (70_000, 1)])
def test_search_of_a_long_line_of_json_is_bounded(bench, blanks, column):
    assert place(bench, "r.json", f'[{" " * blanks}{{"s": "a", "clarity": 5}}]') == (1, column, "clarity")
