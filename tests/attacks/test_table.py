"""Every row of the attack table has a test named after it, or is listed here with other tests or a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.test_table import TESTS, known

ROWS = {
    # a hostile manifest
    "X1": "tags that make objects",
    "X2": "aliases that explode",
    "X3": "a hundred thousand levels",
    "X4": "keys twice, texts that become something else",
    "X5": "images and data from elsewhere, devices, pipes",
    "X6": "templates that reach, run or fill the memory",
    "X7": "secrets of the environment",
    "X42": "a million tasks, costs without an end",
    "X43": "an address that collects the key",
    # names and bytes of outputs
    "X8": "names that lead out of the directory",
    "X9": "names that collide",
    "X10": "planted links",
    "X11": "names and kinds that a server chooses",
    "X12": "SVG, HTML and programs instead of an image",
    "X38": "bombs for parsers of media",
    "X39": "ids in paths",
    # the network
    "X13": "links that lead inward, in every spelling",
    "X14": "addresses that only look public",
    "X15": "names that resolve to another address the second time",
    "X16": "redirects inward, down, elsewhere, in circles",
    "X17": "addresses that two parsers read differently",
    "X18": "keys on redirects",
    "X19": "cookies",
    "X20": "compressed bombs",
    "X21": "heads and bodies without an end",
    "X22": "certificates, key logs, proxies",
    "X36": "notifications as a way inward or out",
    # secrets
    "X23": "secrets in logs, errors and files",
    "X24": "secrets in the database",
    "X25": "secrets in arguments",
    "X26": "secrets in reports, crashes and doctor",
    "X27": "files of secrets that others can read",
    "X44": "memory on the disk after a crash",
    # output that users read
    "X28": "scripts in the gallery",
    "X29": "images of the gallery from elsewhere",
    "X30": "formulas in a table",
    "X31": "control characters in a terminal",
    "X32": "forged lines of a log",
    "X35": "hints that are copied into a shell",
    "X37": "a local web page that others can reach",
    # state, code, supply
    "X33": "statements in texts",
    "X34": "hostile databases and journals",
    "X40": "what is installed, and what an import does",
    "X41": "data that is run",
}

#: rows that tests of another name show, some of them besides those here
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "X5": ("app/test_image_files.py::test_refuses_link_out_of_directory",),
    "X9": (
        "faults/test_storage.py::test_fd11_two_tasks_with_one_file_name_are_an_error",
        "net/test_names_properties.py::test_outputs_of_a_task_have_different_names",
    ),
    "X10": ("report/test_summary.py::test_the_file_is_whole_and_never_written_through_a_link",),
    "X22": (
        "faults/test_network.py::test_fn03_untrusted_tls",
        "faults/test_network.py::test_fn03_tls_check_cannot_be_disabled",
        "faults/test_network.py::test_fn17_proxies_of_environment_are_not_used",
        "whole/test_bad_input.py::test_plain_http_url_is_refused",
    ),
    "X26": (
        "cli/test_doctor.py::test_no_value_of_a_credential_is_shown",
        "app/test_health_checks.py::test_credentials_are_shown_only_as_a_mark",
        "app/test_health_checks.py::test_names_proxy_without_its_password",
    ),
    "X27": (
        "faults/test_storage.py::test_fd09_state_is_private_while_it_is_written",
        "store/test_account.py::test_a_token_comes_back_and_is_private",
    ),
    "X28": (
        "report/gallery/test_page.py::test_name_is_only_text",
        "report/gallery/test_page.py::test_data_is_equal_as_script_and_as_text",
    ),
    "X29": ("report/gallery/test_page.py::test_policy_allows_only_our_own_content",),
    "X38": (
        "report/gallery/test_thumbnails.py::test_worker_cannot_write_and_has_no_secrets",
        "report/gallery/test_thumbnails.py::test_slow_worker_is_killed_and_the_rest_is_made",
        "providers/test_image_headers.py::test_decompression_bomb_is_not_decoded",
    ),
    "X32": (
        "test_logs.py::test_event_is_one_line_whatever_a_provider_sends",
        "whole/test_good_days.py::test_json_logs_are_one_object_per_line",
    ),
    "X35": ("report/test_summary.py::test_a_command_that_is_copied_runs_nothing_else",),
    "X36": (
        "app/test_notify.py::test_notification_holds_counts_only",
        "net/test_webhooks.py::test_only_transient_failures_are_retried",
        "net/test_webhooks.py::test_unreachable_monitor_raises_nothing_and_stays_secret",
        "net/test_webhooks.py::test_apprise_follows_no_redirect",
    ),
    "X37": (
        "whole/test_serve.py::test_only_user_and_own_page_may_send_requests",
        "whole/test_serve.py::test_requests_without_key_are_refused",
        "whole/test_serve.py::test_server_is_read_only",
        "whole/test_serve.py::test_only_files_of_gallery_are_served",
    ),
    "X39": (
        "providers/test_requests.py::test_hostile_id_is_percent_encoded",
        "providers/test_requests.py::test_any_id_is_percent_encoded",
    ),
}

#: rows that do not apply, each with its reason in docs/security.md
NOT_SHOWN: set[str] = set()

_NAMED = re.compile(r"test_x(\d\d)_\w+")
_SECURITY = Path(__file__).parents[2] / "docs/security.md"


def named() -> set[str]:
    hits = [_NAMED.fullmatch(name) for names in known().values() for name in names]
    return {f"X{int(hit[1])}" for hit in hits if hit}


def test_table_has_44_rows():
    assert sorted(int(row[1:]) for row in ROWS) == list(range(1, 45))


@pytest.mark.slow
def test_every_row_has_a_test():
    shown = named() | ELSEWHERE.keys() | NOT_SHOWN
    assert [f"{row}: {about}" for row, about in ROWS.items() if row not in shown] == []
    assert named() <= ROWS.keys()


def test_tests_named_elsewhere_exist():
    places = [place for each in ELSEWHERE.values() for place in each]
    assert [place for place in places if place.split("::")[1] not in known().get(place.split("::")[0], set())] == []
    assert TESTS.is_dir()


def test_rows_without_test_are_explained():
    text = _SECURITY.read_text(encoding="utf-8")
    for row in NOT_SHOWN:
        assert re.search(rf"^\| {row} \| .{{20,}}", text, re.MULTILINE), row
