"""Refusals of submits: which codes leave no task behind, and which did once.

A provider's documents say that a refused submit costs nothing. The first refusals with each code are looked up all the
same. Until two of them were seen to leave no task, a refused task waits as a suspect while others go on. One task that
was made under a refusal contradicts the documents: from then on that code is a doubt for every job of the account.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol

import anyio

from runner.errors import RunnerError
from runner.tasks.events import AccountBlocked, Interrupted, Rejected, RetryableFailure, Suspected
from runner.tasks.fact import CONTRADICTION_TIME, MOST_CONTRADICTIONS, Fact, merge_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.tasks.events import Event
    from runner.tasks.models import Task, TaskError

Verdict = Literal["unknown", "free", "charges"]
#: name of the fact
_FACT = "refusal"
#: refusals with a code that must have left no task before the next ones are believed at once
_FEWEST = 2
#: suspects since the last accepted submit after which submits wait for a verdict: perhaps everything is refused
_MOST_SUSPECTS = 20
#: codes that are remembered; a provider may invent them without end
_MOST_CODES = 1_000
#: characters of a code that are kept
_MOST_TEXT = 100


class FactFile(Protocol):
    """Keeps facts for all jobs of an account, as `store.facts.AccountFacts` does."""

    def version(self) -> object: ...

    async def facts(self, name: str, now: float) -> tuple[Fact, ...]: ...

    async def record(self, name: str, *facts: Fact) -> None: ...


class Refusals:
    """What the jobs of an account know of one provider's refusals.

    `groups` are the names of its lists by operation; empty: nothing can be looked up, and each refusal is believed.
    `now` returns seconds since the epoch.
    """

    def __init__(
        self,
        provider: str,
        groups: Mapping[str, str],
        now: Callable[[], float],
        on_warning: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._provider, self._groups, self._now, self.on_warning = provider, groups, now, on_warning
        #: a refusal that is not known to be free is a doubt, and contradictions do not stop submits
        self.trusts_less = False
        self._file: FactFile | None = None
        self._version: object = None
        self._known: dict[tuple[str, str], Fact] = {}
        #: facts of any kind that were contradicted lately, by list and key
        self._contradicted: dict[tuple[str, tuple[str, str, str, str]], float] = {}
        #: what could not be written yet
        self._unsaved: list[tuple[str, Fact]] = []
        self._writing = anyio.Lock()
        #: suspects of this run that wait to be looked up, by the ids of their rows
        self.waiting: set[int] = set()
        #: those of them that were refused after the last accepted submit
        self._in_a_row: set[int] = set()
        self._paused = False
        self._reported_error = False

    @property
    def paused(self) -> bool:
        """Return True while submits wait until many suspects in a row have been looked up."""
        return self._paused

    @property
    def distrusted(self) -> bool:
        """Return True if so many facts were contradicted in a day that nothing more is bought."""
        recent = sum(self._now() - at < CONTRADICTION_TIME for at in self._contradicted.values())
        return recent >= MOST_CONTRADICTIONS and not self.trusts_less

    async def bind(self, file: FactFile) -> None:
        """Take over what the account's other jobs know, and share what this one learns."""
        self._file = file
        await self.refresh(silent=True)

    async def refresh(self, *, silent: bool = False) -> None:
        """Read what other jobs have learned, if there is anything new. To be called before each submit.

        A contradiction of this job is on disk, for the others, when this returns.
        """
        async with self._writing:
            if self._file is None or self._file.version() == self._version:
                return
            version = self._file.version()
            try:
                for group in dict.fromkeys(self._groups.values()):
                    for fact in await self._file.facts(group, self._now()):
                        self._take(group, fact, silent=silent)
            except (RunnerError, OSError) as error:
                self._report(error)
            self._version = version

    def verdict(self, operation: str, refusal: TaskError) -> Verdict:
        """Return what is known of refusals with this code: they cost nothing, or one did not."""
        # a deliberate measurement may know the code without its meaning
        found = [self._known.get((operation, subject)) for subject in (_subject(refusal), refusal.code or "")]
        facts = [fact for fact in found if fact is not None and fact.is_valid(self._now())]
        if any(fact.state == "contradicted" for fact in facts):
            return "charges"
        is_free = any(fact.state == "declared" or fact.n >= _FEWEST for fact in facts)
        return "free" if is_free else "unknown"

    def check(self, task: Task, event: Event) -> Event:
        """Return the event of a submit as it counts: a refusal may be a suspect, or a doubt."""
        if not self._groups or not _is_refusal(event):
            return event
        if isinstance(event, Rejected) and event.maybe_taken and task.doubts:
            return event  # it may mean an earlier submit, and is a doubt already
        assert isinstance(event, RetryableFailure | Rejected | AccountBlocked)  # noqa: S101 - for the type checker
        verdict = self.verdict(task.operation, event.error)
        if verdict == "free":
            return event
        said = " ".join(part for part in (event.error.code, event.error.message) if part)
        if verdict == "charges":
            return Interrupted(f"refused with {said}, and a task was made under such a refusal before")
        if self.trusts_less:
            return Interrupted(f"refused with {said}, which is not known to cost nothing")
        return Suspected(event.error)

    def add_suspect(self, task: Task) -> None:
        """Count a suspect. After many without an accepted submit, submits wait."""
        self.waiting.add(task.id)
        self._in_a_row.add(task.id)
        self._paused |= len(self._in_a_row) >= _MOST_SUSPECTS

    def settle_suspect(self, task: Task) -> bool:
        """Let submits go on after a suspect was looked up, or left to the next run.

        Return True if no submit was accepted since its refusal.
        """
        in_a_row = task.id in self._in_a_row
        self.waiting.discard(task.id)
        self._in_a_row.discard(task.id)
        self._paused &= bool(self._in_a_row)
        return in_a_row

    def record_accepted(self) -> None:
        """Let submits go on after one was accepted: not everything is refused."""
        self._in_a_row.clear()
        self._paused = False

    async def confirm(self, task: Task) -> None:
        """Remember that the refusal of a suspect has left no task."""
        at = self._now()
        await self._record(task, Fact(_FACT, "measured", task.operation, first_at=at, last_at=at, value="free"))

    async def contradict(self, task: Task, remote_id: str) -> None:
        """Remember that a task was made under a refusal, and say so. It is on disk before the next submit leaves."""
        at, code = self._now(), task.error.code or task.error.reason
        why = f"{remote_id} was made, and the submit was answered with {code}"
        fact = Fact(_FACT, "contradicted", task.operation, first_at=at, last_at=at, value="charges", why=why)
        await self._record(task, fact)

    async def save(self) -> None:
        """Write what could not be written before."""
        async with self._writing:
            unsaved, self._unsaved = self._unsaved, []
            for group, fact in unsaved:
                await self._write(group, fact)

    async def _record(self, task: Task, fact: Fact) -> None:
        group = self._groups.get(task.operation)
        subject = _subject(task.error)
        if group is None or (len(self._known) >= _MOST_CODES and (task.operation, subject) not in self._known):
            return
        fact = replace(fact, subject=subject)
        async with self._writing:
            self._take(group, fact, silent=False, adds=True)
            await self._write(group, fact)

    async def _write(self, group: str, fact: Fact) -> None:
        if self._file is None:
            return
        try:
            await self._file.record(group, fact)
        except (RunnerError, OSError) as error:
            self._unsaved = [*self._unsaved, (group, fact)][-_MOST_CODES:]
            self._report(error)

    def _take(self, group: str, fact: Fact, *, silent: bool, adds: bool = False) -> None:
        """Merge a fact into what is known. One that was read from the file replaces it, unless this job knows worse."""
        if fact.state == "contradicted" and self._now() - fact.last_at < CONTRADICTION_TIME:
            self._contradicted[group, fact.key] = fact.last_at
        if fact.name != _FACT:
            return
        key = (fact.operation, fact.subject)
        known = self._known.get(key)
        new = merge_facts(known, fact) if known is not None and (adds or known.state == "contradicted") else fact
        if new.state == "contradicted" and (known is None or known.state != "contradicted") and not silent:
            self.on_warning(
                f"{self._provider} refused a submit ({fact.subject}) and made the task all the same: {fact.why}. From "
                "now on such a refusal is a doubt for every job of this account: it is looked up, and never simply "
                "sent again"
            )
        self._known[key] = new

    def _report(self, error: RunnerError | OSError) -> None:
        if not self._reported_error:
            self._reported_error = True
            message = error.message if isinstance(error, RunnerError) else str(error)
            self.on_warning(f"{message}: what is learned of refusals is not shared with other jobs")


def _is_refusal(event: Event) -> bool:
    """Return True for an answer that refuses one submit. One without valid credentials has nobody to charge."""
    match event:
        case RetryableFailure(kind):
            return kind in {"throttled", "window"}
        case AccountBlocked(kind):
            return kind in {"credit", "account"}
        case _:
            return isinstance(event, Rejected)


def _subject(refusal: TaskError) -> str:
    """Return the code with its meaning: some providers use one code for many things."""
    return f"{refusal.code or ''} {refusal.reason or ''}".strip()[:_MOST_TEXT]
