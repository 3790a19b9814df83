"""Errors about a missing or wrong manifest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.app.job import directory_of, load
from runner.errors import JobNotFoundError, ManifestError
from runner.settings import Settings


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "products.yaml").write_text("version: 1\n")
    (tmp_path / "my rows.csv").write_text("a\n1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("products.yml", "did you mean products.yaml?"),
        ("poster.yaml", "check the path"),
        ("p.yaml", "check the path"),
        ("nowhere/products.yaml", "check the path"),
        ("my rows.csv", "is a table, not a manifest; `runner init --items 'my rows.csv'` makes a manifest of it"),
        ("rows.XLSX", "is a table, not a manifest"),
    ],
)
def test_missing_manifest_suggests_what_is_meant(here, name, message):
    with pytest.raises(ManifestError) as raised:
        load(Path(name), Settings({}))
    assert f"{name}: " in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_manifest_is_a_file(here, kind):
    """A pipe is not waited for."""
    path = here / "m.yaml"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    message = "cannot be read: No such file" if kind == "missing" else "is not a file; name a manifest, a YAML file"
    with pytest.raises(ManifestError, match=message):
        load(path, Settings({}))


def test_missing_job_suggests_what_is_meant(here):
    with pytest.raises(JobNotFoundError, match=r"\n  Did you mean products\.yaml\?$"):
        directory_of(Path("product.yaml"))
    with pytest.raises(JobNotFoundError, match=r"\n  Check the path\.$"):
        directory_of(Path("out"))


def test_cap_without_price_is_reported_at_its_source(here):
    text = "version: 1\nprovider: chanjing\nmodel: kling-v2-1\nparams: {prompt: a heron}\n"
    (here / "job.yaml").write_text(text)
    with pytest.raises(ManifestError, match=r"^job\.yaml: --max-cost: nobody knows what kling-v2-1 costs; "):
        load(Path("job.yaml"), Settings({}), has_cost_cap=True)
    (here / "job.yaml").write_text(f"{text}limits: {{max_cost: 5}}\n")
    with pytest.raises(ManifestError, match=r"^job\.yaml:5:20: limits\.max_cost: nobody knows"):
        load(Path("job.yaml"), Settings({}), has_cost_cap=True)
