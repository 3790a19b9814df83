"""Fuzz targets: readers of external bytes, each with valid seeds and the property that must hold."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import yaml

from runner.errors import ManifestError, StateError
from runner.manifest import expand
from runner.manifest.diagnostics import Diagnostics
from runner.manifest.naming import MAX_BYTES, slug
from runner.manifest.rows import read_rows
from runner.net import media
from runner.net.body import parse_body
from runner.providers import responses
from runner.providers import spec as specs
from runner.providers.catalogue import Catalogue
from runner.providers.images import NotAnImageError, read_image_header
from runner.providers.requests import Reply
from runner.store import journal
from runner.store.rebuild import rebuild
from runner.tasks.events import Accepted
from runner.tasks.models import State, Task
from tests.workbook_files import DATE, DURATION, ods, ods_parts, ods_rows, pack, xlsx, xlsx_parts, xlsx_rows

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PROVIDERS = ("chanjing", "kling", "kling-gateway")


@dataclass(frozen=True)
class Target:
    """A reader. `check` raises if the property does not hold. `seeds` are valid bytes."""

    name: str
    seeds: tuple[bytes, ...]
    check: Callable[[bytes], None]


def manifest(data: bytes) -> None:
    """Check that bytes give tasks, or diagnostics with location and without control characters."""
    rendered = ""
    try:
        expand.parse_and_check(data, ROOT / "jobs" / "fuzz.yaml", _catalogue())
    except ManifestError as error:
        rendered = str(error)
    assert all(unicodedata.category(char) != "Cc" or char == "\n" for char in rendered)


@cache
def _catalogue() -> Catalogue:
    return Catalogue(None)


def reply(data: bytes) -> None:
    """Check that a response gives only events, for every provider and query. A clear acceptance keeps its id."""
    status, body = 200 + data[0] % 4 * 100 if data else 200, parse_body(data)
    outcome = Reply(status, body, {"retry-after": data[:9].decode("latin-1"), "date": data[:40].decode("latin-1")})
    for name in PROVIDERS:
        spec = specs.load(name)
        task = Task(1, "k" * 32, name, "image", "m", State.RUNNING, 0.0, ref="r0-1-g1", remote_id="u-1", request=b"{}")
        event = responses.read_submit(spec, outcome)
        responses.read_query(spec, outcome, task)
        responses.read_many(spec, [task], outcome)
        responses.read_page(spec, outcome)
        responses.read_reference(spec, task, outcome)
        responses.read_bills(spec, outcome)
        if isinstance(event, Accepted) and isinstance(body, dict):
            grown = {**body, "zz_new": {"id": "other", "task_id": 7, "data": [None]}}
            assert responses.read_submit(spec, Reply(status, grown, {})) == event, "an id was lost"


def file(data: bytes) -> None:
    """Check that a media file gets a result in linear time."""
    media.sniff(data[: media.HEAD_SIZE])
    whole = media.is_complete(data)
    assert not whole or media.sniff(data[: media.HEAD_SIZE]) is not None
    with suppress(NotAnImageError):
        read_image_header(data)


def lines(data: bytes) -> None:
    """Check that a journal gives a state or a StateError. Every line gets a valid checksum, as a forger would add."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        path = directory / "journal.jsonl"
        path.write_bytes(b"".join(_line(each) for each in data.split(b"\n")))
        with suppress(StateError):
            rebuild(directory, (), 1_790_000_000.0)
        path.write_bytes(data)
        with suppress(StateError):
            list(journal.read_lines(path))


def _line(text: bytes) -> bytes:
    try:
        line = orjson.loads(text)
    except ValueError:
        return b""
    return journal.encode(line) if isinstance(line, dict) else b""


def workbook(data: bytes) -> None:
    """Check that a file, or bytes that stand where a sheet should in one, give rows or diagnostics with a hint."""
    with tempfile.TemporaryDirectory() as folder:
        if data.startswith(b"PK"):
            book = Path(folder, "r.ods" if b"mimetype" in data else "r.xlsx")
            book.write_bytes(data)
        elif b"office" in data:
            book = Path(folder, "r.ods")
            book.write_bytes(pack({**ods_parts({}), "content.xml": data}))
        else:
            book = Path(folder, "r.xlsx")
            part = "xl/sharedStrings.xml" if b"<sst" in data else "xl/worksheets/sheet1.xml"
            strings = xlsx_rows([["s"]]) + '<row r="2"><c r="A2" t="s"><v>0</v></c></row>'
            book.write_bytes(pack({**xlsx_parts({"R": strings}), part: data}))
        diagnostics = Diagnostics("job.yaml")
        for row in read_rows(book, book.name, diagnostics):
            assert all(isinstance(value, str) for value in row.values.values()), row
        if diagnostics:
            assert all(each.hint and "\n" not in str(each) for each in diagnostics.error().diagnostics)


def name(data: bytes) -> None:
    """Check that a text gives one path component that fits, and the same one again."""
    made = slug(data.decode("utf-8", "surrogateescape"))
    assert made not in {"", ".", ".."}
    assert not set(made) & set("/\\\0\n")
    assert len(made.encode()) <= MAX_BYTES
    assert slug(made) == made, made


def _recorded() -> list[bytes]:
    found: list[Any] = []
    for provider in PROVIDERS:
        text = (ROOT / f"tests/replies/{provider}.yaml").read_text(encoding="utf-8")
        found += [case["reply"]["body"] for cases in yaml.safe_load(text).values() for case in _cases(cases)]
    return [json.dumps(body, ensure_ascii=False).encode() for body in found]


def _cases(cases: Any) -> list[Any]:
    return [case for case in cases if isinstance(case, dict) and "reply" in case] if isinstance(cases, list) else []


def _journal() -> bytes:
    intent = {
        "t": "intent", "ref": "r-1-g1", "key": "k" * 32, "generation": 1, "provider": "chanjing", "operation": "image",
        "model": "m", "fingerprint": "f", "slots": 1, "cost": 1.0, "spent": 1.0, "boot": "b", "seconds": 1.0, "at": 1.0,
        "name": "n", "request": "{}",
    }  # fmt: skip
    saved = {"number": 1, "file": "n.png", "bytes": 1, "sha256": "0" * 64, "media_type": "image/png"}
    rendered = [
        {"t": "epoch", "uuid": "u", "epoch": 1},
        intent,
        {"t": "id", "ref": "r-1-g1", "remote_id": "x", "adopted": False},
        {"t": "saved", "ref": "r-1-g1", "files": [saved], "reason": None},
        {"t": "retry", "ref": "r-1-g1", "generation": 2, "next": "r-1-g2"},
        {
            "t": "settle",
            "ref": "r-1-g1",
            "state": "failed",
            "evidence": "e",
            "reason": "r",
            "message": "m",
            "spent": 0.0,
        },
    ]
    return b"\n".join(orjson.dumps(line) for line in rendered)


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    jobs = tuple(path.read_bytes() for path in sorted((ROOT / "jobs").glob("*.yaml")))
    texts = ("江南水乡", "a/../b", "CON.txt", "é" * 200, "x\u202ey.", "~-._ a")
    made = (
        Target("manifest", jobs, manifest),
        Target("reply", tuple(_recorded()), reply),
        Target("media", _media(), file),
        Target("journal", (_journal(),), lines),
        Target("workbook", _workbooks(), workbook),
        Target("name", tuple(text.encode() for text in texts), name),
    )
    return {target.name: target for target in made}


def _workbooks() -> tuple[bytes, ...]:
    rows = [["s", "b"], ["a", 1.0], ["#REF!", "=A1"], [(45355, DATE), (1.5, DURATION)]]
    cells = [["s", "b"], ["a", 1.0], ["#REF!", "=A1"], [("date", "2024-03-04"), ("time", "PT16H09M00S")]]
    sheets = (
        xlsx_parts({"R": xlsx_rows(rows, (2,))})["xl/worksheets/sheet1.xml"],
        ods_parts({"R": ods_rows(cells, (2,)), "S": ods_rows(cells)}, ("S",))["content.xml"],
        '<sst count="1" uniqueCount="1"><si><t>x</t></si></sst>',
    )
    return (xlsx(rows), ods(cells), *(text.encode() for text in sheets))


def _media() -> tuple[bytes, ...]:
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde"
    pixels = b"\x00\x00\x00\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef"
    png = head + pixels + b"\x00\x00\x00\x00IEND\xaeB`\x82"
    return (
        png,
        b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00\xff\xda\x00\x02xyz\xff\xd9",
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;",
        b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00/\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00",
        b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42\x00\x00\x00\x08moov\x00\x00\x00\x09mdatx",
        b"\x1aE\xdf\xa3\x87B\x82\x84webm\x18S\x80g\x85\x1fC\xb6u\x80",
        b"ID3\x04\x00\x00\x00\x00\x00\x02ab\xff\xfb\x90\x00" + bytes(413),
        b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28),
    )
