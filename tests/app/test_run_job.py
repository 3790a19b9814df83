import asyncio
import json

from runner import logs
from runner.app.run_job import _call_repeatedly, _stop_watchers


async def test_bug_in_progress_view_is_logged_and_survived(capsys):
    logs.configure("json", quiet=False)
    calls = []

    def broken() -> None:
        calls.append(1)
        raise ZeroDivisionError

    updaters = [
        asyncio.create_task(_call_repeatedly(0.0, broken)),
        asyncio.create_task(_call_repeatedly(60.0, lambda: None)),
    ]
    await asyncio.sleep(0.01)
    assert not await _stop_watchers(updaters, logs.report_bug)
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], "ZeroDivisionError" in event["error"], len(calls)) == ("internal_error", True, 1)


async def test_sound_updaters_are_cancelled_silently(capsys):
    assert await _stop_watchers([asyncio.create_task(_call_repeatedly(60.0, lambda: None))], logs.report_bug)
    assert capsys.readouterr().err == ""
