"""The search for canaries finds every spelling, and none is planted without a request."""

from __future__ import annotations

import base64
import zlib

import pytest

from tests import canary

ENV = {"KLING_API_KEY": "sandbox-key", "KLING_BASE_URL": "http://127.0.0.1:1", "CHANJING_APP_ID": "app"}


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv(canary.NAME, "canary+0123456789abcdef")
    return canary.planted(ENV)


def test_only_secrets_are_replaced(planted, monkeypatch):
    """Only secrets are replaced, and only where replacement is requested."""
    assert planted == {**ENV, "KLING_API_KEY": "canary+0123456789abcdef-KLING_API_KEY"}
    monkeypatch.delenv(canary.NAME)
    assert canary.planted(ENV) == ENV


@pytest.mark.parametrize("spell", [
    str.encode, lambda key: key.encode().hex().encode(), lambda key: b"?key=canary%2B0123456789abcdef-X",
    lambda key: base64.b64encode(b"user:" + key.encode()), lambda key: base64.b64encode(b"us:" + key.encode()),
    lambda key: base64.b64encode(b"u:" + key.encode()),
])  # fmt: skip
def test_key_is_found_in_every_spelling(planted, tmp_path, spell):
    (tmp_path / "clean").write_bytes(zlib.compress(b"nothing"))
    assert list(canary.hits(tmp_path)) == []
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "log").write_bytes(b"x " + spell(planted["KLING_API_KEY"]) + b" y")
    assert [path.name for path in canary.hits(tmp_path)] == ["log"]
