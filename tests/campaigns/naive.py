"""The control: a naive client, to show that the oracle finds violations.

No intent before the send, the id written after the answer, a retry for every error. `python -m tests.campaigns.naive
STATE COUNT [DIES_AT]` buys COUNT images at the sandbox of the environment, keeps their ids in STATE, and kills itself
at the given answer, before it has written the id down.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path


def main(words: list[str]) -> None:
    state, count = Path(words[0]), int(words[1])
    dies_at = int(words[2]) if words[2:] else 0
    known: dict[str, str] = json.loads(state.read_text()) if state.exists() else {}
    answers = 0
    for prompt in (f"thing {number}" for number in range(count)):
        while prompt not in known:
            with suppress(OSError, http.client.HTTPException, ValueError):
                remote_id = _buy(prompt)
                answers += 1
                if answers == dies_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                known[prompt] = remote_id
                state.write_text(json.dumps(known))


def _buy(prompt: str) -> str:
    request = urllib.request.Request(
        f"{os.environ['KLING_BASE_URL']}/v1/images/generations",
        data=json.dumps({"model_name": "kling-v2-1", "prompt": prompt}).encode(),
        headers={"Authorization": f"Bearer {os.environ['KLING_API_KEY']}", "Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        remote_id: str = json.load(answer)["data"]["task_id"]
        return remote_id


if __name__ == "__main__":
    main(sys.argv[1:])
