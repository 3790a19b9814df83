from __future__ import annotations

import pytest

from runner.providers.catalogue import Catalogue
from runner.providers.spreadsheet_values import spreadsheet_damage

RATIOS = ["1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "32:9"]


@pytest.mark.parametrize(
    ("value", "made", "original"),
    [
        ("1:01", "a time", "1:1"),
        ("16:09", "a time", "16:9"),
        ("9:16:00", "a time", "9:16"),
        ("09:16:00.000", "a time", "9:16"),
        ("4:09 PM", "a time", "16:9"),
        ("下午4:09:00", "a time", "16:9"),
        ("00:16:09", "a time", "16:9"),
        ("1899-12-30 16:09:00", "a time", "16:9"),
        ("1900-01-01T08:09:00", "a time", "32:9"),
        ("0.672916666666667", "a time", "16:9"),
        ("0.67292", "a time", "16:9"),
        (0.0423611, "a time", "1:1"),
        ("5:07", "a time", ""),
        ("4-Mar", "a date", "4:3 or 3:4"),
        ("Mar-04", "a date", "4:3 or 3:4"),
        ("3月4日", "a date", "4:3 or 3:4"),
        ("2026/3/4", "a date", "4:3 or 3:4"),
        ("2026-03-04 00:00:00", "a date", "4:3 or 3:4"),
        ("04/03/2026", "a date", "4:3 or 3:4"),
        ("46085", "a date", "4:3 or 3:4"),
        ("2-May", "a date", ""),
    ],
)
def test_what_it_was_is_named(value, made, original):
    assert spreadsheet_damage(value, RATIOS) == (made, original)


@pytest.mark.parametrize(
    "value", ["16x9", "wide", "", True, "7:8", "1.5", "0.5", "2048", "16:9:1:2", "4-Foo", "x" * 100]
)
def test_other_values_are_left_alone(value):
    assert spreadsheet_damage(value, RATIOS) is None


def test_numbers_are_only_suspected_where_ratios_are_expected():
    assert spreadsheet_damage("0.67292", ["std", "pro"]) is None
    assert spreadsheet_damage("46085", [5, 10]) is None


@pytest.mark.parametrize(
    ("params", "message", "hint"),
    [
        ({"aspect_ratio": "16:09:00"}, "a spreadsheet made a time of 16:9", "as text first, then write 16:9; expected"),
        (
            {"n": "1900-01-04"},
            "a spreadsheet made a date of it",
            "as text first, then write it again; expected a whole",
        ),
    ],
)
def test_diagnostic_names_the_cause_and_the_way_back(params, message, hint):
    _, (diagnostic,) = Catalogue().find("kling", "image/kling-v2-1").request({"prompt": "a boat", **params})
    assert message in diagnostic.message
    assert hint in diagnostic.hint
