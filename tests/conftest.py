"""What every test starts from."""

import signal
from collections.abc import Iterator

import pytest

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
