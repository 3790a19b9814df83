"""Add the drafts of a manifest to a job: all at once, or in pages while the first ones are bought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.store import placement
from runner.store.database import execute
from runner.store.queries import Queries
from runner.store.task_rows import PAGE_SIZE, Addition, add_drafts, mark_all_removed, next_page

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from runner.store.placement import Restated

#: when a task is due that is held back until it was compared with what was bought before: behind those that rest, which
#: are due at the end of the year 9999; the next run makes both due
_HELD_BACK = 253_402_300_801.0
#: memory for pages of the database while drafts are added, whose keys fall anywhere in their indexes, and otherwise
_LARGE_CACHE, _USUAL_CACHE = "pragma cache_size = -32768", "pragma cache_size = -2000"


class Drafts(Queries):
    """The half of `Store` that adds drafts. Methods raise DiskError, JobLockedError and StateError."""

    async def add(
        self,
        drafts: Iterable[Addition],
        digest: str,
        now: float,
        naming: str = "",
        on_restated: Callable[[Restated], None] = lambda _: None,
        on_replaced: Callable[[list[dict[str, Any]], list[dict[str, Any]]], None] = lambda _left, _new: None,
    ) -> bool:
        """Make the job hold exactly these drafts.

        New drafts are queued, but for those whose goods a task has bought under another key: that task is kept, and
        `on_restated` is called. Unbought tasks that are not among the drafts are no longer due. At the end
        `on_replaced` is called with tasks that were bought and have left the manifest, and with new ones that may
        stand where they stood. If it raises, the drafts count as not added. No draft is read if `digest` is that of
        the last drafts. Return True if outputs are named in another way (`naming`) than before, so that existing files
        should be renamed.
        """
        job = await self._fetch_one("job")
        uuid = job["uuid"] if job else ""
        if job and job["digest"] == digest:
            return False
        previous = job["naming"] if job else None
        rename = previous not in {None, naming}
        if job and job["digest"]:  # else the drafts before were not all added, and where they stood is still of use
            await self._execute("forget_positions")
        await self._execute("set_digest", digest="", tasks="", naming=previous)
        await self._writer.write(mark_all_removed)
        remaining, key_sum, is_last = iter(drafts), 0, False
        goods_by_earlier: dict[str, str] = {}
        while not is_last:
            page, is_last = next_page(remaining, PAGE_SIZE)
            key_sum += sum(int(addition.draft.key, 16) for addition in page)

            def add(connection: sqlite3.Connection, page: list[Addition] = page) -> None:
                add_drafts(connection, page, uuid, now, rename=rename)

            def find_bought(connection: sqlite3.Connection, page: list[Addition] = page) -> dict[str, str]:
                return placement.find_bought(connection, [addition.draft for addition in page])

            await self._writer.write(add)
            if any(addition.draft.goods_before for addition in page):
                goods_by_earlier = await self._writer.transact(find_bought) | goods_by_earlier
        if goods_by_earlier:
            await self._writer.write(lambda connection: placement.rewrite_goods(connection, goods_by_earlier))
        async for restated in self._place_purchases(rename=rename):
            on_restated(restated)
        on_replaced(*await self._writer.transact(placement.find_replaced))
        await self._execute("set_digest", digest=digest, tasks=f"{key_sum % 2**128:032x}", naming=naming)
        return rename

    async def fill_goods(self, goods_of: Callable[[str, str, str, Mapping[str, Any], int], str]) -> None:
        """Compute the goods of tasks that an older version bought.

        `goods_of` is called with provider, operation, model, request and repeat.
        """
        while await self._writer.write(lambda connection: placement.fill_goods(connection, goods_of)):
            pass

    async def _place_purchases(self, *, rename: bool) -> AsyncIterator[Restated]:
        """Put tasks that were bought where the manifest asks for the same goods in another way, and yield them."""
        if not await self._writer.transact(placement.has_left_purchase):
            return
        last = await self._writer.transact(placement.last_id)
        for after in range(0, last, placement.PLACEMENT_PAGE):

            def place(connection: sqlite3.Connection, after: int = after) -> list[Restated]:
                return placement.place_page(connection, after, rename=rename)

            for restated in await self._writer.write(place):
                yield restated

    async def naming(self) -> str:
        """Return what the names of outputs depended on when drafts were added last."""
        job = await self._fetch_one("job")
        return (job["naming"] or "") if job is not None else ""

    async def is_added(self, digest: str) -> bool:
        """Return whether the drafts of this digest are all in, and none that came later."""
        job = await self._fetch_one("job")
        return job is not None and job["digest"] == digest

    async def is_adding(self) -> bool:
        """Return whether drafts of the manifest are still to be added."""
        job = await self._fetch_one("job")
        return job is not None and job["adding"] != ""

    # in pages

    async def begin_pages(self, digest: str, key_sum: str, planned: int, naming: str) -> int | None:
        """Begin to add `planned` drafts in pages, or go on with it; return how many are in already.

        Return None if they have to be added at once: this job has bought something of another manifest, and only all
        of the drafts tell what of it is asked for again.
        """

        def begin(connection: sqlite3.Connection) -> int | None:
            goes_on = execute(connection, "job").fetchone()["adding"] == digest
            if not goes_on and execute(connection, "has_begun").fetchone()[0]:
                return None
            connection.execute(_LARGE_CACHE)
            if goes_on:
                return int(execute(connection, "last_position").fetchone()[0])
            execute(connection, "forget_positions")
            mark_all_removed(connection)
            execute(connection, "begin_pages", digest=digest, tasks=key_sum, planned=planned, naming=naming)
            return 0

        return await self._writer.write(begin)

    async def has_unbought(self) -> bool:
        """Return whether a task of the manifest waits to be bought."""
        return await self._fetch_bool("has_unbought")

    async def add_page(self, page: Sequence[Addition], now: float, *, hold_back: bool = False) -> None:
        """Add the next drafts. With `hold_back` they are not due before they are released."""
        due_at = _HELD_BACK if hold_back else 0.0

        def add(connection: sqlite3.Connection) -> None:
            add_drafts(connection, page, execute(connection, "job").fetchone()["uuid"], now, due_at=due_at)

        await self._writer.write(add)

    async def release(self, first: int, last: int) -> None:
        """Make the tasks due that were held back at the positions from `first` to `last`."""
        for start in range(first, last + 1, placement.PLACEMENT_PAGE):
            await self._execute("release", first=start, last=min(last, start + placement.PLACEMENT_PAGE - 1))

    async def end_pages(self) -> None:
        """Record that all drafts are in."""

        def end(connection: sqlite3.Connection) -> None:
            execute(connection, "end_pages")
            connection.execute(_USUAL_CACHE)

        await self._writer.write(end)
