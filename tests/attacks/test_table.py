"""Every row of the table of attacks has a test that bears its name, or is shown elsewhere, or has its reason."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults.test_table import TESTS, known

ROWS = {
    # a manifest from somebody else
    "X1": "tags that make objects",
    "X2": "aliases that explode",
    "X3": "a hundred thousand levels",
    "X4": "keys twice, texts that become something else",
    "X5": "pictures and data from elsewhere, devices, pipes",
    "X6": "templates that reach, run or fill the memory",
    "X7": "secrets of the environment",
    "X42": "a million tasks, costs without an end",
    "X43": "an address that collects the key",
    # names and bytes of outputs
    "X8": "names that lead out of the directory",
    "X9": "names that collide",
    "X10": "planted links",
    "X11": "names and kinds that a server chooses",
    "X12": "SVG, HTML and programs for a picture",
    "X38": "bombs for parsers of media",
    "X39": "ids in paths",
    # the network
    "X13": "links that lead inward, in every spelling",
    "X14": "addresses that only look public",
    "X15": "names that turn inward between two looks",
    "X16": "redirects inward, down, elsewhere, in circles",
    "X17": "addresses that two parsers read differently",
    "X18": "keys on redirects",
    "X19": "cookies",
    "X20": "compressed bombs",
    "X21": "heads and bodies without an end",
    "X22": "certificates, key logs, proxies",
    "X36": "notices as a way inward or out",
    # secrets
    "X23": "secrets in logs, errors and files",
    "X24": "secrets in the database",
    "X25": "secrets in arguments",
    "X26": "secrets in reports, crashes and doctor",
    "X27": "files of secrets that others can read",
    "X44": "memory on the disk after a crash",
    # what people read
    "X28": "scripts in the gallery",
    "X29": "pictures of the gallery from elsewhere",
    "X30": "formulas in a table",
    "X31": "control characters in a terminal",
    "X32": "forged lines of a log",
    "X35": "hints that are copied into a shell",
    "X37": "a local web page that others can reach",
    # state, code, supply
    "X33": "statements in texts",
    "X34": "databases and journals from somebody else",
    "X40": "what is installed, and what an import does",
    "X41": "data that is run",
}

#: rows that tests of another name show, some of them besides those here
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "X5": ("app/test_album.py::test_a_link_out_of_the_directory_is_followed_before_it_is_judged",),
    "X9": (
        "faults/test_storage.py::test_fd11_two_tasks_of_one_name_are_a_mistake_in_the_manifest",
        "net/test_names_properties.py::test_outputs_of_a_task_have_different_names",
    ),
    "X10": ("report/test_summary.py::test_the_file_is_whole_and_never_written_through_a_link",),
    "X22": (
        "faults/test_network.py::test_fn03_tls_that_cannot_be_trusted",
        "faults/test_network.py::test_fn03_nobody_can_switch_the_check_off",
        "faults/test_network.py::test_fn17_proxies_of_the_environment_are_not_asked",
        "whole/test_bad_input.py::test_a_plain_http_address_elsewhere_is_refused",
    ),
    "X26": (
        "cli/test_checking.py::test_no_value_of_a_credential_is_shown",
        "app/test_doctor.py::test_credentials_are_counted_and_never_shown",
        "app/test_doctor.py::test_a_proxy_is_named_and_its_password_is_not",
    ),
    "X27": (
        "faults/test_storage.py::test_fd09_nothing_of_the_state_is_for_others_while_it_is_written",
        "store/test_account.py::test_a_token_comes_back_and_is_private",
    ),
    "X28": (
        "report/gallery/test_page.py::test_a_name_is_text_and_nothing_else",
        "report/gallery/test_page.py::test_data_is_the_same_as_script_and_as_text",
    ),
    "X29": ("report/gallery/test_page.py::test_the_policy_lets_nothing_in_but_what_is_ours",),
    "X38": (
        "report/gallery/test_darkroom.py::test_what_decodes_can_write_nothing_and_knows_nothing",
        "report/gallery/test_darkroom.py::test_whoever_takes_too_long_is_ended_and_the_rest_is_made",
        "providers/test_heads.py::test_the_sides_of_a_bomb_are_read_and_nothing_is_decoded",
    ),
    "X32": (
        "test_logs.py::test_one_event_is_one_line_whatever_a_provider_says",
        "whole/test_good_days.py::test_json_logs_are_one_object_a_line",
    ),
    "X35": ("report/test_summary.py::test_a_command_that_is_copied_runs_nothing_else",),
    "X36": (
        "app/test_notices.py::test_a_notice_holds_counts_and_nothing_that_a_provider_or_a_prompt_said",
        "net/test_notify.py::test_only_transient_failures_are_retried",
        "net/test_notify.py::test_unreachable_monitor_raises_nothing_and_stays_secret",
        "net/test_notify.py::test_apprise_follows_no_redirect",
    ),
    "X37": (
        "whole/test_serve.py::test_only_a_person_and_the_page_itself_may_ask",
        "whole/test_serve.py::test_without_the_key_there_is_nothing",
        "whole/test_serve.py::test_nothing_can_be_changed",
        "whole/test_serve.py::test_only_what_the_gallery_shows_is_given_out",
    ),
    "X39": (
        "providers/test_dialect.py::test_a_hostile_id_stays_in_its_place",
        "providers/test_dialect.py::test_no_id_at_all_leaves_its_place",
    ),
}

#: rows that do not apply, each with its reason in docs/security.md
NOT_SHOWN: set[str] = set()

_NAMED = re.compile(r"test_x(\d\d)_\w+")
_SECURITY = Path(__file__).parents[2] / "docs/security.md"


def named() -> set[str]:
    hits = [_NAMED.fullmatch(name) for names in known().values() for name in names]
    return {f"X{int(hit[1])}" for hit in hits if hit}


def test_there_are_forty_four_rows():
    assert sorted(int(row[1:]) for row in ROWS) == list(range(1, 45))


def test_every_row_is_shown():
    shown = named() | ELSEWHERE.keys() | NOT_SHOWN
    assert [f"{row}: {about}" for row, about in ROWS.items() if row not in shown] == []
    assert named() <= ROWS.keys()


def test_what_is_shown_elsewhere_is_there():
    places = [place for each in ELSEWHERE.values() for place in each]
    assert [place for place in places if place.split("::")[1] not in known().get(place.split("::")[0], set())] == []
    assert TESTS.is_dir()


def test_what_is_not_shown_is_explained():
    text = _SECURITY.read_text(encoding="utf-8")
    for row in NOT_SHOWN:
        assert re.search(rf"^\| {row} \| .{{20,}}", text, re.MULTILINE), row
