import pytest

from runner.app.notices import _resolved, notice
from runner.errors import ConfigError
from runner.manifest.notices import filled, unfit, variables
from runner.net.targets import clipped
from runner.settings import Settings

SUMMARY = {
    "job": "nightly",
    "counts": {"done": 38, "in_doubt": 1},
    "submitted": 12,
    "adopted": 1,
    "downloaded": 1,
    "bytes": 2500,
    "cost": None,
    "seconds": 60.0,
    "reasons": ["chanjing: 50005 canary-prompt"],
    "next": "runner resolve canary.yaml",
}


def test_a_notice_holds_counts_and_nothing_that_a_provider_or_a_prompt_said():
    told = notice("nightly\x1b[2J", 4, SUMMARY)
    assert told.title == "nightly [2J: exit 4, possibly paid: tasks are held; a person must decide"
    assert told.body == "38 done, 1 in doubt\n12 submitted, 1 found again, 1 file, 2.5 kB, in 1 min"
    assert "canary" not in told.title + told.body


def test_the_longest_notice_is_one_kilobyte():
    told = notice("长" * 400, 143, SUMMARY)
    assert len(clipped(f"{told.title}\n{told.body}")) <= 1000


def test_a_beginning_and_a_run_that_did_nothing():
    assert notice("n", None, {}).exit_code is None
    assert notice("n", 11, {}).body == "nothing was done"


def test_an_address_is_put_together_from_the_environment():
    settings = Settings({"HC_HOST": "hc.example", "HC_ID": " u-1 "})
    assert _resolved("https://${HC_HOST}/${HC_ID}/${HC_ID}", settings) == "https://hc.example/u-1/u-1"
    with pytest.raises(ConfigError, match="HC_OTHER is not set"):
        _resolved("https://${HC_OTHER}", settings)


def test_what_stands_in_a_value_is_never_looked_into():
    assert filled("${A}${B}", {"A": "${B}", "B": "x"}) == "${B}x"
    assert variables("${A}-${B}-${A}") == ["A", "B"]


@pytest.mark.parametrize("url", ["http://localhost:8000/x", "http://127.0.0.1/x", "http://[::1]:1/x", "${URL}"])
def test_an_address_on_this_machine_is_no_secret(url):
    assert unfit(url) is None


@pytest.mark.parametrize(
    "url", ["https://hc.example/1", "http://127.0.0.1.evil.example/", "", "x", "http://[::1", "$URL"]
)
def test_any_other_address_that_is_written_out_is_refused(url):
    assert unfit(url) is not None
