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


def test_notification_holds_counts_only():
    """No prompt and no message of a provider leaves the machine."""
    made = notice("nightly\x1b[2J", 4, SUMMARY)
    assert made.title == "nightly [2J: exit 4, possibly paid: tasks are held; a person must decide"
    assert made.body == "38 done, 1 in doubt\n12 submitted, 1 found again, 1 file, 2.5 kB, in 1 min"
    assert "canary" not in made.title + made.body


def test_longest_notification_is_one_kilobyte():
    made = notice("长" * 400, 143, SUMMARY)
    assert len(clipped(f"{made.title}\n{made.body}")) <= 1000


def test_notification_of_start_and_of_empty_run():
    assert notice("n", None, {}).exit_code is None
    assert notice("n", 11, {}).body == "nothing was done"


def test_url_is_filled_in_from_the_environment():
    settings = Settings({"HC_HOST": "hc.example", "HC_ID": " u-1 "})
    assert _resolved("https://${HC_HOST}/${HC_ID}/${HC_ID}", settings) == "https://hc.example/u-1/u-1"
    with pytest.raises(ConfigError, match="HC_OTHER is not set"):
        _resolved("https://${HC_OTHER}", settings)


def test_values_are_not_expanded_again():
    assert filled("${A}${B}", {"A": "${B}", "B": "x"}) == "${B}x"
    assert variables("${A}-${B}-${A}") == ["A", "B"]


@pytest.mark.parametrize("url", ["http://localhost:8000/x", "http://127.0.0.1/x", "http://[::1]:1/x", "${URL}"])
def test_local_url_may_be_written_out(url):
    assert unfit(url) is None


@pytest.mark.parametrize(
    "url", ["https://hc.example/1", "http://127.0.0.1.evil.example/", "", "x", "http://[::1", "$URL"]
)
def test_refuses_other_url_that_is_written_out(url):
    assert unfit(url) is not None
