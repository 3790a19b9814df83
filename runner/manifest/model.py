"""What a manifest says, checked: frozen values without places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - part of public values
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - part of a public value
from typing import Any


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` requests in any `seconds`."""

    count: float
    seconds: float = 1.0

    @property
    def per_second(self) -> float:
        return self.count / self.seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """What the account may do; None means that the spec or the runner decides."""

    qps: Rate | None = None
    #: the window: tasks the account may have running
    in_flight: int | None = None
    downloads: int | None = None
    max_tasks: int = 10_000
    #: seconds after which nothing is submitted any more
    deadline: float | None = None
    #: in the provider's unit; what the job may cost before it pauses
    max_cost: float | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how long to try; seconds."""

    attempts: int = 4
    patience: float = 172_800.0
    #: quiet time before the absence of a doubtful submit is believed; None means the spec's
    doubt: float | None = None


@dataclass(frozen=True, slots=True)
class Notify:
    """Whom to tell of a run, and of what."""

    #: with `${NAME}` where the environment fills something in
    url: str
    #: of `start`, `success` and `failure`
    on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """Where the variables come from: rows of the manifest itself, or a file beside it."""

    rows: tuple[dict[str, Any], ...] = ()
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """A name, and the values it takes in turn."""

    name: str
    values: Sequence[Any]
    #: where it stands in the manifest
    path: tuple[str | int, ...] = ()
    #: the data file its values come from, and the line of each
    file: Path | None = None
    lines: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Of the rows that match `when`, the values that `then` gives anew."""

    when: Mapping[str, Any]
    then: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Matrix:
    """What multiplies the rows. An entry without a name was broken: it keeps its place and does nothing."""

    #: the axes of a group go in pairs; the last group turns fastest
    groups: tuple[tuple[Axis, ...], ...] = ()
    #: rows beside the product
    add: tuple[Mapping[str, Any], ...] = ()
    set: tuple[Change, ...] = ()
    exclude: tuple[Mapping[str, Any], ...] = ()

    @property
    def axes(self) -> dict[str, Axis]:
        return {axis.name: axis for group in self.groups for axis in group}

    def gives(self, name: str) -> bool:
        """Whether any task may get this variable from here."""
        extra = (*self.add, *(change.then for change in self.set))
        return name in self.axes or any(name in given for given in extra)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One job."""

    #: as it was given, for messages
    file: str
    #: the directory all its paths are relative to
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
    #: template of the output names; None means the default
    output_name: str | None = None
    limits: Limits = field(default_factory=Limits)
    retry: Retry = field(default_factory=Retry)
    notify: Notify | None = None
    #: what one task costs, in the provider's unit, for all models or by model; None: the catalogue knows, or nobody
    cost: float | dict[str, float] | None = None

    @property
    def files(self) -> list[Path]:
        """The data files its tasks are made from."""
        axes = [axis.file for axis in self.matrix.axes.values()]
        items = self.items.file if self.items else None
        return list(dict.fromkeys(file for file in (items, *axes) if file is not None))
