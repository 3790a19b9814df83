"""Chanjing's AI creation API (`/open/v1/...`), which always answers HTTP 200 and puts the outcome into `code`.

Where the documents are silent, this module decides: an unknown id is 50000 in the single query and absent from a page.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runner.sandbox.chanjing_rules import (
    BAD_PARAMETER,
    INTERNAL,
    MALFORMED,
    NO_TOKEN,
    TOO_FAST,
    Refused,
    check_page,
    check_submit,
    fields_of,
)
from runner.sandbox.faults import AUTH, POLL, QUERY
from runner.sandbox.ledger import Accepted, Kind, Order
from runner.sandbox.messages import Answer, Request, as_json, as_text
from runner.sandbox.tokens import Tokens
from runner.sandbox.troubles import QUERY_ANSWERS
from runner.sandbox.uploads import Uploads
from runner.sandbox.world import Phase, World

TOKEN = "/open/v1/access_token"  # noqa: S105  a path
SUBMIT = "/open/v1/ai_creation/task/submit"
TASK = "/open/v1/ai_creation/task"
PAGE = "/open/v1/ai_creation/task/page"
UPLOAD = "/open/v1/common/create_upload_url"
FILE = "/open/v1/common/file_detail"
BILLS = "/open/v1/consume_detail"
#: Seconds by which Beijing time is ahead of UTC.
_BEIJING = 8 * 3600

WORDS = {
    Phase.QUEUED: "Queued",
    Phase.RUNNING: "Generating",
    Phase.SUCCEEDED: "Success",
    Phase.FAILED: "Error",
}


class Chanjing:
    """Chanjing's endpoints. A valid submit becomes an Order, which the application accepts."""

    def __init__(self, state: World, uploads: Uploads) -> None:
        self._world, self._uploads = state, uploads
        self._tokens = Tokens(state)
        self._routes: dict[tuple[str, str], Callable[[Request, str], Answer | Order]] = {
            ("POST", SUBMIT): self._submit,
            ("GET", TASK): self._task,
            ("POST", PAGE): self._page,
            ("POST", BILLS): self._bills,
            ("GET", UPLOAD): self._upload,
            ("GET", FILE): self._file,
        }

    def answer(self, request: Request) -> Answer | Order:
        """Answer a request, or return the order that a valid submit makes."""
        handler = self._routes.get((request.method, request.path))
        if handler is None and (request.method, request.path) != ("POST", TOKEN):
            return as_text("404 page not found", 404)
        self._world.traffic.arrived(_endpoint(request), self._world.clock())
        try:
            return handler(request, self._account(request)) if handler else self._token(request)
        except Refused as error:
            self._world.traffic.refused[str(error.code)] += 1
            return _envelope(None, error.code, error.msg)

    def _token(self, request: Request) -> Answer:
        body = fields_of(request)
        app_id, key = body.get("app_id"), body.get("secret_key")
        if not (isinstance(app_id, str) and isinstance(key, str) and app_id and key):
            raise Refused(MALFORMED, "传入参数格式错误")
        self._admit(request, app_id)
        if "wrong" in app_id or "wrong" in key:
            raise Refused(BAD_PARAMETER, "app_id 或 secret_key 错误")
        value, expires = self._tokens.issue(app_id)
        return _envelope({"access_token": value, "expire_in": expires})

    def _account(self, request: Request) -> str:
        account = self._tokens.holder(request.headers.get("access_token", ""))
        if account is None:
            raise Refused(NO_TOKEN, "AccessToken已失效")
        self._admit(request, account)
        if self._world.dice.roll(AUTH):
            raise Refused(NO_TOKEN, "AccessToken verification failed")
        return account

    def _admit(self, request: Request, account: str) -> None:
        if not self._world.admit(_endpoint(request), account):
            raise Refused(TOO_FAST, "超出 QPS 限制")

    def _submit(self, request: Request, account: str) -> Order:
        body = fields_of(request)
        kind = check_submit(body)
        charge = body.get("number_of_images", 1) if kind == "image" else 1
        if not self._world.affords(charge):
            raise Refused(INTERNAL, "扣费失败，蝉豆余额不足")
        image_hashes = self._uploads.pictures(body)
        return Order(str(uuid.uuid4()), "chanjing", account, kind, kind, None, body, charge, _told, image_hashes)

    def _upload(self, request: Request, account: str) -> Answer:
        upload = self._uploads.promise(account, request.query.get("name", ""))
        if upload is None or not request.query.get("service"):
            raise Refused(BAD_PARAMETER, "参数错误：name")
        return _envelope(upload)

    def _file(self, request: Request, account: str) -> Answer:
        file_id = request.query.get("id", "")
        status = self._uploads.status(account, file_id)
        if status is None:
            raise Refused(INTERNAL, "文件不存在")
        return _envelope({"id": file_id, "status": status})

    def _task(self, request: Request, account: str) -> Answer:
        fault = self._world.dice.roll(POLL)
        if fault in QUERY_ANSWERS:
            return QUERY_ANSWERS[fault]
        task = self._own(request.query.get("unique_id", ""), account)
        if task is None:
            raise Refused(INTERNAL, "创作任务不存在")
        return _envelope(next(iter(self._rows([task], fault)), None))

    def _page(self, request: Request, account: str) -> Answer:
        body = fields_of(request)
        kind, page, size, ids = check_page(body)
        fault = self._world.dice.roll(POLL if ids else QUERY)
        if fault in QUERY_ANSWERS:
            return QUERY_ANSWERS[fault]
        if ids or body.get("is_success"):
            found = self._filtered(ids, kind, account, finished=body.get("is_success") is True)
            tasks, total = found[(page - 1) * size : page * size], len(found)
        else:
            tasks, total = self._world.page("chanjing", account, kind, page, size)
        info = {"page": page, "size": size, "total_count": total, "total_page": -(-total // size)}
        return _envelope({"list": self._rows(tasks, fault), "total": total, "page_info": info})

    def _bills(self, request: Request, account: str) -> Answer:
        """Return the charges of the account, oldest first, between two times in Beijing time."""
        body = fields_of(request)
        page, size = int(body.get("page", 1)), min(200, int(body.get("page_size", 50)))
        charged = [
            task
            for kind in ("image", "video")
            for task in self._world.ledger.visible("chanjing", account, kind, self._world.clock())[0]
            if str(body.get("start_time", "")) <= _beijing(task.at) <= str(body.get("end_time", "~"))
        ]
        rows = [{"task_id": task.id, "bean_amount": 4 * task.charge, "consume_type": 1} for task in charged]
        return _envelope({"list": rows[(page - 1) * size : page * size], "total": len(rows)})

    def _filtered(self, ids: list[str], kind: Kind, account: str, *, finished: bool) -> list[Accepted]:
        state = self._world
        until = state.visible_until()
        if ids:
            own = (self._own(i, account) for i in dict.fromkeys(ids))
            tasks = [t for t in own if t is not None and t.kind == kind and t.at <= until]
        else:
            all_tasks, count = state.ledger.visible("chanjing", account, kind, until)
            tasks = list(all_tasks[:count])
        tasks.sort(key=lambda task: -task.number)
        return [t for t in tasks if state.phase(t) is Phase.SUCCEEDED] if finished else tasks

    def _own(self, task_id: str, account: str) -> Accepted | None:
        task = self._world.ledger.by_id(task_id)
        return task if task and (task.provider, task.account) == ("chanjing", account) else None

    def _rows(self, tasks: Sequence[Accepted], fault: str | None) -> list[dict[str, Any]]:
        rows = [self._row(task) for task in (tasks[1:] if fault == "poll_missing" else tasks)]
        if fault == "poll_unknown_state" and rows:
            rows[0] |= {"progress_desc": "Reviewing", "output_url": []}
        return rows

    def _row(self, task: Accepted) -> dict[str, Any]:
        phase = self._world.phase(task)
        fields = task.request
        return {
            "id": task.number,
            "unique_id": task.id,
            "create_time": int(task.at),
            "number_ai_creation": fields.get("number_of_images", 1),
            "type": fields["creation_type"],
            "progress_desc": WORDS[phase],
            "err_msg": "生成失败，蝉豆已退回，请重试" if phase is Phase.FAILED else "",
            "aspect_ratio": fields.get("aspect_ratio", ""),
            "output_url": self._world.links(task) if phase is Phase.SUCCEEDED else [],
            "photo_info": _photo(fields if task.kind == "image" else {}),
            "motion_info": _motion(fields if task.kind == "video" else {}),
            "ref_img_url": fields.get("ref_img_url") or [],
            "model_code": task.model,
            "model_name": "",
        }


def _beijing(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at + _BEIJING))


def _envelope(data: object, code: int = 0, msg: str = "success") -> Answer:
    return as_json({"trace_id": uuid.uuid4().hex, "code": code, "msg": msg, "data": data})


def _endpoint(request: Request) -> str:
    return f"{request.method} {request.path}"


def _told(task: Accepted) -> Answer:
    return _envelope(task.id)


def _photo(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ref_img_url": fields.get("ref_img_url") or [],
        "ref_prompt": fields.get("ref_prompt", ""),
        "clarity": fields.get("clarity", 0),
        "aspect_ratio": fields.get("aspect_ratio", ""),
        "quality_mode": fields.get("quality_mode", ""),
        "number_of_images": fields.get("number_of_images", 1 if fields else 0),
    }


def _motion(fields: Mapping[str, Any]) -> dict[str, Any]:
    frames = [fields[name] for name in ("start_frame", "end_frame") if fields.get(name)]
    return {
        "photo_path_url": fields.get("ref_img_url") or frames or None,
        "ref_prompt": fields.get("ref_prompt", ""),
        "clarity": fields.get("clarity", 0),
        "quality_mode": fields.get("quality_mode", ""),
        "style": fields.get("style", ""),
        "aspect_ratio": fields.get("aspect_ratio", ""),
        "video_duration": fields.get("video_duration", 0),
    }
