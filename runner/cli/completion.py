"""`runner completion`, and what a shell is offered: verbs, options, providers, models, manifests and other files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from click.shell_completion import CompletionItem

    from runner.providers.spec import Spec

#: manifests that are offered at once; levels of directories, and entries in them, that are looked at
_OFFERED, _LEVELS, _LOOKED_AT = 200, 3, 5_000


def provider(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of providers."""
    return _items(_providers(), incomplete)


def model(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the models of the provider that stands on the line, or of all."""
    named = ctx.params.get("provider")
    return _items((name for spec in _specs([named] if named else _providers()) for name in spec.models), incomplete)


def provider_or_model(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of providers, and of models: of those providers that stand on the line, or of all."""
    words = ctx.params.get("words") or ()
    named = [name for name in _providers() if name in words]
    models = [name for spec in _specs(named or _providers()) for name in spec.models]
    return _items([*(() if named else _providers()), *models], incomplete)


def manifest(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Manifests in the directory that was begun, and in those below it; without any, whatever files the shell finds."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    typed, slash, _ = incomplete.rpartition("/")
    folder = typed + slash
    below = _below(Path(folder or ".").expanduser())
    found = sorted(f"{folder}{path}" for path in below if f"{folder}{path}".startswith(incomplete))[:_OFFERED]
    return [CompletionItem(path) for path in found] or [CompletionItem(incomplete, type="file")]


def _below(top: Path) -> Iterator[str]:
    """Paths of YAML files, as seen from there, in a few levels of directories that are not hidden."""
    looked_at, levels = 0, [""]
    for _ in range(_LEVELS):
        level, levels = levels, []
        for folder in level:
            for entry in _entries(top / folder):
                looked_at += 1
                if looked_at > _LOOKED_AT:
                    return
                if entry.is_dir():
                    levels.append(f"{folder}{entry.name}/")
                elif entry.name.endswith((".yaml", ".yml")):
                    yield f"{folder}{entry.name}"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError:  # nothing can be offered from there, and a shell that waits for words is told no errors
        return


def _providers() -> list[str]:
    from runner.providers import spec  # noqa: PLC0415 - pydantic is slow to import
    from runner.settings import Settings  # noqa: PLC0415

    return sorted(spec.names(Settings(os.environ).providers))


def _specs(names: Iterable[str]) -> list[Spec]:
    """Those that can be read; what is wrong with the others is told by the verb itself."""
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
    from click.shell_completion import BashComplete, FishComplete, ZshComplete  # noqa: PLC0415 - only this verb needs it

    made = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(made(ctx.find_root().command, {}, "runner", "_RUNNER_COMPLETE").source())
    return 0
