"""A simple HTTP client of the sandbox, and a clock that tests advance."""

import asyncio
import time

import httpx
import pytest

IMAGE = {"creation_type": 3, "model_code": "kling-v2-1", "ref_prompt": "纸船 paper boat", "aspect_ratio": "16:9"}
VIDEO = {"creation_type": 4, "model_code": "tx_kling2.5", "ref_prompt": "a lighthouse", "video_duration": 5}


class Clock:
    """Unix time that moves only when a test changes `now`."""

    def __init__(self):
        self.now = 1_790_000_000.0

    def __call__(self):
        return self.now


class Api:
    """An HTTP client of a sandbox, with the credentials of its environment."""

    def __init__(self, sandbox, http):
        self.sandbox = sandbox
        self.http = http
        self.token = None

    async def login(self, **fields):
        body = {"app_id": "sandbox-app", "secret_key": "sandbox-secret"} | fields
        reply = await self.chanjing("access_token", body)
        if reply["code"] == 0:
            self.token = reply["data"]["access_token"]
        return reply

    async def chanjing(self, path, body=None, **query):
        headers = {"access_token": self.token} if self.token else {}
        method = "POST" if body is not None else "GET"
        url = f"{self.sandbox.url}/open/v1/{path}"
        reply = await self.http.request(method, url, json=body, params=query, headers=headers)
        assert reply.status_code == 200
        return reply.json()

    async def submit(self, body=IMAGE, **fields):
        return await self.chanjing("ai_creation/task/submit", body | fields)

    async def task(self, task_id):
        return await self.chanjing("ai_creation/task", unique_id=task_id)

    async def page(self, *ids, kind=3, page=1, size=50, **fields):
        body = {"unique_ids": list(ids), "type": kind, "page": page, "page_size": size, **fields}
        return await self.chanjing("ai_creation/task/page", body)

    async def kling(self, path, body=None, key="sandbox-kling-key", **query):
        method = "POST" if body is not None else "GET"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return await self.http.request(method, self.sandbox.url + path, json=body, params=query, headers=headers)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def http():
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        yield client


@pytest.fixture
def api(http):
    return lambda sandbox: Api(sandbox, http)


@pytest.fixture
def eventually():
    async def wait(condition, deadline_s=5.0):
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            await asyncio.sleep(0.005)

    return wait
