"""`max_tasks`: counted before any task is created, for every factor of the product."""

from __future__ import annotations

import time
import tracemalloc

import pytest

HUGE = "a: {from: 1, to: 1000}, b: {from: 1, to: 1000}, c: {from: 1, to: 1000}"

TOO_MANY = [
    (f"matrix: {{{HUGE}}}", "at least 1,000,000,000 tasks (1,000 a × 1,000 b × 1,000 c)"),
    (f"matrix: {{{HUGE}}}\nrepeat: 3", "at least 3,000,000,000 tasks (1,000 a × 1,000 b × 1,000 c × 3 repeat)"),
    (f"matrix: {{{HUGE}, exclude: [{{a: 1}}]}}", "too many tasks of 1,000,000,000 combinations (1,000 a × 1,000 b × "),
    (f"matrix: {{{HUGE}, add: [{{a: 1}}]}}", "at least 1,000,000,001 tasks (1,000 a × 1,000 b × 1,000 c + 1 added)"),
    (
        f"matrix: {{{HUGE}, add: [{{a: 1}}]}}\nitems: [{{s: 1}}, {{s: 2}}]",
        "at least 2,000,000,002 tasks ((1,000 a × 1,000 b × 1,000 c + 1 added) × 2 items)",
    ),
    (
        f"matrix: {{zip: [{{{HUGE.replace('c:', 'd:')}}}, {{e: {{from: 1, to: 1000}}}}]}}",
        "at least 1,000,000 tasks (1,000 a+b+d × 1,000 e)",
    ),
    ("matrix: {a: {file: r.txt}, b: {file: r.txt}, c: {file: r.txt}}", "at least 125,000,000 tasks (500 a × 500 b × "),
    (f"matrix: {{{HUGE}}}\nitems: {{file: r.txt}}", "at least 1,000,000,000 tasks (1,000 a × 1,000 b × 1,000 c)"),
    ("matrix: {add: [{a: 2}, {a: 3}]}\nrepeat: 1000\nlimits: {max_tasks: 5}", "at least 2,000 tasks (2 added × 1,000 "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), TOO_MANY)
def test_product_is_counted_without_building_it(text, message, bench):
    bench.write("r.txt", "".join(f"{number}\n" for number in range(500)))
    began = time.process_time()
    tracemalloc.start()
    try:
        found = bench.error(f"params: {{prompt: x}}\n{text}")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"limits.max_tasks: {message}" in found
    assert found.endswith("are allowed; take some away, or raise `limits.max_tasks`")
    assert time.process_time() - began < 2
    assert peak < 8 << 20


def test_max_tasks_is_reported_beside_other_errors(bench):
    found = bench.errors(f"params: {{prompt: '{{{{ aa }}}}'}}\nmatrix: {{{HUGE}}}\nnmae: x")
    assert [each.key for each in found] == ["limits.max_tasks", "params.prompt", "nmae"]


def test_exclude_brings_a_product_under_the_limit(bench):
    text = """
        params: {prompt: "{{ a }} {{ b }}"}
        matrix: {a: {from: 1, to: 20}, b: {from: 1, to: 20}, exclude: [{a: [%s]}]}
        limits: {max_tasks: 40}
    """
    most = ", ".join(map(str, range(3, 21)))
    assert bench.examine(text % most).tasks == 40
    fewer = bench.error(text % most.replace("3, ", "", 1))
    assert "too many tasks of 400 combinations (20 a × 20 b), and at most 40 are allowed" in fewer


def test_duplicates_count_once_for_max_tasks(bench):
    text = "params: {prompt: '{{ s }}'}\nitems: [{s: 1}, {s: 2}, {s: 1}]\nlimits: {max_tasks: %d}"
    assert bench.examine(text % 2).tasks == 2
    assert "at least 3 tasks (3 items), and at most 1 are allowed" in bench.error(text % 1)


def test_exclude_may_filter_a_file_of_any_length(bench):
    bench.write("r.csv", "prompt,keep\n" + "".join(f"p{number},no\n" for number in range(500)) + "a,yes\nb,yes\n")
    text = "items: {file: r.csv}\nmatrix: {exclude: [{keep: no}]}\nlimits: {max_tasks: 2}"
    assert bench.prompts(text) == ["a", "b"]


def test_combinations_without_tasks_are_limited(bench):
    bench.write("r.csv", "prompt,keep\n" + "".join(f"p{number},no\n" for number in range(500)))
    text = "items: {file: r.csv}\nmatrix: {seed: [1, 2], exclude: [{keep: no}]}\nlimits: {max_tasks: 5}"
    assert "more than 50 combinations that make no new task, and at most 5 are allowed" in bench.error(text)
