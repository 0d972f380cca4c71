"""The page that Prometheus reads: Django's figures, and ours."""

from __future__ import annotations

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_prometheus.exports import ExportToDjangoView
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from . import access
from .figures import Figures


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with all figures in Prometheus's text format, to who shows METRICS_TOKEN."""
    if not access.is_set():
        return _refusal(
            HTTPStatus.FORBIDDEN,
            "METRICS_TOKEN is not set, so nobody may read figures: set it here and in Prometheus.",
        )
    if not access.shows_token(request):
        answer = _refusal(
            HTTPStatus.UNAUTHORIZED,
            "Figures are for who shows METRICS_TOKEN, as Authorization: Bearer …",
        )
        answer["WWW-Authenticate"] = "Bearer"
        return answer
    page: bytes = ExportToDjangoView(request).content
    return HttpResponse(page + generate_latest(Figures()), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _refusal(status: HTTPStatus, sentence: str) -> HttpResponse:
    return HttpResponse(f"{sentence}\n", status=status, content_type="text/plain; charset=utf-8")
