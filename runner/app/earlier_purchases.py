"""What other jobs of the account have bought before: linked to this job's tasks before anything is bought.

Another directory, a renamed manifest, a copied folder or one row more asks for what is there already. A task that
another job has paid for takes over its files, or fetches them by their id, and costs nothing. What another job is at
work on rests, since what becomes of it is known there alone. Nothing is linked silently.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from runner.app.linked_files import take_over_files
from runner.errors import RunnerError, UsageError
from runner.scheduler.forgotten import Forgotten
from runner.scheduler.outcome import Ending, Exit
from runner.store.remembered import KnownJob
from runner.tasks.events import Interrupted, Linked, Resolved, Retried
from runner.tasks.models import Moment, State
from runner.tasks.transitions import advance
from runner.text import pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from runner.app.run_context import RunContext, RunOptions
    from runner.scheduler.pipeline import ProviderPipeline
    from runner.store.purchases import Match, PurchaseMemory
    from runner.store.remembered import Purchase
    from runner.tasks.models import Task

#: seconds between two records of what was bought
_RECORD_INTERVAL = 10.0
#: tasks that are linked at once
_AT_ONCE = 64
#: states of what is paid for and not here yet
_PAID = frozenset({State.RUNNING, State.READY, State.STRANDED})
#: who decides about a task that is found in the account's memory, in its evidence; and why another is in doubt
_MEMORY, _NO_ANSWER = "the account's memory, before the run", "it was sent in a run that this state does not remember"
#: directories that are named in one message
_MAX_NAMED = 3


@dataclass
class EarlierPurchases:
    """What a run made of the account's memory, by the directory of the other job."""

    linked: Counter[str] = field(default_factory=Counter)
    #: linked, but their files are fetched by their ids
    fetched: Counter[str] = field(default_factory=Counter)
    #: left alone, since the other job is at work on them, or can go on with them
    resting: Counter[str] = field(default_factory=Counter)
    #: left alone, though the state of the other job is gone
    lost: Counter[str] = field(default_factory=Counter)
    #: bought once more, since they were bought too long ago
    outdated: Counter[str] = field(default_factory=Counter)
    #: how tasks are linked; None: none is
    choice: _Choice | None = None

    def endings(self) -> list[Ending]:
        """Return why this run leaves tasks alone."""
        found = []
        if self.resting:
            what = "bought, or about to be, and not finished there: go on there"
            found.append(f"{self.resting.total()} rest here, in {_names(self.resting)} they are {what}")
        if self.lost:
            what = "perhaps bought, and its state is gone: put it back, or buy them with --buy-again KEY"
            found.append(f"{self.lost.total()} rest here, in {_names(self.lost)} they were {what}")
        return [Ending(Exit.RESUMABLE, "; ".join(found))] if found else []


async def use_earlier_purchases(
    context: RunContext, options: RunOptions, directory: Path, remember: float
) -> EarlierPurchases:
    """Link this job's unbought tasks to what the account's other jobs have bought, and let rest what they are at.

    `remember` is the age in seconds up to which a purchase counts. `--buy-again` buys all tasks, or those that it
    names, and `--elsewhere ignore` links none. Raises UsageError if a key names no task that could be bought anew, and
    RunnerError if the memory or the disk cannot be used.
    """
    report = EarlierPurchases()
    await context.store.end_rest()
    if options.buy_again or options.buy_again_keys:
        await _buy_again(context, options)
    chosen = await _chosen_ids(context, options.buy_again_keys)
    if not options.buy_again and options.elsewhere != "ignore":
        report.choice = _Choice(directory, remember, chosen)
        for pipeline in context.pipelines:
            if (memory := context.memories.get(pipeline.name)) is not None:
                await memory.record_others(pipeline.name)
                await _use_memory(context, pipeline, memory, report)
    if report.outdated:
        context.observer.warn(
            f"{pluralize(report.outdated.total(), 'task')} bought before in {_names(report.outdated)}, longer ago than"
            " retry.remember says, will be bought once more"
        )
    if report.linked or report.fetched:
        context.observer.info(link_text(report.linked + report.fetched))
    return report


async def adopt_remembered(pipeline: ProviderPipeline, memory: PurchaseMemory, state: Path) -> Forgotten:
    """Adopt what the account's memory says that this very job has bought, and its state in `state` does not know.

    So it is where the state was put back from a backup, and `RUNNER_HOME` was not. What has no answer is in doubt.
    """
    clock, store, settlement = pipeline.session.clock, pipeline.settlement.store, pipeline.settlement
    after, adopted, in_doubt = -1, 0, 0
    while page := await memory.forgotten(state, pipeline.name, after):
        after = page[-1].task_id
        tasks = {task.id: task for task in await store.find_queued([each.task_id for each in page])}
        for each in page:
            if (task := tasks.get(each.task_id)) is None:
                continue
            if each.remote_id is not None:
                adopted += await settlement.settle(task, Resolved("adopt", _MEMORY, each.remote_id)) is not None
                continue
            moment, age = clock.moment(), max(0.0, clock.now() - each.at)
            sent = Moment(moment.boot, moment.seconds - age)
            task = replace(task, sent=sent, submitted_at=each.at, since=each.at, due_at=None)
            in_doubt += await settlement.settle(task, Interrupted(_NO_ANSWER)) is not None
    return Forgotten(adopted, in_doubt)


async def adopt_all_remembered(context: RunContext, state: Path) -> None:
    """Do the same for every provider, after tasks were added that a state which was put back knew nothing of."""
    for pipeline in context.pipelines if context.store.epoch > 1 else ():
        if (memory := context.memories.get(pipeline.name)) is not None:
            await adopt_remembered(pipeline, memory, state)


async def use_earlier_purchases_of(context: RunContext, report: EarlierPurchases, first: int, last: int) -> None:
    """Do the same for the tasks at some positions of the manifest, which were added since, and add it to the report."""
    for pipeline in context.pipelines if report.choice is not None else ():
        if (memory := context.memories.get(pipeline.name)) is not None:
            await _use_memory(context, pipeline, memory, report, (first, last))


async def has_earlier_purchases(context: RunContext, report: EarlierPurchases) -> bool:
    """Return whether tasks that are added later may have been bought elsewhere."""
    return report.choice is not None and any([await memory.has_others() for memory in context.memories.values()])


@dataclass(frozen=True, slots=True)
class _Choice:
    """How tasks are linked: into which directory, to purchases of which age, and which tasks are to be bought."""

    directory: Path
    remember: float
    chosen: frozenset[int]

    def can_go_on(self, purchase: Purchase) -> bool:
        """Return whether the job that bought can go on: its state is there, and is not that of this job by now."""
        directory = Path(purchase.job.directory)
        return directory != self.directory and (directory / ".runner" / "state.db").exists()


async def _use_memory(
    context: RunContext,
    pipeline: ProviderPipeline,
    memory: PurchaseMemory,
    report: EarlierPurchases,
    span: tuple[int, int] | None = None,
) -> None:
    """Link the tasks of one provider, in pages: all, or those between two positions of the manifest."""
    choice = report.choice
    if choice is None:
        return
    async with aclosing(memory.matches(choice.directory / ".runner", pipeline.name, span)) as pages:
        async for page in pages:
            matches = iter([match for match in page if match.task_id not in choice.chosen])
            while batch := list(islice(matches, _AT_ONCE)):
                await _use_matches(context, pipeline, batch, choice, report)


async def _use_matches(
    context: RunContext, pipeline: ProviderPipeline, matches: Sequence[Match], choice: _Choice, report: EarlierPurchases
) -> None:
    """Link some tasks side by side, so that their rows share a transaction."""
    tasks = {task.id: task for task in await context.store.find_queued([match.task_id for match in matches])}
    oldest = context.clock.now() - choice.remember
    resting: list[int] = []

    async def use(match: Match) -> None:
        task = tasks.get(match.task_id)
        if task is None:
            return
        origins = [each for each in match.purchases if not each.linked] or match.purchases
        recent = [each for each in origins if each.at >= oldest]
        if not recent and match.at_work is None:
            report.outdated.update([origins[0].job.directory])
            return
        event = await _link_event(task, recent, match.purchases, choice) if recent else None
        pipeline.settlement.failpoint("files linked")
        if event is not None and await pipeline.settlement.settle(task, event) is not None:
            (report.linked if event.outputs else report.fetched).update([event.bought_in])
            return
        resting.append(task.id)
        alive = next((each.job.directory for each in recent if choice.can_go_on(each)), match.at_work)
        if alive is not None:
            report.resting.update([alive])
        else:
            report.lost.update([recent[0].job.directory])

    async with anyio.create_task_group() as group:
        for match in matches:
            group.start_soon(use, match)
    if resting:
        await context.store.rest(resting)


async def _link_event(
    task: Task, purchases: Sequence[Purchase], files_of: Sequence[Purchase], choice: _Choice
) -> Linked | None:
    """Return how a task takes over a purchase: by its files, by its id, or not at all while its job can go on with it.

    `files_of` are all that may have the files, those that were linked to one of `purchases` included.
    """
    done = {each.remote_id: each for each in reversed(purchases) if each.state is State.DONE}
    for source in files_of:
        purchase = done.get(source.remote_id) if source.state is State.DONE else None
        if purchase is None or purchase.remote_id is None:
            continue
        directory = Path(source.job.directory)
        files = await anyio.to_thread.run_sync(take_over_files, directory, source.outputs, choice.directory, task)
        if files:
            return Linked(purchase.remote_id, purchase.job.directory, files, source.error)
    for purchase in purchases:
        # what is paid for and will not be fetched by its own job is fetched by this one
        is_left = purchase.state is State.DONE or (purchase.state in _PAID and not choice.can_go_on(purchase))
        if is_left and purchase.remote_id is not None:
            return Linked(purchase.remote_id, purchase.job.directory)
    return None


async def _buy_again(context: RunContext, options: RunOptions) -> None:
    """Let linked tasks be bought: all, or those that the user has named."""
    settlements = {pipeline.name: pipeline.settlement for pipeline in context.pipelines}
    after = -1
    while page := await context.store.linked_tasks(after, _AT_ONCE):
        after = page[-1].id
        for task in page:
            wanted = options.buy_again or task.key.startswith(options.buy_again_keys)
            if wanted and task.provider in settlements:
                anew = advance(task, Retried(anew=True), context.clock.now(), settlements[task.provider].policy)
                await context.store.settle(task, anew)


async def _chosen_ids(context: RunContext, keys: Sequence[str]) -> frozenset[int]:
    """Return the ids of the unbought tasks that the keys name. Raises UsageError if a key names none, or several."""
    found = set()
    for key in keys:
        tasks = await context.store.find_by_key_prefix(key)
        if len(tasks) != 1:
            problem = "several tasks begin so" if tasks else "no task has that key"
            raise UsageError(f"--buy-again {key}: {problem}", hint="`runner plan --tasks` shows the key of each task.")
        (task,) = tasks
        if task.state is not State.QUEUED:
            raise UsageError(
                f"--buy-again {key}: the task is {task.state}, and no purchase of another job was linked to it",
                hint="`repeat:` in the manifest buys more of the same; `runner retry --failed` buys what failed.",
            )
        found.add(task.id)
    return frozenset(found)


@asynccontextmanager
async def remember_while_running(
    memories: Mapping[str, PurchaseMemory], on_warning: Callable[[str], None]
) -> AsyncIterator[None]:
    """Record with each account what the job buys during the block, and at its end, even after an error.

    What is not recorded because the process was killed is read from the job's own state by the next run of the account.
    """
    recording = asyncio.create_task(_record_repeatedly(memories))
    try:
        yield
    finally:
        recording.cancel()
        await asyncio.wait([recording])
        try:
            for provider, memory in memories.items():
                await memory.record(provider)
                await memory.end_run()
        except (RunnerError, OSError) as error:
            message = error.message if isinstance(error, RunnerError) else str(error)
            on_warning(f"the account was not told what this job has bought: {message}; its next run tells it")


async def _record_repeatedly(memories: Mapping[str, PurchaseMemory]) -> None:
    while True:
        await asyncio.sleep(_RECORD_INTERVAL)
        for provider, memory in memories.items():
            with suppress(RunnerError, OSError):  # the next attempt is soon enough; a lasting error is told at the end
                await memory.record(provider)


async def begin_remembering(context: RunContext, directory: str, now: float) -> None:
    """Register this run with each account's memory, and record what earlier runs of this job have bought."""
    for pipeline, registry in zip(context.pipelines, context.registries, strict=True):
        if (memory := context.memories.get(pipeline.name)) is not None:
            jobs = [KnownJob(each.uuid, each.directory) for each in await registry.entries()]
            await memory.begin_run(directory, jobs, now)
            await memory.record(pipeline.name)


def link_text(counts: Mapping[str, int]) -> str:
    """Return what a run has linked, for people."""
    return (
        f"{pluralize(sum(counts.values()), 'task')} bought before in {_names(Counter(counts))}: linked, nothing to pay"
    )


def _names(counts: Counter[str]) -> str:
    """Return the directories with the most tasks."""
    named = [sanitize(name, 200) for name, _ in counts.most_common(_MAX_NAMED)]
    more = len(counts) - len(named)
    return f"{', '.join(named)}{f' and {more} more' if more else ''}"
