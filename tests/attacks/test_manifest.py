"""A hostile manifest: it runs nothing, costs no memory, reads no secret and chooses no address."""

from __future__ import annotations

import json
import os
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.app.job import load
from runner.errors import ManifestError
from runner.manifest import yaml_reader
from runner.manifest.notify_urls import url_error
from runner.manifest.templates import MAX_LENGTH, Template, TemplateError
from runner.settings import Settings
from runner.text import plain_numbers
from tests.whole.conftest import images

MIB = 1 << 20
#: a character of four bytes, so that every bound is met at its worst
WIDE = "😀" * MAX_LENGTH
HEAD = "version: 1\nprovider: chanjing\nmodel: kling-v2-1\n"


def refused(path, text, **environ):
    """Return the message about an invalid manifest."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ManifestError) as caught:
        load(path, Settings(environ))
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch MARK']",
        "!!python/object/new:subprocess.Popen [['touch', 'MARK']]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!binary aGk=",
        "!include /etc/passwd",
        "!ENV ${HOME}",
    ],
)
def test_x01_tags_create_no_objects(tmp_path, value):
    mark = tmp_path / "mark"
    message = refused(tmp_path / "a.yaml", f"{HEAD}params: {{prompt: x}}\nname: {value.replace('MARK', str(mark))}\n")
    assert "is not allowed" in message
    assert not mark.exists()


def test_x02_billion_laughs_cost_neither_time_nor_memory():
    laughs = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    tracemalloc.start()
    began = time.process_time()
    try:
        _, problems = yaml_reader.scan((HEAD + "\n".join(laughs)).encode(), "a.yaml")
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()
    assert "aliases: more than" in str(problems[-1])
    assert time.process_time() - began < 2


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
@pytest.mark.parametrize("depth", [65, 500, 2_000, 100_000])
def test_x03_deep_nesting_is_refused_with_location(opening, depth):
    began = time.process_time()
    value, problems = yaml_reader.scan((opening * depth).encode(), "a.yaml")
    assert value is None
    assert problems
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("NO", "NO"), ("yes", "yes"), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"), ("9:16", "9:16"),
     ("1_000", "1_000"), ("true", True), ("null", None), ("~", None), ("1.5", 1.5), ("0o17", 15)],
)  # fmt: skip
def test_x04_text_stays_text(text, expected):
    value, problems = yaml_reader.scan(f"a: {text}".encode(), "a.yaml")
    assert problems == []
    number = plain_numbers(value["a"])
    assert (number, type(number)) == (expected, type(expected))


def test_x04_duplicate_keys_are_refused(tmp_path):
    assert "stands here twice" in refused(tmp_path / "a.yaml", f"{HEAD}params: {{prompt: a, prompt: b}}\n")


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "/etc/shadow", "file:///etc/passwd", "/dev/zero", "pipe", "link.png", "/proc/self/environ",
     "photos/../../secret.png", "~/x.png", "\\\\host\\share\\x.png"],
)  # fmt: skip
def test_x05_images_are_not_read_from_outside(tmp_path, path):
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    home = tmp_path / "job"
    home.mkdir()
    os.mkfifo(home / "pipe")
    (home / "link.png").symlink_to("../secret.png")
    text = f"version: 1\nprovider: kling\nmodel: image/kling-v2-1\nparams: {{prompt: x, image: {json.dumps(path)}}}\n"
    message = refused(home / "a.yaml", text)
    assert "params.image" in message


def test_x05_devices_and_pipes_are_refused_as_data_files(tmp_path):
    os.mkfifo(tmp_path / "rows.csv")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for name in ("rows.csv", "zero.txt", "/etc/passwd", "/proc/self/environ"):
        message = refused(tmp_path / "a.yaml", f"{HEAD}params: {{prompt: x}}\nitems: {{file: {name}}}\n")
        assert "items.file" in message
        assert "root:" not in message


BOMBS = {
    "joined": "{{ " + "~".join(["a"] * 9000) + " }}",
    "list": "{{ [" + ",".join(["a"] * 5000) + "] }}",
    "list of lists": "{{ [" + ",".join(["[" + ",".join(["a"] * 20) + "]"] * 100) + "]|join }}",
    "condition": "{% if " + "~".join(["a"] * 5000) + " %}x{% endif %}",
    "condition within": "{{ 'x' if " + "~".join(["a"] * 5000) + " else 'y' }}",
    "plain": "{{a}}" * 4000,
    "replaced": "{{ a|replace('😀', a)|replace('😀', a) }}",
    "numbers": "{{ " + "9" * 4000 + " + n }}",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_x06_template_output_is_bounded(text):
    tracemalloc.start()
    try:
        try:
            made = Template(text).render({"a": WIDE, "n": 1})
        except TemplateError:
            made = ""
        assert len(made) <= MAX_LENGTH
        assert tracemalloc.get_traced_memory()[1] < 48 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_x06_size_is_checked_before_values_are_joined():
    """The length of a value that a template names often is checked before it is joined."""
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError):
            Template("{{a}}" * 4000).render({"a": "😀" * 100_000})
        assert tracemalloc.get_traced_memory()[1] < 48 * MIB
    finally:
        tracemalloc.stop()


@given(value=st.sampled_from(["{{ 7 }}", "{{ x.__class__ }}", "{% for a in b %}", "${HOME}", "{{ self }}"]))
def test_x06_data_is_never_a_template(value):
    assert Template("<{{ a }}>").render({"a": value}) == f"<{value}>"
    assert Template("<{{ a|trim }}>").render({"a": value}) == f"<{value}>"


PARTS = (
    "{{", "}}", "{%", "%}", "a", "if", "else", "endif", "|", "join", "replace", "(", ")", "[", "]", "~", "+", "-",
    "'x'", "1", ".", "__class__", ",", "not", "in", "is", "default", "/", "**", "%", "*", "for", "{#", "#}", "\n",
)  # fmt: skip


@settings(max_examples=150)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=30))
def test_x06_any_template_gives_text_or_message(parts):
    try:
        made = Template(" ".join(parts)).render({"a": "value", "x": 1})
    except TemplateError:
        return
    assert "<class" not in made
    assert "built-in" not in made


def test_x07_environment_does_not_get_into_requests(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(f"{HEAD}params: {{prompt: '${{CANARY}} $CANARY %CANARY% `echo $CANARY`'}}\n")
    job = load(path, Settings({"CANARY": "canary-value"}))
    (addition,) = job.additions()
    assert "canary-value" not in json.dumps(addition.draft.request)


@pytest.mark.parametrize(
    "url",
    [
        "https://thief.example/${CHANJING_SECRET_KEY}",
        "https://thief.example/${GITHUB_TOKEN}",
        "https://${DB_PASSWORD}.thief.example/",
        "https://u:${SMTP_PASSWORD}@thief.example/",
        "jsons://thief.example/?x=${SESSION_COOKIE}",
        "//thief.example/${API_TOKEN}",
        "thief.example/${AUTH}",
        "${KLING_API_KEY}",
    ],
)
def test_x07_manifest_cannot_choose_host_for_secrets(url):
    assert url_error(url) is not None


@pytest.mark.parametrize(
    "url", ["${HEALTHCHECK_URL}", "https://${HC_HOST}/${HC_ID}", "https://hc.example/${HC_ID}",
            "tgram://${BOT_TOKEN}/${CHAT}", "http://127.0.0.1:8000/${PING_KEY}"]
)  # fmt: skip
def test_x07_operators_addresses_are_accepted(url):
    assert url_error(url) is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("repeat: 1000000", "repeat: at most 1,000"),
        ("matrix: {seed: {from: 1, to: 1000000}}", "limits.max_tasks"),
        ("limits: {max_tasks: 20}\nrepeat: 21", "limits.max_tasks"),
    ],
)
def test_x42_million_tasks_are_refused_before_any_request(tmp_path, more, why):
    began = time.process_time()
    assert why in refused(tmp_path / "a.yaml", f"{HEAD}params: {{prompt: x}}\n{more}\n")
    assert time.process_time() - began < 2


@pytest.mark.slow
def test_x42_manifest_cannot_set_daily_cap(desk):
    """The daily spending limit of an account cannot be set in a manifest."""
    text = images(5, more="limits: {qps: 50, max_cost: 1000000}\ncost: 0.01\nretry: {doubt: 1s}")
    desk.write("job.yaml", text.replace("limits: {qps: 50}\n", "", 1))
    message = desk.run("run", "job.yaml", "--sandbox", "--json", env={"CHANJING_DAILY_COST": "0.02"})
    assert json.loads(message.stdout.splitlines()[-1])["submitted"] == 2
    assert message.returncode == 8


@pytest.mark.parametrize(
    "key", ["base_url", "url", "providers", "api_key", "proxy", "verify", "cafile", "provider_dir"]
)
def test_x43_manifest_cannot_set_destination_of_key(tmp_path, key):
    message = refused(tmp_path / "a.yaml", f"{HEAD}params: {{prompt: x}}\n{key}: https://thief.example\n")
    assert f"{key}: no such key" in message


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "evil.yaml", "./chanjing", "https://thief.example"])
def test_x43_provider_is_a_name_not_a_path(tmp_path, name):
    spec = (tmp_path / "evil.yaml").resolve()
    spec.write_text("name: evil\nbase_url: https://thief.example\n")
    message = refused(
        tmp_path / "a.yaml", f"version: 1\nprovider: {json.dumps(name)}\nmodel: x\nparams: {{prompt: x}}\n"
    )
    assert "unknown provider" in message


@pytest.mark.slow
def test_x43_env_file_beside_manifest_is_ignored(desk):
    """No file beside a manifest is read as the environment."""
    names = ("CHANJING_BASE_URL", "CHANJING_APP_ID", "CHANJING_SECRET_KEY", "RUNNER_PROVIDERS", "RUNNER_HOME")
    for file in (".env", "runner.toml", ".runnerrc", "runner.ini"):
        desk.write(file, "".join(f"{name} = 'https://thief.example'\n" for name in names))
    desk.write("job.yaml", images(1))
    done = desk.run("run", "job.yaml")
    assert (done.returncode, "there are no credentials" in done.stderr) == (7, True)
    assert "thief" not in done.stderr + done.stdout
