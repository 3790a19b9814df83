from __future__ import annotations

import pytest

from runner.manifest.scalars import TELLING, resolve

TABLE = [
    ("", None), ("~", None), ("null", None), ("Null", None), ("NULL", None), ("nUll", "nUll"),
    ("true", True), ("True", True), ("TRUE", True), ("false", False), ("tRUE", "tRUE"),
    ("yes", "yes"), ("no", "no"), ("NO", "NO"), ("on", "on"), ("off", "off"), ("y", "y"),
    ("0", 0), ("7", 7), ("-7", -7), ("+7", 7), ("-0", 0), ("012", "012"), ("00", "00"), ("1_000", "1_000"),
    ("0x1F", 31), ("0o17", 15), ("0b11", "0b11"), ("0x", "0x"), ("-0x1", "-0x1"),
    ("9:16", "9:16"), ("12:30:45", "12:30:45"), ("2024-01-02", "2024-01-02"), ("2001-12-14t21:59:43.10-05:00",) * 2,
    ("1.5", 1.5), ("-.5", -0.5), ("1.", 1.0), ("1e3", 1000.0), ("1E-3", 0.001), ("01.5", "01.5"), (".", "."),
    (".inf", ".inf"), ("-.inf", "-.inf"), (".nan", ".nan"), ("1e999", "1e999"), ("-", "-"), ("+", "+"), ("1-2", "1-2"),
    ("١٢", "١٢"), ("18446744073709551615", 2**64 - 1), ("-9223372036854775808", -(2**63)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), TABLE)
def test_core_schema(text, value):
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_other_first_characters_are_text():
    """The reader resolves only scalars with one of these first characters."""
    others = [chr(code) for code in range(0x3000) if chr(code) not in TELLING]
    assert all(
        resolve(first + rest) == first + rest for first in others for rest in ("", "1", "ull", "rue", "alse", "<")
    )
    assert {text[:1] for text, value in TABLE if text != value} | {"<"} <= TELLING


@pytest.mark.parametrize("text", ["18446744073709551616", "-9223372036854775809", "9" * 5000, "0xFFFFFFFFFFFFFFFFF"])
def test_integers_beyond_64_bits_overflow(text):
    with pytest.raises(OverflowError):
        resolve(text)
