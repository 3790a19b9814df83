"""`runner init` and `runner schema`: write a first manifest, and the JSON Schema for editors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from runner.cli import completion
from runner.cli.options import PATH, as_json
from runner.errors import DiskError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.app.starter import Start
    from runner.settings import Settings

#: file beside the manifest, so that editors find it offline and in every copy of the directory
_SCHEMA = ".runner-schema.json"
_MARK = "written by `runner init`, which keeps it up to date"
#: provider if neither the user nor the environment names one
_USUAL = "chanjing"


@click.command()
@click.argument("provider", required=False, shell_complete=completion.provider)
@click.option(
    "--model",
    metavar="MODEL",
    shell_complete=completion.model,
    help="One of `runner models PROVIDER`; default: the first that needs only words.",
)
@click.option("--items", type=PATH, metavar="FILE", help="Your own table: its columns become variables.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Default: job.yaml, or the table's name with .yaml.")
@as_json
def init(provider: str | None, model: str | None, items: Path | None, output: Path | None, as_json: bool) -> int:
    """Write a commented manifest that plans cleanly and runs in the sandbox as it stands; overwrites nothing.

    Without PROVIDER: the one whose credentials are in the environment, else chanjing.
    A table in its place is taken for --items.
    """
    from runner.app.starter import compose  # noqa: PLC0415
    from runner.manifest.expand import examine  # noqa: PLC0415
    from runner.providers.catalogue import Catalogue  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    if provider and items is None and Path(provider).is_file():
        items, provider = Path(provider), None
    settings = Settings(os.environ)
    path = output or Path(f"{items.stem}.yaml" if items else "job.yaml")
    _refuse_what_is_there(path)
    options = _wish(settings, provider, model, items, path)
    text = compose(options).encode()
    _, summary = examine(text, path, Catalogue(settings.providers))
    try:
        with path.open("xb") as file:
            file.write(text)
    except FileExistsError:
        _refuse_what_is_there(path)
    except OSError as error:
        raise DiskError(
            f"{path}: {error.strerror}", hint="Mend the permissions, or name another file with -o."
        ) from None
    warning = _write_schema(path.with_name(_SCHEMA))
    result = {
        "manifest": str(path),
        "schema": str(path.with_name(_SCHEMA)),
        "provider": options.spec.name,
        "model": options.model,
        "tasks": summary.tasks,
        "merged": summary.merged,
        "sandbox": options.in_sandbox,
        "credentials": options.credentials,
        "base_url_variable": None if options.spec.base_url else f"{options.spec.env}_BASE_URL",
        "warning": warning,
    }
    if warning:
        click.echo(f"warning: {warning}", err=True)
    click.echo(orjson.dumps(result) if as_json else "\n".join(_lines(result, chosen=provider is not None)))
    return 0


def _wish(settings: Settings, provider: str | None, model: str | None, items: Path | None, path: Path) -> Start:
    from runner.app.columns import look  # noqa: PLC0415
    from runner.app.lanes import credential_names  # noqa: PLC0415
    from runner.app.starter import start  # noqa: PLC0415
    from runner.providers import spec as specs  # noqa: PLC0415
    from runner.providers.catalogue import Catalogue  # noqa: PLC0415
    from runner.report.text import shell  # noqa: PLC0415

    data = os.path.relpath(items, path.parent) if items else ""
    if not data.isprintable():
        raise UsageError(f"the path {data!r} cannot stand in a manifest", hint="Rename it: letters, digits, blanks.")
    spec = specs.load(provider or _likely(settings), settings.providers)
    return start(
        Catalogue(settings.providers),
        spec,
        model,
        manifest=shell(str(path)),
        schema=_SCHEMA,
        credentials=tuple(credential_names(spec)),
        table=look(items) if items else None,
        data=data,
    )


def _likely(settings: Settings) -> str:
    """Return the only provider with credentials in the environment, or the default one."""
    from runner.app.lanes import credential_names  # noqa: PLC0415
    from runner.providers import spec as specs  # noqa: PLC0415

    def has_credentials(name: str) -> bool:
        known = credential_names(specs.load(name, settings.providers))
        return any(all(settings.text(each) or settings.text(f"{each}_FILE") for each in names) for names in known)

    candidates = [name for name in sorted(specs.names(settings.providers)) if has_credentials(name)]
    return candidates[0] if len(candidates) == 1 else _USUAL


def _refuse_what_is_there(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already, and nothing is ever overwritten", hint="Name another file with -o.")
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent}", hint="Make it, or name another file with -o.")


def _write_schema(path: Path) -> str | None:
    """Write the current schema, and return a warning if that failed or a foreign file of that name stays."""
    from runner.manifest.schema import json_schema  # noqa: PLC0415

    text = orjson.dumps({"$comment": _MARK, **json_schema()}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    try:
        if path.is_symlink() or (path.exists() and _MARK.encode() not in path.read_bytes()[:200]):
            return f"{path} is not ours and stays as it is; `runner schema` prints the one for editors"
        path.write_bytes(text)
    except OSError as error:
        return f"{path}: {error.strerror}; editors will not know the manifest's keys"
    return None


def _lines(result: dict[str, Any], *, chosen: bool) -> Iterator[str]:
    from runner.report.text import many, shell  # noqa: PLC0415

    path = shell(result["manifest"])
    merged = f" ({result['merged']} identical ones merged)" if result["merged"] else ""
    yield f"{result['manifest']}: {many(result['tasks'], 'task')} for {result['provider']} {result['model']}{merged}"
    yield f"  look      runner plan {path}"
    if result["sandbox"]:
        yield f"  try       runner run {path} --sandbox"
    yield f"  for real  runner run {path}"
    yield f"            with {' or '.join(' + '.join(names) for names in result['credentials'])} in the environment"
    if result["base_url_variable"]:
        yield f"            and {result['base_url_variable']}, where it is"
    if not chosen:
        yield "  another   runner init PROVIDER, one of `runner providers`"


@click.command()
def schema() -> None:
    """JSON Schema of the manifest, for editors."""
    from runner.manifest.schema import json_schema  # noqa: PLC0415

    click.echo(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2))
