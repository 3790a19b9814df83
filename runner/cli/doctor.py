"""`runner doctor`: check this machine before a run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
import orjson

from runner.app.health_checks import run_checks, worst_exit_code
from runner.cli.parameters import MANIFEST, as_json, out
from runner.settings import Settings
from runner.text import sanitize

if TYPE_CHECKING:
    from pathlib import Path

    from runner.app.check_result import CheckResult


@click.command()
@click.argument("manifest", required=False, type=MANIFEST)
@click.option("--online", is_flag=True, help="Ask each provider one free question, with your credentials.")
@out
@as_json
def doctor(manifest: Path | None, online: bool, out: Path | None, as_json: bool) -> int:
    """Credentials, clock, disk, permissions, SQLite, TLS, proxies: how they are, and what to do next.

    With MANIFEST: its directory and its providers. Sends nothing without --online, and nothing that costs with it.
    Exit code: 0 without a problem, else 14, 12 or 7 by the worst.
    """
    results = []
    encoding = getattr(sys.stdout, "encoding", None) or "unknown"
    for result in run_checks(Settings(os.environ), manifest, out=out, encoding=encoding, online=online):
        results.append(result)
        if not as_json:
            click.echo(_line(result))
    code = worst_exit_code(results)
    if as_json:
        checks = [
            {"check": each.check, "level": each.level, "said": each.message, "next": each.hint or None}
            for each in results
        ]
        click.echo(orjson.dumps({"exit_code": code, "checks": checks}))
    return code


def _line(result: CheckResult) -> str:
    line = f"{result.level:<8} {result.check:<13} {sanitize(result.message, 500)}"
    return f"{line}\n{'':<22} → {sanitize(result.hint, 500)}" if result.hint else line
