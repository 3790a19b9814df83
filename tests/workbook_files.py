"""Write small workbooks for tests, cell by cell, with the standard library alone."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
#: formats by number: as it is, date, time, date and time, hours beyond a day, per cent
_STYLES = "".join(f'<xf numFmtId="{number}"/>' for number in (0, 14, 21, 22, 46, 9))
DATE, TIME, DATE_TIME, DURATION, PERCENT = range(1, 6)
_ODS_NAMES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text", "style")
) + ' xmlns:calcext="urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0"'  # fmt: skip


def pack(parts: Mapping[str, str | bytes]) -> bytes:
    """Return a zip file of these parts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def column_name(number: int) -> str:
    return ("" if number < 26 else column_name(number // 26 - 1)) + chr(65 + number % 26)


def cell(name: str, value: Any) -> str:
    """Return a cell of .xlsx. A pair is a number and its format; `=` begins a formula, `#` an error."""
    match value:
        case None | "":
            return ""
        case bool():
            return f'<c r="{name}" t="b"><v>{int(value)}</v></c>'
        case (number, style):
            return f'<c r="{name}" s="{style}"><v>{number}</v></c>'
        case int() | float():
            return f'<c r="{name}"><v>{value}</v></c>'
        case str() if value.startswith("#"):
            return f'<c r="{name}" t="e"><v>{escape(value)}</v></c>'
        case str() if value.startswith("="):
            return f'<c r="{name}"><f>{escape(value[1:])}</f></c>'
    return f'<c r="{name}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'


def xlsx_rows(rows: list[list[Any]], hidden: tuple[int, ...] = ()) -> str:
    """Return the rows of a sheet as XML; those whose numbers are in `hidden` are hidden."""
    lines = []
    for number, values in enumerate(rows, 1):
        cells = "".join(cell(f"{column_name(at)}{number}", value) for at, value in enumerate(values))
        mark = ' hidden="1"' if number in hidden else ""
        lines.append(f'<row r="{number}"{mark}>{cells}</row>')
    return "".join(lines)


def xlsx_parts(sheets: dict[str, str], states: dict[str, str] | None = None) -> dict[str, str]:
    """Return the parts of a .xlsx of sheets by their names, each the XML of its rows."""
    shown = states or {}
    names = "".join(
        f'<sheet name={quoteattr(name)} sheetId="{at}" state="{shown.get(name, "visible")}" r:id="rId{at}"/>'
        for at, name in enumerate(sheets, 1)
    )
    links = "".join(
        f'<Relationship Id="rId{at}" Type="{_LINKS}/worksheet" Target="worksheets/sheet{at}.xml"/>'
        for at in range(1, len(sheets) + 1)
    )
    return {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="rId1" Type="{_LINKS}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_LINKS}"><sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_RELATIONS}">{links}<Relationship Id="rS" '
        f'Type="{_LINKS}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><cellXfs count="6">{_STYLES}</cellXfs></styleSheet>',
        **{
            f"xl/worksheets/sheet{at}.xml": f'<worksheet xmlns="{_MAIN}"><sheetData>{text}</sheetData></worksheet>'
            for at, text in enumerate(sheets.values(), 1)
        },
    }


def xlsx(rows: list[list[Any]], **others: list[list[Any]]) -> bytes:
    """Return a .xlsx with the sheet `Rows`, and others by their names."""
    return pack(xlsx_parts({name: xlsx_rows(each) for name, each in {"Rows": rows, **others}.items()}))


def ods_cell(value: Any) -> str:
    """Return a cell of .ods. A pair is a type and the value; `#` begins an error, `=` a formula without a value."""
    match value:
        case None | "":
            return "<table:table-cell/>"
        case (kind, written):
            name = {"date": "date-value", "time": "time-value", "boolean": "boolean-value"}.get(kind, "value")
            return (
                f'<table:table-cell office:value-type="{kind}" office:{name}="{written}"><text:p>shown</text:p>'
                "</table:table-cell>"
            )
        case int() | float():
            return ods_cell(("float", value))
        case str() if value.startswith("#"):
            return (
                '<table:table-cell table:formula="of:=[.Z9]" office:value-type="string" calcext:value-type="error">'
                f"<text:p>{value}</text:p></table:table-cell>"
            )
        case str() if value.startswith("="):
            return f'<table:table-cell table:formula="of:{escape(value)}"/>'
    return f'<table:table-cell office:value-type="string"><text:p>{escape(value)}</text:p></table:table-cell>'


def ods_rows(rows: list[list[Any]], hidden: tuple[int, ...] = ()) -> str:
    """Return the rows of a sheet as XML, and the empty rest of a sheet as programs write it."""
    lines = []
    for number, values in enumerate(rows, 1):
        mark = ' table:visibility="filter"' if number in hidden else ""
        lines.append(f"<table:table-row{mark}>{''.join(map(ods_cell, values))}</table:table-row>")
    rest = '<table:table-cell table:number-columns-repeated="16384"/>'
    return f'{"".join(lines)}<table:table-row table:number-rows-repeated="1048000">{rest}</table:table-row>'


def ods_parts(sheets: dict[str, str], hidden: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the parts of an .ods of sheets by their names, each the XML of its rows."""
    tables = "".join(
        f'<table:table table:name={quoteattr(name)} table:style-name="{"ta2" if name in hidden else "ta1"}">'
        f"{text}</table:table>"
        for name, text in sheets.items()
    )
    styles = "".join(
        f'<style:style style:name="{name}" style:family="table"><style:table-properties table:display="{shown}"/>'
        "</style:style>"
        for name, shown in (("ta1", "true"), ("ta2", "false"))
    )
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    manifest = 'xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"'
    return {
        "mimetype": kind,
        "META-INF/manifest.xml": f"<manifest:manifest {manifest}>"
        f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{kind}"/></manifest:manifest>',
        "content.xml": f"<office:document-content {_ODS_NAMES}><office:automatic-styles>{styles}"
        f"</office:automatic-styles><office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>"
        "</office:document-content>",
    }


def ods(rows: list[list[Any]], **others: list[list[Any]]) -> bytes:
    """Return an .ods with the sheet `Rows`, and others by their names."""
    return pack(ods_parts({name: ods_rows(each) for name, each in {"Rows": rows, **others}.items()}))
