"""A working directory, and a raw server that sends hostile responses."""

from __future__ import annotations

from tests.net.conftest import self_signed, wires
from tests.store.conftest import bench, home
from tests.whole.conftest import desk

__all__ = ["bench", "desk", "home", "self_signed", "wires"]
