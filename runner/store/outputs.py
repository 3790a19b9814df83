"""Assignment of fresh links to the known outputs of a task.

A provider may list the outputs of a task in another order in each answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.lifecycle.task import Output


def numbered(known: Sequence[Output], fresh: Sequence[Output]) -> Iterator[tuple[int, str]]:
    """Yield number and URL of each fresh link.

    A link has the number of the known output with the same URL without its query, or else the next free number. The
    query is not compared, since it holds a signature that changes with each answer.
    """
    free = {_path(output.url): output.number for output in known}
    kept = [(free.pop(_path(output.url), None), output.url) for output in fresh]
    taken = {number for number, _ in kept}
    left = iter(number for number in range(1, len(known) + len(fresh) + 1) if number not in taken)
    for number, url in kept:
        yield (next(left) if number is None else number), url


def _path(url: str) -> str:
    return url.partition("?")[0]
