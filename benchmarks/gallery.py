"""The gallery of a job of 10,000 outputs: its size, the time to write it, and the time until a user sees images.

Every output has a thumbnail of its own, of 6 kB. The page is opened from the file system in Chromium (needs Playwright
and Chromium; without them only size and writing are measured).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figure import Figure
from runner.report.gallery import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

TASKS = 10_000
_SEEN = "[...document.querySelectorAll('.tile img')].some(each => each.complete && each.naturalWidth > 0)"
_READ = "document.getElementById('note').textContent === ''"


def measure(bench: Bench) -> Iterator[Figure]:  # noqa: ARG001 - no process of ours is measured
    """Measure sizes and times."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ours = page.open_gallery(directory)
        for number in range(TASKS):
            (ours.folder / f"{_hash(number)[:24]}.webp").write_bytes(_image(number))
        info = {"job": "job", "made": 0.0, "counts": {"done": TASKS}, "total": TASKS, "cost": None, "unit": ""}
        began = time.perf_counter()
        page.write(ours, map(_row, range(TASKS)), info)
        yield Figure("writing the page", time.perf_counter() - began, 1.5, "s")
        yield Figure("the page itself", ours.page.stat().st_size / 1e3, 64, "kB")
        data = sorted(ours.folder.glob("data-*.js"), key=lambda path: path.stat().st_size)
        yield Figure("data of the first part", data[0].stat().st_size / 1e3, 256, "kB")
        yield Figure("data of all", sum(path.stat().st_size for path in data) / 1e6, 16, "MB")
        yield from _opened(ours.page)


def _opened(path: Path) -> Iterator[Figure]:
    chromium = shutil.which("chromium")
    if chromium is None:
        return
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    with sync_playwright() as playwright:
        words = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=words)
        browser.new_page().goto("about:blank")
        seen = browser.new_page()
        began = time.perf_counter()
        seen.goto(path.as_uri(), wait_until="commit")
        while not seen.evaluate(_SEEN):
            pass
        yield Figure("to the first image", time.perf_counter() - began, 1.0, "s")
        while not seen.evaluate(_READ):
            pass
        yield Figure("to all data read", time.perf_counter() - began, 5.0, "s")
        yield Figure("elements", seen.evaluate("document.querySelectorAll('*').length"), 1000)
        browser.close()


def _hash(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def _image(number: int) -> bytes:
    """Return a WebP of noise, as large as a thumbnail."""
    import io  # noqa: PLC0415
    import random  # noqa: PLC0415

    from PIL import Image  # noqa: PLC0415

    seed = random.Random(number % 50)
    small = Image.frombytes("RGB", (40, 40), seed.randbytes(4800)).resize((400, 400))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=74, method=0)
    return file.getvalue()


def _row(number: int) -> dict[str, object]:
    variables = {"subject": f"subject {number % 500}", "style": f"style {number % 5}", "light": f"light {number % 4}"}
    prompt = f"{variables['subject']}, {variables['style']}, " + "a long prompt as people write them, " * 6
    file = {"file": f"{number:05d}-subject.png", "bytes": 1_500_000, "sha256": _hash(number), "media_type": "image/png"}
    return {
        "key": _hash(number)[:32], "position": number + 1, "repeat": 1, "vars": variables, "provider": "chanjing",
        "model": "kling-v2-1", "request": {"ref_prompt": prompt, "aspect_ratio": "1:1"}, "state": "done",
        "remote_id": str(10**17 + number), "reason": None, "code": None, "message": None, "attempts": 0, "doubts": 0,
        "cost": 8.0, "spent": 8.0, "queued_at": 1.8e9, "submitted_at": 1.8e9 + number,
        "finished_at": 1.8e9 + number + 40, "outputs": [file],
    }  # fmt: skip
