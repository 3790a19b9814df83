import asyncio
import json

from runner import logs
from runner.app.watching import _ended, _every


async def test_bug_in_progress_view_is_logged_and_survived(capsys):
    logs.set_up("json", quiet=False)
    calls = []

    def broken() -> None:
        calls.append(1)
        raise ZeroDivisionError

    updaters = [asyncio.create_task(_every(0.0, broken)), asyncio.create_task(_every(60.0, lambda: None))]
    await asyncio.sleep(0.01)
    assert not await _ended(updaters)
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], "ZeroDivisionError" in event["error"], len(calls)) == ("internal_error", True, 1)


async def test_sound_updaters_are_cancelled_silently(capsys):
    assert await _ended([asyncio.create_task(_every(60.0, lambda: None))])
    assert capsys.readouterr().err == ""
