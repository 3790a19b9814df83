import json
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import fields

import pytest

from runner.sandbox import __main__ as command
from runner.sandbox.options import Options


@contextmanager
def started(*args):
    line = [sys.executable, "-m", "runner.sandbox", *args]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_says_how_to_reach_it_and_stops_with_its_parent():
    with started("--json", "--until-stdin-closes", "--qps", "20", "--fault", "lost_reply=0.05") as process:
        said = json.loads(process.stdout.readline())
        assert said["env"]["KLING_BASE_URL"] == said["url"]
        with urllib.request.urlopen(f"{said['url']}/_sandbox/options") as reply:
            options = json.load(reply)
        assert (options["qps"], options["faults"]) == (20.0, {"lost_reply": 0.05})
        process.stdin.close()
        assert process.wait(timeout=5) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_lines_for_a_shell_and_stops_when_told(name):
    with started() as process:
        lines = [process.stdout.readline().decode() for _ in range(8)]
        assert lines[0].startswith("# sandbox: http://127.0.0.1:")
        assert all(line.startswith("export ") for line in lines[1:])
        process.send_signal(name)
        assert process.wait(timeout=5) == 0
        assert process.stderr.read() == b""


def test_a_killed_sandbox_keeps_its_ledger(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with started("--json", "--ledger", str(path)) as process:
        url = json.loads(process.stdout.readline())["url"]
        body = json.dumps({"prompt": "boat"}).encode()
        request = urllib.request.Request(f"{url}/v1/images/generations", body, {"authorization": "Bearer key"})
        with urllib.request.urlopen(request) as reply:
            task_id = json.load(reply)["data"]["task_id"]
        process.kill()
        process.wait()
    assert json.loads(path.read_text())["id"] == task_id


def test_every_option_can_be_given():
    given = command._parser().parse_args([])
    told = command._parser().format_help()
    names = {f.name for f in fields(Options)} - {"faults"}
    assert [name for name in names if f"--{name.replace('_', '-')}" not in told] == []
    assert command._options(given) == Options()


def test_it_says_which_words_are_refused_and_which_fail():
    told = " ".join(command._parser().format_help().split())
    assert "违规 or NSFW-TEST is refused by the content check, FAIL-TEST is accepted and fails later" in told


def test_options_arrive():
    times = "--seconds 1,2 --video-seconds 3 --link-life-s 9"
    manners = "--no-external-id-unique --outage --credit 5 --gateway-dialect C"
    options = command._options(command._parser().parse_args([*times.split(), *manners.split()]))
    assert (options.seconds, options.video_seconds) == ((1.0, 2.0), (3.0, 3.0))
    assert (options.external_id_unique, options.outage, options.credit) == (False, True, 5)
    assert (options.gateway_dialect, options.link_life_s) == ("C", 9.0)


def test_a_bad_fault_is_explained(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--fault", "nothing=1"])
    assert "there are: cut_download" in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert command.main([]) == 7
    assert capsys.readouterr().err == "the sandbox needs: pip install 'genrunner[sandbox]'\n"


def test_a_port_in_use_is_explained(capsys):
    with started("--json") as process:
        port = json.loads(process.stdout.readline())["url"].rpartition(":")[2]
        assert command.main(["--port", port]) == 7
    assert "cannot start" in capsys.readouterr().err
