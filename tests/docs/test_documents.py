"""The other documents: links resolve, the worked example works, versions agree."""

from __future__ import annotations

import json
import re
import shlex
import struct
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args

import pytest
from pydantic import BaseModel

import runner
from runner.providers import spec as specs
from runner.providers.requests import Reply
from runner.providers.responses import read_query, read_submit
from runner.providers.spec import Meaning, Spec
from runner.tasks.events import Accepted, Finished

DOCUMENTS = (
    "README.md",
    "README.zh-CN.md",
    "CHANGELOG.md",
    "docs/providers.md",
    "docs/bulk.md",
    "docs/faults.md",
    "docs/attacks.md",
    "docs/invariants.md",
    "docs/reliability.md",
    "docs/reliability.zh-CN.md",
    "tests/README.md",
    "docs/resume.md",
    "docs/nightly.md",
    "docs/operations.md",
    "docs/security.md",
    ".github/SECURITY.md",
    "docs/gallery.md",
    "docs/python.md",
    "docs/CONTRIBUTING.md",
    "docs/lifecycle.md",
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_resolve(name, document):
    found = document(name)
    local = [link.partition("#")[0] for link in found.links if not link.startswith(("https://", "#"))]
    assert [link for link in local if not (found.path.parent / link).exists()] == []
    assert not any(link.startswith("http:") for link in found.links)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_hold_no_machine_paths(name, document):
    assert re.findall(r"(?:^|[\s`(\"'])/(?:home|work|tmp|root|Users|opt|srv)/", document(name).text) == []


def test_changelog_has_this_version(document):
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", document("CHANGELOG.md").text, re.MULTILINE)
    assert versions[0] == runner.__version__


def test_every_spec_field_is_documented(document):
    documented = set(re.findall(r"`(?:\w+(?:\.<name>)?\.)?(\w+)`", document("docs/providers.md").prose))
    assert _fields(Spec) - documented == set()


def _fields(model: type[BaseModel]) -> set[str]:
    """Return the names of all fields as written, including nested ones."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(field.alias or name)
        for inner in _inside(field.annotation):
            found |= _fields(inner)
    return found


def _inside(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [inner for each in get_args(annotation) for inner in _inside(each)]


def test_every_meaning_is_documented(document):
    rows = document("docs/providers.md").table("`means`")
    assert sorted(word for row in rows for word in re.findall(r"`(\w+)`", row[0])) == sorted(get_args(Meaning))


def test_example_spec_reads_its_replies(document):
    page = document("docs/providers.md")
    spec = specs.parse(page.noted("file: paintbox.yaml").text, "docs/providers.md")
    accepted = read_submit(spec, Reply(200, json.loads(page.noted("answer: submit").text)))
    finished = read_query(spec, Reply(200, json.loads(page.noted("answer: query").text)))
    assert isinstance(accepted, Accepted)
    assert accepted.remote_id == "pb-1"
    assert isinstance(finished, Finished)
    assert len(finished.outputs) == 1


@pytest.mark.slow
def test_commands_of_the_page_run_and_make_images(desk, document):
    """Commands run in order with the page's exports, against a test server that answers as the page describes."""
    page = document("docs/providers.md")
    (desk.path / "specs").mkdir()
    (desk.path / "specs/paintbox.yaml").write_text(page.noted("file: paintbox.yaml").text, encoding="utf-8")
    commands = [command for block in page.of("sh") if block.runs for command in block.commands]
    assert len([command for command in commands if command.startswith("runner ")]) >= 6
    submit, query = (json.loads(page.noted(f"answer: {kind}").text) for kind in ("submit", "query"))
    env: dict[str, str] = {}
    with _paintbox(submit, query) as (url, requests):
        for command in commands:
            verb, *words = shlex.split(command)
            if verb == "export":
                name, _, value = words[0].partition("=")
                env[name] = url if name == "PAINTBOX_BASE_URL" else value
                continue
            done = desk.runner(*words, **env)
            assert (verb, done.returncode, done.stdout != "") == ("runner", 0, True), f"{command}\n{done.stderr}"
            assert "--sandbox" not in done.stdout
    assert sorted(env) == ["PAINTBOX_API_KEY", "PAINTBOX_BASE_URL", "RUNNER_PROVIDERS"]
    names = [path.name for path in (desk.path / "out/rehearsal").glob("*.png")]
    assert sorted(name[:5] for name in names) == ["0001-", "0002-", "0003-", "0004-"]
    assert (desk.path / "rehearsal.csv").read_text(encoding="utf-8-sig").count(",done,paintbox,brush-1,") == 4
    assert {key for key, _ in requests} == {f"Bearer {env['PAINTBOX_API_KEY']}"}
    assert len({body.pop("client_ref") for _, body in requests}) == 4
    assert requests[0][1] == {"model": "brush-1", "text": "a lighthouse on a cliff, morning fog", "ratio": "1:1"}


@pytest.mark.slow
def test_commands_that_cannot_run_exist(desk, document):
    (real,) = [block for block in document("docs/providers.md").of("sh") if not block.runs]
    for command in real.commands:
        _, verb, *words = shlex.split(command)
        known = desk.runner(verb, "--help").stdout
        assert [word for word in words if word.startswith("--") and word not in known] == []


@contextmanager
def _paintbox(submit: dict, query: dict):
    """Run a server that answers as the page describes, and yield its requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.headers["Authorization"], json.loads(body)))
            answer = json.dumps(submit).replace("pb-1", f"pb-{len(requests)}")
            self._answer(answer.encode(), "application/json")

        def do_GET(self):
            if self.path.endswith(".png"):
                self._answer(_png(), "image/png")
            else:
                answer = json.dumps(query).replace("pb-1", self.path.rpartition("/")[2]).replace("127.0.0.1", host)
                self._answer(answer.encode(), "application/json")

        def _answer(self, body: bytes, kind: str):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _png() -> bytes:
    """Return a PNG with one grey pixel."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0\x80")),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
