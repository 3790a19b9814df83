from __future__ import annotations

import datetime as dt
import io
import sys
import zipfile

import pytest

from runner.manifest.diagnostics import Diagnostics
from runner.manifest.rows import read_rows
from runner.manifest.workbooks import cell_text
from tests.workbook_files import (
    DATE,
    DATE_TIME,
    DURATION,
    PERCENT,
    TIME,
    cell,
    ods,
    ods_parts,
    ods_rows,
    pack,
    xlsx,
    xlsx_parts,
    xlsx_rows,
)

pytest.importorskip("python_calamine", reason="workbooks need the extra `tables`")
WRITERS = {"r.xlsx": xlsx, "r.ods": ods}
KINDS = pytest.mark.parametrize("name", list(WRITERS))
MANIFEST = "params: {prompt: '{{ s }}'}\nitems: {file: r.xlsx}\n"


def read(bench, name: str, content: bytes, sheet: str = "") -> list[tuple[int, dict]]:
    """Return the rows of a workbook without an error, and leave its warnings on the bench."""
    diagnostics = Diagnostics("job.yaml")
    found = [(row.line, row.values) for row in read_rows(bench.write(name, content), name, diagnostics, sheet=sheet)]
    diagnostics.raise_any()
    bench.said = [str(each) for each in diagnostics.warnings]
    return found


def wrong(bench, name: str, content: bytes, sheet: str = "") -> list[str]:
    diagnostics = Diagnostics("job.yaml")
    list(read_rows(bench.write(name, content), name, diagnostics, sheet=sheet))
    return [str(each) for each in diagnostics.error().diagnostics]


@KINDS
def test_rows_and_their_numbers(bench, name):
    rows = [["a", " b "], ["1", "x"], [None, None], ["two\nlines", "江南"]]
    assert read(bench, name, WRITERS[name](rows)) == [
        (2, {"a": "1", "b": "x"}),
        (4, {"a": "two\nlines", "b": "江南"}),
    ]
    assert bench.said == ["r." + name[2:] + "#Rows:3:1: every cell of this row is empty, and it is passed over; "
                          "take out what is not meant as a row"]  # fmt: skip


@KINDS
def test_table_may_begin_further_down(bench, name):
    rows = [[], [], [None, "a", "b"], [None, "x", 1.0], [None, None, 2]]
    assert read(bench, name, WRITERS[name](rows)) == [(4, {"a": "x", "b": "1"}), (5, {"a": "", "b": "2"})]


def test_values_of_xlsx_are_text(bench):
    values = [1.0, 1.5, True, (45355, DATE), (0.672916666666667, TIME), (45355.5, DATE_TIME), (1.5, DURATION),
              (0.5, PERCENT), 0.30000000000000004, 1e-7, 123456789012345, "007"]  # fmt: skip
    ((_, found),) = read(bench, "r.xlsx", xlsx([[f"c{at}" for at in range(len(values))], values]))
    assert list(found.values()) == ["1", "1.5", "TRUE", "2024-03-04", "16:09:00", "2024-03-04 12:00:00", "36:00:00",
                                    "0.5", "0.3", "0.0000001", "123456789012345", "007"]  # fmt: skip


def test_values_of_ods_are_text(bench):
    values = [1, ("float", 1.5), ("boolean", "true"), ("date", "2024-03-04"), ("time", "PT16H09M00S"),
              ("percentage", 0.5), "007"]  # fmt: skip
    ((_, found),) = read(bench, "r.ods", ods([[f"c{at}" for at in range(len(values))], values]))
    assert list(found.values()) == ["1", "1.5", "TRUE", "2024-03-04", "16:09:00", "0.5", "007"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.0**53, "9007199254740990"), (-3.0, "-3"), (dt.timedelta(hours=-1, seconds=-5), "-01:00:05"), (7, "7")],
)
def test_text_of_a_cell(value, text):
    assert cell_text(value) == text


def test_same_table_as_csv_asks_for_the_same(bench):
    """Whoever saves a table as CSV, or the other way round, buys nothing again."""
    bench.write("r.xlsx", xlsx([["s", "clarity"], ["a cat", 2048.0], ["a dog", 1024]]))
    bench.write("r.csv", "s,clarity\na cat,2048\na dog,1024\n")
    bench.write("r.ods", ods([["s", "clarity"], ["a cat", 2048.0], ["a dog", 1024]]))
    keys = [
        {draft.key for draft in bench.drafts(MANIFEST.replace("r.xlsx", file))} for file in ("r.xlsx", "r.csv", "r.ods")
    ]
    assert keys[0] == keys[1] == keys[2]
    assert len(keys[0]) == 2


def test_time_that_was_a_ratio_is_named(bench):
    bench.write("r.xlsx", xlsx([["s", "aspect_ratio"], ["a", (0.672916666666667, TIME)]]))
    assert bench.drafts(MANIFEST)[0].request["aspect_ratio"] == "16:09:00"


@KINDS
def test_sheet_is_chosen_by_name(bench, name):
    book = WRITERS[name]([["a"], ["1"]], Second=[["b"], ["2"]], Empty=[])
    assert read(bench, name, book, "Second") == [(2, {"b": "2"})]
    assert bench.said == []
    assert wrong(bench, name, book, "Secnd") == [f"{name}: there is no sheet `Secnd`; did you mean `Second`?"]


@KINDS
def test_several_filled_sheets_give_a_warning(bench, name):
    book = WRITERS[name]([], First=[["a"], ["1"]], Empty=[], Second=[["b"], ["2"]])
    assert read(bench, name, book) == [(2, {"a": "1"})]
    assert bench.said == [
        (
            f"{name}:1:1: the sheet `First` is read alone, and there are rows in `Second`; "
            "name the sheet that is meant: `items: {file: …, sheet: First}`"
        )
    ]


def test_hidden_sheets_are_read_only_by_name(bench):
    rows = {"Hidden": xlsx_rows([["a"], ["1"]]), "Very": xlsx_rows([["a"], ["1"]]), "Shown": xlsx_rows([["b"], ["2"]])}
    book = pack(xlsx_parts(rows, {"Hidden": "hidden", "Very": "veryHidden"}))
    assert read(bench, "r.xlsx", book) == [(2, {"b": "2"})]
    assert bench.said == []
    assert read(bench, "r.xlsx", book, "Hidden") == [(2, {"a": "1"})]
    rows = {"Hidden": ods_rows([["a"], ["1"]]), "Shown": ods_rows([["b"], ["2"]])}
    assert read(bench, "r.ods", pack(ods_parts(rows, ("Hidden",)))) == [(2, {"b": "2"})]
    assert bench.said == []


def test_hidden_rows_are_read_and_said(bench):
    rows = [["a", "b"], ["1", "x"], ["2", "y"], ["3", "z"]]
    for name, book in (
        ("r.xlsx", pack(xlsx_parts({"R": xlsx_rows(rows, (3, 4))}))),
        ("r.ods", pack(ods_parts({"R": ods_rows(rows, (3, 4))}))),
    ):
        assert len(read(bench, name, book)) == 3
        assert bench.said == [
            (
                f"{name}#R:3:1: 2 hidden rows are read like the others, from this one on; "
                "delete what is not meant; a filter only hides"
            )
        ]


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
@pytest.mark.parametrize("prompt", ["{{ s }}", "{{ s | upper }}", "{% if s %}{{ s }}{% endif %}"])
def test_error_of_a_formula_is_not_bought(bench, name, write, prompt):
    bench.write(name, write([["s", "other"], ["a", "#N/A"], ["#REF!", "b"]]))
    text = f"params: {{prompt: '{prompt}'}}\nitems: {{file: {name}}}\n"
    assert bench.error(text) == (
        f"{name}#Rows:3:1: s: `#REF!` is an error of a formula, and is no value; mend the formula, or empty the cell"
    )


def test_error_of_a_formula_in_unused_cells_is_borne(bench):
    """What decides whether a row is bought is used as well."""
    bench.write("r.xlsx", xlsx([["s", "other", "unused"], ["a", "b", "#N/A"], ["#REF!", "skip", "c"]]))
    assert bench.prompts(f"{MANIFEST}matrix: {{exclude: [{{other: skip}}]}}\n") == ["a"]


def test_error_names_the_cell_where_a_table_begins_further_right(bench):
    bench.write("r.xlsx", xlsx([[], [None, None, "id", "s"], [None, None, "1", "#REF!"]]))
    assert bench.error(MANIFEST).startswith("r.xlsx#Rows:3:4: s: `#REF!`")


def test_error_of_a_formula_is_no_value_of_an_axis(bench):
    bench.write("r.xlsx", xlsx([["s"], ["a"], ["#REF!"]]))
    error = bench.error("params: {prompt: '{{ s }}'}\nmatrix: {s: {file: r.xlsx#s}}\n")
    assert error.startswith("r.xlsx#Rows:3:1: s: `#REF!` is an error of a formula")


def test_errors_of_older_programs_in_ods_are_found(bench):
    """They write the value 0 and show the error."""
    old = (
        '<table:table-cell table:formula="of:=1/0" office:value-type="float" office:value="0"><text:p>{}</text:p>'
        "</table:table-cell>"
    )
    for shown in ("#DIV/0!", "Err:502", "#N/A", "#NAME?"):
        row = f"<table:table-row>{old.format(shown)}</table:table-row>"
        bench.write(
            "r.ods",
            pack(ods_parts({"R": ods_rows([["s"]]).replace("</table:table-row>", "</table:table-row>" + row, 1)})),
        )
        assert f"`{shown}` is an error of a formula" in bench.error(MANIFEST.replace("xlsx", "ods"))


@KINDS
def test_formula_that_was_never_computed_is_an_error(bench, name):
    """Libraries write formulas without values, and only a spreadsheet computes them."""
    assert wrong(bench, name, WRITERS[name]([["a", "b"], ["x", "=A2+1"]])) == [
        (
            f"{name}#Rows:2:2: a formula whose value was never computed; "
            "open the workbook in a spreadsheet and save it, or write the value"
        )
    ]


def test_value_of_a_formula_is_read(bench):
    row = '<row r="2"><c r="A2"><f>1+1</f><v>2</v></c><c r="B2" t="str"><f>""</f><v></v></c></row>'
    assert read(bench, "r.xlsx", pack(xlsx_parts({"R": xlsx_rows([["a", "b"]]) + row}))) == [(2, {"a": "2", "b": ""})]


@KINDS
def test_header_and_places_are_checked(bench, name):
    write = WRITERS[name]
    assert wrong(bench, name, write([["a", "a"], ["1", "2"]])) == [
        f"{name}#Rows:1:2: two columns are called `a`; rename one of them"
    ]
    assert wrong(bench, name, write([["a", None], ["1", "2"]])) == [
        (
            f"{name}#Rows:2:2: there is a value in column 2, which has no name; "
            "name the column in the first line, or empty it"
        )
    ]
    assert wrong(bench, name, write([["a"]])) == [f"{name}:1:1: no rows; add one, or take `items` out of the manifest"]
    assert wrong(bench, name, write([])) == [f"{name}#Rows:1:1: no header; name the columns in the first line"]
    assert read(bench, name, write([["a, b"], ["1"]])) == [(2, {"a, b": "1"})]


@KINDS
def test_header_among_the_rows_is_named(bench, name):
    bench.write(name, WRITERS[name]([["s", "clarity"], ["fox", 1024], ["s", "Clarity "]]))
    (error,) = bench.errors(MANIFEST.replace("r.xlsx", name))
    assert error.file.endswith(f"{name}#Rows")
    assert error.line == 3
    assert "this row repeats the header" in str(error)


@pytest.mark.parametrize(
    ("sheet", "words"),
    [
        (cell("A1", "x") + cell("XFD1048576", "x"), "cells as far as row 1,048,576 and column 16,384"),
        (cell("A1", "x") + cell("D1048576", "x"), "4,000,000 cells are read"),
        ('<c r="A99999999999"><v>1</v></c>', "a cell called `A99999999999`"),
        ('<c r="ZZZ1"><v>1</v></c>', "a cell in row 1 and column 18,278"),
        ('<c r="A0"><v>1</v></c>', "a cell called `A0`"),
    ],
)
def test_cells_far_apart_are_refused(bench, sheet, words):
    book = pack(xlsx_parts({"R": f'<row r="1">{sheet}</row>'}))
    (error,) = wrong(bench, "r.xlsx", book)
    assert words in error


def test_styled_cells_far_away_do_not_count(bench):
    far = '<row r="1048576"><c r="XFD1048576" s="1"/></row>'
    assert read(bench, "r.xlsx", pack(xlsx_parts({"R": xlsx_rows([["a"], ["1"]]) + far}))) == [(2, {"a": "1"})]


@pytest.mark.parametrize(
    "row",
    [
        (
            '<table:table-row table:number-rows-repeated="1048576"><table:table-cell office:value-type="string" '
            'table:number-columns-repeated="16384"><text:p>x</text:p></table:table-cell></table:table-row>'
        ),
        '<table:table-row table:number-rows-repeated="99999999999"><table:table-cell/></table:table-row>',
        '<table:table-row><table:table-cell table:number-columns-repeated="-1"/></table:table-row>',
    ],
)
def test_repeated_cells_are_refused(bench, row):
    (error,) = wrong(bench, "r.ods", pack(ods_parts({"R": row})))
    assert "cells are read" in error or "not a workbook that can be read" in error or "a cell in row" in error


def test_repeated_rows_and_cells_keep_their_places(bench):
    row = ('<table:table-row table:number-rows-repeated="3"><table:table-cell/></table:table-row><table:table-row>'
           '<table:table-cell table:number-columns-repeated="2" office:value-type="string"><text:p>x</text:p>'
           '</table:table-cell><table:table-cell table:formula="of:=[.Z9]" calcext:value-type="error" '
           'office:value-type="string"><text:p>#REF!</text:p></table:table-cell></table:table-row>')  # fmt: skip
    table = ods_rows([["a", "b", "s"], ["1", "2", "3"]])
    at = table.rindex("<table:table-row table:number-rows")
    bench.write("r.ods", pack(ods_parts({"R": table[:at] + row + table[at:]})))
    assert bench.error(MANIFEST.replace("xlsx", "ods")).startswith("r.ods#R:6:3: s: `#REF!`")


def test_bomb_is_refused(bench, monkeypatch):
    monkeypatch.setattr("runner.manifest.workbook_parts._MAX_UNPACKED", 1 << 20)
    parts = xlsx_parts({"R": xlsx_rows([["a"], ["1"]])})
    assert (
        "more than 1 MiB, unpacked"
        in wrong(bench, "r.xlsx", pack({**parts, "xl/sharedStrings.xml": " " * 2_000_000}))[0]
    )
    assert read(bench, "r.xlsx", pack({**parts, "xl/media/a.png": " " * 2_000_000})) == [(2, {"a": "1"})]


def _doubled() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in xlsx_parts({"R": ""}).items():
            archive.writestr(name, text)
        archive.writestr("XL/workbook.xml", "")
    return buffer.getvalue()


GOOD = xlsx_parts({"R": xlsx_rows([["a"], ["1"]])})
BROKEN = {
    "nothing": (b"", "not a workbook that can be read"),
    "text": (b"a,b\n1,2\n", "not a workbook that can be read"),
    "cut": (pack(GOOD)[:500], "not a workbook that can be read"),
    "old": (b"\xd0\xcf\x11\xe0" * 100, "a workbook with a password, or an old .xls"),
    "other zip": (pack({"a.txt": "x"}), "no list of sheets in it"),
    "doubled": (_doubled(), "two with one name"),
    "no sheets": (pack(xlsx_parts({})), "no sheet that is visible"),
    "damaged": (pack({**GOOD, "xl/worksheets/sheet1.xml": "<worksheet><sheetData><row>"}), "its XML is damaged"),
    "doctype": (pack({**GOOD, "xl/worksheets/sheet1.xml": "<!DOCTYPE x [<!ENTITY a 'b'>]><x/>"}), "document type"),
    "strings": (pack({**GOOD, "xl/sharedStrings.xml": "<sst><si>"}), "not a workbook that can be read"),
    "count": (pack({**GOOD, "xl/sharedStrings.xml": '<sst uniqueCount="999999999999"/>'}), "a count of 999999999999"),
    "index": (pack({**GOOD, "xl/worksheets/sheet1.xml": '<worksheet><sheetData><row r="1"><c r="A1" t="s"><v>9</v></c>'
                    "</row></sheetData></worksheet>"}), "not a workbook that can be read"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_workbook_is_an_error(bench, kind):
    content, words = BROKEN[kind]
    (error,) = wrong(bench, "r.xlsx", content)
    assert words in error
    assert "; " in error


def test_workbook_without_the_extra(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    assert wrong(bench, "r.xlsx", pack(GOOD)) == [
        (
            'r.xlsx: a workbook needs python-calamine, which is not installed; pip install "genrunner[tables]", '
            "or save the sheet as “CSV UTF-8”"
        )
    ]


def test_sheet_in_the_manifest(bench):
    bench.write("r.xlsx", xlsx([["s"], ["a"]], Second=[["s"], ["b"], ["c"]]))
    assert bench.prompts(MANIFEST.replace("r.xlsx}", "r.xlsx, sheet: Second}")) == ["b", "c"]
    bench.write("r.csv", "s\na\n")
    csv = MANIFEST.replace("r.xlsx}", "r.csv, sheet: A}")
    assert bench.error(csv) == (
        "job.yaml:5:29: items.sheet: expected the name of a sheet of a workbook (.xlsx, .ods), found the text `A`; "
        "take it out: .csv has no sheets"
    )
    assert 'write `sheet: "NAME"`' in bench.error(MANIFEST.replace("r.xlsx}", "r.xlsx, sheet: 3}"))


def test_duration_beyond_all_bounds_is_an_error(bench):
    book = xlsx([["a"], ["1"], [(1e308, DURATION)]])
    (error,) = wrong(bench, "r.xlsx", book)
    assert error.startswith("r.xlsx#Rows:3:1: not a workbook that can be read")


def test_bug_of_the_reader_is_an_error(bench, monkeypatch):
    """Its panics are no Exception of Python's."""
    panic = type("PanicException", (BaseException,), {})

    def fail(_file):
        raise panic

    monkeypatch.setattr("python_calamine.CalamineWorkbook", type("Book", (), {"from_filelike": staticmethod(fail)}))
    assert "a value that its reader cannot take" in wrong(bench, "r.xlsx", pack(GOOD))[0]
