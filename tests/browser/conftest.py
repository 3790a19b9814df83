"""A real Chromium, if there is one, with a record of a page's console messages and network requests."""

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
    """A page, with its console messages and requests."""

    page: object
    #: errors and warnings of the console, exceptions
    complaints: list[str] = field(default_factory=list)
    #: URLs that were requested
    requested: list[str] = field(default_factory=list)

    def until(self, holds: str) -> None:
        """Wait for an expression to be true. Playwright's own method needs `eval`, which the pages' policy forbids."""
        until(lambda: self.page.evaluate(f"Boolean({holds})"), seconds=20)


class Browser:
    def __init__(self, chromium) -> None:
        self._chromium = chromium

    @contextmanager
    def page(self, **options):
        """Return a page in its own context, with `locale`, `viewport`, `color_scheme` and `permissions`."""
        context = self._chromium.new_context(
            **{"locale": "en-GB", "viewport": {"width": 1280, "height": 800}, **options}
        )
        context.set_default_timeout(10_000)
        seen = Seen(context.new_page())
        seen.page.on(
            "console", lambda message: message.type in {"error", "warning"} and seen.complaints.append(message.text)
        )
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.on("request", lambda request: seen.requested.append(request.url))
        try:
            yield seen
        finally:
            context.close()


@pytest.fixture(scope="module")
def browser():
    """Return Chromium under Playwright. Without it, the tests are skipped.

    It lives for one module only: its event loop counts as running, so no async test could have its own.
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
