"""`runner completion`, and shell completion of providers, models and manifests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from click.shell_completion import CompletionItem

    from runner.providers.spec import Spec

#: most manifests that are offered, levels of directories that are searched, and directory entries that are read
_OFFERED, _LEVELS, _LOOKED_AT = 200, 3, 5_000


def provider(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of providers that begin with `incomplete`."""
    return _items(_providers(), incomplete)


def model(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return model names that begin with `incomplete`, of the provider on the command line or of all."""
    named = ctx.params.get("provider")
    return _items((name for spec in _specs([named] if named else _providers()) for name in spec.models), incomplete)


def provider_or_model(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return provider and model names that begin with `incomplete`; providers on the command line limit the models."""
    words = ctx.params.get("words") or ()
    named = [name for name in _providers() if name in words]
    models = [name for spec in _specs(named or _providers()) for name in spec.models]
    return _items([*(() if named else _providers()), *models], incomplete)


def manifest(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return manifests in the typed directory and below; if there are none, the shell completes file names."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    typed, slash, _ = incomplete.rpartition("/")
    folder = typed + slash
    below = _below(Path(folder or ".").expanduser())
    paths = sorted(f"{folder}{path}" for path in below if f"{folder}{path}".startswith(incomplete))[:_OFFERED]
    return [CompletionItem(path) for path in paths] or [CompletionItem(incomplete, type="file")]


def _below(top: Path) -> Iterator[str]:
    """Yield relative paths of YAML files in `top` and in a few levels of directories that are not hidden."""
    read, levels = 0, [""]
    for _ in range(_LEVELS):
        level, levels = levels, []
        for folder in level:
            for entry in _entries(top / folder):
                read += 1
                if read > _LOOKED_AT:
                    return
                if entry.is_dir():
                    levels.append(f"{folder}{entry.name}/")
                elif entry.name.endswith((".yaml", ".yml")):
                    yield f"{folder}{entry.name}"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError:  # an unreadable directory offers nothing; a shell that completes must see no errors
        return


def _providers() -> list[str]:
    from runner.providers import spec  # noqa: PLC0415 - pydantic is slow to import
    from runner.settings import Settings  # noqa: PLC0415

    return sorted(spec.names(Settings(os.environ).providers))


def _specs(names: Iterable[str]) -> list[Spec]:
    """Return the specs that load; the verb itself reports the errors of the others."""
    from runner.errors import RunnerError  # noqa: PLC0415
    from runner.providers import spec  # noqa: PLC0415
    from runner.settings import Settings  # noqa: PLC0415

    found = []
    for name in names:
        try:
            found.append(spec.load(name, Settings(os.environ).providers))
        except RunnerError:
            continue
    return found


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the completion script of a shell, e.g. for `eval "$(runner completion bash)"` in ~/.bashrc."""
    from click.shell_completion import BashComplete, FishComplete, ZshComplete  # noqa: PLC0415 - only this verb

    script = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(script(ctx.find_root().command, {}, "runner", "_RUNNER_COMPLETE").source())
    return 0
