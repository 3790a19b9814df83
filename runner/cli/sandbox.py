"""`runner sandbox`: pass all arguments to the sandbox, which shares no code with the rest."""

from __future__ import annotations

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def sandbox(words: tuple[str, ...]) -> int:
    """The providers' APIs on loopback, with faults on demand; `runner sandbox --help` lists its options."""
    from runner.sandbox.__main__ import main  # noqa: PLC0415 - needed only by this verb

    return main(list(words))
