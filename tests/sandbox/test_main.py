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


def test_prints_json_environment_and_stops_with_stdin():
    with started("--json", "--until-stdin-closes", "--qps", "20", "--fault", "lost_reply=0.05") as process:
        announced = json.loads(process.stdout.readline())
        assert announced["env"]["KLING_BASE_URL"] == announced["url"]
        with urllib.request.urlopen(f"{announced['url']}/_sandbox/options") as reply:
            options = json.load(reply)
        assert (options["qps"], options["faults"]) == (20.0, {"lost_reply": 0.05})
        process.stdin.close()
        assert process.wait(timeout=5) == 0
        assert process.stderr.read() == b""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_prints_shell_environment_and_stops_on_signal(number):
    with started() as process:
        lines = [process.stdout.readline().decode() for _ in range(8)]
        assert lines[0].startswith("# sandbox: http://127.0.0.1:")
        assert all(line.startswith("export ") for line in lines[1:])
        process.send_signal(number)
        assert process.wait(timeout=5) == 0
        assert process.stderr.read() == b""


def test_ledger_survives_sigkill(tmp_path):
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


def test_every_option_has_an_argument():
    arguments = command._build_parser().parse_args([])
    help_text = command._build_parser().format_help()
    names = {f.name for f in fields(Options)} - {"faults"}
    assert [name for name in names if f"--{name.replace('_', '-')}" not in help_text] == []
    assert command._build_options(arguments) == Options()


def test_help_names_refused_and_failing_words():
    help_text = " ".join(command._build_parser().format_help().split())
    assert "违规 or NSFW-TEST is refused by the content check, FAIL-TEST is accepted and fails later" in help_text


def test_arguments_become_options():
    times = "--seconds 1,2 --video-seconds 3 --link-life-s 9"
    switches = "--no-external-id-unique --outage --credit 5 --gateway-dialect C"
    options = command._build_options(command._build_parser().parse_args([*times.split(), *switches.split()]))
    assert (options.seconds, options.video_seconds) == ((1.0, 2.0), (3.0, 3.0))
    assert (options.external_id_unique, options.outage, options.credit) == (False, True, 5)
    assert (options.gateway_dialect, options.link_life_s) == ("C", 9.0)


def test_unknown_fault_lists_known_ones(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--fault", "nothing=1"])
    assert "there are: absent_lies, any_reference" in capsys.readouterr().err


def test_missing_package_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert command.main([]) == 7
    assert capsys.readouterr().err == "the sandbox needs: pip install 'genrunner[sandbox]'\n"


def test_port_in_use_is_reported(capsys):
    with started("--json") as process:
        port = json.loads(process.stdout.readline())["url"].rpartition(":")[2]
        assert command.main(["--port", port]) == 7
    assert "cannot start" in capsys.readouterr().err
