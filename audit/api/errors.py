"""What goes wrong, as JSON with one sentence in `detail`."""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError
from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from audit import log


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer to a request that failed; None where nobody foresaw it."""
    if isinstance(error, DatabaseError):
        return Response({"detail": log.explain(error)}, status.HTTP_503_SERVICE_UNAVAILABLE)
    return exception_handler(error, context)
