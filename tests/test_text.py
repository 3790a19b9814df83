import re
import shlex
import subprocess
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from runner.text import format_duration, format_rate, format_size, pluralize, sanitize, shell_join


def test_durations_and_sizes_are_readable():
    assert [format_duration(value) for value in (None, 0.41, 41, 200, 7500, 100_000)] == [
        "–", "0.4 s", "41 s", "3 min 20 s", "2 h 5 min", "1 d 3 h",
    ]  # fmt: skip
    assert [format_size(value) for value in (12, 170_306, 2_500_000)] == ["12 B", "170.3 kB", "2.5 MB"]


def test_rounding_moves_to_the_next_unit():
    assert [format_duration(value) for value in (9.96, 59.7, 60, 359.6, 360, 3599.6, 3600, 7199.6, 86399.6)] == [
        "10 s", "1 min", "1 min", "6 min", "6 min", "1 h", "1 h", "2 h", "1 d",
    ]  # fmt: skip
    assert [format_size(value) for value in (999, 999_960, 999_960_000, 5e12)] == [
        "999 B",
        "1.0 MB",
        "1.0 GB",
        "5.0 TB",
    ]


@given(st.floats(0, 1e9))
def test_no_unit_is_as_large_as_the_next(seconds):
    parts = re.findall(r"([\d.]+) (\w+)", format_duration(seconds))
    assert all(float(count) < {"s": 60, "min": 60, "h": 24}.get(unit, 1e5) for count, unit in parts)
    assert [unit for count, unit in parts[1:] if float(count) == 0] == []


def test_counts_agree_with_their_noun():
    assert [pluralize(count, "task") for count in (0, 1, 2, 1000)] == ["0 tasks", "1 task", "2 tasks", "1,000 tasks"]


def test_rate_uses_the_unit_that_makes_it_at_least_one():
    assert [format_rate(rate) for rate in (20, 1.94, 0.2, 1 / 60, 0.001, 0)] == [
        "20/s", "1.9/s", "12/min", "1/min", "3.6/h", "0/s",
    ]  # fmt: skip


@given(st.text())
def test_foreign_text_becomes_one_printable_line(text):
    line = sanitize(text)
    assert len(line) <= 200
    assert all(char.isprintable() for char in line)
    assert "\u202e" not in sanitize("\u202e" + text)


def test_white_space_collapses_and_a_cut_ends_in_an_ellipsis():
    assert sanitize(" a\u3000\x1b[2J\n b ") == "a [2J b"
    assert sanitize("abcdef", 4) == "abc…"
    assert sanitize("abcdef", None) == "abcdef"


def test_without_collapse_every_character_keeps_its_place():
    assert sanitize(" a\u3000\x1b[2J\n b ", collapse=False) == " a  [2J  b "
    assert sanitize("abcdef", 4, collapse=False) == "abcd"


def test_escapes_show_what_was_there():
    """A space of any width is no control character."""
    assert sanitize("a\u3000\x1b\n\u202e\ud800 b", None, collapse=False, escape=True) == (
        "a\u3000\\x1b\\n\\u202e\\ud800 b"
    )


@given(st.text(), st.booleans(), st.booleans())
def test_nothing_that_steers_a_terminal_is_left(text, collapse, escape):
    line = sanitize(text, collapse=collapse, escape=escape)
    assert len(line) <= 200
    assert all(char.isprintable() or (escape and unicodedata.category(char) == "Zs") for char in line)


def test_a_name_in_chinese_needs_no_quotes():
    assert shell_join("runner", "run", "商品-青瓷.yaml") == "runner run 商品-青瓷.yaml"
    assert shell_join("it's here.yaml", "$(ls)", "") == "'it'\"'\"'s here.yaml' '$(ls)' ''"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=4))
def test_quoted_words_survive_splitting(words):
    assert shlex.split(shell_join(*words)) == words


def test_letters_of_any_language_need_no_quotes():
    """Letters of all kinds, including those that look like blanks or punctuation."""
    words = ["ª", "ⅷ", "ㄱ", "ﾡ", "٣", "商品", "naïve", "_", "ʼ"]
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {shell_join(*words)}"], capture_output=True, check=True)
    assert done.stdout.decode().split("\n")[:-1] == words
