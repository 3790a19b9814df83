"""Build the real pipeline of one provider around a test's own client, downloader, limits and clock."""

from __future__ import annotations

from runner.providers.requests import Dialect
from runner.ratelimit.limiter import InFlightWindow
from runner.scheduler.capacity import Capacity
from runner.scheduler.pipeline import ProviderPipeline, poll_schedule
from runner.scheduler.session import ProviderSession
from runner.scheduler.settlement import Settlement
from runner.scheduler.spending import Spending
from runner.tasks.fact import merge_facts


class FactStore:
    """Facts of an account in memory, in place of the file."""

    def __init__(self):
        self._known, self._changes = {}, 0

    def version(self):
        return self._changes

    async def facts(self, name, now):
        return tuple(fact for fact in self._known.get(name, {}).values() if fact.is_valid(now))

    async def record(self, name, *facts):
        known = self._known.setdefault(name, {})
        for fact in facts:
            known[fact.key] = merge_facts(known[fact.key], fact) if fact.key in known else fact
        self._changes += 1


def pipeline(spec, client, downloader, limiters, *, store, clock, notifier, policy, **options):
    """Return a ProviderPipeline; `options` are those of its parts, by name."""

    def take(*names):
        return {name: options.pop(name) for name in names if name in options}

    window = options.pop("window", None)
    capacity = Capacity(spec.name, InFlightWindow(window), **take("space", "other_processes_active"))
    session = ProviderSession(
        spec,
        Dialect(spec),
        client,
        limiters,
        capacity,
        clock,
        notifier,
        **take("signs", "proved", "on_warning"),
        quiet_time=policy.quiet_time,
    )
    capacity.on_warning = session.on_warning
    spending = Spending(session, store, **take("max_cost", "count_daily"))
    schedule = poll_schedule(session, policy)
    parts = take("claims", "on_change", "last_resort", "failpoint")
    settlement = Settlement(store, session, spending, schedule, policy=policy, **parts)
    return ProviderPipeline(session, settlement, spending, schedule, downloader, **options)
