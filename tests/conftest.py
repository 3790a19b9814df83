"""Fixtures of all tests."""

import signal
from collections.abc import Generator, Iterator

import pytest

from tests import canary

HANDLERS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
#: seconds that a test may take on a quiet machine without the marker `slow`
LONGEST = 2.0


@pytest.fixture(autouse=True)
def default_signals() -> Iterator[None]:
    """Restore the default signal handlers, for each process of a test as well.

    A suite in the background of a shell inherits an ignored SIGINT, and a run that has ended leaves one behind.
    """
    before = {number: signal.signal(number, handler) for number, handler in HANDLERS.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--canary", action="store_true", help="search every file that the tests leave for the sandbox's keys"
    )
    parser.addoption(
        "--quiet-machine", action="store_true", help=f"fail tests over {LONGEST:g} seconds that are not marked slow"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--canary"):
        canary.plant()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that takes too long without the marker `slow`, where the machine is said to be quiet."""
    report = yield
    too_long = call.when == "call" and call.duration > LONGEST and item.get_closest_marker("slow") is None
    if too_long and report.passed and item.config.getoption("--quiet-machine"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} took {call.duration:.1f} s; mark it slow, or make it faster"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search for canaries in the main process, after all tests."""
    if not session.config.getoption("--canary") or hasattr(session.config, "workerinput"):
        return
    left = session.config._tmp_path_factory.getbasetemp()
    found = sorted(str(path.relative_to(left)) for path in canary.hits(left))
    print("\n  ".join([f"\ncanary: {len(found)} files hold a key", *found[:50]]))
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
