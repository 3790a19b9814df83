"""Compare the tasks of a manifest with those of its job.

Some are kept although they are written in another way, and some new ones stand where bought ones stood.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from runner.errors import UsageError
from runner.manifest.identity import canonical
from runner.tasks.models import Draft
from runner.text import pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from runner.app.job import LoadedJob
    from runner.manifest.model import Manifest
    from runner.store.placement import Restated

#: number of new tasks in the place of bought ones that a run without a terminal buys unasked; from about as many new
#: tasks on, a terminal asks
DEFAULT_CHANGES = 50
#: most different values of parameters that are told one by one
_MAX_VALUES = 20
#: characters of a value, and number of fields, in one line
_MAX_VALUE, _MAX_FIELDS = 40, 4
#: states of a task that was bought, or may have been
BOUGHT_STATES = frozenset({"submitting", "in_doubt", "held", "running", "ready", "done", "failed", "stranded"})


@dataclass(frozen=True, slots=True)
class Change:
    """A new task that replaces an older one, whose outputs are kept."""

    key: str
    #: key of the older task
    old_key: str
    #: state of the older task
    old_state: str
    index: int
    #: old and new value of each field that differs
    fields: Mapping[str, tuple[Any, Any]]
    #: whether the older task was bought and stands for the same row: at least half of its values are as before
    in_place: bool = False


@dataclass
class Restatements:
    """Count of tasks that are kept although the manifest, or a default, would have another request sent today."""

    #: tasks whose requests differ only in what nobody sees
    unseen: int = 0
    #: tasks of which it is not known in what they differ
    more: int = 0
    #: tasks by parameter, value that was bought, and value that would be sent, both as JSON
    values: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, bought: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
        """Count a task by the request that was bought and the one that would be sent today."""
        names = [name for name in {**bought, **asked} if canonical(bought.get(name)) != canonical(asked.get(name))]
        if not names:
            self.unseen += 1
        for name in names:
            entry = name, _to_json(bought.get(name)), _to_json(asked.get(name))
            if entry in self.values or len(self.values) < _MAX_VALUES:
                self.values[entry] += 1

    def render(self) -> list[str]:
        """Return a line for each reason."""
        lines = []
        if self.unseen:
            verb = "differs" if self.unseen == 1 else "differ"
            lines.append(
                f"{self.unseen:,} {verb} from what was bought only in line ends and blanks, or in how letters are coded"
            )
        for (name, was, now), count in self.values.items():
            sent = f"without {name}" if now == "null" else f"with {name} = {_shorten(now)}"
            before = f"without {name}" if was == "null" else f"with {name} = {_shorten(was)}"
            lines.append(f"{count:,} would be sent {sent} today, and {'was' if count == 1 else 'were'} bought {before}")
        if self.more:
            lines.append(f"{self.more:,} more are kept in the same way")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as `plan --json` prints them."""
        values = [
            {"field": name, "was": orjson.loads(was), "is": orjson.loads(now), "tasks": count}
            for (name, was, now), count in self.values.items()
        ]
        return {"unseen": self.unseen, "values": values, "more": self.more}


class AdditionReview:
    """What a run says of the tasks of its manifest before it buys any. `limit` is the most that may be replaced."""

    def __init__(self, job: LoadedJob, limit: int | None, warn: Callable[[str], None]) -> None:
        self._axes = axis_names(job.manifest)
        self._limit = None if job.in_sandbox else limit
        self._warn = warn
        self._restated = Restatements()

    def count_restated(self, restated: Restated) -> None:
        """Count a task that is kept although it is written in another way."""
        self._restated.add(restated.bought, restated.asked)

    def check_replaced(self, left: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
        """Say what is kept, and how many new tasks stand where bought ones stood. Raise UsageError if too many do."""
        for line in self._restated.render():
            self._warn(f"{line}: kept, and not bought again")
        drafts = (
            Draft(row["key"], row["position"], row["repeat"], row["vars"], row["provider"], row["operation"],
                  row["model"], row["request"], row["name"])
            for row in new
        )  # fmt: skip
        changes = [change for change in pair_changes(left, drafts, self._axes) if change.in_place]
        if changes:
            check_replaced(changes, self._limit)
            self._warn(f"{describe_replaced(changes)}; what was bought is kept, and they are bought as well")


def axis_names(manifest: Manifest) -> frozenset[str]:
    """Return the names whose values come from the matrix and not from a row of the table."""
    matrix = manifest.matrix
    return frozenset() if manifest.items is None else frozenset(matrix.axes).union(*matrix.add)


def pair_changes(
    old: Iterable[Mapping[str, Any]], new: Iterable[Draft], axes: Collection[str] = ()
) -> Iterator[Change]:
    """Pair new tasks with the old tasks that they replace: first by equal variables, then by equal position.

    `axes` are the names of the axes of the matrix, which say nothing of a row of the table.
    """
    left = {row["key"]: row for row in old}
    unpaired = list(new)
    for row_key, draft_key in _PAIRING_KEYS:
        rows_by_key: dict[Any, list[Mapping[str, Any]]] = {}
        for row in left.values():
            rows_by_key.setdefault(row_key(row), []).append(row)
        rest = []
        for draft in unpaired:
            rows = rows_by_key.get(draft_key(draft))
            if not rows or rows[0]["position"] is None:
                rest.append(draft)
                continue
            row = rows.pop(0)
            del left[row["key"]]
            in_place = row["state"] in BOUGHT_STATES and _is_same_row(row["vars"], draft.vars, axes)
            yield Change(draft.key, row["key"], row["state"], draft.index, _differences(row, draft), in_place)
        unpaired = rest


def describe_replaced(changes: Collection[Change]) -> str:
    """Return how many new tasks stand where bought ones stood, and in which fields they differ."""
    count, names = len(changes), Counter(name for change in changes for name in change.fields)
    shown = ", ".join(f"{sanitize(name, _MAX_VALUE)} in {times:,}" for name, times in names.most_common(_MAX_FIELDS))
    more = ", …" if len(names) > _MAX_FIELDS else ""
    verb = "stands where a bought one stood" if count == 1 else "stand where bought ones stood"
    return f"{pluralize(count, 'new task')} {verb}, and {'differs' if count == 1 else 'differ'}: {shown}{more}"


def check_replaced(changes: Collection[Change], limit: int | None) -> None:
    """Raise UsageError if more new tasks stand where bought ones stood than `limit` allows."""
    if limit is not None and len(changes) > limit:
        raise UsageError(
            f"{describe_replaced(changes)}; without an answer at a terminal at most {limit:,} are bought",
            hint=f"`runner plan` shows them. To buy them beside the old ones, add --changes {len(changes)}.",
        )


def _is_same_row(old: Mapping[str, Any], new: Mapping[str, Any], axes: Collection[str]) -> bool:
    """Return whether at least half of the values of a row are as before; a row without values is the same."""
    names = [name for name in {**old, **new} if name not in axes]
    equal = [name for name in names if name in old and name in new and old[name] == new[name]]
    return 2 * len(equal) >= len(names)


def _variables_key(values: Mapping[str, Any], repeat: int) -> Any:
    """Return a hashable key of a task's variables."""
    return repr(sorted(values.items())), repeat


#: pairs of functions that return the same key for an old task's row and for the draft that replaces it
_PAIRING_KEYS: tuple[tuple[Callable[[Mapping[str, Any]], Any], Callable[[Draft], Any]], ...] = (
    (
        lambda row: _variables_key(row["vars"], row["repeat"]),
        lambda draft: _variables_key(dict(draft.vars), draft.repeat),
    ),
    (lambda row: (row["position"], row["repeat"]), lambda draft: (draft.index, draft.repeat)),
)


def _differences(row: Mapping[str, Any], draft: Draft) -> dict[str, tuple[Any, Any]]:
    """Return old and new value of each field that differs, by name."""
    old = {"provider": row["provider"], "model": row["model"], "operation": row["operation"], **row["request"]}
    new = {"provider": draft.provider, "model": draft.model, "operation": draft.operation, **draft.request}
    names = [*old, *(name for name in new if name not in old)]
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def _to_json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _shorten(text: str) -> str:
    return sanitize(text.strip('"'), _MAX_VALUE)
