"""Measure a workbook, `.xlsx` or `.ods`, before its reader does, and note what the reader does not say.

A workbook is a compressed file from elsewhere, and its reader keeps a sheet in memory as one rectangle: two cells in
opposite corners would be 17 thousand million. So every part is unpacked once, bounded, and the cells are counted. The
reader leaves errors of formulas and formulas without a value empty; the same pass finds them, and hidden rows.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING
from xml.parsers import expat

from runner.manifest.decoding import BadDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: cells of the rectangle of a sheet; bytes of all parts that are read, unpacked; bytes of the file
_MAX_CELLS, _MAX_UNPACKED, _MAX_PACKED = 4_000_000, 512 << 20, 256 << 20
#: parts and sheets of a workbook, and cells that are remembered for what is wrong in them
_MAX_PARTS, _MAX_SHEETS, _MAX_NOTED = 10_000, 1_000, 10_000
_LAST_ROW, _LAST_COLUMN = 1_048_576, 16_384
_CHUNK = 1 << 20
#: characters of the text of an error that are kept
_SHOWN_TEXT = 40
_OLE_MARK = b"\xd0\xcf\x11\xe0"
_CELL_NAME = re.compile(r"([A-Za-z]{1,3})([1-9][0-9]{0,6})")
#: what a spreadsheet shows for an error
_ERROR = re.compile(r"#[A-Z][A-Z0-9_/]*[!?]?|#[A-Z]+/[A-Z0]+[!?]?|Err:[0-9]{3}")
#: target of a sheet in the list of relations
_SHEET_TARGET = re.compile(r"(?:/xl/)?(worksheets/[^/\\]+)")
#: names of parts that the reader may open, whatever they are for
_TEXT_PART = re.compile(r".*\.(?:xml|rels)|\[content_types\].xml|mimetype", re.IGNORECASE | re.DOTALL)
#: parts whose counts the reader believes, and digits of the largest count
_COUNTED_PARTS = frozenset(("xl/sharedstrings.xml", "xl/styles.xml", "xl/workbook.xml"))
_COUNT_DIGITS = 9
SAVE_HINT = "open it in a spreadsheet and save it again, or save the sheet as “CSV UTF-8”"
_SIZE_HINT = "save the sheet as “CSV UTF-8”, which is read row by row"


@dataclass(slots=True)
class SheetParts:
    """What one pass finds in a sheet. Rows and columns count from 1."""

    name: str
    hidden: bool = False
    #: name of the part that holds it, empty in .ods
    part: str = ""
    #: the rectangle of its filled cells
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    #: rows with filled cells that are hidden or filtered out
    hidden_rows: int = 0
    first_hidden: int = 0
    _last_hidden: int = 0
    #: by row and column, the text of errors of formulas
    errors: dict[tuple[int, int], str] = field(default_factory=dict)
    #: row and column of formulas without a value
    uncomputed: list[tuple[int, int]] = field(default_factory=list)

    def add_error(self, row: int, column: int, text: str | None) -> None:
        """Note the text of an error, or None for a formula that has no value. Raise BadDataError for too many."""
        if text is None:
            self.uncomputed.append((row, column))
        else:
            self.errors[row, column] = text or "#ERROR!"
        if len(self.errors) + len(self.uncomputed) > _MAX_NOTED:
            message = f"more than {_MAX_NOTED:,} errors of formulas in the sheet `{self.name[:40]}`"
            raise BadDataError(row, message, "mend the formulas, or save their values alone")

    def fill(self, row: int, column: int, rows: int = 1, columns: int = 1) -> None:
        """Widen the rectangle by filled cells. Raise BadDataError if it becomes larger than what is read."""
        last_row, last_column = row + rows - 1, column + columns - 1
        if not 1 <= row <= last_row <= _LAST_ROW or not 1 <= column <= last_column <= _LAST_COLUMN:
            raise BadDataError(0, f"a cell in row {last_row:,} and column {last_column:,}", SAVE_HINT)
        self.top, self.left = min(self.top or row, row), min(self.left or column, column)
        self.bottom, self.right = max(self.bottom, last_row), max(self.right, last_column)
        if self.bottom * self.right > _MAX_CELLS:
            message = f"cells as far as row {self.bottom:,} and column {self.right:,}; {_MAX_CELLS:,} cells are read"
            hint = f"delete what stands far from the table in the sheet `{self.name[:40]}`, or {_SIZE_HINT}"
            raise BadDataError(self.bottom, message, hint)

    def count_hidden(self, row: int, rows: int = 1) -> None:
        """Count hidden rows that begin at `row`, once, whatever number of filled cells they have."""
        if row != self._last_hidden:
            self.hidden_rows += rows
            self.first_hidden, self._last_hidden = self.first_hidden or row, row


def measure(file: IO[bytes], chosen: str) -> tuple[list[SheetParts], SheetParts | None]:
    """Return the sheets of a workbook, and the one that `chosen` names, by default the first visible one with cells.

    Of the others only their first filled cell counts. Raise BadDataError for what is no workbook or too large.
    """
    file.seek(0, 2)
    if file.tell() > _MAX_PACKED:
        raise BadDataError(0, f"a workbook of more than {_MAX_PACKED >> 20} MiB", _SIZE_HINT)
    file.seek(0)
    if file.read(4) == _OLE_MARK:
        hint = "save it as .xlsx, without a password"
        raise BadDataError(0, "a workbook with a password, or an old .xls under another name", hint)
    try:
        with zipfile.ZipFile(file) as archive:
            parts = _Parts(archive)
            sheets = _read_ods(parts) if "content.xml" in parts else _list_xlsx(parts)
            visible = [sheet for sheet in sheets if not sheet.hidden]
            if chosen:
                found = next((sheet for sheet in sheets if sheet.name == chosen), None)
            else:
                for sheet in sheets if "content.xml" not in parts else ():
                    if sheet.part in parts:
                        _SheetScan(sheet, only_first=True).read(parts.open(sheet.part))
                filled = [sheet for sheet in visible if sheet.bottom]
                found = next(iter(filled or visible), None)
            if found is not None and found.part in parts:
                _SheetScan(found).read(parts.open(found.part))
            return sheets, found
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise BadDataError(0, f"not a workbook that can be read: its XML is damaged ({reason})", SAVE_HINT) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error)[:80] or type(error).__name__
        raise BadDataError(0, f"not a workbook that can be read: {reason}", SAVE_HINT) from None


class _Parts:
    """Parts of a workbook by their names in small letters, all of which fit together into what may be unpacked."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        infos = archive.infolist()
        self._infos = {info.filename.lower().replace("\\", "/"): info for info in infos}
        if len(infos) > _MAX_PARTS or len(self._infos) < len(infos):
            raise BadDataError(0, f"not a workbook: {len(infos):,} parts, or two with one name", SAVE_HINT)
        self._left = _MAX_UNPACKED
        for name in self._infos:
            if _TEXT_PART.fullmatch(name):
                before = self._left
                for _ in self.open(name, counted=True):
                    pass
                if name in _COUNTED_PARTS:
                    _parse(self.open(name), _CountCheck(before - self._left).start)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._infos

    def open(self, name: str, *, counted: bool = False) -> Iterator[bytes]:
        """Yield a part in chunks. Raise BadDataError if it, or all that were counted, are too large."""
        size = 0
        with self._archive.open(self._infos[name.lower()]) as part:
            while chunk := part.read(_CHUNK):
                size += len(chunk)
                self._left -= len(chunk) if counted else 0
                if self._left < 0 or size > _MAX_UNPACKED:
                    message = f"a workbook of more than {_MAX_UNPACKED >> 20} MiB, unpacked"
                    raise BadDataError(0, message, _SIZE_HINT)
                yield chunk


class _CountCheck:
    """Refuses counts that are larger than the part that holds them: the reader reserves memory for as many."""

    def __init__(self, size: int) -> None:
        self._size = size

    def start(self, _name: str, attributes: dict[str, str]) -> None:
        """Raise BadDataError for such a count."""
        for name in ("count", "uniqueCount"):
            written = attributes.get(name, "").strip()
            if written and (not written.isdecimal() or len(written) > _COUNT_DIGITS or int(written) > self._size):
                shown = f"a count of {written[:20]} in a part of {self._size:,} bytes"
                raise BadDataError(0, f"not a workbook that can be read: {shown}", SAVE_HINT)


class _FoundError(Exception):
    """The first filled cell of a sheet was found."""


def _parse(
    chunks: Iterator[bytes],
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None] | None = None,
    text: Callable[[str], None] | None = None,
) -> None:
    """Call the handlers for the elements of a part, whose names have their prefixes. Raise ExpatError."""
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = _reject_doctype
    for chunk in chunks:
        parser.Parse(chunk, False)  # noqa: FBT003 - a parameter of the library without a name
    parser.Parse(b"", True)  # noqa: FBT003


def _reject_doctype(*_: object) -> None:
    raise BadDataError(0, "not a workbook that can be read: its XML declares a document type", SAVE_HINT)


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _list_xlsx(parts: _Parts) -> list[SheetParts]:
    """Return the sheets of a .xlsx without their cells."""
    if "xl/workbook.xml" not in parts or "xl/_rels/workbook.xml.rels" not in parts:
        hint = "is this the right file? Numbers and Google save .xlsx by “Export” or “Download”"
        raise BadDataError(0, "not a workbook: no list of sheets in it", hint)
    targets: dict[str, str] = {}
    sheets: list[SheetParts] = []

    def add_relation(name: str, attributes: dict[str, str]) -> None:
        if _local(name) == "Relationship" and (found := _SHEET_TARGET.fullmatch(attributes.get("Target", ""))):
            targets[attributes.get("Id", "")] = f"xl/{found[1]}"

    def add_sheet(name: str, attributes: dict[str, str]) -> None:
        if _local(name) == "sheet":
            link = next((value for key, value in attributes.items() if key.endswith(":id")), "")
            if part := targets.get(link, ""):
                hidden = attributes.get("state", "visible") != "visible"
                _add_sheet(sheets, SheetParts(attributes.get("name", ""), hidden, part))

    _parse(parts.open("xl/_rels/workbook.xml.rels"), add_relation)
    _parse(parts.open("xl/workbook.xml"), add_sheet)
    return sheets


def _add_sheet(sheets: list[SheetParts], sheet: SheetParts) -> None:
    if len(sheets) >= _MAX_SHEETS or any(each.name == sheet.name for each in sheets):
        raise BadDataError(0, f"more than {_MAX_SHEETS:,} sheets, or two called `{sheet.name[:40]}`", SAVE_HINT)
    sheets.append(sheet)


class _SheetScan:
    """One pass over the cells of a sheet of .xlsx. With `only_first` it ends at the first filled cell."""

    def __init__(self, sheet: SheetParts, *, only_first: bool = False) -> None:
        self._sheet, self._only_first = sheet, only_first
        self._row = self._column = 0
        self._is_hidden = self._in_cell = self._has_formula = self._has_value = self._in_text = False
        self._texts: list[str] = []
        self._kind = ""
        #: number of each column by its letters, of which there are at most 18,278
        self._columns: dict[str, int] = {}

    def read(self, chunks: Iterator[bytes]) -> None:
        """Fill in the sheet. Raise BadDataError and ExpatError."""
        with suppress(_FoundError):
            _parse(chunks, self._start, self._end, self._add_text)

    def _add_text(self, text: str) -> None:
        if self._in_text:
            self._texts.append(text[:_SHOWN_TEXT])

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if ":" in name:
            name = _local(name)
        if name == "c":
            self._start_cell(attributes)
        elif name == "row":
            number = attributes.get("r", "")
            self._row = int(number) if number.isdecimal() and len(number) <= 7 else self._row + 1  # noqa: PLR2004
            self._column = 0
            self._is_hidden = attributes.get("hidden") in ("1", "true")
        elif self._in_cell:
            if name == "f":
                self._has_formula = True
            elif name in ("v", "is"):
                self._has_value = True
                self._in_text = self._has_formula or self._kind == "e"

    def _start_cell(self, attributes: dict[str, str]) -> None:
        self._in_cell, self._has_formula, self._has_value = True, False, False
        self._kind, self._texts = attributes.get("t", ""), []
        place = attributes.get("r")
        if place is None:
            self._row, self._column = max(self._row, 1), self._column + 1
            return
        found = _CELL_NAME.fullmatch(place)
        if found is None:
            raise BadDataError(0, f"not a workbook that can be read: a cell called `{place[:20]}`", SAVE_HINT)
        self._row, letters = int(found[2]), found[1].upper()
        self._column = self._columns.get(letters, 0)
        if not self._column:
            for letter in letters:
                self._column = self._column * 26 + ord(letter) - 64
            self._columns[letters] = self._column

    def _end(self, name: str) -> None:
        if ":" in name:
            name = _local(name)
        if name == "c" and self._in_cell:
            self._in_cell = self._in_text = False
            if self._has_value or self._has_formula:
                self._end_cell()

    def _end_cell(self) -> None:
        sheet, place = self._sheet, (self._row, self._column)
        if self._row > sheet.bottom or not sheet.left <= self._column <= sheet.right:
            sheet.fill(*place)
        if self._only_first:
            raise _FoundError
        if not (self._is_hidden or self._has_formula or self._kind == "e"):
            return
        if self._is_hidden:
            sheet.count_hidden(self._row)
        text = "".join(self._texts).strip()[:_SHOWN_TEXT]
        if self._kind == "e":
            sheet.add_error(*place, text)
        elif self._has_formula and not text and self._kind != "str":
            sheet.add_error(*place, None)


def _read_ods(parts: _Parts) -> list[SheetParts]:
    """Return the sheets of an .ods, measured: its reader reads all of them."""
    scan = _OdsScan()
    _parse(parts.open("content.xml"), scan.start, scan.end, scan.add_text)
    if sum(sheet.bottom * sheet.right for sheet in scan.sheets) > _MAX_CELLS:
        raise BadDataError(0, f"more than {_MAX_CELLS:,} cells in all sheets", _SIZE_HINT)
    return scan.sheets


class _OdsScan:
    """One pass over all sheets of an .ods. A row and a cell may stand for many."""

    def __init__(self) -> None:
        self.sheets: list[SheetParts] = []
        self._hidden_styles: set[str] = set()
        self._style = ""
        self._row = self._rows = self._column = self._columns = 0
        self._in_table = self._in_cell = self._is_filled = self._is_hidden = False
        self._has_formula = self._has_value = self._is_error = False
        self._texts: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the beginning of an element."""
        match name:
            case "table:table":
                if self._in_table:
                    raise BadDataError(0, "a table inside of a table", SAVE_HINT)
                self._in_table, self._row, self._rows = True, 1, 0
                hidden = attributes.get("table:style-name", "") in self._hidden_styles
                _add_sheet(self.sheets, SheetParts(attributes.get("table:name", ""), hidden))
            case "table:table-row":
                self._row, self._column, self._columns = self._row + self._rows, 1, 0
                self._rows = _times(attributes, "table:number-rows-repeated")
                self._is_hidden = attributes.get("table:visibility", "visible") != "visible"
            case "table:table-cell" | "table:covered-table-cell":
                self._column += self._columns
                self._columns = _times(attributes, "table:number-columns-repeated")
                self._in_cell = True
                self._has_formula, self._has_value = "table:formula" in attributes, "office:value-type" in attributes
                self._is_filled = self._has_formula or self._has_value
                self._is_error = attributes.get("calcext:value-type") == "error"
                self._texts = []
            case "style:style":
                self._style = attributes.get("style:name", "")
            case "style:table-properties" if attributes.get("table:display") == "false":
                if len(self._hidden_styles) < _MAX_SHEETS:
                    self._hidden_styles.add(self._style)
            case _:
                self._is_filled = self._is_filled or self._in_cell

    def add_text(self, text: str) -> None:
        """Keep the beginning of what a formula or an error shows."""
        if self._in_cell and (self._has_formula or self._is_error) and len(self._texts) < _SHOWN_TEXT:
            self._texts.append(text[:_SHOWN_TEXT])

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        if name in ("table:table-cell", "table:covered-table-cell"):
            if self._is_filled and self.sheets:
                self._end_cell(self.sheets[-1], max(self._rows, 1))
            self._in_cell = False
        elif name == "table:table":
            self._in_table = False

    def _end_cell(self, sheet: SheetParts, rows: int) -> None:
        sheet.fill(self._row, self._column, rows, self._columns)
        if self._is_hidden:
            sheet.count_hidden(self._row, rows)
        text = "".join(self._texts).strip()[:_SHOWN_TEXT]
        if self._is_error or (self._has_formula and _ERROR.fullmatch(text)):
            noted: str | None = text
        elif self._has_formula and not self._has_value and not text:
            noted = None
        else:
            return
        for row in range(self._row, self._row + rows):
            for column in range(self._column, self._column + self._columns):
                sheet.add_error(row, column, noted)


def _times(attributes: dict[str, str], name: str) -> int:
    """Return how many rows or cells an element stands for."""
    written = attributes.get(name, "1")
    if not written.isascii() or not written.isdecimal() or len(written) > 9:  # noqa: PLR2004 - digits
        raise BadDataError(0, f"not a workbook that can be read: `{name}` is `{written[:20]}`", SAVE_HINT)
    return max(int(written), 1)
