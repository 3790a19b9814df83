"""Rows in the form in which the store returns them."""

from __future__ import annotations

import hashlib

import pytest


def output(file="a.png", sha256=None, media_type="image/png", size=3):
    sha256 = hashlib.sha256(file.encode(errors="replace")).hexdigest() if sha256 is None else sha256
    return {"number": 1, "file": file, "bytes": size, "sha256": sha256, "media_type": media_type}


def row(**fields):
    return {
        "key": "k1", "position": 1, "repeat": 1, "vars": {"subject": "猫"}, "provider": "p", "model": "m",
        "request": {"prompt": "猫"}, "state": "done", "remote_id": "r1", "reason": None, "code": None, "message": None,
        "attempts": 0, "doubts": 0, "cost": 4.0, "spent": 4.0, "queued_at": 0.0, "submitted_at": 1.5,
        "finished_at": None, "outputs": [output()], **fields,
    }  # fmt: skip


@pytest.fixture
def info():
    return {"job": "job", "made": 0.0, "counts": {"done": 1}, "total": 1, "cost": 4.0, "unit": "beans"}
