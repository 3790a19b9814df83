"""Run prompts with a bare aiohttp client of the sandbox, which makes the same calls as a run and keeps no state.

The measure `floor` lists what it leaves out.
"""

from __future__ import annotations

import asyncio
import csv
import sys
from collections import deque
from pathlib import Path
from typing import Any

import aiohttp

_API = "/open/v1"
_CREATION = f"{_API}/ai_creation/task"
_BATCH = 50
_DOWNLOADS = 8


class Loop:
    """One run. `_queue` holds the ids of tasks that were submitted and are not finished."""

    def __init__(self, url: str, directory: Path, qps: float) -> None:
        self._url, self._directory, self._qps = url, directory, qps
        self._queue: deque[str] = deque()
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        self._headers: dict[str, str] = {}

    async def run(self, prompts: list[str]) -> None:
        """Submit, poll and download all prompts."""
        single = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=single) as once, aiohttp.ClientSession() as kept:
            token = await self._posted(once, f"{_API}/access_token", {"app_id": "bare", "secret_key": "bare"})
            self._headers["access_token"] = token["access_token"]
            async with asyncio.TaskGroup() as group:
                group.create_task(self._poll(kept, len(prompts), group))
                await self._submit_all(once, prompts, group)

    async def _submit_all(self, once: aiohttp.ClientSession, prompts: list[str], group: asyncio.TaskGroup) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        for number, prompt in enumerate(prompts):
            await asyncio.sleep(began + number / self._qps - clock())
            group.create_task(self._submit(once, prompt))

    async def _submit(self, once: aiohttp.ClientSession, prompt: str) -> None:
        fields = {"creation_type": 3, "model_code": "kling-v2-1", "aspect_ratio": "1:1", "clarity": 1024}
        self._queue.append(await self._posted(once, f"{_CREATION}/submit", {**fields, "ref_prompt": prompt}))

    async def _poll(self, kept: aiohttp.ClientSession, wanted: int, group: asyncio.TaskGroup) -> None:
        """Query fifty tasks a call, and put those that are not finished at the end of the queue."""
        while wanted:
            await asyncio.sleep(_BATCH / self._qps)
            ids = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            body = {"type": 3, "page": 1, "page_size": _BATCH, "is_success": False, "unique_ids": ids}
            for task in (await self._posted(kept, f"{_CREATION}/page", body))["list"] if ids else []:
                if task["progress_desc"] != "Success":
                    self._queue.append(task["unique_id"])
                    continue
                wanted -= 1
                group.create_task(self._download(kept, task["unique_id"], task["output_url"][0]))

    async def _download(self, kept: aiohttp.ClientSession, name: str, url: str) -> None:
        async with self._downloads, kept.get(url) as answer:
            answer.raise_for_status()
            (self._directory / f"{name}.png").write_bytes(await answer.read())

    async def _posted(self, session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> Any:
        async with session.post(self._url + path, json=body, headers=self._headers) as answer:
            return (await answer.json())["data"]


def main(url: str, prompts: str, directory: str, qps: str) -> None:
    """Run all prompts of a TSV file once."""
    with Path(prompts).open(encoding="utf-8", newline="") as file:
        rows = [row["Prompt"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    asyncio.run(Loop(url, Path(directory), float(qps)).run(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
