from __future__ import annotations

import csv
import io
import tracemalloc

import pytest

from runner.report import results

OUTPUT = {"file": "a.png", "bytes": 3, "sha256": "s", "media_type": "image/png"}
ROW = {
    "key": "k", "position": 1, "repeat": 1, "vars": {"题": "猫"}, "provider": "p", "model": "m", "request": {"x": 1},
    "state": "done", "remote_id": "830895211326457236", "reason": None, "code": None, "message": None, "attempts": 0,
    "doubts": 0, "cost": 4.0, "spent": 4.0, "queued_at": 0.0, "submitted_at": 1.5, "finished_at": None,
    "outputs": [OUTPUT],
}  # fmt: skip


def row(**fields):
    return {**ROW, **fields}


def as_csv(*rows) -> bytes:
    file = io.BytesIO()
    results.write_csv(rows, results.ColumnTypes().scan(rows), file)
    return file.getvalue()


def table(*rows) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(*rows).decode("utf-8-sig"), newline="")))


DANGEROUS = (
    "=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "\nx", " =1", "\u3000=1", "\ufeff=1", "\u200b =1",
    "\x00=1", "\u00a0@x", "＝1+1", "＋x", "－x", "＠x", "--help", "- a list", "=", "1000000000000000",
)  # fmt: skip
HARMLESS = (
    ("a heron = a bird", "a heron = a bird"), ("竹影, 晨光", "竹影, 晨光"), ("'quoted'", "'quoted'"), ("", ""),
    ("1:1", "1:1"), ("-5", "-5"), ("+3.5", "+3.5"), ("-1e5", "-1e5"), (".5", ".5"), ("(-3)", "(-3)"),
    ("123456789012345", "123456789012345"), (None, ""), (-5, "-5"), (0.25, "0.25"), (True, "true"),
    ([1, "=x"], '[1,"=x"]'), ({"a": None}, '{"a":null}'),
)  # fmt: skip


@pytest.mark.parametrize("text", DANGEROUS)
def test_dangerous_text_is_quoted_in_csv(text):
    assert results.csv_cell(text) == f"'{text}"


@pytest.mark.parametrize(("value", "shown"), HARMLESS)
def test_safe_values_stay_unchanged_in_csv(value, shown):
    assert results.csv_cell(value) == shown


def test_formula_comes_back_as_text():
    (parsed,) = table(row(vars={"题": '=HYPERLINK("http://x","y")\r\nz'}))
    assert parsed["vars.题"] == '\'=HYPERLINK("http://x","y")\r\nz'


def test_csv_is_rfc_4180_with_a_byte_order_mark():
    text = as_csv(row(vars={"题": '猫, "小"\nb'}))
    assert text.startswith("\ufeffkey,index,repeat,state,provider,model,vars.题,request.x,files,".encode())
    assert text.endswith(b"\r\n")
    assert '"猫, ""小""\nb"'.encode() in text


def test_row_is_a_task_with_a_column_for_every_name():
    first, second = table(
        row(vars={"a": "x"}, outputs=[OUTPUT, {**OUTPUT, "file": "b.png", "bytes": 4}]),
        row(vars={"b": 2}, request={"y": [1]}, position=None, state="queued", outputs=[], cost=None, remote_id=None),
    )
    assert (first["vars.a"], first["vars.b"], first["request.x"], first["request.y"]) == ("x", "", "1", "")
    assert (second["vars.a"], second["vars.b"], second["request.x"], second["request.y"]) == ("", "2", "", "[1]")
    assert (first["files"], first["bytes"], first["sha256"]) == ("a.png; b.png", "7", "s; s")
    assert (second["files"], second["bytes"], second["index"], second["cost"]) == ("", "", "", "")
    assert (first["cost"], first["remote_id"], first["submitted_at"]) == (
        "4.0",
        "'830895211326457236",
        "1970-01-01T00:00:01.500Z",
    )


def test_error_has_columns():
    (parsed,) = table(row(state="failed", reason="moderation", code="50011", message="=no"))
    assert (parsed["error.reason"], parsed["error.code"], parsed["error.message"]) == ("moderation", "50011", "'=no")


def test_evidence_is_the_last_column():
    text = "absent from a list that shows =x, accepted 4 s after the quiet time"
    (parsed,) = table(row(evidence=text))
    assert list(parsed)[-1] == "evidence"
    assert parsed["evidence"] == text


def test_empty_job_has_a_header():
    (header,) = as_csv().decode("utf-8-sig").splitlines()
    assert header.split(",")[:7] == ["key", "index", "repeat", "state", "provider", "model", "files"]


def test_jsonl_has_the_lines_of_the_results_file(tmp_path):
    rows = [row(), row(key="l", outputs=[])]
    file = io.BytesIO()
    results.write_jsonl(rows, file)
    results.write(tmp_path / "results.jsonl", rows)
    assert file.getvalue() == (tmp_path / "results.jsonl").read_bytes()


class Endless(io.RawIOBase):
    """Stream that discards everything."""

    def writable(self):
        return True

    def write(self, data):
        return len(data)


@pytest.mark.slow
@pytest.mark.parametrize("write", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_job(write):
    class Rows:
        def __iter__(self):
            return (row(key=str(number), vars={"题": f"{number} " * 200}) for number in range(4_000))

    file = io.BufferedWriter(Endless())
    tracemalloc.start()
    try:
        if write == "csv":
            results.write_csv(Rows(), results.ColumnTypes().scan(Rows()), file)
        else:
            results.write_jsonl(Rows(), file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # the rows come to 4 MB


def test_columns_collect_value_types():
    columns = results.ColumnTypes().scan([row(vars={"a": 1, "b": 2**63}), row(vars={"a": None, "c": "x"}, request={})])
    assert list(columns.vars) == ["a", "b", "c"]
    assert columns.vars == {"a": {int, type(None)}, "b": {str}, "c": {str}}


# parquet, if pyarrow is installed


@pytest.fixture
def read():
    arrow = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")

    def read(*rows):
        file = io.BytesIO()
        results.write_parquet(rows, results.ColumnTypes().scan(rows), file)
        return arrow.read_table(io.BytesIO(file.getvalue()))

    return read


def test_parquet_columns_have_types(read):
    parsed = read(
        row(vars={"n": 1, "f": 1, "b": True, "mixed": 1, "s": "猫", "big": 2**63, "l": [1]}),
        row(vars={"n": None, "f": 0.5, "mixed": "x"}, outputs=[], cost=None, remote_id=None, position=None),
    )
    kinds = {name: str(parsed.schema.field(f"vars.{name}").type) for name in ("n", "f", "b", "mixed", "s", "big", "l")}
    assert kinds == {
        "n": "int64", "f": "double", "b": "bool", "mixed": "string", "s": "string", "big": "string", "l": "string",
    }  # fmt: skip
    first, second = parsed.to_pylist()
    assert (first["vars.n"], first["vars.f"], first["vars.mixed"], first["vars.l"]) == (1, 1.0, "1", "[1]")
    assert (first["vars.big"], first["outputs"], first["cost"]) == (str(2**63), [OUTPUT], 4.0)
    assert first["submitted_at"].isoformat() == "1970-01-01T00:00:01.500000+00:00"
    assert (second["vars.mixed"], second["outputs"], second["cost"], second["finished_at"]) == ("x", [], None, None)


def test_parquet_with_no_rows_and_with_two_groups(read):
    assert read().num_rows == 0
    assert read(*[row(position=number) for number in range(6_000)])["index"].to_pylist() == list(range(6_000))
