"""Which of a task's outputs a fresh link is for, where another answer may show them in another order (FV10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.lifecycle.task import Output


def numbered(known: Sequence[Output], fresh: Sequence[Output]) -> Iterator[tuple[int, str]]:
    """A number for each fresh link: that of the known output with the same path, else the next that is free.

    Links are signed anew in their query with each answer; what stands before it is the output's own.
    """
    free = {_path(output.url): output.number for output in known}
    kept = [(free.pop(_path(output.url), None), output.url) for output in fresh]
    taken = {number for number, _ in kept}
    left = iter(number for number in range(1, len(known) + len(fresh) + 1) if number not in taken)
    for number, url in kept:
        yield (next(left) if number is None else number), url


def _path(url: str) -> str:
    return url.partition("?")[0]
