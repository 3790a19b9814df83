"""Rows with marks of the program that wrote the table, which would be bought as they stand."""

from __future__ import annotations

import pytest

from runner.errors import ManifestError
from runner.manifest.row_lint import RowLint

TEXT = "params: {prompt: 'photo of {{ s }}'}\nitems: {file: %s}\n"


def found(bench, rows, name="r.csv", text=TEXT):
    bench.write(name, rows)
    return bench.warnings(text % name)


def test_a_header_among_the_rows(bench):
    warning = next(each for each in found(bench, "s,x\nfox,1\ns,x\nhen,1\ns,x\n") if "identical" not in each)
    assert warning.startswith("r.csv:3:1: s: this row repeats the header (and 1 more), and is bought like any other")


@pytest.mark.parametrize("rows", ["s\nfox\ns \nhen\n", "s,x\nfox,1\ns,2\n"])
def test_a_row_that_is_no_header(bench, rows):
    assert not [each for each in found(bench, rows) if "header" in each]


@pytest.mark.parametrize("value", ["“red fox”", "„roter Fuchs“", "‘a hen’", "”en räv”", "＂狐狸＂"])
def test_typographic_quotes_around_a_value(bench, value):
    (warning,) = found(bench, f"s\nhen\n{value}\n")
    assert warning.startswith(f"r.csv:3:1: s: stands in quotes, `{value[0]}…{value[-1]}`, which are sent with it")


@pytest.mark.parametrize("value", ["a “red” fox", "“red” fox and “blue” hen!", "狐狸「红」", "“”", "it’s"])
def test_quotes_that_belong_to_a_text(bench, value):
    assert found(bench, f"s\nhen\n{value}\n") == []


@pytest.mark.parametrize("name", ["r.tsv", "r.txt"])
def test_straight_quotes_where_they_are_text(bench, name):
    text = "items: {file: %s}\n"
    rows = 'hen\n"red fox"\n' if name == "r.txt" else 'prompt\tn\nhen\t1\n"red fox"\t1\n'
    (warning,) = found(bench, rows, name, text)
    assert 'prompt: the quotes in `"…"` are text here, and are sent' in warning


def test_straight_quotes_of_csv_are_none(bench):
    assert found(bench, 's\n"red fox"\n') == []


@pytest.mark.parametrize(("mark", "shown"), [("\u200b", "U+200B"), ("\ufeff", "U+FEFF"), ("\u00ad", "U+00AD")])
def test_invisible_characters_inside(bench, mark, shown):
    (warning,) = found(bench, f"s\nhen\nred{mark}fox\nblue{mark}fox\n")
    assert warning.startswith(f"r.csv:3:1: s: holds {shown}, which nobody sees (and 1 more), and it is sent")


@pytest.mark.parametrize("value", ["👩\u200d🎨", "می\u200cخواهم", "Bonjour\u00a0!", "\ufeffhen", "狐狸\u3000红"])
def test_characters_that_a_text_needs(bench, value):
    assert found(bench, f"s\nfox\n{value}\n") == []


@pytest.mark.parametrize("rows", [
    "red fox\nred\u00a0fox\n", "red\u202ffox\nred fox\n", "red\u00a0fox\nred\u2007fox\n",
    "r\u00e9d fox\nre\u0301d\u00a0fox\n",
])  # fmt: skip
def test_rows_that_differ_in_what_nobody_sees(bench, rows):
    (warning,) = found(bench, f"s\nhen\n{rows}")
    assert ": s: differs from another row in U+" in warning
    assert "both are bought" in warning


def test_columns_that_nothing_uses_do_not_count(bench):
    warnings = found(bench, "s,note\nfox,“a”b”\nhen,x\u200by\n")
    assert all("nothing uses" in each for each in warnings)


def test_rows_that_make_no_task_do_not_count(bench):
    text = TEXT + "matrix: {exclude: [{s: s}]}\n"
    assert found(bench, "s,x\nfox,1\ns,x\n", text=text) == []


def test_numbers_of_findings_and_memory_are_bounded(bench, monkeypatch):
    monkeypatch.setattr("runner.manifest.row_lint._MAX_COMPARED", 10)
    monkeypatch.setattr("runner.manifest.row_lint._MAX_HIDDEN", 3)
    rows = "".join(f"fox {number}\nfox\u00a0{number}\nfox\u202f{number}\n" for number in range(20))
    (warning,) = found(bench, f"s\n{rows}")
    assert "(and so do 5 more)" in warning


def test_a_plain_row_costs_no_search(bench, monkeypatch):
    monkeypatch.setattr(RowLint, "_count_unusual", lambda *_: pytest.fail("searched"))
    assert found(bench, "s\nfox\nhen\n") == []


# a header among the rows whose values are wrong

REPEATED = "this row repeats the header, and its values are wrong; take it out; it comes from tables that were joined"


@pytest.mark.parametrize(("header", "text"), [
    ("s,clarity", TEXT),
    ("s, Clarity ", "params: {prompt: '{{ s }}', clarity: '{{ Clarity }}'}\nitems: {file: %s}\n"),
    ("model,s", "params: {prompt: '{{ s }}'}\nitems: {file: %s}\n"),
    ("x,model,clarity,s", TEXT),
])  # fmt: skip
def test_header_that_meets_choices_is_named(bench, header, text):
    row = "".join(
        {"s": "fox", "clarity": "1024", "model": "ink", "x": ""}[name.strip().lower()] + ","
        for name in header.split(",")
    )[:-1]
    bench.write("r.csv", f"{header}\n{row}\n{header}\n{row}2\n{header.upper()}\n")
    head = "version: 1\nprovider: fake\n" + ("" if "model" in header else "model: ink\n")
    found = [each for each in bench.errors(text % "r.csv", head=head) if "repeats" in str(each)]
    assert [(each.line, each.column, each.key) for each in found] == [(3, 1, ""), (5, 1, "")]
    assert str(found[0]).endswith(REPEATED)
    assert not [each for each in bench.errors(text % "r.csv", head=head) if each.line in {3, 5} and each not in found]


def test_header_that_is_an_error_is_no_warning_too(bench):
    bench.write("r.tsv", "s\tclarity\nfox\t1024\ns\tclarity\n")
    with pytest.raises(ManifestError) as caught:
        bench.examine(TEXT % "r.tsv")
    assert [str(each).endswith(REPEATED) for each in caught.value.diagnostics] == [True]
    assert caught.value.warnings == ()


def test_error_that_is_not_of_the_row_leaves_the_header_a_warning(bench):
    bench.write("r.csv", "s\nfox\ns\n")
    text = "params: {prompt: '{{ s }}', clarity: 5}\nitems: {file: r.csv}\n"
    assert "job.yaml:4:38: params.clarity: 5 is not 1024 or 2048" in bench.error(text)
    text = "params: {prompt: '{{ s }}'}\nitems: {file: r.csv}\nmatrix: {clarity: [1024, 7]}\n"
    assert "matrix.clarity[1]: 7 is not" in bench.error(text)


@pytest.mark.parametrize("rows", ['{"s": "s", "clarity": "clarity"}\n', '[{"s": "s", "clarity": "clarity"}]'])
def test_json_has_no_header_to_repeat(bench, rows):
    name = "r.json" if rows.startswith("[") else "r.jsonl"
    bench.write(name, rows)
    assert "clarity: clarity is not 1024 or 2048" in bench.error(TEXT % name)


@pytest.mark.parametrize("line", ["s", "Clarity,s,x,s", "x,s"])
def test_header_of_another_width_is_named(bench, line):
    bench.write("r.csv", f"s,clarity,x\nfox,1024,\n{line}\n")
    (found,) = bench.errors(TEXT % "r.csv")
    assert found.message.startswith("the header of another table, ")
    assert "join tables by the names of their columns" in found.hint
