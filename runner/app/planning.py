"""What `run` would do, gathered while the manifest is checked: what is new, kept, changed or gone, and its price."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.app.jobs import apart, submit_rate
from runner.app.prices import Prices
from runner.errors import NoSuchJob
from runner.providers.catalogue import Catalogue
from runner.store.view import view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runner.app.jobs import Job
    from runner.lifecycle.task import Draft
    from runner.manifest.model import Rate
    from runner.manifest.parse import Parsed

#: new tasks that are remembered, so that one which takes the place of an older one can be told as changed
_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Change:
    """A task that stands where another stood: it is bought, and what the other one bought stays."""

    key: str
    was: str
    #: state of the older one
    state: str
    index: int
    #: what differs: old and new value
    fields: Mapping[str, tuple[Any, Any]]


@dataclass
class Plan:
    """Counts of one manifest's drafts against what the job has already; `line` hears of every task in turn."""

    samples: int
    out: Path | None
    in_sandbox: bool
    extra: Path | None = None
    line: Callable[[dict[str, Any]], None] | None = None
    #: failed tasks would be bought as well
    anew: bool = False
    #: of the job's tasks that the manifest still has
    kept: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    #: of the job's tasks that left the manifest, those included that another has replaced
    gone: Counter[str] = field(default_factory=Counter)
    _new: Counter[str] = field(default_factory=Counter)
    _models: Counter[tuple[str, str]] = field(default_factory=Counter)
    _costs: Counter[str] = field(default_factory=Counter)
    _unpriced: dict[str, None] = field(default_factory=dict)
    _shown: list[dict[str, Any]] = field(default_factory=list)
    _fresh: list[Draft] = field(default_factory=list)
    #: what `line` will hear once it is known which of them were changed; None: it hears of each at once
    _waiting: list[dict[str, Any]] | None = None
    _known: dict[str, str] | None = None
    _prices: Prices | None = None
    _state: Path | None = None

    def see(self, parsed: Parsed, draft: Draft) -> None:
        """Count one draft."""
        known, prices = self._begin(parsed)
        state = known.pop(draft.key, None)
        self._models[draft.provider, f"{draft.operation}/{draft.model}"] += 1
        self._tell(draft, "new" if state is None else "kept", state)
        if state is not None:
            self.kept[state] += 1
        elif known and len(self._fresh) < _REMEMBERED:  # with nothing left, it takes nobody's place
            self._fresh.append(draft)
        if state not in {None, "queued", *(["failed"] if self.anew else [])}:
            return
        self._new[draft.provider] += 1
        self._price(prices, draft)
        if len(self._shown) < self.samples:
            sample = {"key": draft.key, "name": draft.name, "model": draft.model, "request": dict(draft.request)}
            self._shown.append(sample)

    def finish(self) -> None:
        """Once every draft was seen: what is left of the job has gone, or was changed."""
        old = self._left()
        self.gone.update(row["state"] for row in old)
        self.changes = list(_paired(old, self._fresh))
        self._release({change.key: change for change in self.changes})
        changed = {change.was for change in self.changes}
        for row in old:
            if row["key"] not in changed and self.line is not None:
                self.line({"key": row["key"], "plan": "gone", "state": row["state"], "name": row["name"]})

    def _left(self) -> list[dict[str, Any]]:
        """The job's tasks that no draft has met."""
        if not self._known or self._state is None:
            return []
        with view(self._state) as job:
            return [row for key in self._known if (row := job.row(key)) is not None]

    def _spent(self) -> float | None:
        """What the job has cost until now; None where nobody knows."""
        if self._state is None:
            return 0.0
        try:
            with view(self._state) as job:
                return job.spent()
        except NoSuchJob:
            return 0.0

    def told(self, job: Job) -> dict[str, Any]:
        """The object that `plan --json` prints."""
        paces = {provider: submit_rate(job, provider) for provider, _ in self._models}
        seconds = max((self._new[name] / pace.per_second for name, pace in paces.items()), default=0.0)
        models = [{"provider": name, "model": code, "tasks": count} for (name, code), count in self._models.items()]
        return {
            "job": job.manifest.name,
            "models": models,
            "directory": str(job.directory),
            "tasks": job.summary.tasks,
            "merged": job.summary.merged,
            "new": self.new,
            "known": {state: count for state, count in self.kept.items() if state != "queued"},
            "changed": [_told_change(change) for change in self.changes],
            "gone": dict(self.gone),
            "cost": self.cost,
            "unit": self.unit or None,
            "unpriced": list(self._unpriced),
            "max_cost": job.manifest.limits.max_cost,
            "spent": self._spent(),
            "rate": {provider: _told_rate(pace) for provider, pace in paces.items()},
            "seconds": round(seconds, 1),
            "samples": self._shown,
        }

    @property
    def new(self) -> int:
        """How many tasks would be bought."""
        return self._new.total()

    @property
    def unit(self) -> str:
        """What the cost is in."""
        return next(iter(self._costs), "")

    @property
    def cost(self) -> float | None:
        """What they come to; None: nobody knows, or it is in several units."""
        return None if self._unpriced or len(self._costs) > 1 else round(sum(self._costs.values()), 6)

    def _begin(self, parsed: Parsed) -> tuple[dict[str, str], Prices]:
        if self._known is None or self._prices is None:
            manifest = apart(parsed.manifest) if self.in_sandbox and self.out is None else parsed.manifest
            self._state = manifest.directory / ".runner"
            self._known, self._prices = _known(self._state), Prices(parsed.manifest, Catalogue(self.extra))
            self._waiting = [] if self._known else None
        return self._known, self._prices

    def _tell(self, draft: Draft, word: str, state: str | None) -> None:
        if self.line is None:
            return
        said = {"key": draft.key, "plan": word, "state": state, "index": draft.index, "name": draft.name}
        if self._waiting is None:
            self.line(said)
        else:
            self._waiting.append(said)
            if len(self._waiting) > _REMEMBERED:  # a job so large is told at once, what was changed as new
                self._release({})

    def _release(self, changes: Mapping[str, Change]) -> None:
        for said in self._waiting or ():
            if self.line is not None:
                self.line(said | _changed(changes.get(said["key"])))
        self._waiting = None

    def _price(self, prices: Prices, draft: Draft) -> None:
        cost = prices.of(draft)
        if cost is None:
            self._unpriced[draft.model] = None
        else:
            self._costs[prices.unit(draft)] += cost  # type: ignore[assignment]  # a Counter adds up floats as well


def _paired(old: list[dict[str, Any]], fresh: list[Draft]) -> Iterator[Change]:
    """Which new task took the place of which old one: the same variables first, then the same place."""
    left = {row["key"]: row for row in old}
    waiting = list(fresh)
    for place_of_row, place_of_draft in _PLACES:
        places: dict[Any, list[dict[str, Any]]] = {}
        for row in left.values():
            places.setdefault(place_of_row(row), []).append(row)
        rest = []
        for draft in waiting:
            rows = places.get(place_of_draft(draft))
            if not rows or rows[0]["position"] is None:
                rest.append(draft)
                continue
            row = rows.pop(0)
            del left[row["key"]]
            yield Change(draft.key, row["key"], row["state"], draft.index, _differences(row, draft))
        waiting = rest


def _variables(values: Mapping[str, Any], repeat: int) -> Any:
    return repr(sorted(values.items())), repeat


_PLACES: tuple[tuple[Callable[[dict[str, Any]], Any], Callable[[Draft], Any]], ...] = (
    (lambda row: _variables(row["vars"], row["repeat"]), lambda draft: _variables(dict(draft.vars), draft.repeat)),
    (lambda row: (row["position"], row["repeat"]), lambda draft: (draft.index, draft.repeat)),
)


def _differences(row: Mapping[str, Any], draft: Draft) -> dict[str, tuple[Any, Any]]:
    was = {"provider": row["provider"], "model": row["model"], "operation": row["operation"], **row["request"]}
    now = {"provider": draft.provider, "model": draft.model, "operation": draft.operation, **draft.request}
    names = [*was, *(name for name in now if name not in was)]
    return {name: (was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)}


def _told_change(change: Change) -> dict[str, Any]:
    fields = {name: {"was": was, "is": now} for name, (was, now) in change.fields.items()}
    return {"key": change.key, "was": change.was, "was_state": change.state, "index": change.index, "fields": fields}


def _changed(change: Change | None) -> dict[str, Any]:
    """What a line says of it beside that."""
    if change is None:
        return {}
    return {"plan": "changed", "was": change.was, "was_state": change.state, "fields": list(change.fields)}


def _told_rate(pace: Rate) -> str:
    units = {1.0: "s", 60.0: "min", 3600.0: "h"}
    return f"{pace.count:g}/{units[pace.seconds]}" if pace.seconds in units else f"{pace.count:g} in {pace.seconds:g} s"


def _known(state: Path) -> dict[str, str]:
    """Key to state of every task that the job has already."""
    try:
        with view(state) as job:
            return job.keys()
    except NoSuchJob:
        return {}
