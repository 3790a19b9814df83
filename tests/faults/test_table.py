"""Every row of the fault table has a test named after it, or is listed here with other tests or a reason."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

ROWS = {
    # process and host
    "FP1": "kill -9 at every named point, and again during the recovery",
    "FP2": "kill -9 at random times",
    "FP3": "power loss: unsynced writes vanish or change order",
    "FP4": "out of memory",
    "FP5": "SIGINT once",
    "FP6": "SIGINT two or three times",
    "FP7": "SIGTERM, SIGHUP",
    "FP8": "SIGPIPE, closed stdout",
    "FP9": "a stopped process, a suspended machine",
    "FP10": "two runs of the same job",
    "FP11": "two jobs on one account",
    "FP12": "upgrade or downgrade with an open job",
    "FP13": "fork or exec with an open database",
    "FP14": "an unhandled exception in one task's work",
    # storage
    "FD1": "disk full while writing intent or id",
    "FD2": "disk full during a download",
    "FD3": "inodes or quota used up, name too long, read-only, no permission",
    "FD4": "EIO, fsync error",
    "FD5": "database locked by another process",
    "FD6": "database corrupt or no database",
    "FD7": "database cut, deleted, put back, copied without its log",
    "FD8": "network or overlay file system",
    "FD9": "state readable by others",
    "FD10": "output deleted or changed after it was done",
    "FD11": "two tasks render one file name",
    "FD12": "output directory moved between runs",
    # clock
    "FC1": "the wall clock jumps, 1970 at boot",
    "FC2": "skew against the provider",
    "FC3": "suspend",
    "FC4": "cron fires twice or runs overlap",
    # network
    "FN1": "name lookup fails",
    "FN2": "refused, unreachable, connect timeout",
    "FN3": "TLS failure, wrong host",
    "FN4": "pool exhausted",
    "FN5": "reset before the request is read",
    "FN6": "reset or timeout while sending the body",
    "FN7": "answer lost after accept",
    "FN8": "truncated body",
    "FN9": "slow drip",
    "FN10": "HTML with 200, captive portal",
    "FN11": "bad JSON, duplicate keys, huge numbers, deep nesting",
    "FN12": "huge JSON, huge header, gzip bomb",
    "FN13": "bad gzip",
    "FN14": "API redirects",
    "FN15": "smuggled second answer, flood of 1xx, no Content-Length",
    "FN16": "a proxy delivers the POST twice",
    "FN17": "proxy variables set by accident",
    "FN18": "IPv6 black hole, name lookup of 30 s",
    "FN19": "an address of web pages",
    "FN20": "a company's proxy and authority",
    # credentials, limits, outages
    "FA1": "401 or a dead token in mid-run",
    "FA2": "refresh endpoint down, or the same dead token",
    "FA3": "credentials revoked",
    "FA4": "burst of 40001",
    "FA5": "Kling 1302, 1303",
    "FA6": "429 with every kind of Retry-After",
    "FA7": "429, 402 or 403 that means no money",
    "FA8": "5xx storm",
    "FA9": "maintenance for hours",
    "FA10": "burst of doubtful submits",
    "FA11": "unknown business code",
    "FA12": "throttled list or poll starves submits",
    "FA13": "a gateway that is busy",
    # provider semantics
    "FV1": "task that never ends",
    "FV2": "state goes backwards",
    "FV3": "unknown, null or numeric state word",
    "FV4": "id missing, empty, huge, hostile",
    "FV5": "the same id for two submits",
    "FV6": "poll answers for another id, batch omits or adds",
    "FV7": "404 for a known id",
    "FV8": "success without outputs",
    "FV9": "fewer or more outputs than ordered",
    "FV10": "output URLs repeated or reordered",
    "FV11": "content refused",
    "FV12": "failed task is bought again only on a word",
    "FV13": "fields added, removed, renamed",
    "FV14": "list unordered, rows shift between pages",
    "FV15": "the list shows other people's tasks",
    "FV16": "duplicate made by the provider, cancel in the console",
    # outputs
    "FO1": "link expired",
    "FO2": "truncated download",
    "FO3": "empty body, HTML or JSON with 200",
    "FO4": "right magic, cut file",
    "FO5": "endless body, huge length, one byte a second",
    "FO6": "gzip on media",
    "FO7": "wrong type: svg, html, exe",
    "FO8": "redirects of downloads",
    "FO9": "one link, other bytes later",
    "FO10": "crash between rename and done",
    # money
    "FM1": "balance ends in mid-batch",
    "FM2": "price above the estimate",
    "FM3": "manifest edited, then run again",
    "FM4": "run again under a new name",
    "FM5": "loops of retry",
}

#: rows that tests of another name show, each as `file::test`
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "FN19": (
        "api/test_odd_gateways.py::test_fn19_web_pages_alone_are_a_wrong_address",
        "api/test_odd_gateways.py::test_fn19_page_of_a_host_that_answers_questions_is_a_doubt",
    ),
    "FN20": (
        "net/test_proxy.py::test_requests_go_through_tunnels_and_show_the_proxy_nothing",
        "net/test_proxy.py::test_refused_tunnel_was_not_sent",
        "net/test_proxy.py::test_tunnel_that_ends_after_the_request_is_a_doubt",
    ),
    "FA13": (
        "api/test_odd_gateways.py::test_fa13_busy_answers_now_and_then_stop_no_submits",
        "api/test_odd_gateways.py::test_fa13_gateway_that_is_always_busy_is_left_alone",
    ),
    # what thousands of kills show is the campaign's business (`make torture`); thirty are in every run of the tests
    "FP1": ("simulation/test_simulation.py::test_invariants_hold_after_every_event",),
    "FP2": (
        "campaigns/test_smoke.py::test_thirty_kills_lose_nothing_and_pay_nothing_twice",
        "whole/test_bad_days.py::test_repeated_kill_9_pays_every_task_once",
    ),
    # what else the jobs of an account share: claims and the token
    "FP11": (
        "whole/test_bad_days.py::test_jobs_with_same_prompts_keep_their_own_tasks",
        "whole/test_bad_days.py::test_jobs_of_one_account_share_one_token",
        "store/test_claims.py::test_of_many_who_ask_at_once_one_gets_it",
    ),
    "FD7": (
        "whole/test_verbs.py::test_missing_or_broken_database_is_never_recreated",
        "whole/test_verbs.py::test_old_database_is_refused_and_rebuilt",
        "whole/test_memory.py::test_old_copy_of_state_is_refused",
    ),
    "FD12": ("whole/test_memory.py::test_deleted_job_directory_is_detected",),
    "FC3": (
        "faults/test_signals.py::test_fp09_no_burst_after_sigstop",
        "ratelimit/test_window.py::test_no_burst_after_a_suspend",
    ),
    "FC4": ("faults/test_process.py::test_fp10_one_of_ten_runs_works_and_next_takes_over",),
    "FM2": (
        "whole/test_money.py::test_job_pauses_before_exceeding_its_cap",
        "whole/test_money.py::test_in_doubt_counts_as_spent",
    ),
    "FM4": ("whole/test_memory.py::test_same_tasks_under_another_name_are_not_bought",),
}

#: rows that cannot be shown on loopback, and why
NOT_SHOWN: dict[str, str] = {}

_NAMED = re.compile(r"test_(f[pdcnavom])(\d\d)_\w+")


@cache
def known() -> dict[str, set[str]]:
    """Return the names of all test functions, by file."""
    found = {}
    for path in TESTS.rglob("test_*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        found[path.relative_to(TESTS).as_posix()] = {name for name in functions if name.startswith("test_")}
    return found


def named() -> set[str]:
    """Return the rows that tests are named after."""
    hits = [_NAMED.fullmatch(name) for names in known().values() for name in names]
    return {f"{hit[1].upper()}{int(hit[2])}" for hit in hits if hit}


@pytest.mark.slow
def test_every_row_has_a_test():
    shown = named() | ELSEWHERE.keys() | NOT_SHOWN.keys()
    assert [f"{row}: {about}" for row, about in ROWS.items() if row not in shown] == []


def test_test_names_refer_to_existing_rows():
    assert named() - ROWS.keys() == set()


def test_tests_named_elsewhere_exist():
    places = [place for each in ELSEWHERE.values() for place in each]
    assert [place for place in places if place.split("::")[1] not in known().get(place.split("::")[0], set())] == []


def test_rows_without_test_have_no_test():
    """A row is not listed as untestable while a test covers it."""
    assert NOT_SHOWN.keys() & (named() | ELSEWHERE.keys()) == set()
    assert all(len(reason) > 20 for reason in NOT_SHOWN.values())
    assert (ELSEWHERE.keys() | NOT_SHOWN.keys()) <= ROWS.keys()
