"""Names of output files for any text: a safe path component of one task, with space for suffixes.

More examples: `EXAMPLES_TIMES=50 pytest tests/net/test_names_properties.py`.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner.errors import ManifestError
from runner.manifest.expand import expand
from runner.manifest.naming import OutputNamer, fold_name, slug
from runner.manifest.parser import parse
from runner.manifest.templates import Template
from runner.net.partial_file import publish
from runner.providers.catalogue import Catalogue
from runner.scheduler.download import stems
from runner.tasks.models import Output, State, Task

TIMES = int(os.environ.get("EXAMPLES_TIMES", "1"))
FUZZ = settings(max_examples=300 * TIMES, deadline=None, suppress_health_check=list(HealthCheck))
DISK = settings(FUZZ, max_examples=40 * TIMES)

#: maximum bytes of a name on ext4, APFS and NTFS (NTFS counts UTF-16 units, of which there are fewer)
LONGEST = 255
RESERVED = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"
}
HEAD = "version: 1\nprovider: chanjing\nmodel: kling-v2-1\nparams: {prompt: 'x {{ a }}'}\nitems: {file: rows.jsonl}\n"
FORBIDDEN = set("<>:\"/\\|?*~$`!&;()[]{}%#'")

BIDI = "\u202a\u202b\u202d\u202e\u2066\u2067\u2069\u200e\u200f"
PIECES = st.sampled_from([
    "..", "/", "\\", "C:", "con", "NUL", "com1", "LPT²", "aux.", ".png", "-rf", "~", "$HOME", "%00", "\0",
    "\x1b]0;x\x07", "\r\n", "\u2028", "\ufeff", "\u200d", BIDI, "\ud800", "\udfff", "水" * 85, "水" * 60, "é" * 90,
    "e\u0301" * 90, "😀" * 64, "\u0301" * 200, "ﬁ", "İ", "ß", "ẞ", "ς", "Σ", "\u212a", "\u212b", "Å", "각", " ", ".",
    "_", "a" * 255, "{{ a }}", "{% a %}",
])  # fmt: skip
#: characters of all kinds: controls, formats, lone surrogates and unassigned ones
ANY = st.text(st.one_of(st.characters(), st.characters(categories=("Cc", "Cf", "Cs", "Mn", "Zs", "Lo"))), max_size=60)
HOSTILE = st.one_of(ANY, st.lists(st.one_of(PIECES, ANY), max_size=6).map("".join))


def is_safe(name):
    """Check a name independently of the pattern that made it."""
    assert Path("/out", name).parent == Path("/out")
    assert name not in {"", ".", ".."}
    assert len(name.encode("utf-8")) <= LONGEST
    assert name[0] not in ".-~ "
    assert name[-1] not in ". "
    assert name.split(".")[0].rstrip(" ").upper() not in RESERVED
    assert not FORBIDDEN & set(name)
    assert not [char for char in name if unicodedata.category(char)[0] in "CZ"]
    assert name == unicodedata.normalize("NFC", name)


def names_of(name, number, outputs):
    """Return every file name that a download may try."""
    links = tuple(Output(each, "https://files.example/1") for each in range(1, outputs + 1))
    task = Task(1, "0123456789abcdef" * 2, "kling", "image", "m", State.READY, 0.0, name=name, outputs=links)
    return [f"{stem}.jpeg" for stem in stems(task.name, task.key, number, many=len(links) > 1)]


@pytest.mark.slow
@FUZZ
@given(HOSTILE)
@example("CON")
@example("con.txt")
@example("水" * 85)
@example("a" * 178 + ".com1")
@example("com1" + "." * 200)
@example("\ud800")
@example(BIDI + "gnp.exe")
def test_any_text_gives_a_safe_name_with_space_for_suffixes(text):
    name = slug(text)
    is_safe(name)
    is_safe(f"{name}.part")
    longest = max(names_of(name, 64, 64), key=lambda each: len(each.encode()))
    is_safe(longest)
    assert len(longest.encode()) + len(".part.tag") <= LONGEST


@pytest.mark.slow
@FUZZ
@given(HOSTILE)
def test_name_does_not_depend_on_the_unicode_form(text):
    name = slug(text)
    assert slug(name) == name
    assert {slug(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")} == {name}


@pytest.mark.slow
@FUZZ
@given(HOSTILE, HOSTILE)
@example("STRASSE", "straße")
@example("é", "e\u0301")
@example("ΣΑΣ", "σας")
def test_names_equal_to_a_file_system_are_folded_alike(one, other):
    for first, second in ((one, other), (one, one.swapcase()), (one, unicodedata.normalize("NFD", one))):
        if any(alike(form(first), form(second)) for form in (str, str.casefold, str.lower)):
            assert fold_name(first) == fold_name(second)


def alike(first, second):
    return unicodedata.normalize("NFD", first) == unicodedata.normalize("NFD", second)


@pytest.mark.slow
@FUZZ
@given(name=HOSTILE.map(slug), outputs=st.integers(1, 12))
def test_outputs_of_a_task_have_different_names(name, outputs):
    first_two = [names_of(name, number, outputs)[:2] for number in range(1, outputs + 1)]
    names = [fold_name(each) for pair in first_two for each in pair]
    assert len(set(names)) == len(names)


# distinct tasks

TEXTS = (
    "{{ a }}", "{{ index }}", "{{ index }}-{{ a }}", "{{ index }}{{ a }}", "{{ index }} {{- a }}",
    "x{{ index }}{{ a }}", "{{ a }}-{{ key }}", "{{ a | lower }}", "{{ index }}{% if a %}1{% endif %}",
    "{{ index }}1{{ a }}", "x",
)  # fmt: skip
INDICES = st.one_of(st.integers(1, 12), st.integers(1, 10**7))
VALUES = st.one_of(st.text("0123aA-_ éÉ.", max_size=3), HOSTILE)
TASKS = st.lists(st.tuples(INDICES, VALUES), min_size=2, max_size=6, unique_by=lambda task: task[0])


@pytest.mark.slow
@FUZZ
@given(text=st.sampled_from(TEXTS), tasks=TASKS)
@example(text="{{ index }} {{- a }}", tasks=[(1000, "05"), (10000, "5")])
@example(text="{{ index }}{{ a }}", tasks=[(1000, "05"), (10000, "5")])
@example(text="{{ a }}", tasks=[(1, "É"), (2, "e\u0301")])
def test_two_tasks_with_the_same_name_are_reported(text, tasks):
    namer, seen, reported = OutputNamer(text, Template(text) if "{" in text else None), defaultdict(list), []
    for line, (index, value) in enumerate(tasks, 1):
        name = namer.name(index, f"{index:032x}", None, {"a": value}, {})
        is_safe(name)
        if namer.find_same_name(name, index, line):
            reported.append(index)
        seen[fold_name(name)].append(index)
    duplicates = {later for same in seen.values() for later in same[1:]}
    assert reported == [index for index, _ in tasks if index in duplicates]


@settings(FUZZ, max_examples=60 * TIMES)
@given(rows=st.lists(HOSTILE, max_size=5), pattern=st.sampled_from([None, "{{ a }}", "{{ a }}-{{ index }}"]))
@example(rows=["水" * 85, "水" * 90], pattern="{{ a }}-{{ index }}")
def test_manifest_has_unique_task_names_or_is_rejected(tmp_path, rows, pattern):
    lines = [json.dumps({"a": text.encode("utf-8", "replace").decode()}) for text in ["x", *rows]]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    output = f"output: {{name: '{pattern}'}}\n" if pattern else ""
    drafts, problems = expanded(tmp_path / "job.yaml", (HEAD + output).encode())
    assert len({fold_name(draft.name) for draft in drafts}) == len(drafts)
    assert pattern is not None or not problems
    assert all("are both called" in problem.message for problem in problems)
    assert problems or drafts


def expanded(path, text):
    """Return the drafts of a manifest, or its diagnostics."""
    try:
        return list(expand(parse(text, path), Catalogue())), ()
    except ManifestError as error:
        return [], error.diagnostics


# on a disk


@DISK
@given(text=HOSTILE, taken=st.integers(0, 3))
@example("水" * 85, 3)
@example("😀水" * 64, 3)
def test_publish_uses_any_name_and_replaces_none(tmp_path_factory, text, taken):
    directory = tmp_path_factory.mktemp("out")
    names = names_of(slug(text), 1, 2)
    for name in names[:taken]:
        (directory / name).write_bytes(b"existing")
    part = directory / "1-1-1.part"
    part.write_bytes(b"new")
    for name in names[:taken]:
        with pytest.raises(FileExistsError):
            publish(part, directory, name.removesuffix(".jpeg"), "jpeg")
    path = publish(part, directory, names[taken].removesuffix(".jpeg"), "jpeg")
    assert path.read_bytes() == b"new"
    assert {each.name for each in directory.iterdir()} == set(names[: taken + 1])
    assert all((directory / name).read_bytes() == b"existing" for name in names[:taken])
