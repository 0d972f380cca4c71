"""Whether this process lives, and whether all that the product needs works."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import access
from .looks import Looks, reason_of
from .readiness import checks

looks = Looks(checks())


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer: a process that does is alive. Nothing else is touched."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Say which checks are ok; why one is not, and how long each took, to who shows the token."""
    results = looks.results()
    ready = not any(result.error for result in results.values())
    told: dict[str, dict[str, Any]] = {
        name: {"ok": result.error is None} for name, result in results.items()
    }
    if access.shows_token(request):
        for name, result in results.items():
            told[name] |= {"reason": reason_of(result), "seconds": round(result.time_taken, 3)}
    return JsonResponse(
        {"status": "ok" if ready else "failed", "checks": told},
        status=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
    )
