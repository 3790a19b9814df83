"""FP5 to FP9: signals, closed streams, a suspended machine."""

from __future__ import annotations

import signal
import sys
import time
from random import Random

import pytest

from tests.faults.conftest import FAST, delivered, ended, images, reaches, sandbox

#: answers to submits take this long, so that a signal finds several on the wire
SLOW = ("--fault", "slow_reply=@3,4,5,6,7,8,9", "--slow-s")


def drains(rig, number: signal.Signals, code: int, seed: int) -> None:
    """Send one signal during submits: these complete, no new request is sent, and the next run finishes the job."""
    rig.write("job.yaml", images(14, qps=20))
    with sandbox(*FAST, *SLOW, "1.5") as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] >= Random(seed).randint(3, 6))
        at = delivered(process, number)
        exit_code, summary, err = ended(process)
        assert exit_code == code, err
        assert "Traceback" not in err
        assert summary["in_doubt"] == []
        rig.consistent()
        # what was bought is known, and nothing was begun after the signal but what had been begun already
        assert sum(line["t"] == "id" for line in rig.journal) == box.stats["accepted"] < 14
        assert all(line["at"] < at + 1.0 for line in rig.journal if line["t"] == "intent")
        rig.finishes(box, 14)


@pytest.mark.slow
def test_fp05_first_signal_drains(rig):
    drains(rig, signal.SIGINT, 130, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["TERM", "HUP"])
def test_fp07_sigterm_and_sighup_drain(rig, number, code):
    drains(rig, number, code, number)


@pytest.mark.slow
def test_fp05_downloads_stop_at_once_and_complete_later(rig):
    rig.write("job.yaml", images(4))
    with sandbox(*FAST, "--fault", "slow_download=1.0", "--slow-s", "40", "--file-bytes", "2000000") as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: any((rig.state / "parts").glob("*.part")))
        began = time.monotonic()
        delivered(process, signal.SIGINT)
        code, summary, err = ended(process)
        assert (code, summary["in_doubt"]) == (130, []), err
        assert time.monotonic() - began < 10, "it waited for a download"
        box.change(faults={})
        rig.finishes(box, 4)


@pytest.mark.slow
def test_fp06_second_signal_leaves_5_s_and_third_none(rig):
    """After the second signal, slow responses are in doubt. The third one ends the process. Nothing is lost.

    The first two submits of an account go one by one, so the third is the first that may be slow.
    """
    rig.write("job.yaml", images(12, qps=20))
    with sandbox(*FAST, "--fault", "slow_reply=@3,4,5,6,7,8,9,10,11,12", "--slow-s", "60") as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] >= 5)
        delivered(process, signal.SIGINT)
        began = time.monotonic()
        delivered(process, signal.SIGINT)
        code, summary, err = ended(process)
        assert (code, "Traceback" in err) == (130, False), err
        assert 4.5 <= time.monotonic() - began < 15
        assert len(summary["in_doubt"]) == box.stats["accepted"] - 2, "each had its answer on the way"
        rig.consistent()

        before = box.stats["accepted"]
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] > before)
        for _ in range(3):
            delivered(process, signal.SIGINT)
        began = time.monotonic()
        code, _, err = ended(process)
        assert (code, "Traceback" in err) == (130, False), err
        assert "stopped at once by a third signal" in err
        assert "drained" not in err
        assert time.monotonic() - began < 3
        rig.consistent()

        box.change(faults={})
        rig.finishes(box, 12)


# closed streams


@pytest.mark.slow
def test_fp08_closed_readers_do_not_stop_run(rig):
    """`runner run … | head`: log lines and the summary meet a closed pipe."""
    rig.write("job.yaml", images(6))
    with sandbox(*FAST) as box:
        process = rig.start("run", "job.yaml", "--json", "--log-format", "json", env=box.env)
        process.stdout.close()
        process.stderr.close()
        assert process.wait(timeout=30) == 0
        rig.paid_once(box, 6)


@pytest.mark.slow
def test_fp08_closed_streams_do_not_stop_run(rig):
    """`runner run … <&- >&- 2>&-`: no file of the job gets the descriptor of a standard stream."""
    rig.write("job.yaml", images(6))
    rig.inside = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    with sandbox(*FAST) as box:
        process = rig.start("run", "job.yaml", "--log-format", "json", env=box.env)
        assert process.wait(timeout=30) == 0
        process.communicate()
        rig.consistent()
        rig.paid_once(box, 6)


def test_fp08_verb_in_closed_pipe_ends_quietly(rig):
    line = f"{sys.executable} -m runner models kling | head -c 1"
    done = rig.begun(["bash", "-o", "pipefail", "-c", line])
    out, err = done.communicate(timeout=20)
    assert (done.returncode, len(out), err) == (0, 1, "")


# a machine that stood still


@pytest.mark.slow
def test_fp09_no_burst_after_sigstop(rig):
    """The server counts every window of a second, and the runner is stopped in the middle of its work."""
    rig.write("job.yaml", images(24, qps=10))
    with sandbox(*FAST, "--qps", "10") as box:
        process = rig.start("run", "job.yaml", "--json", env=box.env)
        reaches(process, lambda: box.stats["accepted"] >= 5)
        process.send_signal(signal.SIGSTOP)
        before = box.requests()
        time.sleep(1.5)  # the fault itself: the machine stands still
        assert box.requests() - before <= 8, "it was not stopped"
        process.send_signal(signal.SIGCONT)
        code, summary, err = ended(process)
        assert (code, summary.get("counts")) == (0, {"done": 24}), err
        assert "40001" not in box.stats["refused"]
        rig.paid_once(box, 24)
