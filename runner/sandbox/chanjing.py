"""Chanjing's AI creation API (`/open/v1/...`), which always answers HTTP 200 and puts the outcome into `code`.

Where the documents are silent, this module decides: an unknown id is 50000 in the single query and absent from a page.
"""

import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.sandbox.chanjing_rules import (
    BAD_PARAMETER,
    INTERNAL,
    MALFORMED,
    NO_TOKEN,
    TOO_FAST,
    ChanjingRefusedError,
    check_page,
    check_submit,
    json_body,
)
from runner.sandbox.failures import QUERY_RESPONSES
from runner.sandbox.faults import AUTH, POLL, QUERY
from runner.sandbox.ledger import AcceptedTask, Kind, Order
from runner.sandbox.messages import SERVER_ERROR, SandboxRequest, SandboxResponse, json_response, text_response
from runner.sandbox.state import Phase, SandboxState
from runner.sandbox.upload_host import UploadHost

TOKEN_PATH = "/open/v1/access_token"  # noqa: S105  a path
SUBMIT_PATH = "/open/v1/ai_creation/task/submit"
TASK_PATH = "/open/v1/ai_creation/task"
PAGE_PATH = "/open/v1/ai_creation/task/page"
UPLOAD_PATH = "/open/v1/common/create_upload_url"
FILE_PATH = "/open/v1/common/file_detail"
CONSUME_PATH = "/open/v1/consume_detail"
#: Seconds by which Beijing time is ahead of UTC.
_BEIJING_OFFSET_S = 8 * 3600

STATE_NAMES = {
    Phase.QUEUED: "Queued",
    Phase.RUNNING: "Generating",
    Phase.SUCCEEDED: "Success",
    Phase.FAILED: "Error",
}


@dataclass(slots=True)
class IssuedToken:
    """An access token, with its expiry and its use."""

    app_id: str
    #: Time of expiry (Unix time, seconds).
    expires: float
    #: Requests made with it.
    uses: int = 0


class TokenIssuer:
    """The valid tokens of all applications. An application has one, and a new token invalidates it."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._tokens: dict[str, IssuedToken] = {}
        self._current: dict[str, str] = {}

    def issue(self, app_id: str) -> tuple[str, int]:
        """Return a new token and the Unix time of its expiry. The application's previous token becomes invalid."""
        self._tokens.pop(self._current.get(app_id, ""), None)
        value = secrets.token_hex(16)
        expires = self._state.clock() + self._state.options.token_life_s
        self._tokens[value] = IssuedToken(app_id, expires)
        self._current[app_id] = value
        self._state.counters.counts["tokens_issued"] += 1
        return value, int(expires)

    def account_of(self, value: str) -> str | None:
        """Count a use of a token, and return its application, or None if the token is not valid."""
        token = self._tokens.get(value)
        if token is None or token.expires <= self._state.clock():
            return None
        limit = self._state.options.token_requests
        if limit is not None and token.uses >= limit:
            return None
        token.uses += 1
        return token.app_id


class ChanjingApi:
    """Chanjing's endpoints. A valid submit becomes an Order, which the application accepts."""

    def __init__(self, state: SandboxState, uploads: UploadHost) -> None:
        self._state, self._uploads = state, uploads
        self._tokens = TokenIssuer(state)
        self._routes: dict[tuple[str, str], Callable[[SandboxRequest, str], SandboxResponse | Order]] = {
            ("POST", SUBMIT_PATH): self._submit,
            ("GET", TASK_PATH): self._get_task,
            ("POST", PAGE_PATH): self._page_tasks,
            ("POST", CONSUME_PATH): self._consume_details,
            ("GET", UPLOAD_PATH): self._create_upload,
            ("GET", FILE_PATH): self._file_detail,
        }

    def handle(self, request: SandboxRequest) -> SandboxResponse | Order:
        """Answer a request, or return the order that a valid submit makes."""
        handler = self._routes.get((request.method, request.path))
        if handler is None and (request.method, request.path) != ("POST", TOKEN_PATH):
            return text_response("404 page not found", 404)
        self._state.counters.record_arrival(_endpoint(request), self._state.clock())
        try:
            return handler(request, self._authenticate(request)) if handler else self._issue_token(request)
        except ChanjingRefusedError as error:
            self._state.counters.refused[str(error.code)] += 1
            return _envelope(None, error.code, error.msg)

    def _issue_token(self, request: SandboxRequest) -> SandboxResponse:
        body = json_body(request)
        app_id, key = body.get("app_id"), body.get("secret_key")
        if not (isinstance(app_id, str) and isinstance(key, str) and app_id and key):
            raise ChanjingRefusedError(MALFORMED, "传入参数格式错误")
        self._admit(request, app_id)
        if "wrong" in app_id or "wrong" in key:
            raise ChanjingRefusedError(BAD_PARAMETER, "app_id 或 secret_key 错误")
        value, expires = self._tokens.issue(app_id)
        return _envelope({"access_token": value, "expire_in": expires})

    def _authenticate(self, request: SandboxRequest) -> str:
        account = self._tokens.account_of(request.headers.get("access_token", ""))
        if account is None:
            raise ChanjingRefusedError(NO_TOKEN, "AccessToken已失效")
        self._admit(request, account)
        if self._state.fault_injector.next_fault(AUTH):
            raise ChanjingRefusedError(NO_TOKEN, "AccessToken verification failed")
        return account

    def _admit(self, request: SandboxRequest, account: str) -> None:
        if not self._state.admit(_endpoint(request), account):
            raise ChanjingRefusedError(TOO_FAST, "超出 QPS 限制")

    def _submit(self, request: SandboxRequest, account: str) -> Order:
        body = json_body(request)
        kind = check_submit(body)
        charge = body.get("number_of_images", 1) if kind == "image" else 1
        if not self._state.can_afford(charge):
            raise ChanjingRefusedError(INTERNAL, "扣费失败，蝉豆余额不足")
        image_hashes = self._uploads.image_hashes(body)
        task_id = self._state.new_id(str(uuid.uuid4()))
        return Order(task_id, "chanjing", account, kind, kind, None, body, charge, self._accepted, image_hashes)

    def _accepted(self, task: AcceptedTask) -> SandboxResponse:
        return _envelope(self._state.wire_id(task.id))

    def _create_upload(self, request: SandboxRequest, account: str) -> SandboxResponse:
        upload = self._uploads.create_upload(account, request.query.get("name", ""))
        if upload is None or not request.query.get("service"):
            raise ChanjingRefusedError(BAD_PARAMETER, "参数错误：name")
        return _envelope(upload)

    def _file_detail(self, request: SandboxRequest, account: str) -> SandboxResponse:
        file_id = request.query.get("id", "")
        status = self._uploads.status(account, file_id)
        if status is None:
            raise ChanjingRefusedError(INTERNAL, "文件不存在")
        return _envelope({"id": file_id, "status": status})

    def _get_task(self, request: SandboxRequest, account: str) -> SandboxResponse:
        fault = self._state.fault_injector.next_fault(POLL)
        if fault in QUERY_RESPONSES:
            return QUERY_RESPONSES[fault]
        task = self._find_own_task(request.query.get("unique_id", ""), account)
        if task is None:
            raise ChanjingRefusedError(INTERNAL, "创作任务不存在")
        return _envelope(next(iter(self._rows([task], fault)), None))

    def _page_tasks(self, request: SandboxRequest, account: str) -> SandboxResponse:
        body = json_body(request)
        kind, page, size, ids = check_page(body)
        fault = self._state.fault_injector.next_fault(POLL if ids else QUERY)
        if fault in QUERY_RESPONSES:
            return QUERY_RESPONSES[fault]
        if ids or body.get("is_success"):
            found = self._filter_tasks(ids, kind, account, finished=body.get("is_success") is True)
            tasks, total = found[(page - 1) * size : page * size], len(found)
        else:
            tasks, total = self._state.lists.page("chanjing", account, kind, page, size)
        info = {"page": page, "size": size, "total_count": total, "total_page": -(-total // size)}
        return _envelope({"list": self._rows(tasks, fault), "total": total, "page_info": info})

    def _consume_details(self, request: SandboxRequest, account: str) -> SandboxResponse:
        """Return the charges of the account, oldest first, between two times in Beijing time."""
        if self._state.lies("bills_fail"):
            return SERVER_ERROR
        body = json_body(request)
        page, size = int(body.get("page", 1)), min(200, int(body.get("page_size", 50)))
        charged = [
            task
            for kind in ("image", "video")
            for task in self._state.ledger.visible_tasks("chanjing", account, kind, self._state.clock())[0]
            if str(body.get("start_time", "")) <= _beijing_time(task.at) <= str(body.get("end_time", "~"))
        ]
        rows = [{"task_id": task.id, "bean_amount": 4 * task.charge, "consume_type": 1} for task in charged]
        return _envelope({"list": rows[(page - 1) * size : page * size], "total": len(rows)})

    def _filter_tasks(self, ids: list[str], kind: Kind, account: str, *, finished: bool) -> list[AcceptedTask]:
        state = self._state
        if ids:
            own = (self._find_own_task(i, account) for i in dict.fromkeys(ids))
            tasks = [t for t in own if t is not None and t.kind == kind and state.lists.is_visible(t)]
            tasks = list(state.lists.batch(tasks))
        else:
            all_tasks, _ = state.ledger.visible_tasks("chanjing", account, kind, state.clock())
            tasks = list(filter(state.lists.is_visible, all_tasks))
        tasks.sort(key=lambda task: -task.number)
        return [t for t in tasks if state.phase(t) is Phase.SUCCEEDED] if finished else tasks

    def _find_own_task(self, task_id: str, account: str) -> AcceptedTask | None:
        task = self._state.lists.find(task_id)
        return task if task and (task.provider, task.account) == ("chanjing", account) else None

    def _rows(self, tasks: Sequence[AcceptedTask], fault: str | None) -> list[dict[str, Any]]:
        rows = [self._row(task) for task in (tasks[1:] if fault == "poll_missing" else tasks)]
        if fault == "poll_unknown_state" and rows:
            rows[0] |= {"progress_desc": "Reviewing", "output_url": []}
        return rows

    def _created(self, task: AcceptedTask) -> int | str | None:
        shown = self._state.lists.time(task)
        return int(shown) if isinstance(shown, float) else shown

    def _row(self, task: AcceptedTask) -> dict[str, Any]:
        phase = self._state.phase(task)
        fields = task.request
        fields = {**fields, "ref_prompt": self._state.lists.prompt(task)}
        return {
            "id": task.number,
            "unique_id": self._state.lists.id(task),
            "create_time": self._created(task),
            "number_ai_creation": fields.get("number_of_images", 1),
            "type": fields["creation_type"],
            "progress_desc": STATE_NAMES[phase],
            "err_msg": "生成失败，蝉豆已退回，请重试" if phase is Phase.FAILED else "",
            "aspect_ratio": fields.get("aspect_ratio", ""),
            "output_url": self._state.output_links(task) if phase is Phase.SUCCEEDED else [],
            "photo_info": _photo_info(fields if task.kind == "image" else {}),
            "motion_info": _motion_info(fields if task.kind == "video" else {}),
            "ref_img_url": fields.get("ref_img_url") or [],
            "model_code": task.model,
            "model_name": "",
        }


def _beijing_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at + _BEIJING_OFFSET_S))


def _envelope(data: object, code: int = 0, msg: str = "success") -> SandboxResponse:
    return json_response({"trace_id": uuid.uuid4().hex, "code": code, "msg": msg, "data": data})


def _endpoint(request: SandboxRequest) -> str:
    return f"{request.method} {request.path}"


def _photo_info(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ref_img_url": fields.get("ref_img_url") or [],
        "ref_prompt": fields.get("ref_prompt", ""),
        "clarity": fields.get("clarity", 0),
        "aspect_ratio": fields.get("aspect_ratio", ""),
        "quality_mode": fields.get("quality_mode", ""),
        "number_of_images": fields.get("number_of_images", 1 if fields else 0),
    }


def _motion_info(fields: Mapping[str, Any]) -> dict[str, Any]:
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
