import io

import av
import pytest
from PIL import Image

from runner.sandbox.server import Options, Sandbox

NOW = Options(seconds=(0, 0))
VIDEO = {"creation_type": 4, "model_code": "tx_kling2.5", "ref_prompt": "灯塔", "video_duration": 5}


async def link(user, *args, **fields):
    await user.login()
    task_id = (await user.submit(*args, **fields))["data"]
    return (await user.task(task_id))["data"]["output_url"][0]


@pytest.mark.parametrize(("ratio", "size"), [("16:9", (320, 180)), ("9:16", (180, 320)), ("nonsense", (320, 180))])
async def test_image_output_is_valid_png(api, http, ratio, size):
    async with Sandbox(NOW) as sandbox:
        reply = await http.get(await link(api(sandbox), aspect_ratio=ratio))
        assert reply.headers["content-type"] == "image/png"
        with Image.open(io.BytesIO(reply.content)) as image:
            image.load()
            assert (image.format, image.size) == ("PNG", size)
            assert len(image.convert("RGB").getcolors(100_000)) > 10


async def test_video_output_is_valid_mp4_of_one_second(api, http):
    async with Sandbox(NOW) as sandbox:
        reply = await http.get(await link(api(sandbox), VIDEO, aspect_ratio="9:16"))
        assert reply.headers["content-type"] == "video/mp4"
        with av.open(io.BytesIO(reply.content)) as video:
            assert len(list(video.decode(video=0))) == 8
            assert video.duration == pytest.approx(1_000_000, rel=0.2)
            assert (video.streams.video[0].width, video.streams.video[0].height) == (180, 320)


@pytest.mark.parametrize("body", [{}, VIDEO])
async def test_padded_file_is_valid(api, http, body):
    async with Sandbox(Options(seconds=(0, 0), file_bytes=300_000)) as sandbox:
        user = api(sandbox)
        content = (await http.get(await link(user, **body))).content
        assert abs(len(content) - 300_000) < 100
        if body:
            with av.open(io.BytesIO(content)) as video:
                assert len(list(video.decode(video=0))) == 8
        else:
            Image.open(io.BytesIO(content)).load()


async def test_odd_prompts_can_be_drawn(api, http):
    async with Sandbox(NOW) as sandbox:
        for prompt in ("\x00\n\t", "🛶" * 500, "a" * 3000, "\\ud800"):
            url = await link(api(sandbox), ref_prompt=prompt)
            assert (await http.get(url)).content.startswith(b"\x89PNG")


async def test_range_requests_follow_rfc_9110(api, http):
    async with Sandbox(NOW) as sandbox:
        url = await link(api(sandbox))
        whole = await http.get(url)
        size, etag = len(whole.content), whole.headers["etag"]
        assert whole.headers["accept-ranges"] == "bytes"
        for span, expected in [
            ("10-19", slice(10, 20)),
            (f"{size - 5}-", slice(size - 5, size)),
            ("-7", slice(-7, None)),
        ]:
            reply = await http.get(url, headers={"range": f"bytes={span}", "if-range": etag})
            assert (reply.status_code, reply.content) == (206, whole.content[expected])
        assert reply.headers["content-range"] == f"bytes {size - 7}-{size - 1}/{size}"
        beyond = await http.get(url, headers={"range": f"bytes={size}-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
        for headers in (
            {"range": "bytes=5-", "if-range": '"other"'},
            {"range": "bytes=1-2,4-5"},
            {"range": "bytes=9-3"},
        ):
            assert (await http.get(url, headers=headers)).content == whole.content
        head = await http.head(url)
        assert (head.headers["content-length"], head.content) == (str(size), b"")


async def test_output_is_drawn_with_same_bytes_again(api, http):
    async with Sandbox(NOW) as sandbox:
        url = await link(api(sandbox))
        first = await http.get(url)
        sandbox._app._files._cache.clear()
        assert (await http.get(url)).content == first.content


async def test_output_exists_only_after_success(api, http, clock):
    async with Sandbox(clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        task_id = (await user.submit())["data"]
        assert (await http.get(f"{sandbox.url}/files/{task_id}/0.png")).status_code == 404
        clock.now += 10
        for name, status in (("0.png", 200), ("1.png", 404), ("0.mp4", 404), ("x", 404)):
            assert (await http.get(f"{sandbox.url}/files/{task_id}/{name}")).status_code == status


async def test_expired_link_is_403_until_new_query(api, http, clock):
    async with Sandbox(Options(seconds=(0, 0), link_life_s=60), clock=clock) as sandbox:
        user = api(sandbox)
        url = await link(user)
        assert (await http.get(url)).status_code == 200
        assert (await http.get(url.partition("?")[0])).status_code == 403
        clock.now += 60
        assert (await http.get(url)).status_code == 403
        fresh = (await user.page())["data"]["list"][0]["output_url"][0]
        assert (await http.get(fresh)).status_code == 200


async def test_credentials_sent_to_file_host_are_counted(api, http):
    async with Sandbox(NOW) as sandbox:
        url = await link(api(sandbox))
        await http.get(url)
        assert sandbox.stats["downloads_with_credentials"] == 0
        await http.get(url, headers={"authorization": "Bearer secret"})
        assert sandbox.stats["downloads_with_credentials"] == 1
