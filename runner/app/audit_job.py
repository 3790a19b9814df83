"""`audit`: compare each provider's list of tasks with the tasks that the job knows."""

from __future__ import annotations

from contextlib import AsyncExitStack, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import anyio

from runner.app.embedded_sandbox import ledger_path, sandbox_process
from runner.app.run_context import RunContext, RunOptions, open_context
from runner.errors import RunnerError
from runner.report.results import iso_timestamp
from runner.scheduler.audit import AuditReport, Finding, adopt_certain, audit, find_equal_files
from runner.scheduler.contradicted_purchases import ContradictedPurchase, find_contradicted
from runner.scheduler.outcome import Exit
from runner.store.lock import job_lock
from runner.store.read_only import known_remote_ids, open_read_only
from runner.text import pluralize

if TYPE_CHECKING:
    from runner.app.job import LoadedJob
    from runner.app.observer import Observer
    from runner.scheduler.pipeline import ProviderPipeline
    from runner.settings import Settings


#: the reason that is reported for a provider that cannot be audited
_NO_LISTING = "it has no list of tasks: only its console can tell"


def audit_job(
    job: LoadedJob, observer: Observer, *, wait_lock: float = 0.0, adopt_by: str | None = None
) -> dict[str, Any]:
    """Return the object that `audit --json` prints: what the providers have that the job does not know.

    With `adopt_by`, the name of the user who decides, everything is adopted that carries the reference of a task
    without an id. The exit code is 4 if there is any other finding. Waits up to `wait_lock` seconds for the job's lock.
    Raises NoSuchJob.
    """
    with open_read_only(job.state_directory):  # raises NoSuchJob before anything is made
        pass
    in_sandbox = (
        sandbox_process(job.settings, ledger_path(job.state_directory)) if job.in_sandbox else nullcontext(job.settings)
    )
    with job_lock(job.state_directory, wait=wait_lock), in_sandbox as settings:
        return anyio.run(_audit_providers, job, settings, observer, adopt_by)


async def _audit_providers(
    job: LoadedJob, settings: Settings, observer: Observer, adopt_by: str | None
) -> dict[str, Any]:
    """Audit every provider of the job with open sessions."""
    adopted: list[Finding] = []
    async with AsyncExitStack() as stack:
        context = await open_context(job, settings, RunOptions(verb="audit", again=True), observer, stack)
        known = known_remote_ids(job.state_directory)
        answers = {pipeline.name: await _audit_provider(context, pipeline, known) for pipeline in context.pipelines}
        reports = [report for report in answers.values() if isinstance(report, AuditReport)]
        findings = [finding for report in reports for finding in report.findings]
        findings += await find_equal_files(context.store)
        contradicted = [each for pipeline in context.pipelines for each in await _contradicted(context, pipeline)]
        for pipeline in context.pipelines if adopt_by is not None else ():
            own = [finding for finding in findings if finding.provider == pipeline.name]
            adopted += await adopt_certain(pipeline.settlement, own, adopt_by or "")
    findings = [finding for finding in findings if finding not in adopted]
    not_asked = {name: reason for name, reason in answers.items() if isinstance(reason, str)}
    not_asked |= {
        f"{name} bills": report.bills_error
        for name, report in answers.items()
        if isinstance(report, AuditReport) and report.bills_error is not None
    }
    not_asked |= {
        f"{name} list": f"it does not show {pluralize(report.left_out, 'task')} of this job, so it may hide others"
        for name, report in answers.items()
        if isinstance(report, AuditReport) and report.left_out
    }
    unanswered = [reason for reason in not_asked.values() if reason != _NO_LISTING]
    charged = [report.charged for report in reports if report.charged is not None]
    return {
        "job": job.manifest.name,
        "exit_code": int(Exit.HELD if findings else Exit.RESUMABLE if unanswered else Exit.DONE),
        "at": iso_timestamp(context.clock.now()),
        "adopted": [_finding_to_dict(finding) for finding in adopted],
        "findings": [_finding_to_dict(finding) for finding in findings],
        "contradicted": [_purchase_to_dict(each) for each in contradicted],
        "strangers": sum(report.unrelated for report in reports),
        "charged": sum(charged) if charged else None,
        "not_asked": not_asked,
    }


async def _audit_provider(context: RunContext, pipeline: ProviderPipeline, known: set[str]) -> AuditReport | str:
    """Return the report of one provider, or the reason why there is none."""
    if pipeline.session.spec.reconcile.listing is None:
        return _NO_LISTING
    pipeline.load_earlier()
    report = await audit(pipeline.session, context.store, known, pipeline.settlement.claims)
    return report if isinstance(report, AuditReport) else report.error.message or "it did not answer"


async def _contradicted(context: RunContext, pipeline: ProviderPipeline) -> list[ContradictedPurchase]:
    """Return the provider's purchases that rest on what was contradicted since. A file that is damaged has no facts."""
    found: list[ContradictedPurchase] = []
    for operations in pipeline.groups():
        group = pipeline.session.dialect.group(operations[0])
        try:
            facts = await pipeline.facts.facts(group, context.clock.now()) if pipeline.facts is not None else ()
        except RunnerError as error:
            context.observer.warn(f"{error.message}: what rests on contradicted facts is not listed")
            return found
        found += await find_contradicted(context.store, pipeline.name, operations, facts)
    return found


def _purchase_to_dict(purchase: ContradictedPurchase) -> dict[str, Any]:
    """Return a purchase as the JSON object that `audit --json` prints."""
    return {**asdict(purchase), "at": iso_timestamp(purchase.at)}


def _finding_to_dict(finding: Finding) -> dict[str, Any]:
    """Return a finding as the JSON object that `audit --json` prints."""
    return {
        "kind": finding.kind,
        "provider": finding.provider,
        "remote_id": finding.remote_id,
        "key": finding.key,
        "why": finding.why,
        "certain": finding.is_certain,
    }
