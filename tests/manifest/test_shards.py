"""Outputs spread over directories: what names them, and when a manifest is advised to do so."""

from __future__ import annotations

import pytest

TEXT = "params: {prompt: '{{ s }}'}\nmatrix: {s: [a, b, c]}\n"


@pytest.mark.parametrize(("shards", "digits"), [(256, 2), (4096, 3)])
@pytest.mark.parametrize("name", ["", "name: '{{ s }}', "])
def test_key_names_the_directory(bench, shards, digits, name):
    plain = bench.drafts(f"{TEXT}output: {{{name}dir: x}}\n")
    sharded = bench.drafts(f"{TEXT}output: {{{name}shards: {shards}}}\n")
    assert [each.name for each in sharded] == [f"{each.key[:digits]}/{each.name}" for each in plain]
    assert [each.key for each in sharded] == [each.key for each in plain], (
        "where it stands is no part of what is bought"
    )


def test_naming_changes_with_the_shards(bench):
    texts = ("", "output: {shards: 256}\n", "output: {shards: 4096}\n", "output: {name: '{{ s }}'}\n",
             "output: {name: '{{ s }}', shards: 256}\n")  # fmt: skip
    names = [bench.parsed(TEXT + each).manifest.naming for each in texts]
    assert names[0] == ""
    assert names[3] == "{{ s }}"
    assert len(set(names)) == len(texts)


@pytest.mark.parametrize("value", ["0", "16", "1000", "'256'", "true", "auto", "256.0", "[256]"])
def test_other_numbers_of_shards_are_refused(bench, value):
    error = bench.error(f"{TEXT}output: {{shards: {value}}}\n")
    assert "output.shards: 256 or 4096 directories; found" in error
    assert "256 is enough for two million files" in error


def test_many_outputs_in_one_directory_are_a_warning(bench, monkeypatch):
    monkeypatch.setattr("runner.manifest.expand.MAX_FILES", 2)
    (warning,) = bench.warnings(TEXT)
    assert "output.shards: 3 outputs in one directory" in warning
    assert "`output: {shards: 256}` spreads them" in warning
    assert bench.warnings(TEXT + "output: {shards: 256}\n") == []
    monkeypatch.setattr("runner.manifest.expand.MAX_FILES", 3)
    assert bench.warnings(TEXT) == []
