"""Define the checked values of a manifest: frozen and without positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - part of public values
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - part of a public value
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.manifest.positions import YamlMapping, unpack_position

if TYPE_CHECKING:
    from runner.manifest.field_positions import RowSyntax
    from runner.manifest.positions import KeyPath
    from runner.units import Rate, TimeOfDay


#: names of axes and columns that choose the model and set no parameter
MODEL_KEYS = ("provider", "model")


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Limits of the job and its account; None means that the spec or the runner decides."""

    qps: Rate | None = None
    #: the window: number of tasks the account may have running
    in_flight: int | None = None
    #: submits on the wire at once: so many answers can be lost at once
    submits_at_once: int | None = None
    downloads: int | None = None
    max_tasks: int = 10_000
    #: seconds after which no task is submitted any more
    deadline: float | None = None
    #: when the run ends, whatever is not finished then: seconds after its begin, or a time of day
    end: float | TimeOfDay | None = None
    #: cost at which the job pauses, in the provider's unit
    max_cost: float | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Options of retrying; times in seconds."""

    attempts: int = 4
    patience: float = 172_800.0
    #: time to wait before a doubtful submit that is not found counts as not accepted; None means the spec's
    doubt: float | None = None
    #: age up to which a purchase of another job of the account is linked and not bought once more
    remember: float = 90 * 86_400.0
    #: `witnessed`: a submit counts as not accepted only once a task that was accepted later stands in the list
    absence: str = "measured"


@dataclass(frozen=True, slots=True)
class Notify:
    """Address that is notified of a run, and the events it is notified of."""

    #: address in which `${NAME}` stands for a variable of the environment
    url: str
    #: some of `start`, `success` and `failure`
    on: tuple[str, ...]


class SourceRow(NamedTuple):
    """Variables of one row, the position at which the row begins, and the lines it was read from, if they are kept."""

    values: dict[str, Any]
    file: str
    line: int
    column: int
    lines: Sequence[str] = ()
    syntax: RowSyntax | None = None

    def locate(self, name: str) -> tuple[int, int]:
        """Return line and column of a value, or those of the row if it has no such value or does not know."""
        if isinstance(self.values, YamlMapping) and name in self.values:
            return unpack_position(self.values.value_position(name))
        found = self.syntax.locate(self.lines, name) if self.syntax is not None else None
        return (self.line + found[0], found[1]) if found else (self.line, self.column)

    def repeats_header(self) -> bool:
        """Return whether the row is the header of its table once more, as tables that were joined have it."""
        return self.syntax is not None and self.syntax.is_header(self.values)


class ErrorText(str):
    """Text of an error of a formula in a workbook, such as `#REF!`: it stands where a value should."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Items:
    """Source of the variables: rows of the manifest itself, or a data file."""

    rows: tuple[dict[str, Any], ...] = ()
    file: Path | None = None
    #: name of the sheet of a workbook, empty for the first visible one with cells
    sheet: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """Name of a variable, and the values it takes in turn."""

    name: str
    values: Sequence[Any]
    #: its path in the manifest
    path: KeyPath = ()
    #: data file of its values, and the packed position of each value
    file: Path | None = None
    positions: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class SetRule:
    """Entry of `set`: the values of `then` replace those of every row that matches `when`."""

    when: Mapping[str, Any]
    then: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Axes and rules that multiply the rows.

    An entry without names was wrong. It keeps its position and has no effect.
    """

    #: groups of zipped axes; the last group changes fastest
    groups: tuple[tuple[Axis, ...], ...] = ()
    #: rows added to the product
    add: tuple[Mapping[str, Any], ...] = ()
    set: tuple[SetRule, ...] = ()
    exclude: tuple[Mapping[str, Any], ...] = ()

    @property
    def axes(self) -> dict[str, Axis]:
        """Return the axes of all groups by name."""
        return {axis.name: axis for group in self.groups for axis in group}

    def provides(self, name: str) -> bool:
        """Return whether any task may get this variable from the matrix."""
        extra = (*self.add, *(rule.then for rule in self.set))
        return name in self.axes or any(name in values for values in extra)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Checked manifest of one job."""

    #: path as the user gave it, for messages
    file: str
    #: directory that all its paths are relative to
    root: Path
    name: str
    provider: str
    model: str
    #: the job directory
    directory: Path
    params: dict[str, Any] = field(default_factory=dict)
    unchecked: bool = False
    items: Items | None = None
    matrix: Matrix = field(default_factory=Matrix)
    repeat: int = 1
    #: template of the output names; None means the default names
    output_name: str | None = None
    #: number of directories that the outputs are spread over; None: all are in the job directory
    output_shards: int | None = None
    limits: JobLimits = field(default_factory=JobLimits)
    retry: Retry = field(default_factory=Retry)
    notify: Notify | None = None
    #: cost of one task in the provider's unit, for all models or by model; None means the catalogue's price, if any
    cost: float | dict[str, float] | None = None

    @property
    def naming(self) -> str:
        """Return what the names of outputs depend on beside the tasks: files are renamed when it changes."""
        shards = f"\n{self.output_shards} shards" if self.output_shards else ""
        return f"{self.output_name or ''}{shards}"

    @property
    def data_files(self) -> list[Path]:
        """Return the data files that the tasks are made from."""
        axes = [axis.file for axis in self.matrix.axes.values()]
        items = self.items.file if self.items else None
        return list(dict.fromkeys(file for file in (items, *axes) if file is not None))
