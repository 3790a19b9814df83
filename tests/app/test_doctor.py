"""The signs one by one; the verb is tried as a whole in tests/cli and tests/whole."""

from __future__ import annotations

import os
import tomllib
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.app import accounts, machine, places
from runner.app.doctor import verdict
from runner.app.sign import ok, problem, warning
from runner.pipeline.outcome import Exit
from runner.providers import spec as specs
from runner.providers.exchange import NoAnswer, NotSent, Reply
from runner.settings import Settings

NOW = 1_790_000_000.0
CHANJING, KLING, GATEWAY = (specs.load(name) for name in ("chanjing", "kling", "kling-gateway"))


def of(signs, check: str):
    (found,) = (sign for sign in signs if sign.check == check)
    return found


def machine_of(check: str, *, encoding="utf-8", now=NOW, **environ):
    return of(machine.signs(environ, encoding=encoding, now=now), check)


# the machine


def test_nothing_is_wrong_with_this_machine():
    assert {sign.level for sign in machine.signs({}, encoding="UTF-8", now=NOW)} == {"ok"}


def test_every_extra_is_looked_for(monkeypatch):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    missing = ", ".join(machine._EXTRAS)
    assert sorted(machine._EXTRAS) == sorted(project["optional-dependencies"])
    assert machine_of("extras").said == f"not installed: {missing}"
    monkeypatch.setattr(machine, "find_spec", lambda name: None if name == "uvicorn" else name)
    assert machine_of("extras").cure == 'pip install "genrunner[web]"'


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_named_and_its_password_is_not(name):
    sign = machine_of("proxies", **{name: "http://user:pass@proxy.example"})
    assert (sign.level, name in sign.said) == ("warning", True)
    assert "pass" not in sign.said
    assert machine_of("proxies", no_proxy="x", **{name: ""}).level == "ok"


def test_certificates_that_are_not_looked_at_are_told():
    sign = machine_of("tls", SSL_CERT_FILE="/x", CURL_CA_BUNDLE="/y", SSL_CERT_DIR="")
    assert (sign.level, sign.said.startswith("SSL_CERT_FILE, CURL_CA_BUNDLE set and ignored")) == ("warning", True)


def test_text_that_is_not_utf_8_is_told():
    assert machine_of("text", encoding="latin-1").level == "warning"
    assert machine_of("text", encoding="utf8").level == "ok"


def test_a_clock_that_was_never_set_is_a_problem():
    assert (machine_of("clock", now=0.0).exit, machine_of("clock").level) == (Exit.CONFIGURATION, "ok")


@pytest.mark.parametrize(
    ("version", "level", "race"), [((3, 36, 0), "problem", False), ((3, 40, 1), "ok", True), ((3, 51, 3), "ok", False)]
)
def test_sqlite_is_judged_by_its_version(version, level, race):
    sign = machine._sqlite(version)
    assert (sign.level, "race" in sign.said) == (level, race)


# places


def test_a_directory_to_be_made_is_looked_at_where_it_would_be(tmp_path):
    (sign,) = places.home(tmp_path / "a" / "b")
    assert (sign.level, "(to be made)" in sign.said) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_a_problem():
    (sign,) = places.job(Path("/proc/none/job"))
    assert (sign.level, sign.exit) == ("problem", Exit.DISK)


@pytest.mark.parametrize(("free", "level"), [(10**6, "problem"), (10**8, "warning"), (10**12, "ok")])
def test_room_is_measured(tmp_path, monkeypatch, free, level):
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    (sign,) = places.job(tmp_path)
    assert (sign.level, sign.exit) == (level, Exit.DISK if level == "problem" else Exit.DONE)


@pytest.mark.parametrize(
    ("path", "mode", "levels"),
    [
        ("", 0o755, ["ok"]),  # names of accounts are no secret
        ("", 0o777, ["ok", "warning"]),
        ("accounts/x", 0o700, ["ok"]),
        ("accounts/x", 0o750, ["ok", "warning"]),
    ],
)
def test_what_the_accounts_share_is_closed_to_others(tmp_path, path, mode, levels):
    home = tmp_path / "home"
    (home / "accounts/x").mkdir(parents=True, mode=0o700)
    (home / path).chmod(mode)
    assert [sign.level for sign in places.home(home)] == levels


def test_a_state_without_ballast_or_open_to_others_is_told(tmp_path):
    state = tmp_path / ".runner"
    state.mkdir(mode=0o755)
    _, opened, ballast = places.job(tmp_path)
    assert ("open to others" in opened.said, "ballast" in ballast.said) == (True, True)
    state.chmod(0o700)
    (state / "ballast").touch()
    assert [sign.level for sign in places.job(tmp_path)] == ["ok"]


def test_what_another_user_made_is_a_problem(tmp_path, monkeypatch):
    """As after one run with sudo."""
    (tmp_path / ".runner").mkdir(mode=0o700)
    monkeypatch.setattr(places.os, "geteuid", lambda: os.getuid() + 4321)
    found = [sign for sign in places.job(tmp_path) if sign.level == "problem"]
    assert [sign.exit for sign in found] == [Exit.CONFIGURATION]
    assert "belongs to another user" in found[0].said


# accounts


def credentials(spec=CHANJING, *, needed=True, **environ):
    return accounts.credentials(spec, Settings(environ), needed=needed)


def test_credentials_are_counted_and_never_shown():
    app, secret = (sha256(value).hexdigest()[:4] for value in (b"my-app-id", b"my-secret-key"))
    sign = credentials(CHANJING_APP_ID="my-app-id", CHANJING_SECRET_KEY="my-secret-key")
    assert sign == ok("chanjing", f"CHANJING_APP_ID #{app}, CHANJING_SECRET_KEY #{secret}")


def test_none_matter_only_where_they_are_needed():
    assert credentials().exit == Exit.CREDENTIALS
    assert credentials(needed=False) == ok("chanjing", "no credentials")


def test_half_a_set_is_a_problem_that_names_the_whole():
    sign = credentials(KLING, needed=False, KLING_ACCESS_KEY="abc")
    assert (sign.exit, sign.cure) == (Exit.CREDENTIALS, "Set KLING_API_KEY or KLING_ACCESS_KEY + KLING_SECRET_KEY.")


@pytest.mark.parametrize("value", ['"quoted"', "two words", "密钥", "it's"])
def test_a_key_that_no_provider_gives_is_told(value):
    assert credentials(KLING, KLING_API_KEY=value).level == "warning"


def test_a_file_that_others_can_read_is_a_problem(tmp_path):
    path = tmp_path / "key"
    path.write_text("secret-in-a-file")
    path.chmod(0o644)
    sign = credentials(KLING, KLING_API_KEY_FILE=str(path))
    assert (sign.exit, sign.cure) == (Exit.CONFIGURATION, f"chmod 600 {path}")
    path.chmod(0o600)
    assert "(its file)" in credentials(KLING, KLING_API_KEY_FILE=str(path)).said
    assert "not looked at" in credentials(KLING, KLING_API_KEY_FILE=str(path), KLING_API_KEY="x").said


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
def test_an_address_is_told_where_it_is_not_the_usual_one(spec, url, level):
    environ = {} if url is None else {f"{spec.env}_BASE_URL": url}
    found = list(accounts.address(spec, Settings(environ), needed=True))
    assert [sign.level for sign in found] == ([] if level is None else [level])


def heard(outcome, spec=KLING, *, kept=False):
    return list(accounts._heard(spec, outcome, NOW, kept=kept))


def test_a_provider_that_cannot_be_reached_is_a_problem():
    (sign,) = heard(NotSent("ConnectError: refused"))
    assert (sign.exit, "refused" in sign.said) == (Exit.CONFIGURATION, True)
    assert heard(NoAnswer("cut"))[0].level == "warning"


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
def test_an_answer_says_how_the_account_is(status, body, level, code):
    (sign,) = heard(Reply(status, body))
    assert (sign.level, sign.exit) == (level, code)


def test_a_token_that_is_kept_proves_nothing_of_the_secret():
    good = Reply(200, {"code": 0, "data": {"list": []}})
    assert "secret key is tried when that ends" in heard(good, CHANJING, kept=True)[0].said
    assert heard(good, CHANJING)[0].said == "answers, and takes the credentials"


@pytest.mark.parametrize(
    ("apart", "level"), [(0, "ok"), (-29, "ok"), (45, "warning"), (-45, "warning"), (301, "problem")]
)
def test_clocks_are_compared(apart, level):
    _, clock = heard(Reply(200, GOOD, {"date": formatdate(NOW - apart, usegmt=True)}))
    assert (clock.check, clock.level) == ("clock", level)
    assert ("behind" if apart < 0 else "ahead of") in clock.said or apart == 0


# the verdict


@pytest.mark.parametrize(
    ("exits", "code"),
    [
        ([], 0),
        ([Exit.CONFIGURATION], 7),
        ([Exit.CONFIGURATION, Exit.CREDENTIALS], 12),
        ([Exit.CREDENTIALS, Exit.DISK, Exit.CONFIGURATION], 14),
    ],
)
def test_the_worst_gives_the_exit_code(exits, code):
    signs = [ok("a", "b"), warning("a", "b", "c"), *(problem("a", "b", "c", each) for each in exits)]
    assert verdict(signs) == code
