from hypothesis import given
from hypothesis import strategies as st

from runner.report.text import duration, harmless, size


def test_durations_and_sizes_read_as_people_say_them():
    assert [duration(value) for value in (None, 0.41, 41, 200, 7500, 100_000)] == [
        "–", "0.4 s", "41 s", "3 min 20 s", "2 h 5 min", "1 d 3 h",
    ]  # fmt: skip
    assert [size(value) for value in (12, 170_306, 2_500_000)] == ["12 B", "170.3 kB", "2.5 MB"]


@given(st.text())
def test_text_of_others_becomes_one_printable_line(text):
    line = harmless(text)
    assert len(line) <= 200
    assert all(char.isprintable() for char in line)
    assert "\u202e" not in harmless("\u202e" + text)
