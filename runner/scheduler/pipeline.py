"""The stages of one provider in a run, and the parts that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from runner.errors import RunnerError
from runner.scheduler.calibration import Calibration
from runner.scheduler.download import DownloadStage
from runner.scheduler.first_reading import put_forgotten_in_doubt
from runner.scheduler.forgotten import Forgotten, adopt_forgotten
from runner.scheduler.poll import PollStage
from runner.scheduler.poll_schedule import PollBounds, PollSchedule
from runner.scheduler.reconcile import ReconcileStage
from runner.scheduler.stage import Stage
from runner.scheduler.submit import SubmitStage
from runner.tasks.models import State
from runner.text import pluralize

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator
    from pathlib import Path

    from runner.net.downloader import Downloader
    from runner.scheduler.local_images import ImageSource
    from runner.scheduler.session import ProviderSession
    from runner.scheduler.settlement import Settlement
    from runner.scheduler.spending import Spending
    from runner.scheduler.stage import OnBroken
    from runner.store.earlier_rows import EarlierRowsFile
    from runner.store.facts import AccountFacts
    from runner.tasks.fact import Fact
    from runner.tasks.retry_policy import RetryPolicy

#: seconds; what was bought within them may still be put right
_DAY = 86_400.0


@dataclass(frozen=True)
class ProviderPipeline:
    """What a run needs of one provider. Each stage is handed the parts that it uses, never the whole."""

    session: ProviderSession
    settlement: Settlement
    spending: Spending
    schedule: PollSchedule
    downloader: Downloader
    #: puts local images into requests; None: the provider takes none
    images: ImageSource | None = None
    #: submits on the wire at once, at first and at most, and downloads at once
    submits: int = 8
    most_submits: int = 8
    downloads: int = 4
    #: runs a blocking function off the event loop
    offload: Callable[..., Awaitable[Any]] = anyio.to_thread.run_sync

    #: keeps what stood in the provider's lists before this job; None: it is not kept
    earlier: EarlierRowsFile | None = None
    #: what the account's jobs have learned of its lists; None: it is not kept
    facts: AccountFacts | None = None

    @property
    def name(self) -> str:
        """Return the provider's name."""
        return self.session.name

    async def load_facts(self) -> None:
        """Take over what the account's jobs have learned of each list. Without it, it is measured again."""
        if self.facts is None or self.session.spec.reconcile.listing is None:
            return
        await self.session.refusals.bind(self.facts)
        for operations in self.groups():
            facts = self.session.facts_of(operations[0])
            try:
                group, now = self.session.dialect.group(operations[0]), self.session.clock.now()
                record, known = await self.facts.load(group, now), await self.facts.facts(group, now)
            except RunnerError as error:
                self.session.on_warning(f"{error.message}: what was learned of the account's lists is not used")
                return
            facts.restore(record, self.session.clock)
            facts.learned.restore(known)

    async def save_facts(self) -> None:
        """Keep what this run has learned for the account's other jobs. A failure costs only patience.

        Tell the user of what contradicts a list, once.
        """
        await self.session.refusals.save()
        for name, facts in self.session.lists.items():
            untold, facts.learned.untold = facts.learned.untold, []
            for fact in untold:
                await self._tell_contradiction(fact, facts.operation)
            if self.facts is None:
                continue
            learned = facts.learned.take()
            try:
                if learned:
                    await self.facts.record(name, *learned)
                if len(facts):
                    await self.facts.save(name, facts.record(), self.session.clock.now())
            except RunnerError as error:
                facts.learned.put_back(learned)
                self.session.on_warning(f"{error.message}: what was learned of the account's lists is not kept")
                return

    async def watch_contradictions(self) -> None:
        """Keep and tell what contradicts a list as soon as it is seen, until it is cancelled."""
        notifier, name = self.session.notifier, (self.name, "contradiction")
        while True:
            seen = notifier.count(name)
            if any(facts.learned.untold for facts in self.session.lists.values()):
                await self.save_facts()
            await notifier.wait(name, since=seen)

    async def _tell_contradiction(self, fact: Fact, operation: str) -> None:
        since = self.session.clock.now() - _DAY
        resting = await self.settlement.store.bought_again_count(self.name, since)
        rest = f". {pluralize(resting, 'task')} of today rest{'s' if resting == 1 else ''} on it: runner audit"
        held = {"reference_in_list": "from now on lost answers are held", "own_rows": "lost answers are held meanwhile"}
        then = held.get(fact.name, "from now on lost answers of that model are held")
        whose = self.name if len(self.groups()) == 1 else f"{self.name} {operation}"
        self.session.on_warning(f"{whose}: {fact.why}: {then}{rest if resting else ''}")

    def submit_stage(self, on_bug: Callable[[Exception], None]) -> SubmitStage:
        """Return the stage that buys."""
        return SubmitStage(
            self.session,
            self.settlement,
            self.spending,
            self.images,
            on_bug,
            concurrency=self.submits,
            most=self.most_submits,
        )

    def load_earlier(self) -> None:
        """Take over what stood in each list before this job, as earlier runs of it have kept it."""
        if self.earlier is None:
            return
        for operations in self.groups():
            group = self.session.dialect.group(operations[0])
            if (rows := self.earlier.load(group)) is not None:
                self.session.earlier[group] = rows

    async def ask_before_buying(self, *, is_first_run: bool) -> list[Forgotten]:
        """Find what this job has bought in a run that its state does not remember, before anything is bought.

        Return what each list showed that holds a task to buy.
        """
        listing, found = self.session.spec.reconcile.listing, []
        if listing is not None and listing.reference is not None and is_first_run:
            return []
        for operations in self.groups():
            if not await self.settlement.store.has_queued(self.name, operations):
                continue
            if listing is None or listing.reference is not None:
                found.append(await adopt_forgotten(self.session, self.settlement, operations))
            elif self.earlier is not None:
                found.append(await put_forgotten_in_doubt(self.session, self.settlement, operations, self.earlier))
        return found

    async def find_surplus(self) -> list[str]:
        """Return the ids of tasks that were paid for beside ours, by one more reading of each list with doubts."""
        return [
            remote_id
            for operations in self.groups()
            for remote_id in await ReconcileStage(self.session, self.settlement, operations).find_surplus()
        ]

    def calibration(self) -> Calibration:
        """Return the loop that measures how late the provider's lists are, where that is not known."""
        return Calibration(self.session, self.save_facts)

    def stages(self, states: Collection[State], directory: Path, on_broken: OnBroken) -> Iterator[Stage]:
        """Yield the loops that work on these states, apart from submits."""
        for operations in self.groups():
            if State.RUNNING in states:
                yield self.stage(PollStage(self.session, self.settlement, self.schedule, operations), on_broken)
            if State.IN_DOUBT in states and self.session.spec.can_reconcile:
                yield self.stage(ReconcileStage(self.session, self.settlement, operations), on_broken)
        if State.READY in states:
            downloads = DownloadStage(
                self.session,
                self.settlement,
                self.downloader,
                directory,
                concurrency=self.downloads,
                offload=self.offload,
            )
            yield self.stage(downloads, on_broken)

    def stage(self, tasks: PollStage | ReconcileStage | DownloadStage, on_broken: OnBroken) -> Stage:
        """Return the loop that claims and processes the tasks of one stage."""
        return Stage(
            (self.name, tasks.state),
            concurrency=tasks.concurrency,
            notifier=self.session.notifier,
            now=self.session.clock.now,
            claim=tasks.claim,
            work=tasks.work,
            next_due=tasks.next_due,
            on_broken=on_broken,
        )

    def groups(self) -> list[list[str]]:
        """Return the operations of each group that one request can ask about together."""
        groups: dict[str, list[str]] = {}
        for operation in self.session.spec.operations:
            groups.setdefault(self.session.dialect.group(operation), []).append(operation)
        return list(groups.values())


def poll_schedule(session: ProviderSession, policy: RetryPolicy) -> PollSchedule:
    """Return the schedule of a provider's polls, by its spec, its limits and the retry policy."""
    spec = session.spec
    bounds = PollBounds(
        policy.first_poll,
        spec.longest_poll,
        spec.query.many.max if spec.query.many else 1,
        shared=session.limiters["query"] is session.limiters["submit"],
    )
    return PollSchedule(bounds, session.clock.now())
