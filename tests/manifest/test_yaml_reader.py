from __future__ import annotations

import time

import pytest
import yaml

from runner.errors import ManifestError
from runner.manifest import yaml_reader
from runner.manifest.positions import SourceMap


@pytest.fixture(params=["C", "pure"])
def parser(request, monkeypatch):
    if request.param == "pure":
        monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)


def wrong(text: str | bytes) -> list[tuple[int, int, str]]:
    with pytest.raises(ManifestError) as caught:
        yaml_reader.read(text if isinstance(text, bytes) else text.encode(), "job.yaml")
    return [(each.line, each.column, each.message) for each in caught.value.diagnostics]


def test_values_and_their_locations(parser):
    root = yaml_reader.read("a: 9:16\nb:\n  - {c: '1', d: [x, \"y\"]}\n  - no\n鱼: |\n  text\n".encode(), "job.yaml")
    assert root == {"a": "9:16", "b": [{"c": "1", "d": ["x", "y"]}, "no"], "鱼": "text\n"}
    source_map = SourceMap(root)
    assert source_map.location("a") == (1, 4)
    assert source_map.key_location("b") == (2, 1)
    assert source_map.location("b", 0, "d", 1) == (3, 21)
    assert source_map.key_location("b", 0, "d") == (3, 14)
    assert source_map.location("b", 1) == (4, 5)
    assert source_map.location("鱼") == (5, 4)
    assert source_map.location("b", 7, "x") == (3, 3)
    assert source_map.key_location("nowhere") == (1, 1)


def test_bom_crlf_and_flow_ratios(parser):
    text = b"\xef\xbb\xbfmatrix: {aspect_ratio: [1:1, 9:16]}\r\nadd: [{style: neon, aspect_ratio: 16:9}]\r\n"
    assert yaml_reader.read(text, "job.yaml") == {
        "matrix": {"aspect_ratio": ["1:1", "9:16"]},
        "add": [{"style": "neon", "aspect_ratio": "16:9"}],
    }


def test_quoted_scalars_are_text(parser):
    assert yaml_reader.read(b"a: '1'\nb: \"true\"\nc: ''\nd: 'null'\n", "f") == {
        "a": "1",
        "b": "true",
        "c": "",
        "d": "null",
    }


def test_alias_is_the_same_value(parser):
    root = yaml_reader.read(b"a: &x {k: [1, 2]}\nb: *x\nc: &s text\nd: *s\n", "f")
    assert root["b"] is root["a"]
    assert root["d"] == "text"


REFUSED = [
    ("a: 1\na: 2\n", 2, 1, "stands here twice, first in line 1"),
    ("a: {b: 1, b: 2}\n", 1, 11, "twice"),
    ("1: a\n", 1, 1, "must be text"),
    ("true: a\n", 1, 1, "must be text"),
    ("~: a\n", 1, 1, "must be text"),
    ("a:\n  [x]: 1\n", 2, 3, "a list stands where a key"),
    ("prompt: {{ subject }}\n", 1, 10, "a mapping stands where a key"),
    ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, 3, "merge key"),
    ("a: !!python/object/apply:os.system ['touch pwned']\n", 1, 4, "the tag `!!python/object/apply:os.system`"),
    ("a: !!str 1\n", 1, 4, "the tag `!!str`"),
    ("a: ! 1\n", 1, 4, "the tag `!`"),
    ("a: !mine {b: 1}\n", 1, 4, "the tag `!mine`"),
    ("a: *star\n", 1, 4, "the alias `*star` has no anchor"),
    ("a: &x [*x]\n", 1, 8, "inside its own anchor"),
    ("a: 1\n---\nb: 2\n", 2, 1, "a second document"),
    ("", 0, 0, "the file is empty"),
    ("# only a comment\n", 0, 0, "the file is empty"),
    ("- a\n", 1, 1, "expected a mapping"),
    ("text\n", 1, 1, "expected a mapping"),
    ("a:\n\t- b\n", 2, 1, "a tab"),
    ("a: b: c\n", 1, 5, "a `: ` where none can be"),
    ("version：1\nprovider: x\n", 1, 8, "a full-width colon `：` stands where `: ` should"),
    ("a: 1\nb：x\nc: 2\n", 2, 2, "a full-width colon"),
    ("a:\n  b: 1\n  c ： x\n  d: 2\n", 3, 5, "a full-width colon"),
    ("a: 画面：猫\n  b: 2\n", 2, 4, "a `: ` where none can be"),
    ("a: [1, 2\n", 2, 1, ""),
    ("a: 'x\n", 2, 1, "the file ends inside"),
    ("a: @x\n", 1, 4, "may not begin with this character"),
    ("a: 1\n  b: 2\n", 2, 4, ""),
    ("a: 99999999999999999999\n", 1, 4, "beyond 64 bits"),
    (b"a: 1\nb: \xff\n", 2, 4, "not UTF-8"),
    (b"\xff\xfea\x00", 1, 1, "not UTF-8"),
    ("a: 1\nb: x\x01\n", 2, 5, "a control character"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), REFUSED)
def test_yaml_error_has_its_location(text, line, column, message, parser):
    found = wrong(text)
    assert found[0][:2] == (line, column)
    assert message in found[0][2]


def test_all_yaml_errors_at_once():
    text = "a: 1\na: 2\n3: x\nb: !!int 4\nc: *none\nd: [1\n"
    assert [(line, column) for line, column, _ in wrong(text)] == [(2, 1), (3, 1), (4, 4), (5, 4), (7, 1)]


def test_nothing_of_a_file_is_run(tmp_path):
    marker = tmp_path / "pwned"
    assert wrong(f"a: !!python/object/apply:os.system ['touch {marker}']\n")
    assert not marker.exists()


def test_largest_depth():
    assert yaml_reader.read(b"a: " + b"[" * 63 + b"]" * 63, "f")
    assert wrong("a: " + "[" * 64 + "]" * 64) == [(1, 67, "nested deeper than 64 levels")]


@pytest.mark.parametrize("depth", [65, 500, 2_000, 100_000])
@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_depth_is_refused_quickly(depth, opening, parser):
    began = time.process_time()
    assert any("nested deeper" in message for *_, message in wrong(opening * depth))
    assert time.process_time() - began < 1


def test_billion_laughs():
    lines = ["a0: &a0 [" + ", ".join(["lol"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 10)]
    began = time.process_time()
    assert any("aliases" in message for *_, message in wrong("\n".join(lines)))
    assert time.process_time() - began < 0.1


def test_at_most_a_thousand_aliases():
    assert yaml_reader.read(b"a: &a x\nb: [" + b"*a, " * 1000 + b"]", "f")
    assert "aliases" in wrong("a: &a x\nb: [" + "*a, " * 1001 + "]")[0][2]


def test_aliases_cannot_hide_depth():
    chain = ["a0: &a0 " + "[" * 30 + "]" * 30]
    chain += [f"a{n}: &a{n} " + "[" * 30 + f"*a{n - 1}" + "]" * 30 for n in range(1, 4)]
    assert "through aliases" in wrong("\n".join(chain))[0][2]


def test_large_file_is_refused(monkeypatch):
    monkeypatch.setattr(yaml_reader, "MAX_BYTES", 10)
    assert "at most" in wrong("a: 1234567890\n")[0][2]


@pytest.mark.slow
def test_speed():
    text = b"items:\n" + b"".join(b"- {subject: a cat number %d, style: ink, n: %d}\n" % (n, n) for n in range(30_000))
    began = time.process_time()
    assert len(yaml_reader.read(text, "f")["items"]) == 30_000
    assert time.process_time() - began < 3
