"""Chanjing's uploads in the sandbox, and hashes of images in the ledger."""

import base64
import hashlib

import pytest

from runner.sandbox.server import Options, Sandbox

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
SHA = hashlib.sha256(PNG).hexdigest()
VIDEO = {"creation_type": 4, "model_code": "tx_kling2.5", "ref_prompt": "a lighthouse", "video_duration": 5}


async def create_upload(user, name="boat.png", **fields):
    return await user.chanjing("common/create_upload_url", **{"service": "ai_creation", "name": name, **fields})


async def uploaded(user, http, data=PNG):
    upload = (await create_upload(user))["data"]
    reply = await http.put(upload["sign_url"], content=data, headers={"content-type": upload["mime_type"]})
    assert reply.status_code == 200
    return upload


async def status(user, file_id):
    return (await user.chanjing("common/file_detail", id=file_id))["data"]["status"]


async def test_upload_is_pending_for_upload_s(api, http, clock):
    async with Sandbox(Options(upload_s=5), clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        upload = (await create_upload(user))["data"]
        assert upload["mime_type"] == "image/png"
        assert await status(user, upload["file_id"]) == 0
        upload = await uploaded(user, http)
        assert await status(user, upload["file_id"]) == 0
        clock.now += 5
        assert await status(user, upload["file_id"]) == 1
        assert (sandbox.stats["uploads"], sandbox.stats["uploads_with_credentials"]) == (1, 0)


async def test_content_type_must_match_signed_one(api, http):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        upload = (await create_upload(user))["data"]
        reply = await http.put(upload["sign_url"], content=PNG, headers={"content-type": "application/octet-stream"})
        assert (reply.status_code, "SignatureDoesNotMatch" in reply.text) == (403, True)
        assert (await http.put(upload["full_path"], content=PNG)).status_code == 403
        assert (await http.get(upload["sign_url"])).status_code == 403
        assert sandbox.stats["uploads"] == 0


async def test_signed_url_expires(api, http, clock):
    async with Sandbox(clock=clock) as sandbox:
        user = api(sandbox)
        await user.login()
        upload = (await create_upload(user))["data"]
        clock.now += 901
        reply = await http.put(upload["sign_url"], content=PNG, headers={"content-type": "image/png"})
        assert reply.status_code == 403


async def test_credentials_on_upload_are_counted(api, http):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        upload = (await create_upload(user))["data"]
        await http.put(upload["sign_url"], content=PNG, headers={"content-type": "image/png", "access_token": "x"})
        assert sandbox.stats["uploads_with_credentials"] == 1


async def test_forbidden_content_is_refused(api, http):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        upload = await uploaded(user, http, PNG + b"NSFW-TEST")
        assert await status(user, upload["file_id"]) == 98


@pytest.mark.parametrize("fields", [{"name": "boat.exe"}, {"name": ""}, {"service": ""}])
async def test_unsupported_file_gets_no_signed_url(api, fields):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        assert (await create_upload(user, **fields))["code"] == 40000


async def test_files_belong_to_one_account(api, http):
    async with Sandbox() as sandbox:
        user, other = api(sandbox), api(sandbox)
        await user.login()
        await other.login(app_id="other")
        upload = await uploaded(user, http)
        assert (await other.chanjing("common/file_detail", id=upload["file_id"]))["code"] == 50000
        assert (await user.chanjing("common/file_detail", id="nothing"))["code"] == 50000


async def test_ledger_records_hash_of_uploaded_image(api, http):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        await user.login()
        one, two = await uploaded(user, http), await uploaded(user, http)
        for upload in (one, two):
            await user.submit(VIDEO | {"start_frame": upload["full_path"], "end_frame": "https://files.example/x.png"})
        listed = {"model_code": "kling1.6", "ref_img_url": ["https://files.example/x.png", one["full_path"]]}
        await user.submit(VIDEO | listed)
        assert [task.pictures for task in sandbox.ledger.accepted] == [{"start_frame": SHA}] * 2 + [
            {"ref_img_url/1": SHA}
        ]
        assert sandbox.stats["duplicates"] == 1, "the same image under another URL is a duplicate"


async def test_ledger_records_hash_of_base64_image(api):
    async with Sandbox() as sandbox:
        user = api(sandbox)
        body = {"prompt": "boat", "image": base64.b64encode(PNG).decode()}
        assert (await user.kling("/v1/images/generations", body)).json()["code"] == 0
        assert (await user.kling("/v1/images/generations", body | {"image": "photos/boat.png"})).json()["code"] == 1201
        assert (await user.kling("/v1/images/generations", body | {"image": f"sha256:{SHA}"})).json()["code"] == 1201
        assert [task.pictures for task in sandbox.ledger.accepted] == [{"image": SHA}]


async def test_ledger_file_keeps_image_hashes(api, tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    async with Sandbox(Options(ledger=ledger)) as sandbox:
        body = {"prompt": "boat", "image": base64.b64encode(PNG).decode()}
        await api(sandbox).kling("/v1/images/generations", body)
    async with Sandbox(Options(ledger=ledger)) as sandbox:
        assert [task.pictures for task in sandbox.ledger.accepted] == [{"image": SHA}]
