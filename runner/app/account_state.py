"""What is known of the accounts that the environment names: facts on disk, and the guarantee classes that they give.

Reading changes nothing. Without credentials, address or directory it is said that nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.app.published_facts import Published, read_published
from runner.errors import RunnerError
from runner.files import ACCOUNTS
from runner.providers.guarantee import BY_CONTENT, claimed_class, guarantee
from runner.providers.requests import Dialect
from runner.tasks.fact import CONTRADICTION_TIME, MOST_CONTRADICTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from runner.providers.guarantee import Guarantee
    from runner.providers.spec import Spec
    from runner.settings import Settings
    from runner.tasks.fact import Fact


@dataclass(frozen=True, slots=True)
class AccountState:
    """What is known of a provider's account."""

    spec: Spec
    #: address of the provider, or "" if nobody says it
    address: str = ""
    #: why nothing can be known, or "" if it can
    problem: str = ""
    #: facts about each list, those that have expired included
    facts: Mapping[str, tuple[Fact, ...]] = field(default_factory=dict)
    #: own tasks that the list of which most are known must show
    witnesses: int = 0
    #: what others have measured there, which no class rests on
    published: Published = field(default_factory=Published)

    def facts_of(self, operation: str) -> tuple[Fact, ...]:
        """Return the facts about the list that holds an operation's tasks."""
        return self.facts.get(Dialect(self.spec).group(operation), ())

    def guarantee(self, operation: str, model: str, now: float) -> Guarantee:
        """Return the class of an operation and model."""
        return guarantee(self.spec, operation, model, self.facts_of(operation), now)

    def guarantees(self, now: float) -> Iterator[Guarantee]:
        """Yield the class of every operation; where it depends on the model, of each that something is known of."""
        for operation in self.spec.operations:
            yield from (self.guarantee(operation, model, now) for model in self._known_models(operation) or [""])

    def trusted_fields(self, operation: str, model: str, now: float) -> dict[str, bool]:
        """Return which request fields of a model are known to come back unchanged (False: changed)."""
        return {
            fact.subject: fact.state != "contradicted" and fact.value in {"verbatim", "mapped"}
            for fact in self.facts_of(operation)
            if fact.name == "field" and fact.model in {"", model} and fact.is_valid(now)
        }

    def is_shared(self, operation: str, now: float) -> bool:
        """Return True if somebody else was seen to use the account within a day."""
        return any(fact.name == "stranger" and fact.is_valid(now) for fact in self.facts_of(operation))

    def charged_refusals(self, operation: str, now: float) -> Iterator[Fact]:
        """Yield the refusals of an operation under which a task was made all the same."""
        for fact in self.facts_of(operation):
            if fact.name == "refusal" and fact.state == "contradicted" and fact.is_valid(now):
                yield from [fact] if fact.operation == operation else ()

    def is_distrusted(self, now: float) -> bool:
        """Return True if so much was contradicted within a day that a run buys nothing without `--trust-less`."""
        listing = self.spec.reconcile.listing
        proof = listing.proof if listing is not None else ()
        recent = [
            fact
            for facts in self.facts.values()
            for fact in facts
            if fact.state == "contradicted" and now - fact.last_at < CONTRADICTION_TIME
            # another field that comes back changed contradicts no promise
            if fact.name != "field" or fact.subject in proof
        ]
        return len(recent) >= MOST_CONTRADICTIONS

    def _known_models(self, operation: str) -> list[str]:
        if claimed_class(self.spec) != BY_CONTENT:
            return []
        return sorted({fact.model for fact in self.facts_of(operation) if fact.model})


def account_state(spec: Spec, settings: Settings) -> AccountState:
    """Return what is known of the account that the environment names. Sends and writes nothing, raises nothing."""
    published = read_published(spec.name, settings)
    # the libraries of network and event loop take longer than all the rest of a plan
    from runner.app import provider_config  # noqa: PLC0415
    from runner.store.facts import count_witnesses, read_facts  # noqa: PLC0415

    try:
        address = provider_config.base_url(spec, settings)
    except RunnerError as error:
        return AccountState(spec, problem=error.message, published=published)
    try:
        directory = provider_config.account_directory(spec, settings)
        groups = {Dialect(spec).group(operation) for operation in spec.operations}
        facts = {group: read_facts(directory, group) for group in sorted(groups)}
        return AccountState(spec, address, "", facts, count_witnesses(directory), published)
    except (RunnerError, OSError) as error:
        problem = error.message if isinstance(error, RunnerError) else str(error)
        return AccountState(spec, address, problem, published=published)


def known_accounts(specs: Collection[Spec], settings: Settings) -> dict[str, AccountState]:
    """Return what is known of each provider's account by name; at once where no job has run with this home."""
    directory = settings.home / ACCOUNTS
    return {
        spec.name: account_state(spec, settings)
        if any(directory.glob(f"{spec.name}-*"))
        else AccountState(spec, published=read_published(spec.name, settings))
        for spec in specs
    }
