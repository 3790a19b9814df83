"""Which tasks of a plan another job of the account has bought before, so that they cost nothing."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import RunnerError
from runner.files import ACCOUNTS
from runner.store.remembered import RememberedPurchases
from runner.tasks.models import State

if TYPE_CHECKING:
    from pathlib import Path

    from runner.manifest.model import Manifest
    from runner.settings import Settings
    from runner.store.remembered import Purchase
    from runner.tasks.models import Draft

#: what a run makes of a task that another job has bought
Fate = Literal["linked", "resting"]


@dataclass
class PlannedLinks:
    """Comparison of a plan's drafts with what the account remembers. Nothing is sent or written.

    What a job bought that was killed a moment ago is missing from it, until the next run of the account. Without
    credentials there is no account, and in the sandbox none that counts.
    """

    settings: Settings
    in_sandbox: bool
    #: number of tasks by the directory that they were bought in, and when the first of them was, in seconds
    linked: Counter[str] = field(default_factory=Counter)
    resting: Counter[str] = field(default_factory=Counter)
    bought_at: dict[str, float] = field(default_factory=dict)
    _memories: dict[str, RememberedPurchases | None] = field(default_factory=dict)
    _now: float = field(default_factory=time.time)

    def add(self, draft: Draft, manifest: Manifest, directory: Path) -> Fate | None:
        """Count a draft that this job has not bought. Return what a run makes of it; None: it is bought."""
        memory = self._open(draft.provider, directory)
        purchases = memory.find(draft.key, draft.goods) if memory is not None else ()
        origins = [each for each in purchases if not each.linked] or purchases
        recent = [each for each in origins if each.at >= self._now - manifest.retry.remember]
        if not recent:
            return None
        done = next((each for each in recent if each.state is State.DONE), None)
        self._count(self.resting if done is None else self.linked, done or recent[0])
        return "resting" if done is None else "linked"

    def to_list(self) -> list[dict[str, Any]]:
        """Return the linked tasks by directory, as `plan --json` prints them."""
        return [
            {"directory": directory, "tasks": count, "bought_at": self._day(directory)}
            for directory, count in self.linked.most_common()
        ]

    def _count(self, counts: Counter[str], purchase: Purchase) -> None:
        directory = purchase.job.directory
        counts[directory] += 1
        self.bought_at[directory] = min(purchase.at, self.bought_at.get(directory, purchase.at))

    def _day(self, directory: str) -> str:
        return datetime.fromtimestamp(self.bought_at[directory], UTC).date().isoformat()

    def _open(self, provider: str, directory: Path) -> RememberedPurchases | None:
        if provider not in self._memories:
            self._memories[provider] = None
            if not self.in_sandbox and any((self.settings.home / ACCOUNTS).glob(f"{provider}-*/bought.db")):
                with suppress(RunnerError, OSError):
                    self._memories[provider] = RememberedPurchases(self._home(provider), directory)
        return self._memories[provider]

    def _home(self, provider: str) -> Path:
        # imported here because they take longer than a plan where nothing was bought before
        from runner.app import provider_config  # noqa: PLC0415
        from runner.providers import spec as specs  # noqa: PLC0415

        return provider_config.account_directory(specs.load(provider, self.settings.providers), self.settings)
