"""The live page during a run with faults, in a real browser."""

from __future__ import annotations

import pytest

from tests.whole.conftest import Desk, images, sandbox
from tests.whole.test_serve import served

MANIFEST = (
    images(10, qps=8).replace("thing 2", "违规 <img src=x onerror=alert(1)>").replace("thing 3", "\\u202e</script>")
)


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path)


def test_live_page_follows_run_with_faults(browser, desk):
    desk.write("job.yaml", MANIFEST)
    faults = ("--fault", "poll_500=0.2", "--fault", "cut_download=0.2", "--seconds", "0.5,1")
    with sandbox(*faults) as box, served(desk) as live, browser.page() as seen:
        seen.page.goto(live.url)
        seen.until("document.body.innerText.includes('No job here yet')")
        run = desk.start("run", "job.yaml", "--quiet", env=box.env)
        seen.until("document.querySelector('article .on')")
        seen.until("document.querySelectorAll('.files img').length > 0")
        run.communicate(timeout=40)
        seen.until("document.querySelector('article .off')")
        text = seen.page.locator("article").inner_text()
        assert "9 / 10" in text
        assert "1 failed moderation" in text
        seen.until("[...document.querySelectorAll('.files img')].every(each => each.complete && each.naturalWidth > 0)")
        assert seen.page.locator(".files img").count() == 9
        assert seen.page.locator("article img[src=x]").count() == 0
        with seen.page.context.expect_page() as opened:
            seen.page.click("article header a")
        opened.value.wait_for_selector(".tile img")
        # every request goes to this server; pushes come through one stream, and nothing is requested repeatedly
        own = live.url.rpartition("/")[0]
        assert [url for url in seen.requested if not url.startswith(own)] == []
        assert len([url for url in seen.requested if url.endswith("/events")]) == 1
        assert len(seen.requested) <= 2 + 9 + 1
        assert seen.complaints == []


def test_live_page_shows_disconnect_and_speaks_chinese(browser, desk):
    with browser.page(locale="zh-CN", viewport={"width": 390, "height": 800}, color_scheme="dark") as seen:
        with served(desk) as live:
            seen.page.goto(live.url)
            seen.until("document.body.innerText.includes('这里还没有作业')")
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
        seen.until("document.body.innerText.includes('连接中断')")
