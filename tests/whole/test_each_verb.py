"""One cheap end-to-end run of every verb: the fast sample of the other modules of this directory."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from .conftest import Desk, buy_before, images, sandbox, until

QUICK = ("--seconds", "0.05,0.1", "--qps", "500")
#: arguments of a verb and its exit code, after a job of two tasks is done; and text that it prints
VERBS = {
    "run": (["run", "job.yaml"], 0, "0 submitted"),
    "retry": (["retry", "job.yaml", "--failed"], 0, ""),
    "reconcile": (["reconcile", "job.yaml"], 0, ""),
    "verify": (["verify", "job.yaml"], 0, ""),
    "audit": (["audit", "job.yaml"], 0, "0 findings"),
    "status": (["status", "job.yaml"], 0, "2"),
    "validate": (["validate", "job.yaml"], 0, ""),
    "plan": (["plan", "job.yaml"], 0, "0 new"),
    "export": (["export", "job.yaml", "--format", "csv"], 0, "thing 0"),
    "gallery": (["gallery", "job.yaml"], 0, "index.html"),
    "doctor": (["doctor"], None, "python"),
    "providers": (["providers"], 0, "chanjing"),
    "models": (["models", "kling"], 0, "kling-v2-1"),
    "init": (["init", "kling", "-o", "new.yaml"], 0, "new.yaml"),
    "schema": (["schema"], 0, "properties"),
    "completion": (["completion", "bash"], 0, "complete"),
    "resolve": (["resolve", "job.yaml", "0000", "--abandon"], 2, ""),
    "recover": (["recover", "job.yaml"], None, ""),
    "sandbox": (["sandbox", "--help"], 0, "--fault"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """Yield a desk whose job of two tasks is done, while its sandbox still runs."""
    desk = Desk(Path(tmp_path_factory.mktemp("verbs")))
    desk.write("job.yaml", images(2))
    with sandbox(*QUICK) as box:
        desk.env = box.env
        summary = desk.job()
        assert (summary["exit_code"], summary["counts"]) == (0, {"done": 2})
        yield desk, box


@pytest.mark.parametrize("verb", VERBS)
def test_verb_works_on_a_finished_job(finished, verb):
    """Whatever the verb, the finished job stays bought once."""
    desk, box = finished
    words, code, text = VERBS[verb]
    done = desk.run(*words)
    assert "Traceback" not in done.stderr
    assert code is None or done.returncode == code, done.stderr
    assert text in (done.stdout + done.stderr).lower()
    assert box.stats["accepted"] == 2


def test_killed_run_goes_on_and_buys_each_task_once(desk):
    """A run is killed with an id on disk and requests on the wire; the same command finishes the job.

    The account has bought before: at its first purchases what the kill kept from leaving may stay in doubt.
    """
    desk.write("job.yaml", images(3, provider="kling", model="image/kling-v2-1", qps=20))
    with sandbox("--seconds", "0.1,0.2") as box:
        desk.env = box.env
        bought = buy_before(desk, box, "kling", "image/kling-v2-1")
        first = desk.start("run", "job.yaml")
        until(lambda: box.stats["accepted"] >= bought + 1)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        assert desk.job()["counts"] == {"done": 3}
        assert box.stats["accepted"] == bought + 3
        assert len({json.dumps(line["outputs"]) for line in desk.results()}) == 3
