"""`audit`: every provider of a job asked what it knows, against what the job knows."""

from __future__ import annotations

from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import anyio

from runner.app.embedded import sandbox
from runner.app.pretending import ledger
from runner.app.rooms import Choices, Rooms, open_rooms
from runner.pipeline.audit import AuditReport, Finding, audit
from runner.pipeline.outcome import Exit
from runner.report.results import timestamp
from runner.store.lock import job_lock
from runner.store.view import known_ids, view

if TYPE_CHECKING:
    from runner.app.jobs import Job
    from runner.pipeline.session import ProviderSession
    from runner.settings import Settings


_NO_LIST = "it has no list of tasks: only its console can tell"


def audited(job: Job, *, wait_lock: float = 0.0) -> dict[str, Any]:
    """What the providers have that the job does not know; exit code 4 where there is any of it."""
    with view(job.state):
        pass
    pretend = sandbox(job.settings, ledger(job.state)) if job.in_sandbox else nullcontext(job.settings)
    with job_lock(job.state, wait=wait_lock), pretend as settings:
        return anyio.run(_audited, job, settings)


async def _audited(job: Job, settings: Settings) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        rooms = await open_rooms(job, settings, Choices(verb="audit", again=True), stack)
        known = known_ids(job.state)
        seen = {pipeline.name: await _one(rooms, pipeline.session, known) for pipeline in rooms.pipelines}
    findings = [finding for report in seen.values() if isinstance(report, AuditReport) for finding in report.findings]
    unasked = {name: said for name, said in seen.items() if isinstance(said, str)}
    silent = [said for said in unasked.values() if said != _NO_LIST]
    charged = [
        report.charged for report in seen.values() if isinstance(report, AuditReport) and report.charged is not None
    ]
    return {
        "job": job.manifest.name,
        "exit_code": int(Exit.HELD if findings else Exit.RESUMABLE if silent else Exit.DONE),
        "at": timestamp(rooms.clock.now()),
        "findings": [_told(finding) for finding in findings],
        "strangers": sum(report.unrelated for report in seen.values() if isinstance(report, AuditReport)),
        "charged": sum(charged) if charged else None,
        "not_asked": unasked,
    }


async def _one(rooms: Rooms, session: ProviderSession, known: set[str]) -> AuditReport | str:
    if session.spec.look_up.listing is None:
        return _NO_LIST
    report = await audit(session, await rooms.store.ever_sent(session.name), known)
    return report if isinstance(report, AuditReport) else report.fault.message or "it did not answer"


def _told(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "provider": finding.provider,
        "remote_id": finding.remote_id,
        "key": finding.key,
        "why": finding.why,
    }
