"""What every test starts from."""

import signal
from collections.abc import Iterator

import pytest

from tests import canary

HANDLERS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


@pytest.fixture(autouse=True)
def heard_signals() -> Iterator[None]:
    """Signals do what they usually do, in each process that a test begins as well.

    Whoever starts the suite in the background of a shell hands on an ignored Ctrl-C, and so does a run that has ended.
    """
    before = {number: signal.signal(number, handler) for number, handler in HANDLERS.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--canary", action="store_true", help="look for the sandbox's keys in every file the tests leave")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--canary"):
        canary.plant()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """By the process that hears of all tests, once they are over."""
    if not session.config.getoption("--canary") or hasattr(session.config, "workerinput"):
        return
    left = session.config._tmp_path_factory.getbasetemp()
    found = sorted(str(path.relative_to(left)) for path in canary.hits(left))
    print("\n  ".join([f"\ncanary: {len(found)} files hold a key", *found[:50]]))
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
