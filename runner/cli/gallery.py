"""`runner gallery` and `runner serve`: write the page of a job, and serve a live page of all jobs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import orjson

from runner.cli.parameters import MANIFEST, as_json, in_sandbox, job_directory, out

if TYPE_CHECKING:
    from pathlib import Path

    from runner.app.gallery_files import GalleryResult


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
    from runner.app.gallery_files import write_full_gallery  # noqa: PLC0415
    from runner.errors import DiskError  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    directory = job_directory(where, out, in_sandbox=in_sandbox)
    try:
        result = write_full_gallery(directory, Settings(os.environ))
    except OSError as error:
        hint = "Make room or mend the permissions; the job itself is untouched."
        raise DiskError(f"{error.filename or directory}: {error.strerror or error}", hint=hint) from None
    click.echo(orjson.dumps(_to_dict(result)) if as_json else "\n".join(_lines(result)))
    return 0


def _to_dict(result: GalleryResult) -> dict[str, object]:
    counts = result.thumbnails
    return {
        "page": str(result.page),
        "tasks": result.tasks,
        "total": result.total,
        "thumbnails": {"made": counts.made, "refused": counts.refused, "unable": counts.unavailable},
    }


def _lines(result: GalleryResult) -> list[str]:
    from runner.text import pluralize  # noqa: PLC0415

    counts = result.thumbnails
    newest = "" if result.tasks == result.total else f", the newest of {result.total}"
    lines = [f"{result.page}: {pluralize(result.tasks, 'task')}{newest}; {pluralize(counts.made, 'new thumbnail')}"]
    if counts.refused:
        lines.append(f"  {pluralize(counts.refused, 'file')} that cannot be decoded, without a preview")
    if counts.unavailable:
        lines.append(
            f"  {pluralize(counts.unavailable, 'file')} without a thumbnail, shown as they are: unless they are gone,"
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

    from runner.app.live_jobs import serve as serve_jobs  # noqa: PLC0415
    from runner.errors import JobNotFoundError  # noqa: PLC0415

    root = where or Path()
    if not root.is_dir():
        raise JobNotFoundError(f"{root} is no directory", hint="Name the directory that your jobs are in.")

    def print_address(address: str) -> None:
        text = orjson.dumps({"url": address}).decode() if as_json else f"{address}   (Ctrl-C ends it)"
        print(text, flush=True)

    try:
        serve_jobs(root, port, secrets.token_urlsafe(16), print_address)
    except KeyboardInterrupt:
        return 0  # the normal end
    return 0
