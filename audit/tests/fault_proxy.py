"""A proxy in front of a real S3 server that does to some requests what networks and services do.

It checks nothing: what it forwards, it signs anew with the server's own keys, so that the server
judges it. `seen` has every request in the order in which it came.

    with FaultProxy(server.endpoint) as proxy:
        proxy.fault(refuse(503, "SlowDown"), "PUT", ".manifest.json", times=1)
"""

from __future__ import annotations

import http.client
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

PATIENCE = 30
ALWAYS = 1_000_000
# What concerns one connection alone, or the signature that is made anew.
HOP_BY_HOP = {"connection", "expect", "host", "keep-alive", "transfer-encoding"}
SIGNED_ANEW = {"authorization", "x-amz-content-sha256", "x-amz-date"}
DIGESTS = ("content-md5", "x-amz-checksum-sha256")


@dataclass
class Answer:
    """An answer, as the server gave it or as a fault makes it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Seen:
    """A request that came."""

    verb: str
    key: str
    headers: dict[str, str] = field(repr=False)


Act = Callable[["Exchange"], None]


@dataclass
class Fault:
    """What is done to requests of a verb whose key ends so: to `times` of them, after `skip`."""

    act: Act
    verb: str
    key: str
    times: int
    skip: int
    met: int = 0

    def meets(self, verb: str, key: str) -> bool:
        """Say whether this request's turn has come."""
        if verb != self.verb or not key.endswith(self.key):
            return False
        self.met += 1
        return self.skip < self.met <= self.skip + self.times


class FaultProxy:
    """Listens on a free port of loopback, in threads of this process."""

    def __init__(self, endpoint: str) -> None:
        self.upstream = urlsplit(endpoint).netloc
        self.seen: list[Seen] = []
        self.errors: list[BaseException] = []
        self.lifted = threading.Event()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = _Listener(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
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
        self.lift()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert self.errors == []

    def fault(
        self, act: Act, verb: str, key: str = "", *, times: int = ALWAYS, skip: int = 0
    ) -> None:
        """Do this to requests from now on."""
        self.lifted.clear()
        self._faults.append(Fault(act, verb, key, times, skip))

    def lift(self) -> None:
        """Let everything through from now on, and forget what was seen."""
        with self._lock:
            self._faults.clear()
            self.seen.clear()
        self.lifted.set()

    def count(self, verb: str, key: str = "") -> int:
        """Return how many requests of a verb came for keys that end so."""
        return sum(seen.verb == verb and seen.key.endswith(key) for seen in self.seen)

    def act_for(self, seen: Seen) -> Act:
        """Note a request, and return what is to be done to it."""
        with self._lock:
            self.seen.append(seen)
            for fault in self._faults:
                if fault.meets(seen.verb, seen.key):
                    return fault.act
        return pass_on


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them
    request_queue_size = 50

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), Exchange)

    def shutdown_request(self, request: Any) -> None:
        """Close without a word of ours where a fault has closed it."""
        if request.fileno() != -1:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what nobody foresaw for the test; that a client goes away is no such thing."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.proxy.errors.append(error)


class Exchange(BaseHTTPRequestHandler):
    """One request and what becomes of it; a connection has one."""

    protocol_version = "HTTP/1.1"  # without it a client waits a second before each body
    timeout = PATIENCE
    server: _Listener

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named by the base
        pass

    def do_any(self) -> None:
        """Do what the fault says."""
        _, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        verb = self.command if key else "LIST"
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.close_connection = True
        self.server.proxy.act_for(Seen(verb, key, headers))(self)

    do_GET = do_PUT = do_HEAD = do_any  # noqa: N815  # named by the base

    @property
    def length(self) -> int:
        """The length of the request's body."""
        return int(self.headers.get("Content-Length", 0))

    @property
    def lifted(self) -> threading.Event:
        """Set when the faults are lifted."""
        return self.server.proxy.lifted

    def body(self) -> bytes:
        """Read the request's body."""
        return self.rfile.read(self.length)

    def forward(self, body: bytes, *without: str) -> Answer:
        """Send the request to the server, signed anew, without some headers."""
        proxy = self.server.proxy
        left_out = HOP_BY_HOP | SIGNED_ANEW | set(without)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in left_out
        }
        request = AWSRequest(self.command, f"http://{proxy.upstream}{self.path}", headers, body)
        keys = Credentials(
            os.environ["AUDIT_COLD_ACCESS_KEY"], os.environ["AUDIT_COLD_SECRET_KEY"]
        )
        S3SigV4Auth(keys, "s3", "us-east-1").add_auth(request)
        connection = http.client.HTTPConnection(proxy.upstream, timeout=PATIENCE)
        try:
            connection.request(self.command, self.path, body, dict(request.headers.items()))
            answer = connection.getresponse()
            kept = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in HOP_BY_HOP
            }
            return Answer(answer.status, kept, answer.read())
        finally:
            connection.close()

    def answer(self, answer: Answer, part: float = 1.0) -> None:
        """Send an answer, of its body only a part."""
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: int(len(answer.body) * part)])
        self.wfile.flush()

    def reset(self) -> None:
        """Cut the connection off, as a router does that has lost its memory: RST, not FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.rfile.close()  # which holds it, too


# What can be done to a request -------------------------------------------------------------


def pass_on(exchange: Exchange) -> None:
    """No fault."""
    exchange.answer(exchange.forward(exchange.body()))


def refuse(status: int, code: str, message: str = "Please look into this.") -> Act:
    """Answer with an error as S3 writes it; nothing reaches the server."""

    def act(exchange: Exchange) -> None:
        exchange.body()
        exchange.answer(error(status, code, message))

    return act


def error(status: int, code: str, message: str) -> Answer:
    """Return an error as S3 writes it."""
    text = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    return Answer(status, {"Content-Type": "application/xml"}, body)


def refuse_after_storing(status: int, code: str) -> Act:
    """Let the server do it, and say that it failed."""

    def act(exchange: Exchange) -> None:
        exchange.forward(exchange.body())
        exchange.answer(error(status, code, "We encountered an internal error."))

    return act


def reset_within_request(exchange: Exchange) -> None:
    """Cut the connection off when half of the body has come."""
    exchange.rfile.read(exchange.length // 2)
    exchange.reset()


def reset_within_answer(exchange: Exchange) -> None:
    """Cut the connection off when half of the answer's body has gone."""
    exchange.answer(exchange.forward(exchange.body()), part=0.5)
    time.sleep(0.1)  # a reset overtakes what is still on its way
    exchange.reset()


def break_off(exchange: Exchange) -> None:
    """End the answer in good order at half of the length that it names."""
    exchange.answer(exchange.forward(exchange.body()), part=0.5)


def stall(exchange: Exchange) -> None:
    """Take the request and never answer."""
    exchange.body()
    exchange.lifted.wait(PATIENCE)
    exchange.reset()


def stall_within_request(exchange: Exchange) -> None:
    """Take nothing of the body."""
    exchange.lifted.wait(PATIENCE)
    exchange.reset()


def trickle(exchange: Exchange) -> None:
    """Answer a byte at a time, always soon enough for a limit on each."""
    answer = exchange.forward(exchange.body())
    exchange.answer(answer, part=0)
    for byte in answer.body:
        if exchange.lifted.wait(0.2):
            break
        exchange.wfile.write(bytes([byte]))
    exchange.reset()


def lose_answer(exchange: Exchange) -> None:
    """Let the server do it, and say nothing."""
    exchange.forward(exchange.body())
    exchange.reset()


def forget(exchange: Exchange) -> None:
    """Say that it was stored, and store nothing."""
    exchange.body()
    exchange.answer(Answer(200, {"ETag": '"0123456789abcdef0123456789abcdef"'}))


def other_etag(exchange: Exchange) -> None:
    """Answer with an ETag that is no MD5, as services do that store in parts or encrypt."""
    answer = exchange.forward(exchange.body())
    tags = {name: value for name, value in answer.headers.items() if name.lower() != "etag"}
    exchange.answer(Answer(answer.status, {**tags, "ETag": '"no-digest-1"'}, answer.body))


def store_other_bytes(exchange: Exchange) -> None:
    """Store as many other bytes; the server's ETag is theirs."""
    exchange.answer(exchange.forward(bytes(byte ^ 1 for byte in exchange.body()), *DIGESTS))


def redate(date: str | None) -> Act:
    """Be a service that says another time in its answers, or none."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward(exchange.body())
        kept = {name: value for name, value in answer.headers.items() if name.lower() != "date"}
        dated = {"Date": date} if date else {}
        exchange.answer(Answer(answer.status, {**kept, **dated}, answer.body))

    return act


def drop(*headers: str) -> Act:
    """Let the server see nothing of these headers."""

    def act(exchange: Exchange) -> None:
        exchange.answer(exchange.forward(exchange.body(), *headers))

    return act


def refuse_skewed(seconds: int, tolerated: int) -> Act:
    """Be a service whose clock is so far off ours, and that minds."""

    def act(exchange: Exchange) -> None:
        exchange.body()
        date = datetime.fromisoformat(exchange.headers["X-Amz-Date"])
        now = datetime.now(UTC) + timedelta(seconds=seconds)
        if abs(now - date) > timedelta(seconds=tolerated):
            exchange.answer(error(403, "RequestTimeTooSkewed", "The difference is too large."))
        else:
            pass_on(exchange)

    return act
