"""Every request has an id, which is in each log line that it causes and in its answer."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import LazyObject, empty
from structlog.contextvars import bound_contextvars

HEADER = "X-Request-ID"
GIVEN = re.compile(r"[A-Za-z0-9._-]{8,64}")
# Asked every few seconds by machines, or a dozen for each page: they would hide all others.
UNTOLD = ("/healthz", "/readyz", "/metrics", settings.STATIC_URL)

logger = logging.getLogger("dezky.request")

Answered = Callable[[HttpResponseBase], HttpResponseBase]


class RequestId:
    """The middleware that gives a request its id, and writes one line about it.

    It comes after `dezky.proxies`, which leaves an id that was brought along only where a trusted
    proxy did: nobody else may choose under which id he is found.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Take the next layer."""
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Answer a request, by way of the next layer."""
        if iscoroutinefunction(self):
            return self._answer(request)
        with _named(request) as answered:
            return answered(self.get_response(request))

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        with _named(request) as answered:
            return answered(await self.get_response(request))


@contextmanager
def _named(request: HttpRequest) -> Iterator[Answered]:
    """Bind the request's id; yields what takes its answer."""
    given = str(request.META.get("HTTP_X_REQUEST_ID", ""))
    request_id = given if GIVEN.fullmatch(given) else uuid4().hex
    began = time.monotonic()

    def answered(response: HttpResponseBase) -> HttpResponseBase:
        response.headers[HEADER] = request_id
        if not request.path.startswith(UNTOLD):
            _tell(request, response.status_code, time.monotonic() - began)
        return response

    with bound_contextvars(request_id=request_id):
        yield answered


def _tell(request: HttpRequest, status: int, seconds: float) -> None:
    """Write one line: never the query string nor the body, which may hold anything."""
    logger.info(
        "%s %s: %d",
        request.method,
        request.path,
        status,
        extra={
            "method": request.method,
            "path": request.path,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "client": request.META.get("REMOTE_ADDR", ""),
            "user": _user_name(request),
        },
    )


def _user_name(request: HttpRequest) -> str | None:
    """Return who is logged in, where that was asked for; no database is asked for a log line."""
    user: Any = vars(request).get("user")
    if user is None or (isinstance(user, LazyObject) and user._wrapped is empty):
        return None
    return user.get_username() or None
