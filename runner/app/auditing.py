"""`audit`: compare each provider's list of tasks with the tasks that the job knows."""

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


#: the reason that is reported for a provider that cannot be audited
_NO_LIST = "it has no list of tasks: only its console can tell"


def audited(job: Job, *, wait_lock: float = 0.0) -> dict[str, Any]:
    """Return the object that `audit --json` prints: what the providers have that the job does not know.

    Its exit code is 4 if there is any finding. Waits up to `wait_lock` seconds for the job's lock. Raises NoSuchJob.
    """
    with view(job.state):  # raises NoSuchJob before anything is made
        pass
    in_sandbox = sandbox(job.settings, ledger(job.state)) if job.in_sandbox else nullcontext(job.settings)
    with job_lock(job.state, wait=wait_lock), in_sandbox as settings:
        return anyio.run(_audited, job, settings)


async def _audited(job: Job, settings: Settings) -> dict[str, Any]:
    """Audit every provider of the job with open sessions."""
    async with AsyncExitStack() as stack:
        context = await open_rooms(job, settings, Choices(verb="audit", again=True), stack)
        known = known_ids(job.state)
        answers = {pipeline.name: await _one(context, pipeline.session, known) for pipeline in context.pipelines}
    reports = [report for report in answers.values() if isinstance(report, AuditReport)]
    findings = [finding for report in reports for finding in report.findings]
    not_asked = {name: reason for name, reason in answers.items() if isinstance(reason, str)}
    unanswered = [reason for reason in not_asked.values() if reason != _NO_LIST]
    charged = [report.charged for report in reports if report.charged is not None]
    return {
        "job": job.manifest.name,
        "exit_code": int(Exit.HELD if findings else Exit.RESUMABLE if unanswered else Exit.DONE),
        "at": timestamp(context.clock.now()),
        "findings": [_told(finding) for finding in findings],
        "strangers": sum(report.unrelated for report in reports),
        "charged": sum(charged) if charged else None,
        "not_asked": not_asked,
    }


async def _one(context: Rooms, session: ProviderSession, known: set[str]) -> AuditReport | str:
    """Return the report of one provider, or the reason why there is none."""
    if session.spec.look_up.listing is None:
        return _NO_LIST
    report = await audit(session, await context.store.ever_sent(session.name), known)
    return report if isinstance(report, AuditReport) else report.fault.message or "it did not answer"


def _told(finding: Finding) -> dict[str, Any]:
    """Return a finding as the JSON object that `audit --json` prints."""
    return {
        "kind": finding.kind,
        "provider": finding.provider,
        "remote_id": finding.remote_id,
        "key": finding.key,
        "why": finding.why,
    }
