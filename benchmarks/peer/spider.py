"""Submit, poll every second and download, with the least code: `scrapy runspider spider.py -s JOBDIR=job`.

Environment: URL and TOKEN of the server, PROMPTS (input file), RATE (requests a second), FILES (output directory).
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import scrapy

_URL, _RATE, _FILES = os.environ["URL"], float(os.environ["RATE"]), Path(os.environ["FILES"])
_PROMPTS = Path(os.environ["PROMPTS"]).read_text().splitlines()
_ASKED = {"creation_type": 3, "model_code": "kling-v2-1", "aspect_ratio": "1:1", "clarity": 1024}


class Prompts(scrapy.Spider):
    name = "prompts"
    custom_settings = {  # noqa: RUF012 - as Scrapy's documentation has it
        "CONCURRENT_REQUESTS": 200,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 200,
        "DOWNLOAD_DELAY": 1 / _RATE,
        "RANDOMIZE_DOWNLOAD_DELAY": False,
        "ROBOTSTXT_OBEY": False,
        "TELNETCONSOLE_ENABLED": False,
        "LOG_LEVEL": "ERROR",
    }

    async def start(self):
        for row, prompt in enumerate(_PROMPTS):
            yield self._to("submit", f"{_URL}/submit", row, {**_ASKED, "ref_prompt": prompt})

    def _to(self, what, url, row, body=None):
        """Return a request in the slot of its kind, since each kind has a limit of its own."""
        return scrapy.Request(
            url,
            callback=getattr(self, f"{what}_answered"),
            method="POST" if body else "GET",
            body=json.dumps(body) if body else None,
            headers={"access_token": os.environ["TOKEN"], "Content-Type": "application/json"},
            meta={"download_slot": what},
            cb_kwargs={"row": row},
            dont_filter=True,
        )

    async def submit_answered(self, response, row):
        answer = response.json()
        if answer["code"]:
            await asyncio.sleep(1)
            yield response.request.replace(dont_filter=True)
        else:
            yield self._to("query", f"{_URL}?unique_id={answer['data']}", row)

    async def query_answered(self, response, row):
        answer = response.json()
        if not answer["code"] and answer["data"]["progress_desc"] == "Success":
            yield self._to("file", answer["data"]["output_url"][0], row)
            return
        await asyncio.sleep(1)
        yield response.request.replace(dont_filter=True)

    def file_answered(self, response, row):
        (_FILES / f"{row}.png").write_bytes(response.body)
