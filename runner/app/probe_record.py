"""The record of a probe: which steps are done and what they found, in a file beside its store."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import orjson

from runner.errors import DiskError, StateError, UsageError
from runner.files import atomic_write, make_directory, open_to_read
from runner.tasks.fact import Fact

if TYPE_CHECKING:
    from pathlib import Path

    from runner.app.probe_measure import Measured
    from runner.app.probe_plan import ProbePlan

_FILE, _FREE = "probe.json", "free"
#: bytes of a record that are read
_MAX_BYTES = 1 << 20


@dataclass(slots=True)
class ProbeRecord:
    """What one probe has found so far."""

    directory: Path
    #: text that only this probe's prompts hold
    nonce: str
    model: str
    spend: int
    pictures: bool
    #: seconds since the epoch
    began: float
    finished: float | None = None
    #: steps that need not be taken again
    steps: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: ids of tasks that were left by requests which were refused
    surplus: list[str] = field(default_factory=list)

    async def keep(self, step: str, measured: Measured) -> None:
        """Add what a step has found. A step without a name may be taken again. Raises DiskError."""
        if step and step not in self.steps:
            self.steps.append(step)
        keys = {fact.key for fact in measured.facts}
        self.facts = [fact for fact in self.facts if fact.key not in keys] + measured.facts
        self.notes += [note for note in measured.notes if note not in self.notes]
        await anyio.to_thread.run_sync(self.write)

    async def finish(self, now: float) -> None:
        """Record that nothing is left to be done. Raises DiskError."""
        self.finished = now
        await anyio.to_thread.run_sync(self.write)

    def write(self) -> None:
        """Write the record. Raises DiskError."""
        values = asdict(self)
        del values["directory"]
        try:
            with atomic_write(self.directory / _FILE, 0o600) as file:
                file.write(orjson.dumps(values, option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise DiskError(
                f"{self.directory / _FILE}: {error.strerror}", hint="Make room; what was bought is safe."
            ) from None


def open_record(top: Path, plan: ProbePlan, now: float) -> ProbeRecord:
    """Return the record of the probe that is unfinished in `top`, or that of a new one.

    A probe that buys nothing has a directory of its own. Raises UsageError if an unfinished probe is about another
    model or a smaller sum, StateError and DiskError.
    """
    if plan.spend == 0:
        return _new(top / _FREE, plan, now)
    begun = sorted(path.parent for path in top.glob(f"[0-9]*/{_FILE}"))
    if begun:
        record = _read(begun[-1])
        if record.finished is None:
            return _go_on(record, plan)
    # a name of its own: the account remembers what was bought in each directory, also after it was moved away
    moment = datetime.fromtimestamp(now, UTC)
    return _new(top / f"{moment:%Y%m%d-%H%M%S}-{moment.microsecond // 1000:03}", plan, now)


def _go_on(record: ProbeRecord, plan: ProbePlan) -> ProbeRecord:
    if record.model != plan.model:
        raise UsageError(
            f"a probe with {record.model} is not finished",
            hint=f"Finish it first: --model {record.model}. Or move {record.directory} away, with what it has bought.",
        )
    if record.pictures and plan.picture is None:
        raise UsageError("a probe with pictures is not finished", hint="Finish it first: add --pictures.")
    record.spend, record.pictures = plan.spend, plan.picture is not None
    return record


def _new(directory: Path, plan: ProbePlan, now: float) -> ProbeRecord:
    nonce = f"{int(now * 1000):x}"
    record = ProbeRecord(directory, nonce, plan.model, plan.spend, plan.picture is not None, now)
    try:
        make_directory(directory)
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="Mend RUNNER_HOME's permissions.") from None
    record.write()
    return record


def _read(directory: Path) -> ProbeRecord:
    path = directory / _FILE
    try:
        with open_to_read(path) as file:
            values: dict[str, Any] = orjson.loads(file.read(_MAX_BYTES))
        facts = [Fact(**fact) for fact in values.pop("facts")]
        return ProbeRecord(directory=directory, facts=facts, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise StateError(
            f"{path} cannot be read: it was changed by something else",
            hint=f"Put it back. Or move {directory} away; `runner status {directory}` shows what it has bought.",
        ) from None
