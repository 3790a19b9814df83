"""What a plan says of lost answers: the guarantee class of what would be bought, and fields that the list hides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.app.account_state import known_accounts
from runner.providers import spec as specs
from runner.providers.guarantee import BY_CONTENT, claimed_class, hidden_fields
from runner.providers.requests import Dialect
from runner.report.guarantee_text import guarantee_dict
from runner.tasks.list_record import FEWEST_WITNESSES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.app.job import LoadedJob
    from runner.tasks.models import Draft

#: kinds of requests that are counted
_MAX_KINDS = 1_000


class PlannedSafety:
    """Kinds of the tasks that would be bought: their operation and model, and the names of their fields."""

    def __init__(self) -> None:
        self._operations: dict[tuple[str, str, str], None] = {}
        #: number of tasks, and the body of one of them, for each kind
        self._kinds: dict[tuple[Any, ...], tuple[int, Mapping[str, Any]]] = {}
        self._dialects: dict[str, Dialect] = {}

    def add(self, draft: Draft, provider_directory: Path | None) -> None:
        """Count a task that would be bought."""
        operation = draft.provider, draft.operation, draft.model
        self._operations[operation] = None
        if draft.provider not in self._dialects:
            self._dialects[draft.provider] = Dialect(specs.load(draft.provider, provider_directory))
        dialect = self._dialects[draft.provider]
        if claimed_class(dialect.spec) != BY_CONTENT:
            return
        body = dialect.body(draft.operation, draft.model, draft.request)
        kind = (*operation, *hidden_fields(dialect.spec, body, {}), None, *body)
        if kind in self._kinds or len(self._kinds) < _MAX_KINDS:
            count, example = self._kinds.get(kind, (0, body))
            self._kinds[kind] = count + 1, example

    def to_dict(self, job: LoadedJob, now: float) -> dict[str, Any]:
        """Return the fields of `plan --json` about lost answers. `now` is in seconds since the epoch.

        The embedded sandbox is a new account each time, of which nothing is known.
        """
        if job.in_sandbox:
            return {"guarantees": [], "one_by_one": [], "hidden": []}
        accounts = known_accounts([dialect.spec for dialect in self._dialects.values()], job.settings)
        guarantees = dict.fromkeys(
            (provider, accounts[provider].guarantee(operation, model, now))
            for provider, operation, model in self._operations
        )
        hidden: dict[tuple[str, str, str], dict[str, Any]] = {}
        for (provider, operation, model, *_), (count, body) in self._kinds.items():
            account = accounts[provider]
            fields = hidden_fields(account.spec, body, account.trusted_fields(operation, model, now))
            if fields:
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
        }
