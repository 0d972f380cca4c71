"""Every request has an id, in its answer and in all lines about it."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from structlog.contextvars import get_contextvars

from audit.tests.doors import browser, user
from dezky.proxies import Trusted

from .lines import Lines, lines_of

ROOT = Path(__file__).parents[2]
PATIENCE = 60
MADE = re.compile(r"[0-9a-f]{32}")
GIVEN = "Edge-1.2_3"

logger = logging.getLogger("audit.test")


def view(request: HttpRequest) -> HttpResponse:
    """Write a line, and go wrong if that is asked for."""
    logger.warning("within")
    if request.method == "POST":
        raise RuntimeError("on purpose")
    return HttpResponse("ok")


async def async_view(request: HttpRequest) -> HttpResponse:
    """Write a line."""
    logger.warning("within")
    return HttpResponse("ok")


urlpatterns = [
    path("view", view),
    path("async", async_view),
    path("healthz", view),
    path("metrics", view),
]


@pytest.fixture
def lines(settings: Any) -> Iterator[Lines]:
    """Serve the views above; yields what is logged."""
    settings.ROOT_URLCONF = __name__
    with lines_of("audit", "dezky", "django") as found:
        yield found
    assert get_contextvars() == {}


def test_the_answer_and_every_line_have_it(lines: Lines) -> None:
    answers = [Client().get("/view"), Client().get("/view")]
    ids = [answer.headers["X-Request-ID"] for answer in answers]
    assert all(map(MADE.fullmatch, ids))
    assert len(set(ids)) == 2
    assert [(line["event"], line["request_id"]) for line in lines()] == [
        (event, number) for number in ids for event in ("within", "GET /view: 200")
    ]


def test_one_line_says_what_a_request_was_and_nothing_of_what_it_held(lines: Lines) -> None:
    Client().get("/no/such?password=from-the-query", REMOTE_ADDR="203.0.113.9")
    Client().post("/no/such", data={"password": "from-the-body"})
    get, post = (line for line in lines() if line["logger"] == "dezky.request")
    assert get.pop("ms") >= 0
    for name in ("timestamp", "request_id"):
        assert get.pop(name)
    assert get == {
        "level": "info",
        "logger": "dezky.request",
        "event": "GET /no/such: 404",
        "method": "GET",
        "path": "/no/such",
        "status": 404,
        "client": "203.0.113.9",
    }
    assert (post["method"], post["status"]) == ("POST", 404)
    assert "from-the" not in lines.text()


@pytest.mark.django_db
def test_it_names_who_is_logged_in_where_that_was_asked_for(
    lines: Lines, settings: Any, django_assert_num_queries: Any
) -> None:
    settings.ROOT_URLCONF = "dezky.urls"
    session = browser(user("ada"))
    session.get("/admin/login/")
    assert lines()[-1]["user"] == "ada"
    settings.ROOT_URLCONF = __name__
    with django_assert_num_queries(0):  # for a line in the log nobody is looked up
        session.get("/view")
    assert "user" not in lines()[-1]


def test_a_view_that_goes_wrong_has_its_id_too(lines: Lines) -> None:
    answer = Client(raise_request_exception=False).post("/view?secret=x")
    assert answer.status_code == 500
    number = answer.headers["X-Request-ID"]
    assert {line["request_id"] for line in lines()} == {number}
    error = next(line for line in lines() if line["level"] == "error")
    assert error["event"] == "Internal Server Error: /view"
    assert error["exception"].endswith("RuntimeError: on purpose")
    assert "secret" not in lines.text()


@pytest.mark.parametrize("address", ["/healthz", "/metrics"])
def test_what_machines_ask_all_the_time_is_not_told(lines: Lines, address: str) -> None:
    assert Client().get(address).headers["X-Request-ID"]
    assert [line["event"] for line in lines()] == ["within"]


@pytest.mark.parametrize(
    ("peer", "given", "taken"),
    [
        ("10.0.0.1", GIVEN, True),
        ("10.0.0.1", "a" * 64, True),
        ("10.0.0.1", "a" * 7, False),
        ("10.0.0.1", "a" * 65, False),
        ("10.0.0.1", "with space", False),
        ("10.0.0.1", "line\nbreak", False),
        ("10.0.0.1", "line-break\n", False),
        ("10.0.0.1", "ümlautümlaut", False),
        ("10.0.0.1", "", False),
        ("203.0.113.9", GIVEN, False),
    ],
    ids=ascii,
)
@pytest.mark.usefixtures("lines")
def test_only_a_trusted_proxy_may_bring_one_along(
    settings: Any, peer: str, given: str, *, taken: bool
) -> None:
    settings.TRUSTED_PROXIES = Trusted.parse("10.0.0.0/8")
    answer = Client().get("/view", REMOTE_ADDR=peer, HTTP_X_REQUEST_ID=given)
    number = answer.headers["X-Request-ID"]
    assert (number == given) == taken
    assert taken or MADE.fullmatch(number)


def test_an_asgi_server_does_the_same_for_many_at_once(lines: Lines) -> None:
    import asyncio

    async def ask() -> list[Any]:
        asked = [AsyncClient().get(url) for url in ("/view", "/async") * 5]
        return await asyncio.gather(*asked)

    ids = [answer.headers["X-Request-ID"] for answer in async_to_sync(ask)()]
    assert len(set(ids)) == 10
    for number in ids:
        events = [line["event"] for line in lines() if line["request_id"] == number]
        assert events[0] == "within"
        assert re.fullmatch(r"GET /(view|async): 200", events[1])
    assert len(lines()) == 20


# A real server -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Gunicorn:
    """gunicorn at a unix socket, with threads."""

    place: Path
    log: Path
    pid: int

    def get(self, url: str, **headers: str) -> tuple[int, str]:
        """Return status and request id."""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(str(self.place))
        connection.request("GET", url, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, str(answer.headers["X-Request-ID"])

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has logged: every line must be an object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """Run it, with all its own lines through our logging, as gunicorn.conf.py would."""
    folder = tmp_path_factory.mktemp("gunicorn")
    place, log, config = folder / "socket", folder / "log", folder / "config.py"
    config.write_text("from dezky.settings import LOGGING as logconfig_dict\n")
    env = os.environ | {
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "",
        "TRUSTED_PROXIES": "unix",
        "DATABASE_URL": f"sqlite:///{folder}/none.sqlite3",
    }
    command = [sys.executable, "-m", "gunicorn", "dezky.wsgi", "--bind", f"unix:{place}"]
    command += ["--config", str(config), "--worker-class", "gthread", "--threads", "4"]
    command += ["--no-control-socket"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=file)
    try:
        server = Gunicorn(place, log, process.pid)
        deadline = time.monotonic() + PATIENCE
        while not place.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_threads_of_a_real_server_do_not_mix_them_up(gunicorn: Gunicorn) -> None:
    together = threading.Barrier(4)

    def ask(number: int) -> tuple[int, str]:
        together.wait(PATIENCE)
        return gunicorn.get(
            f"/no/{number}?query=not-to-be-seen",
            **{"X-Request-ID": f"request-{number}", "X-Forwarded-For": f"203.0.113.{number}"},
        )

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(1, 21)))
    assert answers == [(404, f"request-{number}") for number in range(1, 21)]
    told = [line for line in gunicorn.lines() if line.get("path", "").startswith("/no/")]
    assert {line["path"]: (line["request_id"], line["client"]) for line in told} == {
        f"/no/{number}": (f"request-{number}", f"203.0.113.{number}") for number in range(1, 21)
    }
    assert len(told) == 20
    assert "not-to-be-seen" not in gunicorn.log.read_text()


def test_the_servers_own_lines_are_objects_like_all_others(gunicorn: Gunicorn) -> None:
    assert gunicorn.get("/no")[0] == 404
    own = [line["event"] for line in gunicorn.lines() if line["logger"] == "gunicorn.error"]
    assert any(event.startswith("Listening at: unix:") for event in own)
    assert any(event.startswith("Booting worker with pid") for event in own)
