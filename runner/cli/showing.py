"""`runner gallery`: the page of a job."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import orjson

from runner.cli.options import MANIFEST, as_json, in_sandbox, out

if TYPE_CHECKING:
    from pathlib import Path

    from runner.app.showing import Shown


@click.command()
@click.argument("where", type=MANIFEST, metavar="MANIFEST or DIR")
@out
@in_sandbox
@as_json
def gallery(where: Path, out: Path | None, in_sandbox: bool, as_json: bool) -> int:
    """Write index.html of the job, with a thumbnail of every picture and film; works while a run is on.

    It opens from the file system and from any static host, loads nothing from elsewhere, and is written anew at the
    end of every run. Thumbnails are made once and kept in gallery/, which may be deleted at any time.
    """
    from runner.app.jobs import directory_of  # noqa: PLC0415
    from runner.app.showing import look  # noqa: PLC0415
    from runner.errors import DiskError  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    directory = where if where.is_dir() else directory_of(where, out=out, in_sandbox=in_sandbox)
    try:
        shown = look(directory, Settings(os.environ))
    except OSError as error:
        hint = "Make room or mend the permissions; the job itself is untouched."
        raise DiskError(f"{error.filename or directory}: {error.strerror or error}", hint=hint) from None
    click.echo(orjson.dumps(_told(shown)) if as_json else "\n".join(_lines(shown)))
    return 0


def _told(shown: Shown) -> dict[str, object]:
    made = shown.thumbnails
    return {
        "page": str(shown.page),
        "tasks": shown.tasks,
        "total": shown.total,
        "thumbnails": {"made": made.made, "refused": made.refused, "unable": made.unable},
    }


def _lines(shown: Shown) -> list[str]:
    from runner.report.text import many  # noqa: PLC0415

    made = shown.thumbnails
    newest = "" if shown.tasks == shown.total else f", the newest of {shown.total}"
    lines = [f"{shown.page}: {many(shown.tasks, 'task')}{newest}; {many(made.made, 'new thumbnail')}"]
    if made.refused:
        lines.append(f"  {many(made.refused, 'file')} that cannot be decoded, without a preview")
    if made.unable:
        lines.append(
            f"  {many(made.unable, 'file')} without a thumbnail, shown as they are: unless they are gone,"
            ' pip install "genrunner[gallery]"'
        )
    return lines


@click.command()
@click.argument("where", required=False, type=MANIFEST, metavar="[DIR]")
@click.option("--port", type=click.IntRange(0, 65535), default=8350, help="On loopback; 0 takes any. Default: 8350.")
@as_json
def serve(where: Path | None, port: int, as_json: bool) -> int:
    """A live page of every job below a directory (default: here), on loopback, until Ctrl-C; it changes nothing.

    Its address holds a key, new each time, so that nobody else on this machine and no other page can read it.
    """
    import secrets  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from runner.app.serving import serve as served  # noqa: PLC0415
    from runner.errors import NoSuchJob  # noqa: PLC0415

    root = where or Path()
    if not root.is_dir():
        raise NoSuchJob(f"{root} is no directory", hint="Name the directory that your jobs are in.")

    def told(address: str) -> None:
        text = orjson.dumps({"url": address}).decode() if as_json else f"{address}   (Ctrl-C ends it)"
        print(text, flush=True)

    try:
        served(root, port, secrets.token_urlsafe(16), told)
    except KeyboardInterrupt:
        return 0  # how it is meant to end
    return 0
