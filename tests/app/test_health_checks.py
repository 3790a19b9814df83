"""The checks one by one; the whole verb is tested in tests/cli and tests/whole."""

from __future__ import annotations

import os
import tomllib
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.app import health_checks
from runner.app.health_checks import ok, problem, warning, worst_exit_code
from runner.providers import spec as specs
from runner.providers.requests import NoAnswer, NotSent, Reply
from runner.scheduler.outcome import Exit
from runner.settings import Settings
from runner.store.binding import FileMark

NOW = 1_790_000_000.0
CHANJING, KLING, GATEWAY = (specs.load(name) for name in ("chanjing", "kling", "kling-gateway"))


def result_of(results, check: str):
    (found,) = (result for result in results if result.check == check)
    return found


def machine_result(check: str, *, encoding="utf-8", now=NOW, **environ):
    return result_of(health_checks.check_machine(environ, encoding=encoding, now=now), check)


# the machine


def test_all_checks_pass_on_this_machine():
    assert {result.level for result in health_checks.check_machine({}, encoding="UTF-8", now=NOW)} == {"ok"}


def test_checks_every_optional_dependency(monkeypatch):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    monkeypatch.setattr(health_checks, "find_spec", lambda name: None)
    missing = ", ".join(health_checks._EXTRAS)
    assert sorted(health_checks._EXTRAS) == sorted(project["optional-dependencies"])
    assert machine_result("extras").message == f"not installed: {missing}"
    monkeypatch.setattr(health_checks, "find_spec", lambda name: None if name == "uvicorn" else name)
    assert machine_result("extras").hint == 'pip install "genrunner[web]"'


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
def test_names_proxy_without_its_password(name):
    result = machine_result("proxies", **{name: "http://user:pass@proxy.example"})
    assert (result.level, name in result.message) == ("warning", True)
    assert "pass" not in result.message
    assert machine_result("proxies", no_proxy="x", **{name: ""}).level == "ok"


def test_warns_of_ignored_certificate_variables():
    result = machine_result("tls", SSL_CERT_FILE="/x", CURL_CA_BUNDLE="/y", SSL_CERT_DIR="")
    assert (result.level, result.message.startswith("SSL_CERT_FILE, CURL_CA_BUNDLE set and ignored")) == (
        "warning",
        True,
    )


def test_warns_of_text_encoding_other_than_utf8():
    assert machine_result("text", encoding="latin-1").level == "warning"
    assert machine_result("text", encoding="utf8").level == "ok"


def test_clock_that_was_never_set_is_a_problem():
    assert (machine_result("clock", now=0.0).exit_code, machine_result("clock").level) == (Exit.CONFIGURATION, "ok")


@pytest.mark.parametrize(
    ("version", "level", "race"), [((3, 36, 0), "problem", False), ((3, 40, 1), "ok", True), ((3, 51, 3), "ok", False)]
)
def test_checks_sqlite_version(version, level, race):
    result = health_checks._check_sqlite(version)
    assert (result.level, "race" in result.message) == (level, race)


# places


def test_missing_directory_is_checked_at_its_parent(tmp_path):
    (result,) = health_checks.check_home(tmp_path / "a" / "b")
    assert (result.level, "(to be made)" in result.message) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_directory_is_a_problem():
    (result,) = health_checks.check_job_directory(Path("/proc/none/job"))
    assert (result.level, result.exit_code) == ("problem", Exit.DISK)


@pytest.mark.parametrize(("free", "level"), [(10**6, "problem"), (10**8, "warning"), (10**12, "ok")])
def test_checks_free_space(tmp_path, monkeypatch, free, level):
    monkeypatch.setattr(health_checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    (result,) = health_checks.check_job_directory(tmp_path)
    assert (result.level, result.exit_code) == (level, Exit.DISK if level == "problem" else Exit.DONE)


@pytest.mark.parametrize(
    ("path", "mode", "levels"),
    [
        ("", 0o755, ["ok"]),  # names of accounts are no secret
        ("", 0o777, ["ok", "warning"]),
        ("accounts/x", 0o700, ["ok"]),
        ("accounts/x", 0o750, ["ok", "warning"]),
    ],
)
def test_warns_of_account_directory_open_to_others(tmp_path, path, mode, levels):
    home = tmp_path / "home"
    (home / "accounts/x").mkdir(parents=True, mode=0o700)
    (home / path).chmod(mode)
    assert [result.level for result in health_checks.check_home(home)] == levels


def test_warns_of_open_state_and_missing_ballast(tmp_path):
    state = tmp_path / ".runner"
    state.mkdir(mode=0o755)
    _, opened, ballast = health_checks.check_job_directory(tmp_path)
    assert ("open to others" in opened.message, "ballast" in ballast.message) == (True, True)
    state.chmod(0o700)
    (state / "ballast").touch()
    assert [result.level for result in health_checks.check_job_directory(tmp_path)] == ["ok"]


def test_file_of_another_user_is_a_problem(tmp_path, monkeypatch):
    """A run with sudo leaves such files."""
    (tmp_path / ".runner").mkdir(mode=0o700)
    monkeypatch.setattr(health_checks.os, "geteuid", lambda: os.getuid() + 4321)
    found = [result for result in health_checks.check_job_directory(tmp_path) if result.level == "problem"]
    assert [result.exit_code for result in found] == [Exit.CONFIGURATION]
    assert "belongs to another user" in found[0].message


# accounts


def credentials(spec=CHANJING, *, needed=True, **environ):
    return health_checks.check_credentials(spec, Settings(environ), needed=needed)


def test_credentials_are_shown_only_as_a_mark():
    app, secret = (sha256(value).hexdigest()[:4] for value in (b"my-app-id", b"my-secret-key"))
    result = credentials(CHANJING_APP_ID="my-app-id", CHANJING_SECRET_KEY="my-secret-key")
    assert result == ok("chanjing", f"CHANJING_APP_ID #{app}, CHANJING_SECRET_KEY #{secret}")


def test_missing_credentials_matter_only_if_needed():
    assert credentials().exit_code == Exit.CREDENTIALS
    assert credentials(needed=False) == ok("chanjing", "no credentials")


def test_incomplete_set_is_a_problem_that_names_all():
    result = credentials(KLING, needed=False, KLING_ACCESS_KEY="abc")
    assert (result.exit_code, result.hint) == (
        Exit.CREDENTIALS,
        "Set KLING_API_KEY or KLING_ACCESS_KEY + KLING_SECRET_KEY.",
    )


@pytest.mark.parametrize("value", ['"quoted"', "two words", "密钥", "it's"])
def test_warns_of_key_with_odd_characters(value):
    assert credentials(KLING, KLING_API_KEY=value).level == "warning"


def test_key_file_readable_by_others_is_a_problem(tmp_path):
    path = tmp_path / "key"
    path.write_text("secret-in-a-file")
    path.chmod(0o644)
    result = credentials(KLING, KLING_API_KEY_FILE=str(path))
    assert (result.exit_code, result.hint) == (Exit.CONFIGURATION, f"chmod 600 {path}")
    path.chmod(0o600)
    assert "(its file)" in credentials(KLING, KLING_API_KEY_FILE=str(path)).message
    assert "not looked at" in credentials(KLING, KLING_API_KEY_FILE=str(path), KLING_API_KEY="x").message


@pytest.mark.parametrize(
    ("spec", "url", "level"),
    [
        (KLING, None, None),
        (KLING, KLING.base_url, None),
        (KLING, "https://eu.example.com", "ok"),
        (KLING, "http://127.0.0.1:80", "warning"),
        (KLING, "http://example.com", "problem"),
        (KLING, "nonsense", "problem"),
        (GATEWAY, None, "problem"),
    ],
)
def test_reports_address_other_than_the_usual_one(spec, url, level):
    environ = {} if url is None else {f"{spec.env}_BASE_URL": url}
    found = list(health_checks.check_address(spec, Settings(environ), needed=True))
    assert [result.level for result in found] == ([] if level is None else [level])


def online_results(outcome, spec=KLING, *, kept=False):
    return list(health_checks._online_results(spec, outcome, NOW, has_stored_token=kept))


def test_unreachable_provider_is_a_problem():
    (result,) = online_results(NotSent("ConnectError: refused"))
    assert (result.exit_code, "refused" in result.message) == (Exit.CONFIGURATION, True)
    assert online_results(NoAnswer("cut"))[0].level == "warning"


GOOD = {"code": 0, "data": []}


@pytest.mark.parametrize(
    ("status", "body", "level", "code"),
    [
        (200, GOOD, "ok", Exit.DONE),
        (401, {"code": 1000, "message": "signature invalid"}, "problem", Exit.CREDENTIALS),
        (429, {"code": 1302, "message": "slow down"}, "warning", Exit.DONE),
        (500, "oops", "warning", Exit.DONE),
    ],
)
def test_answer_shows_state_of_the_account(status, body, level, code):
    (result,) = online_results(Reply(status, body))
    assert (result.level, result.exit_code) == (level, code)


def test_stored_token_does_not_prove_the_secret_key():
    good = Reply(200, {"code": 0, "data": {"list": []}})
    assert "secret key is tried when that ends" in online_results(good, CHANJING, kept=True)[0].message
    assert online_results(good, CHANJING)[0].message == "answers, and takes the credentials"


@pytest.mark.parametrize(
    ("apart", "level"), [(0, "ok"), (-29, "ok"), (45, "warning"), (-45, "warning"), (301, "problem")]
)
def test_compares_clock_with_the_provider(apart, level):
    _, clock = online_results(Reply(200, GOOD, {"date": formatdate(NOW - apart, usegmt=True)}))
    assert (clock.check, clock.level) == ("clock", level)
    assert ("behind" if apart < 0 else "ahead of") in clock.message or apart == 0


# the exit code


@pytest.mark.parametrize(
    ("exits", "code"),
    [
        ([], 0),
        ([Exit.CONFIGURATION], 7),
        ([Exit.CONFIGURATION, Exit.CREDENTIALS], 12),
        ([Exit.CREDENTIALS, Exit.DISK, Exit.CONFIGURATION], 14),
    ],
)
def test_worst_problem_gives_the_exit_code(exits, code):
    results = [ok("a", "b"), warning("a", "b", "c"), *(problem("a", "b", "c", each) for each in exits)]
    assert worst_exit_code(results) == code


def test_warns_of_a_home_that_ends_with_its_container(tmp_path, monkeypatch):
    monkeypatch.setattr(health_checks.filesystem, "filesystem_kind", lambda *_: "tmpfs")
    results = list(health_checks.check_home(tmp_path))
    assert any("forgotten with it" in each.message and each.level == "warning" for each in results)


def test_warns_of_files_without_lasting_marks(tmp_path, monkeypatch):
    (tmp_path / ".runner").mkdir()
    (tmp_path / ".runner" / "journal.jsonl").touch()
    (tmp_path / ".runner" / "ballast").touch()
    assert not [each for each in health_checks.check_job_directory(tmp_path) if "marks" in each.message]
    monkeypatch.setattr(health_checks, "mark_file", lambda _: FileMark(None, None, None, 1, 0))
    (found,) = [each for each in health_checks.check_job_directory(tmp_path) if "marks" in each.message]
    assert found.level == "warning"
