"""Read a sheet of a workbook, `.xlsx` or `.ods`, as records of text, as the same sheet saved as CSV would be.

A cell is its value and not its format: 1.0 is `1`, a date is `2024-03-04`, 50 % is `0.5`. What the workbook says of
itself is checked in `workbook_parts` before python-calamine, an extra, reads it.
"""

from __future__ import annotations

import datetime as dt
from contextlib import contextmanager
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any

from runner.manifest.decoding import BadDataError
from runner.manifest.diagnostics import closest_hint
from runner.manifest.field_positions import are_names
from runner.manifest.model import ErrorText
from runner.manifest.workbook_parts import SAVE_HINT, measure
from runner.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.manifest.diagnostics import Diagnostics
    from runner.manifest.workbook_parts import SheetParts

#: digits that a spreadsheet keeps of a number, and the first whole number that need not be exact
_DIGITS, _EXACT_LIMIT = 15, 2**53
_NAME_LENGTH, _SHOWN_SHEETS = 40, 3


class SheetSyntax:
    """Place of each column in a sheet: a row is a line, and `left` is the number of its first column."""

    def __init__(self) -> None:
        self.left = 1
        #: names of the columns, and the row of the header, once they were read
        self.names: Sequence[str] = ()
        self.header: tuple[int, Sequence[str]] = (1, ())

    def locate(self, lines: Sequence[str], name: str) -> tuple[int, int] | None:
        """Return 0 and the number of a column."""
        return self.locate_field(lines, self.names.index(name)) if name in self.names else None

    def locate_name(self, name: str) -> tuple[int, int] | None:
        """Return row and column of the name of a column."""
        found = self.locate((), name)
        return (self.header[0], found[1]) if found else None

    def locate_field(self, _lines: Sequence[str], index: int) -> tuple[int, int] | None:
        """Return 0 and the number of the column that has `index` others before it in the table."""
        return 0, self.left + index

    def is_header(self, values: Mapping[str, Any]) -> bool:
        """Return whether the values of a row are the names of their columns, but for empty ones."""
        return are_names(values)


class SheetRecords:
    """Records of the chosen sheet, by default of the first visible one with cells. Raise BadDataError.

    `label` names file and sheet in messages. Several filled sheets and hidden rows give warnings, a formula whose
    value was never computed an error.
    """

    #: a cell of a sheet is a field, so that no other delimiter can be meant
    delimiter = ""
    #: a row needs no lines to find its cells
    texts: Sequence[str] = ()

    def __init__(self, file: IO[bytes], label: str, sheet: str, diagnostics: Diagnostics) -> None:
        try:
            import python_calamine as calamine  # noqa: PLC0415 - an extra that only workbooks need
        except ImportError:
            hint = 'pip install "genrunner[tables]", or save the sheet as “CSV UTF-8”'
            raise BadDataError(0, "a workbook needs python-calamine, which is not installed", hint) from None
        sheets, found = measure(file, sheet)
        if found is None and sheet:
            hint = closest_hint(sheet, [each.name for each in sheets])
            raise BadDataError(0, f"there is no sheet `{sanitize(sheet, _NAME_LENGTH)}`", hint)
        if found is None:
            hint = "show the one that is meant, or name it: `items: {file: …, sheet: NAME}`" if sheets else "add one"
            raise BadDataError(0, "no sheet that is visible", hint)
        self.label = f"{label}#{sanitize(found.name, _NAME_LENGTH)}"
        self._report(found, sheets if not sheet else [], label, diagnostics)
        self._errors = found.errors
        self._number, self.syntax = 0, SheetSyntax()
        self._calamine: Any = calamine
        self._rows: Iterator[list[Any]] = iter(())
        if found.bottom:
            file.seek(0)
            with _reader_errors(calamine, 0):
                cells = calamine.CalamineWorkbook.from_filelike(file).get_sheet_by_name(found.name)
            # the reader begins with row 1 and with the first filled column
            self._rows = cells.iter_rows()
            self.syntax.left = cells.start[1] + 1 if cells.start else 1

    def _report(self, found: SheetParts, sheets: list[SheetParts], label: str, diagnostics: Diagnostics) -> None:
        others = [each.name for each in sheets if each is not found and each.bottom and not each.hidden]
        if others:
            shown = ", ".join(f"`{sanitize(name, _NAME_LENGTH)}`" for name in others[:_SHOWN_SHEETS])
            more = ", …" if len(others) > _SHOWN_SHEETS else ""
            name = sanitize(found.name, _NAME_LENGTH)
            message = f"the sheet `{name}` is read alone, and there are rows in {shown}{more}"
            hint = f"name the sheet that is meant: `items: {{file: …, sheet: {name}}}`"
            diagnostics.add((1, 1), "", message, hint, file=label, warn=True)
        if found.hidden_rows:
            count = "1 hidden row is" if found.hidden_rows == 1 else f"{found.hidden_rows:,} hidden rows are"
            message = f"{count} read like the others, from this one on"
            hint = "delete what is not meant; a filter only hides"
            diagnostics.add((found.first_hidden, 1), "", message, hint, file=self.label, warn=True)
        for place in found.uncomputed:
            message = "a formula whose value was never computed"
            hint = "open the workbook in a spreadsheet and save it, or write the value"
            diagnostics.add(place, "", message, hint, file=self.label)

    def next(self) -> tuple[int, list[str] | None]:
        """Return the number of the next row and its cells, None behind the last one."""
        with _reader_errors(self._calamine, self._number + 1):
            cells = next(self._rows, None)
        if cells is None:
            return self._number + 1, None
        self._number += 1
        number, left = self._number, self.syntax.left
        texts = [cell if type(cell) is str else cell_text(cell) for cell in cells]
        if self._errors:
            for at in range(len(texts)):
                if (shown := self._errors.get((number, at + left))) is not None:
                    texts[at] = ErrorText(shown)
        return number, texts


@contextmanager
def _reader_errors(calamine: Any, row: int) -> Iterator[None]:
    """Raise BadDataError at `row` for errors of the reader."""
    try:
        yield
    except (calamine.CalamineError, OSError, ValueError, OverflowError) as error:
        reason = sanitize(str(error), 100)
        raise BadDataError(row, f"not a workbook that can be read: {reason}", SAVE_HINT) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a bug of the reader's, which is no Exception
            raise
        message = "a value that its reader cannot take, such as a date or a duration out of bounds"
        raise BadDataError(row, message, SAVE_HINT) from None


def cell_text(value: Any) -> str:
    """Return the value of a typed cell as text: `1` for 1.0, `TRUE`, dates and times as ISO 8601."""
    match value:
        case bool():
            return str(value).upper()
        case float():
            if value.is_integer() and abs(value) < _EXACT_LIMIT:
                return str(int(value))
            short = f"{value:.{_DIGITS}g}"  # 0.3 for 0.1 + 0.2, as spreadsheets show it
            return f"{Decimal(short):f}" if "e" in short else short
        case dt.datetime():
            return value.replace(microsecond=0).isoformat(" ")
        case dt.date():
            return value.isoformat()
        case dt.time():
            return value.replace(microsecond=0).isoformat()
        case dt.timedelta():
            seconds = round(value.total_seconds())
            minutes, second = divmod(abs(seconds), 60)
            return f"{'-' * (seconds < 0)}{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"
        case _:
            return str(value)
