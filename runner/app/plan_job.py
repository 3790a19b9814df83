"""`plan`: count new, kept, changed and gone tasks and their price, while the manifest is checked."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.app.job import Goods, Prices, submit_rate, with_sandbox_directory
from runner.app.planned_safety import PlannedSafety, lost_at_once
from runner.app.task_changes import Change, Restatements, axis_names, pair_changes
from runner.errors import JobNotFoundError
from runner.providers.catalogue import Catalogue
from runner.scheduler.clock import Clock
from runner.store.read_only import open_read_only

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping
    from pathlib import Path

    from runner.app.job import LoadedJob
    from runner.app.planned_links import PlannedLinks
    from runner.manifest.parser import ParsedManifest
    from runner.tasks.models import Draft

#: new tasks that are kept in memory, so that those which replace an older task can be reported as changed
_MAX_REMEMBERED = 20_000
#: bytes of a task's goods
_GOODS_BYTES = 16
#: states of tasks that have bought the same, the one that has come furthest first
_STATE_ORDER = ("done", "ready", "running", "in_doubt", "submitting", "held", "stranded", "failed", "queued")


class NewTask(NamedTuple):
    """What the tasks to buy are counted by."""

    provider: str
    model: str
    cost: float | None
    unit: str


class NewGoods:
    """Goods of tasks without a row, in 20 bytes each, with what they are counted by."""

    def __init__(self) -> None:
        self._goods = bytearray()
        self._numbers = array("L")
        self._tasks: dict[NewTask, int] = {}

    def append(self, goods: str, task: NewTask) -> None:
        """Add a task, unless its goods are not known."""
        if goods:
            self._goods += bytes.fromhex(goods)
            self._numbers.append(self._tasks.setdefault(task, len(self._tasks)))

    def tasks_of(self, wanted: Container[str]) -> Iterator[tuple[str, NewTask]]:
        """Yield the tasks whose goods are wanted."""
        tasks = list(self._tasks)
        for at, number in enumerate(self._numbers):
            goods = self._goods[_GOODS_BYTES * at : _GOODS_BYTES * (at + 1)].hex()
            if goods in wanted:
                yield goods, tasks[number]


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
    #: what was linked to another job's purchase would be bought as well
    buy_again: bool = False
    #: what other jobs of the account have bought before; None: they are not asked
    links: PlannedLinks | None = None
    #: counts by state of the job's tasks that are still in the manifest
    kept: Counter[str] = field(default_factory=Counter)
    #: those of them that are written in another way than they were bought
    restated: Restatements = field(default_factory=Restatements)
    changes: list[Change] = field(default_factory=list)
    #: counts by state of the job's tasks that are no longer in the manifest, replaced ones included
    gone: Counter[str] = field(default_factory=Counter)
    _tasks_by_model: Counter[tuple[str, str]] = field(default_factory=Counter)
    _new_by_price: Counter[NewTask] = field(default_factory=Counter)
    _samples: list[Draft] = field(default_factory=list)
    _new_drafts: list[Draft] = field(default_factory=list)
    _new_goods: NewGoods = field(default_factory=NewGoods)
    #: goods of new tasks by those under which earlier versions have bought the same
    _goods_by_earlier: dict[str, str] = field(default_factory=dict)
    #: rows that take the places of new tasks, by the keys of these
    _kept_rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _axes: frozenset[str] = frozenset()
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
        if state in {None, "queued"} and self.links is not None and self._state_directory is not None:
            fate = self.links.add(draft, parsed.manifest, self._state_directory.parent)
            if fate is not None:
                self._report(draft, fate, state)
                return
        self._report(draft, "new" if state is None else "kept", state)
        if state is not None:
            self.kept[state] += 1
        elif known:  # if every task is matched, it replaces none
            self._new_goods.append(draft.goods, _new_task(draft, prices))
            if draft.goods_before:
                self._goods_by_earlier.setdefault(draft.goods_before, draft.goods)
            if len(self._new_drafts) < _MAX_REMEMBERED:
                self._new_drafts.append(draft)
        if state not in {None, "queued", *(["failed"] if self.include_failed else [])}:
            return
        self._safety.add(draft, self.provider_directory)
        self._new_by_price[_new_task(draft, prices)] += 1
        if len(self._samples) < self.max_samples:
            self._samples.append(draft)

    def finish(self) -> None:
        """Find changed and gone tasks among the unmatched ones, and those that are kept for their goods.

        Call this after the last draft.
        """
        old = self._keep_bought_goods(self._unmatched_rows())
        self.gone.update(row["state"] for row in old)
        self.changes = list(pair_changes(old, self._new_drafts, self._axes))
        self._report_pending({change.key: change for change in self.changes})
        changed = {change.old_key for change in self.changes}
        for row in old:
            if row["key"] not in changed and self.on_task is not None:
                self.on_task({"key": row["key"], "plan": "gone", "state": row["state"], "name": row["name"]})

    def _keep_bought_goods(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Count the rows as kept that have bought what a new task asks for, and return the others."""
        bought = self._rows_by_goods(rows)
        drafts = {draft.goods: draft for draft in self._new_drafts if draft.goods in bought}
        for goods, task in self._new_goods.tasks_of(bought):
            row = bought[goods]
            self.kept[row["state"]] += 1
            if not (self.include_failed and row["state"] == "failed"):
                self._new_by_price[task] -= 1
            if goods in drafts:
                self.restated.add(row["request"], drafts[goods].request)
            else:
                self.restated.more += 1
        kept = {row["key"] for row in bought.values()}
        for draft in drafts.values():
            if bought[draft.goods]["state"] != "failed" or not self.include_failed:
                self._safety.add(draft, self.provider_directory, -1)
            self._kept_rows[draft.key] = bought[draft.goods]
        self._new_drafts = [draft for draft in self._new_drafts if draft.goods not in drafts]
        if drafts:
            self._samples = self._new_drafts[: self.max_samples]
        return [row for row in rows if row["key"] not in kept]

    def _rows_by_goods(self, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the rows that were bought, or may have been, by the goods that new tasks ask for as well."""
        goods, found = Goods(Catalogue(self.provider_directory)), {}
        for row in sorted(rows, key=lambda row: _STATE_ORDER.index(row["state"]), reverse=True):
            if row["submitted_at"] is None or (row["state"] == "queued" and not row["doubts"]):
                continue
            content = row["provider"], row["operation"], row["model"], row["request"], row["repeat"]
            bought = row["goods"] or goods.of(*content)
            found[self._goods_by_earlier.get(bought, bought)] = row
        asked = {each for each, _ in self._new_goods.tasks_of(found)}
        return {each: row for each, row in found.items() if each in asked}

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

    def _suspects(self) -> dict[str, int]:
        """Return how many tasks were refused and wait to be looked up, by their code."""
        if not self.kept["in_doubt"] or self._state_directory is None:
            return {}
        with open_read_only(self._state_directory) as job:
            return job.suspects("in_doubt")

    def to_dict(self, job: LoadedJob) -> dict[str, Any]:
        """Return the object that `plan --json` prints."""
        rates = {provider: submit_rate(job, provider) for provider, _ in self._tasks_by_model}
        new = Counter[str]()
        for task, number in self._new_by_price.items():
            new[task.provider] += number
        seconds = max((new[name] / rate.per_second for name, rate in rates.items()), default=0.0)
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
            "linked": self.links.linked.total() if self.links else 0,
            "linked_from": self.links.to_list() if self.links else [],
            "resting": dict(self.links.resting) if self.links else {},
            "cost": self.cost,
            "unit": self.unit or None,
            "restated": self.restated.to_dict(),
            "replaced": len(self.replaced),
            "unpriced": self._unpriced_models,
            "max_cost": job.manifest.limits.max_cost,
            "spent": self._cost_so_far(),
            "suspects": self._suspects(),
            "rate": {provider: str(rate) for provider, rate in rates.items()},
            "seconds": round(seconds, 1),
            "lost_at_once": lost_at_once(job, rates, new),
            "samples": [
                {"key": draft.key, "name": draft.name, "model": draft.model, "request": dict(draft.request)}
                for draft in self._samples
            ],
            **self._safety.to_dict(job, Clock().now()),
        }

    @property
    def new(self) -> int:
        """Return the number of tasks that would be bought."""
        return self._new_by_price.total()

    @property
    def unit(self) -> str:
        """Return the unit of the cost, or "" if there is no cost."""
        return next(iter(self._units), "")

    @property
    def cost(self) -> float | None:
        """Return the price of the new tasks, or None if one is unknown or they are in several units."""
        if self._unpriced_models or len(self._units) > 1:
            return None
        return round(sum((task.cost or 0.0) * number for task, number in self._new_by_price.items()), 6)

    @property
    def replaced(self) -> list[Change]:
        """Return the new tasks that stand where bought ones stood, in the same row."""
        return [change for change in self.changes if change.in_place]

    @property
    def _units(self) -> list[str]:
        tasks = (task for task, number in self._new_by_price.items() if number and task.cost is not None)
        return list(dict.fromkeys(task.unit for task in tasks))

    @property
    def _unpriced_models(self) -> list[str]:
        tasks = (task for task, number in self._new_by_price.items() if number and task.cost is None)
        return list(dict.fromkeys(task.model for task in tasks))

    def _load_known_tasks(self, parsed: ParsedManifest) -> tuple[dict[str, str], Prices]:
        """Return the job's unmatched tasks and the manifest's prices, loaded at the first draft."""
        if self._unmatched is None or self._prices is None:
            manifest = (
                with_sandbox_directory(parsed.manifest) if self.in_sandbox and self.out is None else parsed.manifest
            )
            self._state_directory = manifest.directory / ".runner"
            self._axes = axis_names(manifest)
            self._unmatched, self._prices = (
                _known_states(self._state_directory, buy_again=self.buy_again),
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

    def _kept_fields(self, key: str) -> dict[str, Any]:
        """Return the fields of a task that takes the place of a new one, whose key this is."""
        row = self._kept_rows.get(key)
        return {} if row is None else {"key": row["key"], "plan": "kept", "state": row["state"], "name": row["name"]}

    def _report_pending(self, changes: Mapping[str, Change]) -> None:
        """Pass the kept tasks to `on_task`, with what changed."""
        for task in self._pending or ():
            if self.on_task is not None:
                self.on_task(task | _change_fields(changes.get(task["key"])) | self._kept_fields(task["key"]))
        self._pending = None


def _new_task(draft: Draft, prices: Prices) -> NewTask:
    return NewTask(draft.provider, draft.model, prices.of(draft), prices.unit(draft))


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


def _known_states(state: Path, *, buy_again: bool) -> dict[str, str]:
    """Return the state by key of every task that the job has already: linked ones are to be bought with `buy_again`."""
    try:
        with open_read_only(state) as job:
            return job.states_by_key(buy_again=buy_again)
    except JobNotFoundError:
        return {}
