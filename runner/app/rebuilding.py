"""`recover`: rebuild a job's database from its journal and its manifest."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from runner.store.lock import job_lock
from runner.store.rebuild import rebuild

if TYPE_CHECKING:
    from runner.app.jobs import Job


def recover(job: Job) -> dict[str, Any]:
    """Rebuild the database in a new file, keep the old one, and return the object that `recover --json` prints.

    Sends nothing.
    """
    with job_lock(job.state):
        counts = rebuild(job.state, job.additions(), time.time())
    return {"job": job.manifest.name, "directory": str(job.directory), "recovered": counts}
