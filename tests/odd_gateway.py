"""A gateway on loopback whose answers are functions of a test, and jobs at it."""

from __future__ import annotations

import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

from PIL import Image

import runner

_FILE = io.BytesIO()
Image.new("RGB", (8, 8)).save(_FILE, "PNG")
PNG = _FILE.getvalue()


def accepted(task):
    return 200, {"code": 0, "data": {"task_id": task, "task_status": "submitted"}}


def ended(task, url):
    images = [{"index": 0, "url": f"{url}/f/{quote(task, safe='')}.png"}]
    return 200, {"code": 0, "data": {"task_id": task, "task_status": "succeed", "task_result": {"images": images}}}


class Gateway:
    """A gateway whose answers to submits and polls are functions of the task's number; None: as it should be."""

    def __init__(self, submit=lambda number: None, poll=lambda task: None):
        self.submit, self.poll, self.posts, self.asked = submit, poll, 0, []
        self._lock = threading.Lock()

    def answer(self, method, path):
        if path.startswith("/f/"):
            return 200, PNG
        if method == "POST":
            with self._lock:
                self.posts += 1
                number = self.posts
            return self.submit(number) or accepted(f"t{number}")
        task = unquote(path.rpartition("/")[2])
        self.asked.append(task)
        return self.poll(task) or ended(task, self.url)

    @contextmanager
    def serving(self, tls=None):
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self):
                self.rfile.read(int(self.headers.get("content-length") or 0))
                status, body, *headers = ours.answer(self.command, self.path)
                kind = "application/json" if isinstance(body, dict) else "text/html"
                raw = json.dumps(body).encode() if isinstance(body, dict) else body
                raw = raw.encode() if isinstance(raw, str) else raw
                self.send_response(status)
                for name, value in {"Content-Type": kind, "Content-Length": str(len(raw)), **dict(headers)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = reply  # noqa: N815 - the names that http.server calls

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def job(gateway, root, count=4, *, env=None, **keys):
    """Return a job of this number of images at a gateway."""
    settings = {
        "KLING_GATEWAY_BASE_URL": gateway.url,
        "KLING_GATEWAY_API_KEY": "test-key-123456",
        "RUNNER_HOME": str(root / "home"),
    }
    values = {
        "name": "job",
        "provider": "kling-gateway",
        "model": "image/kling-v2-1",
        "params": {"prompt": "{{ subject }}"},
        "items": [{"subject": f"thing {number}"} for number in range(count)],
        "limits": {"qps": 50},
    }
    return runner.Job(values | keys, out=root / "out", env=settings | (env or {}))
