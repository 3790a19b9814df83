"""Use async-batch-llm with the least code: for each prompt submit, poll every second and download.

Its environment is that of `spider.py`; finished prompts are in `done.jsonl` and are not repeated.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp
from async_batch_llm import (
    ArtifactIdentity,
    CallableStrategy,
    CallOutcome,
    JsonlArtifactStore,
    ProcessorConfig,
    ResumePolicy,
    process_prompts,
)

_URL, _RATE, _FILES = os.environ["URL"], float(os.environ["RATE"]), Path(os.environ["FILES"])
_ASKED = {"creation_type": 3, "model_code": "kling-v2-1", "aspect_ratio": "1:1", "clarity": 1024}


async def main(prompts):
    rows = {prompt: row for row, prompt in enumerate(prompts)}
    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(connector=connector, headers={"access_token": os.environ["TOKEN"]}) as session:

        async def invoke(prompt, **_):
            unique_id = await _until(
                lambda: session.post(f"{_URL}/submit", json={**_ASKED, "ref_prompt": prompt}), bool
            )
            query = f"{_URL}?unique_id={unique_id}"
            task = await _until(lambda: session.get(query), lambda data: data["progress_desc"] == "Success")
            async with session.get(task["output_url"][0]) as answer:
                (_FILES / f"{rows[prompt]}.png").write_bytes(await answer.read())
            return CallOutcome(f"{rows[prompt]}.png")

        identity = ArtifactIdentity("chanjing", "kling-v2-1")
        await process_prompts(
            CallableStrategy(invoke, identity=identity),
            prompts,
            config=ProcessorConfig(concurrency=200, max_requests_per_minute=60 * _RATE),
            artifact_store=JsonlArtifactStore("done.jsonl", identity=identity),
            resume=ResumePolicy.REUSE_SUCCESSES,
        )


async def _until(send, is_it):
    """The answer's data once it is what is wanted; again every second."""
    while True:
        async with send() as response:
            answer = await response.json()
        if not answer["code"] and is_it(answer["data"]):
            return answer["data"]
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main(Path(os.environ["PROMPTS"]).read_text().splitlines()))
