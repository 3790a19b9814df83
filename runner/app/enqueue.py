"""Add the tasks of a large manifest in pages, while the first ones are bought.

The manifest was checked as a whole before. What is added at once, and what in pages, `Drafts.begin_pages` decides. An
interrupted run leaves a part of the tasks out; the next one goes on behind the last that is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from runner.app.earlier_purchases import (
    adopt_all_remembered,
    has_earlier_purchases,
    link_text,
    use_earlier_purchases_of,
)
from runner.errors import ManifestError
from runner.scheduler.outcome import Ending, Exit
from runner.store.task_rows import next_page
from runner.tasks.models import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.app.earlier_purchases import EarlierPurchases
    from runner.app.job import LoadedJob
    from runner.app.run_context import RunContext
    from runner.store.store import Store
    from runner.store.task_rows import Addition

#: tasks of a manifest from which on they are added in pages
PAGED_FROM = 5_000
#: tasks that are in before anything is bought, and tasks of a page behind them
_FIRST_PAGE, _PAGE = 1_000, 500


class Enqueuer:
    """Adds the tasks of a job behind the first `done` that are in already.

    If none of those is left to be bought, a first page is added before the run begins. What comes later may have been
    bought elsewhere, or in a run that the state does not remember: then it is held back until that is known. `now`
    returns seconds since the epoch.
    """

    def __init__(self, job: LoadedJob, store: Store, done: int, now: Callable[[], float]) -> None:
        self._job, self._store, self._now = job, store, now
        self._done, self._total = done, job.summary.tasks
        self._additions: Iterator[Addition] = job.additions(done)
        #: all tasks are in, or no more can be added
        self.is_done = False
        #: why no more could be added
        self.endings: list[Ending] = []

    def __repr__(self) -> str:
        return f"Enqueuer({self._done} of {self._total})"

    async def add_first(self) -> None:
        """Add the first page. Raises ManifestError if a file has changed and is wrong now."""
        await self._add(_FIRST_PAGE, hold_back=False)

    async def run(self, context: RunContext, earlier: EarlierPurchases) -> None:
        """Add the other tasks page by page, as long as each took apart, so that the run has half of the processor.

        `earlier` is what the run has made of the account's memory so far.
        """
        is_later_run = self._store.epoch > 1
        hold_back = is_later_run or await has_earlier_purchases(context, earlier)
        first, linked = self._done + 1, earlier.linked + earlier.fetched
        while not self.is_done:
            begun, before = anyio.current_time(), self._done
            try:
                await self._add(_PAGE, hold_back=hold_back)
            except ManifestError as error:
                self._give_up(f"{error.message}: run again, when it is right")
            if self._done > before:
                if hold_back:
                    await use_earlier_purchases_of(context, earlier, before + 1, self._done)
                    if not is_later_run:
                        await self._store.release(before + 1, self._done)
                self._wake(context)
                await anyio.sleep(anyio.current_time() - begun)
        if not self.endings:
            await self._store.end_pages()
        if is_later_run:
            await adopt_all_remembered(context, self._job.state_directory)
            for pipeline in context.pipelines:
                await pipeline.ask_before_buying(is_first_run=False)
            await self._store.release(first, self._done)
        if more := earlier.linked + earlier.fetched - linked:
            context.observer.info(link_text(more))
        self._wake(context)

    async def _add(self, size: int, *, hold_back: bool) -> None:
        """Add the next tasks, if their files are still those that were checked."""
        page, is_last = await anyio.to_thread.run_sync(next_page, self._additions, size)
        if (changed := self._job.changed_file()) is not None:
            self._give_up(
                f"{changed} has changed while its rows were added: run again, and the rest is added as it is now"
            )
        elif page:
            await self._store.add_page(page, self._now(), hold_back=hold_back)
            self._done += len(page)
        self.is_done = self.is_done or is_last

    def _give_up(self, why: str) -> None:
        self.is_done = True
        self.endings.append(Ending(Exit.RESUMABLE, f"{self._done:,} of {self._total:,} tasks were added; {why}"))

    @staticmethod
    def _wake(context: RunContext) -> None:
        for pipeline in context.pipelines:
            context.notifier.notify((pipeline.name, State.QUEUED))
        context.notifier.notify("idle")
