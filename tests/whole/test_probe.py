"""`runner probe` against providers that keep their word and others: the facts are right, and no task is too many."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from runner.providers import spec
from tests.whole.conftest import sandbox, until

FAST = ("--seconds", "0.3,0.6")
#: options of the sandbox, then facts by name: state and value
HONEST = {
    "reference_by_query": ("measured", "ours"),
    "unknown_reference": ("measured", "unknown"),
    "reference_in_list": ("measured", "shown"),
    "own_rows": ("measured", "shown"),
    "doubles": ("measured", "refused"),
    "refusal": ("measured", "free"),
    "order": ("measured", "newest first"),
    "times": ("measured", "right"),
}
LIES = {
    "honest": ((), {}),
    "takes doubles": (("--no-external-id-unique",), {"doubles": ("measured", "accepted")}),
    "answers doubles with the first": (("--external-id-first",), {"doubles": ("measured", "first")}),
    "answers any reference": (("--fault", "any_reference=1"), {"unknown_reference": ("contradicted", "a task")}),
    "is late": (("--list-lag-s", "2"), {}),
    "shows references late": (("--reference-lag-s", "2"), {}),
    "shows the newest one": (("--list-newest", "1"), {"order": None}),
    "shows one page": (("--fault", "list_one_page=1"), {}),
    "is oldest first": (("--fault", "list_oldest_first=1"), {"order": ("measured", "oldest first")}),
    "has no times": (("--fault", "list_no_times=1"), {"times": ("contradicted", "unreadable")}),
    "has times as text": (("--fault", "list_text_times=1"), {}),
    "drops our reference": (
        ("--fault", "no_reference=1"),
        {
            "reference_by_query": ("contradicted", "unknown"),
            "reference_in_list": ("contradicted", "missing"),
            "doubles": None,
            "refusal": None,
            "order": None,
        },
    ),
    "is empty": (
        ("--fault", "list_blank=1"),
        {
            "own_rows": ("contradicted", "missing"),
            "reference_in_list": None,
            "doubles": None,
            "order": None,
            "times": None,
        },
    ),
}
#: failpoints of a probe of Kling that is killed there, and how many times each was reached then
POINTS = [
    ("intent journaled", 1),
    ("intent committed", 1),
    ("intent committed", 2),
    ("intent committed", 3),
    ("intent committed", 4),
    ("answer received", 1),
    ("answer received", 2),
    ("answer received", 3),
    ("answer received", 4),
    ("id journaled", 1),
    ("id committed", 1),
    ("doubt committed", 1),
    ("doubt committed", 2),
    ("adopted journaled", 1),
    ("adopted committed", 1),
    ("ready committed", 1),
    ("done committed", 2),
]


def run_probe(desk, *options: str, provider: str = "kling", env: dict[str, str] | None = None) -> dict:
    """Run `probe --json`, and return its report."""
    done = desk.run("probe", provider, "--json", *options, env=env)
    assert done.stdout, f"exit {done.returncode}: {done.stderr}"
    report = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    return report


def facts(report: dict) -> dict[str, tuple[str, str]]:
    """Return state and value of each fact, by name."""
    return {fact["name"]: (fact["state"], fact["value"]) for fact in report["facts"] if fact["name"] != "field"}


def account_facts(desk) -> dict[str, str]:
    """Return what the account has kept: state by name."""
    (path,) = (desk.root / "home").glob("accounts/*/facts.db")
    with sqlite3.connect(path) as connection:
        return dict(connection.execute("select name, state from known"))


def ids(report: dict) -> set[str]:
    """Return the ids that a report names."""
    return {task["remote_id"] for task in report["bought"] if task["remote_id"]} | set(report["surplus"])


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES)
def test_facts_are_right_and_no_task_too_many(desk, lie):
    options, differs = LIES[lie]
    with sandbox(*FAST, *options) as box:
        desk.env = box.env
        report = run_probe(desk, "--yes")
        found = facts(report)
        wanted = {name: value for name, value in {**HONEST, **differs}.items() if value is not None}
        assert {name: found.get(name) for name in wanted} == wanted
        assert not {name for name, value in differs.items() if value is None} & found.keys()
        assert len(box.accepted) <= 3
        assert ids(report) == {task["id"] for task in box.accepted}
        assert report["exit_code"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("spend", "most"), [(1, 1), (2, 2), (4, 3)])
def test_never_more_than_it_may_spend(desk, spend, most):
    with sandbox(*FAST, "--no-external-id-unique") as box:
        desk.env = box.env
        report = run_probe(desk, "--yes", "--spend", str(spend))
        assert len(box.accepted) == most
        assert ids(report) == {task["id"] for task in box.accepted}


class _Liar(BaseHTTPRequestHandler):
    """A host before the sandbox that makes a task of an invalid request, and yet answers with a refusal."""

    target = ""

    def do_GET(self) -> None:
        self._forward(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._forward(body.replace(b'"n":-1', b'"n":1'), lies=b'"n":-1' in body)

    def _forward(self, body: bytes | None, *, lies: bool = False) -> None:
        headers = {
            name: value for name, value in self.headers.items() if name.lower() in {"authorization", "content-type"}
        }
        request = urllib.request.Request(self.target + self.path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        if lies:
            status, text = 400, b'{"code": 1201, "message": "n is invalid"}'
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.mark.slow
def test_a_refusal_that_leaves_a_task_is_found_out(desk):
    with sandbox(*FAST) as box, ThreadingHTTPServer(("127.0.0.1", 0), _Liar) as host:
        _Liar.target = box.url
        Thread(target=host.serve_forever, daemon=True).start()
        try:
            desk.env = {**box.env, "KLING_BASE_URL": f"http://127.0.0.1:{host.server_port}"}
            report = run_probe(desk, "--yes")
        finally:
            host.shutdown()
        assert facts(report)["refusal"] == ("contradicted", "charges")
        assert report["exit_code"] == (4 if report["surplus"] else 0)
        assert len(box.accepted) == 2, "the task under the refusal, and the one that shows it; a double may be one too"
        assert ids(report) == {task["id"] for task in box.accepted}
        assert account_facts(desk)["refusal"] == "contradicted"


@pytest.mark.slow
def test_chanjing_is_measured_by_what_its_list_shows(desk):
    with sandbox(*FAST) as box:
        desk.env = box.env
        report = run_probe(desk, "--yes", provider="chanjing")
        found = facts(report)
        assert found["refusal"] == ("measured", "free")
        assert found["delivery_after_cut"][0] == "measured"
        fields = {fact["subject"]: fact["value"] for fact in report["facts"] if fact["name"] == "field"}
        assert fields["ref_prompt"] == "verbatim"
        assert ids(report) == {task["id"] for task in box.accepted}
        assert report["exit_code"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "field", "how"), [("kling", "image", "hidden"), ("chanjing", "ref_img_url", "verbatim")]
)
def test_pictures_show_what_the_list_says_of_them(desk, provider, field, how):
    with sandbox(*FAST) as box:
        desk.env = box.env
        report = run_probe(desk, "--yes", "--pictures", provider=provider)
        fields = {fact["subject"]: fact["value"] for fact in report["facts"] if fact["name"] == "field"}
        assert fields[field] == how
        assert (report["exit_code"], len(box.accepted)) == (0, 4)
        assert ids(report) == {task["id"] for task in box.accepted}
        assert len({str(task["pictures"]) for task in box.accepted}) == 3, "none, one, and the other"


@pytest.mark.slow
def test_what_nothing_shows_is_not_bought(desk):
    with sandbox(*FAST, "--fault", "list_hides_prompt=1") as box:
        desk.env = box.env
        report = run_probe(desk, "--yes", provider="chanjing")
        assert len(box.accepted) == 1
        assert report["exit_code"] == 0
        assert any("cut connection: not tried" in note for note in report["notes"])


@pytest.mark.slow
@pytest.mark.parametrize(("point", "number"), POINTS)
def test_killed_anywhere_nothing_is_lost_or_bought_twice(desk, point, number):
    with sandbox(*FAST) as box:
        desk.env = box.env
        killed = desk.run("probe", "kling", "--yes", env={"RUNNER_CRASH_AT": f"{point}:{number}"})
        assert killed.returncode == -signal.SIGKILL, f"it was not reached: {killed.stderr}"
        report = run_probe(desk, "--yes")
        accepted = {task["id"] for task in box.accepted}
        assert len(accepted) <= 3
        assert accepted <= ids(report), "a task was lost"
        # a new account has nothing from before the send, which could prove that nothing was accepted
        assert report["exit_code"] == (4 if report["open"] else 0), report
        assert len(report["open"]) <= 1
        # the double has the first task's request by intent, and is refused here
        assert box.stats["duplicates"] == 0


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_found_and_goes_on_later(desk):
    with sandbox("--seconds", "8,8") as box:
        desk.env = box.env
        process = desk.start("probe", "kling", "--yes", "--json")
        records = desk.root / "home" / "accounts"
        until(lambda: any("reference_in_list" in path.read_text() for path in records.glob("*/probe/*/probe.json")))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        report = json.loads(out)
        assert report["exit_code"] == process.returncode == 130, err
        assert facts(report)["reference_in_list"] == ("measured", "shown")
        assert account_facts(desk)["reference_in_list"] == "measured"
        assert len(box.accepted) == 1
        box.change(seconds=[0.1, 0.2])
        report = run_probe(desk, "--yes")
        assert report["exit_code"] == 0
        assert facts(report)["doubles"] == ("measured", "refused")
        assert ids(report) == {task["id"] for task in box.accepted}
        assert len(box.accepted) == 2


@pytest.mark.slow
def test_what_is_published_names_nobody(desk):
    with sandbox(*FAST) as box:
        desk.env = box.env
        report = run_probe(desk, "--yes", "--publish", "facts.txt")
        text = (desk.root / "facts.txt").read_text()
        assert "doubles: refused (measured" in text
        assert "host: own" in text
        assert "price" not in text
        secret = {*box.env.values(), *ids(report), *(task["key"] for task in report["bought"])}
        secret |= {task["external_id"] for task in box.accepted} | {"white  cup", "cup", str(desk.root)}
        assert not [word for word in secret if word in text]
        assert len(text.splitlines()) <= 40
        before = len(box.accepted)
        again = desk.run("probe", "kling", "--yes", "--publish", "facts.txt")
        assert again.returncode == 2
        assert "is there already" in again.stderr
        assert len(box.accepted) == before
        assert (desk.root / "facts.txt").read_text() == text


@pytest.mark.slow
def test_free_probe_buys_nothing(desk):
    with sandbox(*FAST) as box:
        for provider in ("kling", "chanjing", "kling-gateway"):
            desk.env = box.env
            for option in ("--free", "--spend=0"):
                report = run_probe(desk, option, provider=provider)
                assert report["exit_code"] == 0
                assert facts(report)["unknown_id"] == ("measured", "unknown")
        report = run_probe(desk, "--yes", provider="kling-gateway")
        assert (report["exit_code"], report["class"], report["class_basis"]) == (0, 0, "claimed")
        assert box.accepted == []
        assert not [name for name in box.stats["requests"] if name.startswith("POST") and "images" in name]


@pytest.mark.slow
def test_unreachable_host_is_told(desk):
    with sandbox() as box:
        env = box.env
    report = run_probe(desk, "--yes", env=env)
    assert report["exit_code"] == 5
    assert report["reasons"] == ["kling cannot be reached"]
    assert report["bought"] == []


@pytest.mark.slow
def test_wrong_key_is_told_before_anything_is_bought(desk):
    with sandbox() as box:
        keys = {name: "wrong-wrong-wrong" for name in box.env if name.endswith(("_KEY", "_ACCESS_TOKEN"))}
        report = run_probe(desk, "--yes", env={**box.env, **keys})
        assert report["exit_code"] == 12
        assert box.accepted == []


@pytest.mark.slow
def test_a_contradiction_is_cleared_by_a_good_probe(desk):
    with sandbox(*FAST, "--fault", "list_blank=1") as box:
        desk.env = box.env
        report = run_probe(desk, "--yes", "--spend", "1")
        assert account_facts(desk)["own_rows"] == "contradicted"
        box.change(faults={})
        report = run_probe(desk, "--yes")
        assert account_facts(desk)["own_rows"] == "measured"
        assert report["class"] == 3


@pytest.mark.slow
def test_two_probes_of_an_account_do_not_meet(desk):
    with sandbox("--seconds", "3,3") as box:
        desk.env = box.env
        first = desk.start("probe", "kling", "--yes", "--json")
        until(lambda: len(box.accepted) == 1)
        second = desk.run("probe", "kling", "--yes")
        assert second.returncode == 11
        assert "being probed" in second.stderr
        out, _ = first.communicate(timeout=45)
        assert json.loads(out)["exit_code"] == 0


@pytest.mark.slow
def test_sandbox_probe_needs_no_credentials(desk):
    report = run_probe(desk, "--sandbox", "--spend", "1")
    assert report["exit_code"] == 0
    assert facts(report)["reference_in_list"] == ("measured", "shown")


@pytest.mark.slow
def test_a_refused_task_ends_the_probe_and_the_next_is_new(desk):
    text = spec.spec_paths()["kling"].read_text().replace("  image/kling-v2-1:", "  image/kling-v9:")
    (desk.root / "specs").mkdir()
    desk.write("specs/kling.yaml", text)
    with sandbox(*FAST) as box:
        desk.env = {**box.env, "RUNNER_PROVIDERS": "specs"}
        directories = set()
        for _ in range(2):
            report = run_probe(desk, "--yes")
            assert report["exit_code"] == 3
            assert "model kling-v9 does not exist" in report["reasons"][0]
            directories.add(report["directory"])
        assert len(directories) == 2
        assert box.accepted == []


@pytest.mark.slow
def test_without_credit_it_waits_and_goes_on_later(desk):
    with sandbox(*FAST, "--credit", "0") as box:
        desk.env = box.env
        report = run_probe(desk, "--yes")
        assert (report["exit_code"], box.accepted) == (6, [])
        box.change(credit=None)
        later = run_probe(desk, "--yes")
        assert (later["exit_code"], len(box.accepted)) == (0, 2)
        assert later["directory"] == report["directory"]


@pytest.mark.slow
def test_a_lost_answer_to_the_task_is_found_again(desk):
    with sandbox(*FAST, "--fault", "lost_reply=@1") as box:
        desk.env = box.env
        report = run_probe(desk, "--yes")
        assert report["exit_code"] == 0
        assert facts(report)["reference_in_list"] == ("measured", "shown")
        assert ids(report) == {task["id"] for task in box.accepted}
        assert len(box.accepted) == 2


@pytest.mark.slow
def test_a_restored_probe_buys_nothing(desk):
    with sandbox(*FAST) as box:
        desk.env = box.env
        killed = desk.run("probe", "kling", "--yes", env={"RUNNER_CRASH_AT": "answer received:2"})
        assert killed.returncode == -signal.SIGKILL
        before = len(box.accepted)
        (directory,) = desk.root.glob("home/accounts/*/probe/2*")
        moved = directory.with_name("moved")
        shutil.copytree(directory, moved)
        shutil.rmtree(directory)
        shutil.copytree(moved, directory)
        shutil.rmtree(moved)
        done = desk.run("probe", "kling", "--yes", "--json")
        assert done.returncode == 13
        assert f"move {directory} away" in done.stderr
        assert len(box.accepted) == before
        directory.rename(desk.root / "away")
        assert run_probe(desk, "--yes")["exit_code"] == 0
