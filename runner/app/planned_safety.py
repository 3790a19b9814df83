"""What a plan says of lost answers: the guarantee class, fields that the list hides, how many can be lost at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.app.account_state import known_accounts
from runner.app.provider_config import most_submits
from runner.providers import spec as specs
from runner.providers.guarantee import BY_CONTENT, claimed_class, hidden_fields
from runner.providers.images import has_placeholder
from runner.providers.requests import Dialect
from runner.report.guarantee_text import guarantee_dict
from runner.tasks.list_record import FEWEST_WITNESSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.app.account_state import AccountState
    from runner.app.job import LoadedJob
    from runner.tasks.models import Draft
    from runner.units import Rate

#: kinds of requests that are counted
_MAX_KINDS = 1_000
#: refusals that are named
_MAX_REFUSALS = 12


def lost_at_once(job: LoadedJob, rates: Mapping[str, Rate], new: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return, for each provider with new tasks, how many answers can be lost at once, as `plan --json` prints it."""
    found = []
    for name, rate in rates.items():
        spec = specs.load(name, job.settings.providers)
        if most := min(most_submits(spec, job.manifest), new.get(name, 0)):
            found.append(
                {
                    "provider": name,
                    "answers": most,
                    "submits_at_once": most_submits(spec, job.manifest),
                    "looked_up": spec.can_reconcile,
                    "submits_per_second": rate.per_second,
                }
            )
    return found


class PlannedSafety:
    """Kinds of the tasks that would be bought: their operation and model, and the names of their fields."""

    def __init__(self) -> None:
        #: names of the fields that a list without references shows, by operation; None: it has references
        self._shown: dict[tuple[str, str, str], frozenset[str] | None] = {}
        #: number of tasks, and the body of one of them, for each kind
        self._kinds: dict[tuple[Any, ...], list[Any]] = {}
        self._dialects: dict[str, Dialect] = {}

    def add(self, draft: Draft, provider_directory: Path | None, number: int = 1) -> None:
        """Count a task that would be bought, or with -1 take one off that is kept after all.

        This is done for each of a million.
        """
        operation, request = (draft.provider, draft.operation, draft.model), draft.request
        if operation not in self._shown:
            self._shown[operation] = self._fields_shown(draft.provider, provider_directory)
        shown = self._shown[operation]
        if shown is None:
            return
        images = tuple(name for name in shown if name in request and has_placeholder(request[name]))
        kind = (*operation, images, *request)
        known = self._kinds.get(kind)
        if known is not None:
            known[0] += number
        elif len(self._kinds) < _MAX_KINDS:
            self._kinds[kind] = [1, self._dialects[draft.provider].body(draft.operation, draft.model, request)]

    def _fields_shown(self, provider: str, provider_directory: Path | None) -> frozenset[str] | None:
        if provider not in self._dialects:
            self._dialects[provider] = Dialect(specs.load(provider, provider_directory))
        spec = self._dialects[provider].spec
        listing = spec.reconcile.listing
        return frozenset(listing.echo) if listing is not None and claimed_class(spec) == BY_CONTENT else None

    def to_dict(self, job: LoadedJob, now: float) -> dict[str, Any]:
        """Return the fields of `plan --json` about lost answers. `now` is in seconds since the epoch.

        The embedded sandbox is a new account each time, of which nothing is known.
        """
        if job.in_sandbox:
            return {
                "guarantees": [],
                "one_by_one": [],
                "hidden": [],
                "charged_refusals": [],
                "distrusted": [],
                "published": [],
            }
        accounts = known_accounts([dialect.spec for dialect in self._dialects.values()], job.settings)
        guarantees = dict.fromkeys(
            (provider, accounts[provider].guarantee(operation, model, now))
            for provider, operation, model in self._shown
        )
        hidden: dict[tuple[str, str, str], dict[str, Any]] = {}
        for (provider, operation, model, *_), (count, body) in self._kinds.items():
            account = accounts[provider]
            fields = hidden_fields(account.spec, body, account.trusted_fields(operation, model, now))
            if fields and count > 0:
                entry = {"provider": provider, "operation": operation, "model": model, "tasks": 0, "fields": []}
                found = hidden.setdefault((provider, operation, model), entry)
                found["tasks"] += count
                found["fields"] = sorted({*found["fields"], *fields})
                found["shared_account"] = account.is_shared(operation, now)
        return {
            "guarantees": [guarantee_dict(found, provider, now) for provider, found in guarantees],
            "one_by_one": [
                name
                for name, account in accounts.items()
                if account.spec.reconcile.listing is not None and account.witnesses < FEWEST_WITNESSES
            ],
            "hidden": list(hidden.values()),
            "charged_refusals": list(self._charged_refusals(accounts, now)),
            "distrusted": [name for name, account in accounts.items() if account.is_distrusted(now)],
            "published": [
                {"provider": name, "text": account.published.summary(), **said}
                for name, account in accounts.items()
                if (said := account.published.to_dict()) is not None
            ],
        }

    def _charged_refusals(self, accounts: Mapping[str, AccountState], now: float) -> Iterator[dict[str, Any]]:
        """Yield the refusals of each provider under which a task was made, the latest first."""
        for name, account in accounts.items():
            operations = {operation for provider, operation, _ in self._shown if provider == name}
            facts = dict.fromkeys(fact for each in operations for fact in account.charged_refusals(each, now))
            found = sorted(facts, key=lambda fact: -fact.last_at)[:_MAX_REFUSALS]
            if found:
                yield {"provider": name, "codes": list(dict.fromkeys(fact.subject.partition(" ")[0] for fact in found))}
