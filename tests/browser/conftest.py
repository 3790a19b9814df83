"""A real Chromium, where there is one; what a page says on its console, and what it asks the network for, is kept."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.whole.conftest import until

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass
class Seen:
    """A page, and what it did beside what it shows."""

    page: object
    #: errors and warnings of the console, exceptions
    complaints: list[str] = field(default_factory=list)
    #: addresses that were asked for
    asked: list[str] = field(default_factory=list)

    def until(self, holds: str) -> None:
        """Wait for an expression to be true; Playwright's own way needs the `eval` that the pages' policy forbids."""
        until(lambda: self.page.evaluate(f"Boolean({holds})"), seconds=20)


class Browser:
    def __init__(self, chromium) -> None:
        self._chromium = chromium

    @contextmanager
    def page(self, **options):
        """A page in a context of its own: `locale`, `viewport`, `color_scheme`, `permissions`."""
        context = self._chromium.new_context(
            **{"locale": "en-GB", "viewport": {"width": 1280, "height": 800}, **options}
        )
        context.set_default_timeout(10_000)
        seen = Seen(context.new_page())
        seen.page.on("console", lambda said: said.type in {"error", "warning"} and seen.complaints.append(said.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("request", lambda request: seen.asked.append(request.url))
        try:
            yield seen
        finally:
            context.close()


@pytest.fixture(scope="module")
def browser():
    """Chromium under Playwright; without either, what needs it is skipped.

    Not for longer than a module: while it lives, its event loop counts as running, and no async test can have its own.
    """
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        # a container's root has no sandbox of Chromium's; the pages are ours
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield Browser(chromium)
        chromium.close()
