"""A real receiver of webhooks on a free port of loopback, which verifies what it is told.

with Hook() as hook:
    settings.AUDIT_ALARM_WEBHOOK_URL, settings.AUDIT_ALARM_WEBHOOK_SECRET = hook.url, SECRET
    hook.answers.append(status(500))  # the first one; then it takes everything
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook

PATIENCE = 30
PART = b"x" * 65_536
SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Hook:
    """Keeps what it was told: the id of each message and what is in it."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.errors: list[BaseException] = []
        self.answers: deque[Callable[[Told], None]] = deque()
        self.ended = threading.Event()
        self.left = threading.Event()  # somebody went away before an answer's end
        self.path = f"/hooks/{secrets.token_urlsafe(24)}"
        self._server = _Listener(self)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.address}{self.path}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert self.errors == []

    @property
    def env(self) -> dict[str, str]:
        """Return the settings of a deployment that tells this one."""
        return {
            "AUDIT_ALARM_WEBHOOK_URL": self.url,
            "AUDIT_ALARM_WEBHOOK_SECRET": SECRET,
        }

    @property
    def types(self) -> list[str]:
        """Return what each message is of, and the kind of its alarm."""
        return [f"{body['type']} {body['data']['kind']}" for body in self.told]


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        super().__init__(("127.0.0.1", 0), Told)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what nobody foresaw for the test."""
        if isinstance(error := sys.exc_info()[1], ConnectionError):
            self.hook.left.set()
        elif error is not None:
            self.hook.errors.append(error)


class Told(BaseHTTPRequestHandler):
    """One message."""

    timeout = PATIENCE
    server: _Listener

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named by the base
        pass

    def do_POST(self) -> None:
        """Verify it, keep it, and answer."""
        hook = self.server.hook
        assert self.path == hook.path
        data = self.rfile.read(int(self.headers["Content-Length"]))
        body = Webhook(SECRET).verify(data, dict(self.headers.items()))
        assert body == json.loads(data)
        assert self.headers["Content-Type"] == "application/json"
        hook.ids.append(self.headers["webhook-id"])
        hook.told.append(body)
        (hook.answers.popleft() if hook.answers else status(204))(self)


def status(number: int, **headers: str) -> Callable[[Told], None]:
    """Answer with a status and no body."""

    def answer(told: Told) -> None:
        told.send_response(number)
        for name, value in headers.items():
            told.send_header(name, value)
        told.send_header("Content-Length", "0")
        told.end_headers()

    return answer


def endless(told: Told) -> None:
    """Take it, and go on answering for ever: until the other side has gone."""
    told.send_response(200)
    told.end_headers()
    while not told.server.hook.ended.is_set():
        told.wfile.write(PART)


def silent(told: Told) -> None:
    """Take it and say nothing."""
    told.server.hook.ended.wait(PATIENCE)


def garbled(told: Told) -> None:
    """Answer with headers that are none."""
    told.wfile.write(b"HTTP/1.1 500 No\r\nno header at all\r\n: \xff\r\n\r\n")
