"""`runner completion`: what a shell must know to complete verbs, options and files."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the completion script of a shell, e.g. for `eval "$(runner completion bash)"` in ~/.bashrc."""
    from click.shell_completion import BashComplete, FishComplete, ZshComplete  # noqa: PLC0415 - only this verb needs it

    made = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(made(ctx.find_root().command, {}, "runner", "_RUNNER_COMPLETE").source())
    return 0
