"""What an account remembers of its purchases, read without being written: for `plan`, which must start fast."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from runner.store.database import DATABASE_ERRORS, harden
from runner.tasks.models import NO_ERROR, Output, State, TaskError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: states of a purchase that forbid another one, as SQL: paid for, or perhaps
BOUGHT = "('submitting', 'in_doubt', 'held', 'running', 'ready', 'stranded', 'done')"
#: columns of a purchase and of its job, as `purchase_from` reads them
COLUMNS = (
    "job.uuid, job.directory, purchase.key, purchase.state, remote_id, at, reason, message, purchase.linked, outputs"
)
_FILE = ("file", "bytes", "sha256", "media_type")
#: other homes of the same account that are read, such as those of earlier keys
_MAX_HOMES = 16
#: purchases of the same goods that are compared
_MAX_PURCHASES = 20
#: seconds to wait for a file that another process writes
_TIMEOUT = 5.0


class KnownJob(NamedTuple):
    """A job of the account, by its identity and the directory that it was last run in."""

    uuid: str
    directory: str


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a job of the account has bought, or may have."""

    job: KnownJob
    key: str
    state: State
    remote_id: str | None
    #: seconds since the epoch
    at: float
    outputs: tuple[Output, ...] = ()
    error: TaskError = NO_ERROR
    #: another job has paid for it; this one has files of its own
    linked: bool = False


class RememberedPurchases:
    """Memory of one account, for reading. A home without one, or with one that cannot be read, remembers nothing.

    `own_directory` is the job directory that asks, whose own purchases are left out.
    """

    def __init__(self, home: Path, own_directory: Path) -> None:
        self._own, self._connections = str(own_directory.resolve()), []
        for each in (home, *other_homes(home)):
            with suppress(sqlite3.Error):
                self._connections.append(_open(each))

    def find(self, key: str, goods: str = "") -> tuple[Purchase, ...]:
        """Return what other jobs have bought of this, by its key or by what its manifest says, the earliest first.

        Nothing is returned for what the job that asks has bought itself: its own purchase is kept.
        """
        query = (
            f"select {COLUMNS} from purchase join job on job.uuid = purchase.job"  # noqa: S608 - no value of a user
            f" where (key = ? or (goods = ? and goods <> '')) and state in {BOUGHT}"
            " order by job.directory <> ?, purchase.linked, at limit ?"
        )
        found: list[Purchase] = []
        for connection in self._connections:
            with suppress(*DATABASE_ERRORS):
                found += map(purchase_from, connection.execute(query, (key, goods, self._own, _MAX_PURCHASES)))
        is_own = any(each.job.directory == self._own for each in found)
        return () if is_own else tuple(found)


def other_homes(home: Path) -> list[Path]:
    """Return the other homes of an account, as far as users have said that it is the same, each once."""
    found: list[Path] = []
    left = [home]
    while left and len(found) <= _MAX_HOMES:
        each = left.pop()
        if each in found or not (each / "bought.db").is_file():
            continue
        found.append(each)
        with suppress(*DATABASE_ERRORS), closing(_open(each)) as connection:
            # a name leads nowhere but to another account
            left += [home.parent / Path(row[0]).name for row in connection.execute("select home from same_account")]
    return found[1:]


def purchase_from(row: Sequence[Any]) -> Purchase:
    """Return the purchase in a row of `COLUMNS`."""
    uuid, directory, key, state, remote_id, at, reason, message, linked, outputs = row
    return Purchase(
        KnownJob(uuid, directory),
        key,
        State(state),
        remote_id,
        at,
        tuple(Output(each["number"], "", *(each[name] for name in _FILE)) for each in orjson.loads(outputs)),
        NO_ERROR if reason is None else TaskError(reason, None, message),
        bool(linked),
    )


def _open(home: Path) -> sqlite3.Connection:
    address = f"{(home / 'bought.db').absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=_TIMEOUT)
    harden(connection)
    return connection
