"""One line for each kind of mistake, however many there are of it."""

from __future__ import annotations

from runner.errors import Diagnostic, ManifestError, condense, kind_of


def bad(line, key="n", value="x", column=1, file="r.csv"):
    return Diagnostic(file, line, column, key, f"`{value}` is no whole number", "write 1")


def test_up_to_three_of_a_kind_have_a_line_each():
    three = [bad(line, value=str(line)) for line in (2, 3, 4)]
    assert condense(three) == [str(each) for each in three]
    assert "more" not in str(ManifestError(three))


def test_many_of_a_kind_have_one_line_with_count_and_places():
    many = [bad(line, value=f"v{line}", column=5) for line in range(2, 500)]
    other = Diagnostic("r.csv", 7, 1, "size", "`3` is no size", "")
    first, second = condense(sorted([*many, other]))
    assert first == "r.csv:2:5: n: `v2` is no whole number; write 1 (498 of this kind, also at 3:5 and 4:5, …)"
    assert second == str(other)


def test_kinds_differ_by_file_column_and_message():
    same = [bad(2), bad(3, value="y"), Diagnostic("r.csv", 9, 2, "n", "`z` is no whole number", "write 5")]
    assert len({kind_of(each) for each in same}) == 1
    assert len({kind_of(each) for each in [bad(2), bad(2, key="m"), bad(2, file="s.csv")]}) == 3
    indices = [Diagnostic("j.yaml", 1, 1, f"items[{at}].n", "line 3 and 4,000 more", "") for at in (1, 22)]
    assert len({kind_of(each) for each in indices}) == 1


def test_error_counts_what_was_not_kept_and_shows_it_in_full():
    kept = [bad(line) for line in range(2, 82)]
    error = ManifestError(kept[:50], omitted=1_030, others=kept[50:], more={kind_of(kept[0]): 1_000})
    first, rest, hint = str(error).split("\n")
    assert first.endswith("(1,080 of this kind, also at 3:1 and 4:1, …)")
    assert rest == "… and 1,079 more: `runner validate --all` shows them line by line"
    assert hint.startswith("  Nothing was sent.")
    full = str(error.in_full()).split("\n")
    assert len(full) == 82
    assert full[-2] == "… and 1,000 more of the same kinds, of which no line is kept"
    assert error.in_full().diagnostics == error.diagnostics


def test_text_is_bounded_however_many_kinds_there_are():
    kinds = [bad(2, key=f"column {chr(65 + at)}{chr(65 + at // 26)}") for at in range(80)]
    lines = str(ManifestError(kinds[:50], omitted=30, others=kinds[50:])).split("\n")
    assert (len(lines), lines[50]) == (52, "… and 30 more: `runner validate --all` shows them line by line")


def test_warnings_stand_below_the_errors_with_their_count():
    warnings = [Diagnostic("r.csv", line, 1, "s", f"`{line}` is strange", "") for line in range(2, 92)]
    error = ManifestError([bad(4)], warnings=[Diagnostic("job.yaml", 3, 2, "", "an axis", ""), *warnings])
    first, axis, row, hint = str(error).split("\n")
    assert first == str(bad(4))
    assert axis == "warning: job.yaml:3:2: an axis"
    assert row == "warning: r.csv:2:1: s: `2` is strange (90 of this kind, also at 3:1 and 4:1, …)"
    assert hint.startswith("  Nothing was sent.")
    assert str(error.in_full()).count("\nwarning: ") == 91
    assert error.in_full().warnings == error.warnings
