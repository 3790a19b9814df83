import asyncio
import json

from runner import logs
from runner.app.watching import _ended, _every


async def test_a_bug_in_the_view_is_told_and_costs_no_run_its_summary(capsys):
    logs.set_up("json", quiet=False)
    looks = []

    def broken() -> None:
        looks.append(1)
        raise ZeroDivisionError

    hands = [asyncio.create_task(_every(0.0, broken)), asyncio.create_task(_every(60.0, lambda: None))]
    await asyncio.sleep(0.01)
    assert not await _ended(hands)
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], "ZeroDivisionError" in event["error"], len(looks)) == ("internal_error", True, 1)


async def test_hands_that_did_nothing_wrong_are_simply_stopped(capsys):
    assert await _ended([asyncio.create_task(_every(60.0, lambda: None))])
    assert capsys.readouterr().err == ""
