from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys

import pytest

from runner.errors import ConfigError
from runner.store import account
from runner.store.account import TokenFile

HOLDER = """
import asyncio, sys
from pathlib import Path
from runner.store.account import TokenFile
async def main():
    async with TokenFile(Path(sys.argv[1])).lock():
        print("held", flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


async def test_a_token_comes_back_and_is_private(home):
    tokens = TokenFile(home)
    assert await tokens.read() is None
    async with tokens.lock():
        await tokens.write("tok-1", 1_790_086_400)
    assert await tokens.read() == ("tok-1", 1_790_086_400.0)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    assert {path.name for path in home.iterdir()} == {"token.json", "token.lock"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"value": 5, "expires": 1}', b'{"value": "x", "expires": "soon"}', b"\xff"],
)
async def test_unreadable_token_counts_as_none(home, content):
    home.mkdir(parents=True)
    (home / "token.json").write_bytes(content)
    assert await TokenFile(home).read() is None


async def test_symlink_in_place_of_token_is_not_followed(home, tmp_path):
    home.mkdir(parents=True)
    other = tmp_path / "other.json"
    other.write_text('{"value": "x", "expires": 1}')
    (home / "token.json").symlink_to(other)
    assert await TokenFile(home).read() is None
    await TokenFile(home).write("tok-2", 2)
    assert other.read_text() == '{"value": "x", "expires": 1}'
    assert await TokenFile(home).read() == ("tok-2", 2.0)


async def test_one_task_at_a_time_fetches_a_token(home):
    inside, most = 0, 0

    async def fetch():
        nonlocal inside, most
        async with TokenFile(home).lock():
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(fetch() for _ in range(5)))
    assert most == 1


@pytest.fixture
def holder(home):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


async def test_token_lock_times_out_and_dies_with_its_holder(home, holder, monkeypatch):
    """The error names the other process; a killed process holds nothing."""
    monkeypatch.setattr(account, "_PATIENCE", 0.1)
    with pytest.raises(ConfigError, match="another process holds the token"):
        async with TokenFile(home).lock():
            pass
    holder.kill()
    holder.wait(10)
    async with TokenFile(home).lock():
        pass


async def test_unusable_home_is_a_config_error(home):
    home.parent.mkdir(parents=True)
    home.write_text("")
    with pytest.raises(ConfigError) as caught:
        async with TokenFile(home).lock():
            pass
    assert "RUNNER_HOME" in caught.value.hint
    assert os.fspath(home) in caught.value.message
