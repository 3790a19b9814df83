"""The gallery of a mixed job, from the file system, in a real browser."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - part of a value

import pytest

from tests.whole.conftest import Desk, sandbox

#: 4 subjects, 4 styles (one of which is refused), 3 lights, 2 ratios, 3 of each, and a dozen videos
MIXED = """\
version: 1
name: lamps 江南
params: {prompt: "{{ subject }}, {{ style }}, {{ light }}"}
items:
  - {subject: a paper lantern}
  - {subject: a heron}
  - {subject: 乌篷船}
  - {subject: '"><img src=x onerror=alert(1)>'}
matrix:
  light: [fog, dusk, neon]
  aspect_ratio: ["1:1", "9:16"]
  style: [ink, oil, photo, 违规]
  add:
    - {style: film, light: dusk, model: tx_kling-v2-1-master, duration: 5, aspect_ratio: "1:1"}
repeat: 3
provider: chanjing
model: kling-v2-1
limits: {qps: 500}
"""
REFUSED = 72
#: requested changes are drawn with the next frame
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass(frozen=True)
class Made:
    directory: Path
    results: list[dict]

    @property
    def url(self) -> str:
        return (self.directory / "index.html").as_uri()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    """Make a job of 300 outputs: images, videos and refusals."""
    desk = Desk(tmp_path_factory.mktemp("gallery"))
    desk.write("lamps.yaml", MIXED)
    with sandbox("--seconds", "0.1,0.3", "--video-seconds", "0.1,0.3") as box:
        summary = desk.job("lamps.yaml", env=box.env)
    assert summary["counts"] == {"done": 228, "failed": REFUSED}, summary
    shown = json.loads(desk.run("gallery", "lamps.yaml", "--json").stdout)
    assert (shown["tasks"], shown["thumbnails"]) == (300, {"made": 228, "refused": 0, "unable": 0})
    return Made(desk.root / "out/lamps 江南", desk.results("out/lamps 江南"))


@pytest.fixture
def opened(browser, made):
    """Open the gallery, and check at last that the page logged no error and sent no request."""
    with browser.page() as seen:
        seen.page.goto(made.url)
        seen.page.wait_for_selector(".tile")
        seen.until("document.getElementById('note').textContent === ''")
        yield seen
        assert seen.complaints == []
        assert [url for url in seen.requested if not url.startswith(made.directory.as_uri())] == []


def walk(seen) -> int:
    """Return the number of tiles, rendered or not."""
    seen.page.locator(".tile").first.click()
    text = seen.page.locator("#detail nav span").inner_text()
    seen.page.keyboard.press("Escape")
    return int(re.search(r"of (\d+)", text)[1])


def test_page_opens_from_file_and_renders_visible_tiles_only(opened):
    """The page opens with a file URL and renders only the tiles in view."""
    assert opened.page.locator("h1").inner_text() == "lamps 江南"
    assert opened.page.locator("#sum").inner_text().startswith("300 tasks · ")
    assert 10 < opened.page.locator(".tile").count() < 80
    assert walk(opened) == 300
    loaded = (
        "[...document.querySelectorAll('.tile img')].slice(0, 5).every(each => each.complete && each.naturalWidth > 0)"
    )
    opened.until(loaded)
    opened.page.keyboard.press("End")
    opened.page.wait_for_selector('.tile[data-at="299"]')
    assert opened.page.locator(".tile").count() < 80
    assert opened.page.locator('.tile[data-at="0"]').count() == 0


def test_contact_sheet_has_rows_and_columns_by_variable(opened):
    """A contact sheet has rows by one variable and columns by another."""
    opened.page.select_option("#rows", "vars.subject")
    opened.page.select_option("#columns", "vars.style")
    opened.page.wait_for_selector(".heads")
    assert opened.page.locator(".heads b").all_inner_texts() == ["ink", "oil", "photo", "违规", "film"]
    first = opened.page.locator(".group").first
    assert (first.locator("h2").inner_text(), first.locator("span").inner_text()) == ("a paper lantern", "75")
    cells = opened.page.locator(".line:has(.tile)").first.locator("> *")
    assert [cells.nth(at).get_attribute("class") for at in range(5)] == ["tile done"] * 3 + [
        "tile failed",
        "tile done film",
    ]
    assert "rows=vars.subject" in opened.page.url
    opened.page.reload()
    assert opened.page.locator(".heads b").first.inner_text() == "ink"


def test_failures_are_shown_with_reasons(opened):
    opened.page.click(".chip.failed")
    opened.until("document.querySelectorAll('.tile.done').length === 0")
    assert walk(opened) == 72
    tile = opened.page.locator(".tile").first
    assert "moderation" in tile.inner_text()
    tile.click()
    assert "内容审核未通过" in opened.page.locator("#detail .why").inner_text()


def test_search_finds_prompts(opened):
    for words, count in (("乌篷船 neon", 24), ("ONERROR=ALERT", 75), ("0001-", 1)):
        opened.page.keyboard.press("/")
        opened.page.keyboard.press("Control+A")
        opened.page.keyboard.type(words)
        opened.until(f"new URLSearchParams(location.hash.slice(1)).get('query') === {json.dumps(words)}")
        opened.page.evaluate(DRAWN)
        assert walk(opened) == count, words
    opened.page.fill("#query", "nowhere")
    opened.until("document.querySelectorAll('.tile').length === 0")
    assert opened.page.locator("#note").inner_text() == "Nothing matches. Another state or fewer words may."


def test_detail_shows_request_and_outcome(browser, made):
    with browser.page() as seen:
        seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        seen.page.goto(made.url)
        seen.page.locator('.tile[data-at="0"]').click()
        text = seen.page.locator("#detail section").inner_text()
        first = made.results[0]
        for shown in (first["key"], first["remote_id"], first["request"]["ref_prompt"], first["outputs"][0]["file"]):
            assert shown in text
        seen.page.click("#detail .copy button")
        seen.until("document.querySelector('#detail .copy button').textContent === 'Copied'")
        row = seen.page.evaluate("navigator.clipboard.readText()")
        assert json.loads(row.removeprefix("- ")) == first["vars"]
        assert seen.page.locator("#detail .stage img").evaluate("each => each.naturalWidth") == 320


def test_keyboard_reaches_everything(opened):
    press = opened.page.keyboard.press
    opened.page.locator('.tile[data-at="0"]').focus()
    focused = "document.activeElement.dataset.at"
    columns = opened.page.locator(".line").first.locator(".tile").count()
    for key, at in (
        ("ArrowRight", 1),
        ("ArrowDown", columns + 1),
        ("ArrowLeft", columns),
        ("ArrowUp", 0),
        ("End", 299),
    ):
        press(key)
        assert opened.page.evaluate(focused) == str(at)
    press("Home")
    press("Enter")
    place = opened.page.locator("#detail nav span")
    assert place.inner_text() == "1 of 300"
    press("ArrowRight")
    assert place.inner_text() == "2 of 300"
    press("Escape")
    opened.until(f"{focused} === '1'")  # the dialog's own event gives it back, a moment after it has closed
    assert opened.page.locator("#detail").get_attribute("open") is None


def test_video_has_poster_and_plays_on_hover(opened):
    opened.page.fill("#query", "film")
    video = opened.page.locator(".tile.film").first
    video.wait_for()
    assert video.locator("img").get_attribute("src").endswith(".webp")
    video.hover()
    opened.until("document.querySelector('.playing')?.currentTime > 0")
    opened.page.mouse.move(0, 0)
    opened.page.wait_for_selector(".playing", state="detached")


def test_phone_in_dark_mode_and_chinese(browser, made):
    with browser.page(locale="zh-CN", viewport={"width": 390, "height": 800}, color_scheme="dark") as seen:
        seen.page.goto(made.url)
        seen.page.wait_for_selector(".tile")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert [text.split()[0] for text in seen.page.locator(".chip").all_inner_texts()] == ["全部", "完成", "失败"]
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 20, 19)"
        seen.page.click("#theme")
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 248)"
        seen.page.locator(".tile").first.click()
        assert seen.page.evaluate("document.getElementById('detail').scrollWidth") <= 390
        assert seen.complaints == []


def test_hostile_text_is_shown_as_text(opened):
    opened.page.fill("#query", "onerror")
    opened.page.select_option("#rows", "vars.subject")
    opened.page.wait_for_selector(".group h2")
    assert opened.page.locator(".group h2").first.inner_text() == '"><img src=x onerror=alert(1)>'
    opened.page.locator(".tile").first.click()
    assert '"><img src=x onerror=alert(1)>' in opened.page.locator("#detail dl").first.inner_text()
    assert opened.page.locator("img[src=x]").count() == 0


#: what a hole in the script would let in, and which rule stops it
ATTACKS = (
    ("document.body.innerHTML = '<img src=x onerror=\"window.hit = 1\">'", "require-trusted-types-for"),
    ("document.body.append(Object.assign(new Image(), {src: 'https://thief.example/x.png'}))", "img-src"),
    (
        "const s = document.createElement('script'); s.append('window.hit = 1'); document.body.append(s)",
        "require-trusted-types-for script-src-elem",
    ),
    (
        "document.body.append(Object.assign(document.createElement('iframe'), {src: 'https://thief.example'}))",
        "frame-src",
    ),
    ("fetch('https://thief.example').catch(() => 0)", "connect-src"),
    (
        "document.body.setAttribute('onclick', 'window.hit = 1'); document.body.click()",
        "require-trusted-types-for script-src-attr",
    ),
)


def test_content_security_policy_blocks_scripts(browser, made):
    with browser.page() as seen:
        seen.page.goto(made.url)
        seen.page.wait_for_selector(".tile")
        seen.page.evaluate(
            "addEventListener('securitypolicyviolation', event => stopped.push(event.violatedDirective))"
        )
        for attack, rules in ATTACKS:
            seen.page.evaluate(f"window.stopped = []; try {{ {attack} }} catch {{ }}")
            seen.until("stopped.length > 0")
            assert seen.page.evaluate("stopped[0]") in rules.split()
        assert seen.page.evaluate("window.hit") is None


def test_missing_image_is_marked(browser, made, tmp_path):
    page = tmp_path / "index.html"
    page.write_bytes((made.directory / "index.html").read_bytes())
    (tmp_path / "gallery").mkdir()
    for path in (made.directory / "gallery").glob("data-*.js"):
        (tmp_path / "gallery" / path.name).write_bytes(path.read_bytes())
    with browser.page() as seen:
        seen.page.goto(page.as_uri())
        seen.page.wait_for_selector(".tile .none")
        assert seen.page.locator(".tile .none").first.inner_text() == "not here: moved or deleted"


#: articles with what follows from them, in two styles
SHOP = """\
version: 1
name: shop
params: {prompt: "{{ article }}, {{ style }}"}
items:
  - {number: A1, article: teapot, price: "12.00"}
  - {number: A2, article: lantern, price: "18.00"}
matrix: {style: [studio, garden]}
provider: chanjing
model: kling-v2-1
limits: {qps: 500}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("shop"))
    desk.write("shop.yaml", SHOP)
    with sandbox("--seconds", "0.1,0.3") as box:
        assert desk.job("shop.yaml", env=box.env)["counts"] == {"done": 4}
    return (desk.root / "out/shop/index.html").as_uri()


def test_caption_begins_with_distinguishing_values(browser, shop):
    with browser.page() as seen:
        seen.page.goto(shop)
        seen.page.wait_for_selector(".tile")
        captions = seen.page.locator(".caption").all_inner_texts()
        assert captions[:2] == ["A1 · studio · teapot · 12.00", "A1 · garden · teapot · 12.00"]
        assert seen.complaints == []


def test_tile_size_applies_to_narrow_table(browser, shop):
    with browser.page() as seen:
        seen.page.goto(f"{shop}#rows=vars.article&columns=vars.style")
        seen.page.wait_for_selector(".heads")
        wide = seen.page.locator(".tile").first.bounding_box()["width"]
        assert wide < 400  # of 1,280 for two
        seen.page.locator("#size").fill("110")
        seen.until(f"document.querySelector('.tile').getBoundingClientRect().width < {wide / 1.9}")
        seen.page.locator("#size").fill("420")
        seen.until("document.querySelector('.tile').getBoundingClientRect().width > 600")
        assert seen.complaints == []


def test_sandbox_job_shows_that_nothing_was_paid(browser, shop, tmp_path):
    desk = Desk(tmp_path)
    desk.write("shop.yaml", SHOP + "cost: 4\n")
    desk.run("run", "shop.yaml", "--sandbox")
    for url, shown in (((desk.root / "out/shop-sandbox/index.html").as_uri(), True), (shop, False)):
        with browser.page(locale="zh-CN") as seen:
            seen.page.goto(url)
            seen.page.wait_for_selector(".tile")
            assert ("费用 16 蝉豆 · 沙箱，未付费" in seen.page.locator("#sum").inner_text()) is shown
            seen.page.locator(".tile").first.click()
            assert re.search(r"用时\s+\d\.\d 秒", seen.page.locator("#detail").inner_text())
            assert seen.complaints == []
