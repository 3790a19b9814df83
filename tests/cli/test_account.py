"""`providers`, `plan` and `doctor` about an account: without one, with hostile facts, and with a broken file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio
import pytest

from runner.app import provider_config
from runner.providers import spec as specs
from runner.providers.requests import Dialect
from runner.settings import Settings
from runner.store.facts import AccountFacts
from runner.tasks.fact import Fact

if TYPE_CHECKING:
    from pathlib import Path

NOW = 4_000_000_000.0
KEY = {"KLING_API_KEY": "k" * 20}
MANIFEST = "version: 1\nprovider: {}\nmodel: image/kling-v2-1\nparams: {{prompt: a heron}}\n"
HOSTILE = "\x1b[2J\x07\u202eevil\n  class 4 once\r" + "x" * 5_000


def account(desk, **env: str) -> Path:
    settings = Settings({"RUNNER_HOME": str(desk.root / "home"), **env})
    return provider_config.account_directory(specs.load("kling"), settings)


def store(desk, *facts: Fact) -> None:
    group = Dialect(specs.load("kling")).group("image")
    anyio.run(lambda: AccountFacts(account(desk, **KEY)).record(group, *facts))


def entry(desk, name: str, *words: str, **env: str) -> dict:
    done = desk.run("providers", name, *words, "--json", **env)
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


@pytest.mark.parametrize("words", [(), ("--account",)])
def test_without_credentials_nothing_is_known(desk, words):
    done = desk.run("providers", "kling", *words)
    assert (done.code, done.err) == (0, "")
    assert "claimed      class 2 by reference, if it keeps its word" in done.out
    assert "now          nothing is known: there are no credentials for kling" in done.out
    assert list(desk.root.iterdir()) == []


def test_without_an_address_nothing_is_known(desk):
    assert entry(desk, "kling-gateway", "--account", KLING_GATEWAY_API_KEY="k" * 20)["account"] is None


def test_json_adds_fields_and_moves_none(desk):
    found = entry(desk, "kling", **KEY)
    assert {"name", "title", "base_url", "credentials", "limits", "models", "lost_answer"} <= found.keys()
    assert [each["operation"] for each in found["guarantees"]] == ["image", "text2video", "image2video"]
    assert {(each["class"], each["claimed"], each["basis"]) for each in found["guarantees"]} == {(0, 2, "unknown")}
    assert "facts" not in found
    assert entry(desk, "kling", "--account", **KEY)["facts"] == []


def test_home_that_cannot_be_read_is_no_error(desk):
    done = desk.run("providers", "kling", "--account", **KEY, RUNNER_HOME="/proc/none")
    assert (done.code, done.err) == (0, "")
    assert "nothing known yet" in done.out


def test_unknown_provider_is_refused(desk):
    done = desk.run("providers", "klong", "--account")
    assert done.code == 2
    assert "known are: chanjing, kling, kling-gateway" in done.err


def test_hostile_facts_reach_no_terminal(desk):
    contradicted = [
        Fact(name, "contradicted", first_at=NOW, last_at=NOW, value=HOSTILE, why=HOSTILE)
        for name in ("reference_in_list", "own_rows", "lag")
    ]
    refusals = [
        Fact("refusal", "measured", subject=f"{HOSTILE[: number + 20]}", value=HOSTILE, first_at=NOW, last_at=NOW)
        for number in range(30)
    ]
    store(desk, *contradicted, *refusals, Fact(HOSTILE[:90], "measured", value=HOSTILE, first_at=NOW, last_at=NOW))
    for words in (("providers",), ("providers", "kling", "--account"), ("doctor",)):
        done = desk.run(*words, **KEY)
        assert done.code == 0
        assert all(line.isprintable() for line in done.out.splitlines())
        assert not any(line.strip() == "class 4 once" for line in done.out.splitlines())
        assert len(done.out) < 12_000
    text = json.dumps(entry(desk, "kling", "--account", **KEY), ensure_ascii=False)
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_facts_from_the_future_have_no_negative_age(desk):
    """A clock was wrong when they were written."""
    store(desk, Fact("reference_in_list", "measured", n=2, first_at=NOW, last_at=NOW))
    assert "yes, on 2 tasks (just now)" in desk.run("providers", "kling", "--account", **KEY).out


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_broken_file_is_named_and_stops_nothing(desk, content):
    store(desk, Fact("reference_in_list", "measured"))
    (account(desk, **KEY) / "facts.db").write_bytes(content)
    desk.write("job.yaml", MANIFEST.format("kling"))
    for words in (("providers", "kling", "--account"), ("plan", "job.yaml"), ("doctor",)):
        done = desk.run(*words, **KEY)
        assert done.code == 0, done.err
        if words[0] != "plan":
            assert ("facts.db" in done.out) == bool(content)


def test_plan_of_a_new_account_says_what_is_not_known(desk):
    desk.write("job.yaml", MANIFEST.format("kling"))
    done = desk.run("plan", "job.yaml", **KEY)
    assert "safety     kling image: nothing known yet" in done.out
    assert "kling: the first two tasks go one by one" in done.out
    report = json.loads(desk.run("plan", "job.yaml", "--json", **KEY).out)
    assert report["one_by_one"] == ["kling"]
    assert report["hidden"] == []
    assert not (desk.root / "home").exists()


AT_ONCE = """\
version: 1
provider: {}
model: {}
params: {{prompt: "a heron {{{{ n }}}}"}}
items: [{{n: 1}}, {{n: 2}}, {{n: 3}}]
limits: {}
"""


GATEWAY = {"KLING_GATEWAY_API_KEY": "k", "KLING_GATEWAY_BASE_URL": "https://example.com"}
SLOW = (
    "At 1 s an answer that is about {} submits a second of the 50 allowed; limits.submits_at_once: 50 would reach them"
)


@pytest.mark.parametrize(
    ("provider", "limits", "answers", "said"),
    [
        ("kling", "{qps: 50}", 3, "and each is looked up"),
        ("kling", "{qps: 50, submits_at_once: 1}", 1, f"and each is looked up. {SLOW.format(1)}"),
        ("kling-gateway", "{qps: 1}", 2, "and none can be looked up: you would decide about each"),
        ("kling-gateway", "{qps: 50}", 2, f"and none can be looked up: you would decide about each. {SLOW.format(2)}"),
        ("kling-gateway", "{qps: 50, submits_at_once: 50}", 3, "and none can be looked up"),
    ],
)
def test_plan_says_how_many_answers_can_be_lost(desk, provider, limits, answers, said):
    """It is what may be on the wire at once, or all tasks if these are fewer; and what a low number costs in time."""
    desk.write("job.yaml", AT_ONCE.format(provider, "image/kling-v2-1", limits))
    env = KEY if provider == "kling" else GATEWAY
    text = " ".join(desk.run("plan", "job.yaml", **env).out.split())
    assert (
        f"{provider}: at most {answers} {'answer' if answers == 1 else 'answers'} can be lost at once, {said}" in text
    )
    assert ("At 1 s" in text) == ("At 1 s" in said)
    (found,) = json.loads(desk.run("plan", "job.yaml", "--json", **env).out)["lost_at_once"]
    assert (found["provider"], found["answers"]) == (provider, answers)
    assert found["looked_up"] == (provider == "kling")


def test_plan_in_the_sandbox_promises_nothing(desk):
    desk.write("job.yaml", MANIFEST.format("kling"))
    assert json.loads(desk.run("plan", "job.yaml", "--sandbox", "--json").out)["guarantees"] == []
    assert "safety" not in desk.run("plan", "job.yaml", "--sandbox").out


def test_plan_at_a_gateway_says_that_answers_are_held(desk):
    desk.write("job.yaml", MANIFEST.format("kling-gateway"))
    done = desk.run("plan", "job.yaml", KLING_GATEWAY_API_KEY="k", KLING_GATEWAY_BASE_URL="https://example.com")
    assert "kling-gateway image: class 0 held: it keeps no record that can be read" in done.out
    assert "one by one" not in done.out


def test_refusals_stand_under_their_code(desk):
    store(desk, Fact("refusal", "measured", "image", "", "1302 throttled", "free", 2, NOW, NOW))
    shown = desk.run("providers", "kling", "--account", **KEY).out
    assert "    refusal 1302          free          throttled: free, looked up 2 times" in shown


TEXT = """\
# measured by `runner probe kling`, to be contributed as it is
spec: kling
spec_sha256: 0123456789abcdef
runner: 0.2.0
host: api-singapore.klingai.com
operation: image
model: kling-v2-1
date: {day}
facts:
  - reference_in_list: yes (measured, n=1)
  - doubles: {doubles} (measured, n=1)
  - refusal 1201 invalid: {refusal}
  - field prompt: verbatim (measured, n=1)
"""
FREE, CHARGED = "free (measured, n=1)", "a task was made (contradicted, n=1)"


def publish(desk, *texts: str) -> dict[str, str]:
    """Lay texts of others beside the specs; returns the environment that names them."""
    folder = desk.root / "specs" / "facts"
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return {**KEY, "RUNNER_PROVIDERS": str(desk.root / "specs")}


def test_published_facts_stand_beside_claims_and_make_no_class(desk):
    first = TEXT.format(day="2026-11-01", doubles="refused", refusal=FREE)
    env = publish(desk, first, TEXT.format(day="2026-11-03", doubles="accepted", refusal=FREE))
    text = " ".join(desk.run("providers", "kling", **env).out.split())
    assert "measured by others in 2 probes, last 2026-11-03, and not believed before it is measured here" in text
    assert "double reference refused (1), accepted (1)" in text
    assert "claimed class 2 by reference, if it keeps its word now" in text
    assert "nothing known yet" in text
    table = " ".join(desk.run("providers", "kling", "--account", **env).out.split())
    assert "2 probes by others, last 2026-11-03; nothing here rests on them" in table
    found = entry(desk, "kling", **env)
    assert {(each["class"], each["basis"]) for each in found["guarantees"]} == {(0, "unknown")}
    assert (found["published"]["probes"], found["published"]["contradicted"]) == (2, [])
    desk.write("job.yaml", MANIFEST.format("kling"))
    assert "measured by others in 2 probes" in " ".join(desk.run("plan", "job.yaml", **env).out.split())


def test_published_contradiction_lowers_the_claim(desk):
    env = publish(desk, TEXT.format(day="2026-11-03", doubles="refused", refusal=CHARGED))
    text = " ".join(desk.run("providers", "kling", **env).out.split())
    assert "if it keeps its word; others saw that it does not: refusal 1201 invalid" in text
    assert "NOT AS CLAIMED: a task was made" in text
    done = desk.run("doctor", **env)
    assert "kling others saw it not keep its word: refusal 1201 invalid" in " ".join(done.out.split())
    assert "runner probe kling measures it on your account" in " ".join(done.out.split())


def test_published_facts_of_another_host_say_nothing(desk):
    env = publish(desk, TEXT.format(day="2026-11-03", doubles="refused", refusal=FREE))
    assert entry(desk, "kling", **env, KLING_BASE_URL="https://other.example")["published"] is None
    assert entry(desk, "chanjing", **env)["published"] is None


@pytest.mark.parametrize(
    "text", ["", "spec: kling\n", TEXT.format(day="soon", doubles="x", refusal=FREE), "\udcff", "x" * 20_000]
)
def test_broken_published_text_is_named_and_left_out(desk, text):
    path = desk.root / "specs/facts/0.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode(errors="surrogateescape"))
    env = {**KEY, "RUNNER_PROVIDERS": str(desk.root / "specs")}
    assert entry(desk, "kling", **env)["published"] is None
    shown = " ".join(desk.run("doctor", **env).out.split())
    assert "specs/facts/0.txt" in shown.replace(" ", "")
    assert "It is left out; mend or remove it." in shown


def test_hostile_published_text_reaches_no_terminal(desk):
    hostile = HOSTILE.replace("\n", " ").replace("\r", " ")
    env = publish(desk, TEXT.format(day="2026-11-03", doubles=hostile, refusal=f"{hostile} (contradicted, n=1)"))
    for words in (("providers", "kling"), ("providers", "kling", "--account"), ("doctor",)):
        done = desk.run(*words, **env)
        assert done.code == 0
        assert all(line.isprintable() for line in done.out.splitlines())
