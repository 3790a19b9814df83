"""Comparison of where a job's state lies with where it lay at its latest run: a copy may not buy.

A copied or restored state lacks what its original bought since. Until the user has said which of them goes on
(`runner adopt-state`), a run of it buys nothing and believes no absence. It polls and downloads what is paid for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from runner.errors import DiskError, StateError
from runner.store.binding import is_fleeting, machine_hash, mark_file, observe, read_binding, write_binding
from runner.store.filesystem import changes_inodes, filesystem_kind
from runner.store.store import DISK_FULL_HINT
from runner.text import shell_join

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.store.binding import Binding
    from runner.store.registry import Registry
    from runner.store.store import Store


@dataclass(frozen=True, slots=True)
class BindingCheck:
    """Where a state lies now and where it lay at its latest run."""

    #: None: no run has recorded it, as in jobs of older versions
    known: Binding | None
    seen: Binding
    #: what is not as it was: of `state`, `register` and `machine`
    differences: tuple[str, ...] = ()

    @property
    def original(self) -> Path | None:
        """Return the directory of the state that this one was copied from, if it is still there."""
        if self.known is None or "state" not in self.differences or self.known.journal is None:
            return None
        directory = Path(self.known.directory)
        mark = mark_file(directory / ".runner" / "journal.jsonl")
        return directory if mark is not None and mark.is_lasting and self.known.journal.is_same(mark) else None

    @property
    def fence(self) -> str:
        """Return why a run of this state may not buy, or an empty string if it may."""
        if not self.differences:
            return ""
        return f"{'; '.join(self.describe())}: nothing is bought, since purchases may be missing here"

    def describe(self) -> list[str]:
        """Return what differs, one text for each difference."""
        return [self._describe(difference) for difference in self.differences]

    def _describe(self, difference: str) -> str:
        known, seen = self.known, self.seen
        match difference:
            case "state" if known is not None and known.journal is not None and seen.journal is not None:
                disk = " on another disk" if known.journal.is_on_other_disk(seen.journal) else ""
                if known.directory != seen.directory:
                    there = f", which is still there{disk}" if self.original else disk
                    return f"this state was copied from {known.directory}{there}"
                return f"this state was put back or copied{disk and ', and lies on another disk'}"
            case "register":
                return "RUNNER_HOME was put back, or is another one"
            case "machine":
                return "it last ran on another machine"
            case _:
                return "where this state lay at the latest run is not known"


async def check_binding(
    store: Store, state: Path, directory: str, registries: Sequence[Registry], now: float, *, damaged_ok: bool = False
) -> BindingCheck:
    """Compare where the state lies with where it lay at its latest run.

    `directory` is the job's resolved path, `now` in seconds since the epoch. A state that has never sent a request has
    nothing that a copy could buy twice. Raises StateError if the stored binding is damaged, unless `damaged_ok`: then
    it counts as another state.
    """
    try:
        known = await anyio.to_thread.run_sync(read_binding, state)
    except StateError:
        if not damaged_ok:
            raise
        seen = await anyio.to_thread.run_sync(_observe, state, directory, registries, now)
        return BindingCheck(None, seen, ("state",))
    seen = await anyio.to_thread.run_sync(_observe, state, directory, registries, now)
    differences = [] if known is None else known.differences(seen)
    if differences and not await store.has_ever_sent():
        differences = []
    return BindingCheck(known, seen, tuple(differences))


async def bind_state(
    state: Path, directory: str, registries: Sequence[Registry], now: float, *, lease: str = ""
) -> None:
    """Record where the state lies, and the path of its lease if it has one. Raises DiskError.

    A register that ends with the machine or its container is left out: it is another one each time.
    """
    try:
        known = await anyio.to_thread.run_sync(read_binding, state)
    except StateError:  # the user has decided about it
        known = None
    seen = await anyio.to_thread.run_sync(_observe, state, directory, registries, now)
    lasting = {
        registry.path.parent.name: seen.registers[registry.path.parent.name]
        for registry in registries
        if not is_fleeting(registry.path.parent)
    }
    others = (
        {} if known is None else {name: each for name, each in known.registers.items() if name not in seen.registers}
    )
    try:
        await anyio.to_thread.run_sync(
            write_binding, state, replace(seen, registers={**others, **lasting}, lease=lease)
        )
    except OSError as error:
        raise DiskError(f"{state}: {error.strerror}", hint=DISK_FULL_HINT) from None


def watch_registers(registries: Sequence[Registry]) -> Callable[[], str]:
    """Return a function that says which register was removed or replaced since now; empty: none."""
    stable = {registry.path: not changes_inodes(filesystem_kind(registry.path)) for registry in registries}
    before = {path: _number(path) for path in stable}

    def is_lost(path: Path) -> bool:
        number = _number(path)
        return number is None or (stable[path] and number != before[path])

    def find_lost() -> str:
        lost = next(filter(is_lost, before), None)
        return "" if lost is None else f"{lost} was removed while the job ran: nothing more is bought"

    return find_lost


def _number(path: Path) -> int | None:
    """Return the inode of a file, or None if there is no file."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


async def rescue_journal(store: Store, state: Path, places: Sequence[Path]) -> StateError:
    """Write the journal of a state that was removed under its run to the first place that takes it.

    Return the error that tells the user where it is and how to go on. Raises OSError if no place takes it.
    """
    failure = OSError("there is no directory to write to")
    for place in places:
        target = place / f"rescued-journal-{store.uuid[:8]}.jsonl"
        try:
            await store.rescue_journal(target)
        except OSError as error:
            failure = error
            continue
        put_back = shell_join("mv", str(target), str(state / "journal.jsonl"))
        return StateError(
            f"{state} was removed while the job ran: nothing more was bought, and every id is in {target}",
            hint=f"Put it back: {shell_join('mkdir', '-p', str(state))} && {put_back}; then `runner recover MANIFEST`, "
            "and run again.",
        )
    raise failure


def _observe(state: Path, directory: str, registries: Sequence[Registry], now: float) -> Binding:
    registers = {registry.path.parent.name: registry.path for registry in registries}
    return observe(state, directory, registers, now, machine=machine_hash())
