"""`plan`: count new, kept, changed and gone tasks and their price, while the manifest is checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.app.job import Prices, submit_rate, with_sandbox_directory
from runner.app.planned_safety import PlannedSafety
from runner.errors import JobNotFoundError
from runner.providers.catalogue import Catalogue
from runner.scheduler.clock import Clock
from runner.store.read_only import open_read_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runner.app.job import LoadedJob
    from runner.manifest.parser import ParsedManifest
    from runner.tasks.models import Draft

#: new tasks that are kept in memory, so that those which replace an older task can be reported as changed
_MAX_REMEMBERED = 20_000


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


@dataclass
class PlanBuilder:
    """Comparison of one manifest's drafts with the tasks that the job has already."""

    #: number of new tasks that are shown as samples
    max_samples: int
    #: job directory, if the command line sets one
    out: Path | None
    in_sandbox: bool
    #: directory of the user's own provider specs
    provider_directory: Path | None = None
    #: called with one object for every task, in order
    on_task: Callable[[dict[str, Any]], None] | None = None
    #: failed tasks would be bought as well
    include_failed: bool = False
    #: counts by state of the job's tasks that are still in the manifest
    kept: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)
    #: counts by state of the job's tasks that are no longer in the manifest, replaced ones included
    gone: Counter[str] = field(default_factory=Counter)
    _new_by_provider: Counter[str] = field(default_factory=Counter)
    _tasks_by_model: Counter[tuple[str, str]] = field(default_factory=Counter)
    _cost_by_unit: Counter[str] = field(default_factory=Counter)
    _unpriced_models: dict[str, None] = field(default_factory=dict)
    _samples: list[dict[str, Any]] = field(default_factory=list)
    _new_drafts: list[Draft] = field(default_factory=list)
    #: objects for `on_task` that wait until the changed tasks are known; None: each is reported at once
    _pending: list[dict[str, Any]] | None = None
    #: state by key of the job's tasks that no draft has matched yet
    _unmatched: dict[str, str] | None = None
    _prices: Prices | None = None
    _safety: PlannedSafety = field(default_factory=PlannedSafety)
    _state_directory: Path | None = None

    def add(self, parsed: ParsedManifest, draft: Draft) -> None:
        """Count one draft and report its task."""
        known, prices = self._load_known_tasks(parsed)
        state = known.pop(draft.key, None)
        self._tasks_by_model[draft.provider, f"{draft.operation}/{draft.model}"] += 1
        self._report(draft, "new" if state is None else "kept", state)
        if state is not None:
            self.kept[state] += 1
        elif known and len(self._new_drafts) < _MAX_REMEMBERED:  # if every task is matched, it replaces none
            self._new_drafts.append(draft)
        if state not in {None, "queued", *(["failed"] if self.include_failed else [])}:
            return
        self._new_by_provider[draft.provider] += 1
        self._safety.add(draft, self.provider_directory)
        cost = prices.of(draft)
        if cost is None:
            self._unpriced_models[draft.model] = None
        else:
            self._cost_by_unit[prices.unit(draft)] += cost  # type: ignore[assignment]  # a Counter adds up floats as well
        if len(self._samples) < self.max_samples:
            sample = {"key": draft.key, "name": draft.name, "model": draft.model, "request": dict(draft.request)}
            self._samples.append(sample)

    def finish(self) -> None:
        """Find changed and gone tasks among the unmatched ones.

        Call this after the last draft.
        """
        old = self._unmatched_rows()
        self.gone.update(row["state"] for row in old)
        self.changes = list(_pair_changes(old, self._new_drafts))
        self._report_pending({change.key: change for change in self.changes})
        changed = {change.old_key for change in self.changes}
        for row in old:
            if row["key"] not in changed and self.on_task is not None:
                self.on_task({"key": row["key"], "plan": "gone", "state": row["state"], "name": row["name"]})

    def _unmatched_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the job's tasks that no draft has matched."""
        if not self._unmatched or self._state_directory is None:
            return []
        with open_read_only(self._state_directory) as job:
            return [row for key in self._unmatched if (row := job.get_draft(key)) is not None]

    def _cost_so_far(self) -> float | None:
        """Return what the job has cost so far, or None if that is unknown."""
        if self._state_directory is None:
            return 0.0
        try:
            with open_read_only(self._state_directory) as job:
                return job.spent()
        except JobNotFoundError:
            return 0.0

    def to_dict(self, job: LoadedJob) -> dict[str, Any]:
        """Return the object that `plan --json` prints."""
        rates = {provider: submit_rate(job, provider) for provider, _ in self._tasks_by_model}
        seconds = max((self._new_by_provider[name] / rate.per_second for name, rate in rates.items()), default=0.0)
        models = [
            {"provider": name, "model": code, "tasks": count} for (name, code), count in self._tasks_by_model.items()
        ]
        return {
            "job": job.manifest.name,
            "models": models,
            "directory": str(job.directory),
            "tasks": job.summary.tasks,
            "merged": job.summary.merged,
            "new": self.new,
            "known": {state: count for state, count in self.kept.items() if state != "queued"},
            "changed": [_change_to_dict(change) for change in self.changes],
            "gone": dict(self.gone),
            "cost": self.cost,
            "unit": self.unit or None,
            "unpriced": list(self._unpriced_models),
            "max_cost": job.manifest.limits.max_cost,
            "spent": self._cost_so_far(),
            "rate": {provider: str(rate) for provider, rate in rates.items()},
            "seconds": round(seconds, 1),
            "samples": self._samples,
            **self._safety.to_dict(job, Clock().now()),
        }

    @property
    def new(self) -> int:
        """Return the number of tasks that would be bought."""
        return self._new_by_provider.total()

    @property
    def unit(self) -> str:
        """Return the unit of the cost, or "" if there is no cost."""
        return next(iter(self._cost_by_unit), "")

    @property
    def cost(self) -> float | None:
        """Return the price of the new tasks, or None if one is unknown or they are in several units."""
        return (
            None if self._unpriced_models or len(self._cost_by_unit) > 1 else round(sum(self._cost_by_unit.values()), 6)
        )

    def _load_known_tasks(self, parsed: ParsedManifest) -> tuple[dict[str, str], Prices]:
        """Return the job's unmatched tasks and the manifest's prices, loaded at the first draft."""
        if self._unmatched is None or self._prices is None:
            manifest = (
                with_sandbox_directory(parsed.manifest) if self.in_sandbox and self.out is None else parsed.manifest
            )
            self._state_directory = manifest.directory / ".runner"
            self._unmatched, self._prices = (
                _known_states(self._state_directory),
                Prices(parsed.manifest, Catalogue(self.provider_directory)),
            )
            self._pending = [] if self._unmatched else None
        return self._unmatched, self._prices

    def _report(self, draft: Draft, kind: str, state: str | None) -> None:
        """Pass a task to `on_task`, or keep it until the changed tasks are known."""
        if self.on_task is None:
            return
        task = {"key": draft.key, "plan": kind, "state": state, "index": draft.index, "name": draft.name}
        if self._pending is None:
            self.on_task(task)
        else:
            self._pending.append(task)
            if len(self._pending) > _MAX_REMEMBERED:  # a job so large is reported at once, with changed tasks as new
                self._report_pending({})

    def _report_pending(self, changes: Mapping[str, Change]) -> None:
        """Pass the kept tasks to `on_task`, with what changed."""
        for task in self._pending or ():
            if self.on_task is not None:
                self.on_task(task | _change_fields(changes.get(task["key"])))
        self._pending = None


def _pair_changes(old: list[dict[str, Any]], new: list[Draft]) -> Iterator[Change]:
    """Pair new tasks with the old tasks that they replace: first by equal variables, then by equal position."""
    left = {row["key"]: row for row in old}
    unpaired = list(new)
    for row_key, draft_key in _PAIRING_KEYS:
        rows_by_key: dict[Any, list[dict[str, Any]]] = {}
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
            yield Change(draft.key, row["key"], row["state"], draft.index, _differences(row, draft))
        unpaired = rest


def _variables_key(values: Mapping[str, Any], repeat: int) -> Any:
    """Return a hashable key of a task's variables."""
    return repr(sorted(values.items())), repeat


#: pairs of functions that return the same key for an old task's row and for the draft that replaces it
_PAIRING_KEYS: tuple[tuple[Callable[[dict[str, Any]], Any], Callable[[Draft], Any]], ...] = (
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


def _change_to_dict(change: Change) -> dict[str, Any]:
    """Return a change as the JSON object that `plan --json` prints."""
    fields = {name: {"was": old, "is": new} for name, (old, new) in change.fields.items()}
    return {
        "key": change.key,
        "was": change.old_key,
        "was_state": change.old_state,
        "index": change.index,
        "fields": fields,
    }


def _change_fields(change: Change | None) -> dict[str, Any]:
    """Return the fields by which a changed task's object differs from a new task's."""
    if change is None:
        return {}
    return {"plan": "changed", "was": change.old_key, "was_state": change.old_state, "fields": list(change.fields)}


def _known_states(state: Path) -> dict[str, str]:
    """Return the state by key of every task that the job has already."""
    try:
        with open_read_only(state) as job:
            return job.states_by_key()
    except JobNotFoundError:
        return {}
