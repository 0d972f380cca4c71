"""The archive's three addresses."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from rest_framework import status
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from audit import archive, guard
from audit.models import ArchiveBatch, ArchiveRun
from audit.result import Outcome, Result, with_boundary
from audit.web import request_of

from .pages import LedgerPages
from .serializers import BatchSerializer, RunSerializer


@method_decorator(never_cache, name="dispatch")
class Archives(ListAPIView[ArchiveBatch]):
    """The ledger, newest first, and where the tiers meet."""

    http_method_names = ("get", "head")
    queryset = ArchiveBatch.objects.all()
    serializer_class = BatchSerializer
    pagination_class = LedgerPages

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a page."""
        page = super().list(request, *args, **kwargs)
        tiers = with_boundary(Result(Outcome.PLANNED))
        known = tiers.boundary_known
        return Response(
            {
                "highest_archived_seq": tiers.highest_archived_seq if known else None,
                "oldest_hot_seq": tiers.oldest_hot_seq,
                "problems": tiers.notes,
                **page.data,
            }
        )


@method_decorator(never_cache, name="dispatch")
class RunNow(APIView):
    """A run of the archive, within the request."""

    http_method_names = ("post",)

    def post(self, request: Request) -> Response:
        """Run; say where the run can be looked at, or why there is none."""
        check_nothing_is_asked_for(request.data)
        result = archive.run(request_of(request, ArchiveRun.Trigger.API))
        if result.run is not None:
            url = reverse("audit-archive-run", args=[result.run])
            return Response(
                {"run": result.run, "url": url, "outcome": result.outcome.value},
                status.HTTP_202_ACCEPTED,
                headers={"Location": url},
            )
        said = {"detail": result.error, "outcome": result.outcome.value, "notes": result.notes}
        if result.outcome == Outcome.BUSY:
            return Response({**said, "holder": guard.holder() or None}, status.HTTP_409_CONFLICT)
        return Response(said, status.HTTP_503_SERVICE_UNAVAILABLE)


@method_decorator(never_cache, name="dispatch")
class Run(APIView):
    """One run, while it goes on and afterwards."""

    http_method_names = ("get", "head")

    def get(self, request: Request, number: int) -> Response:
        """Return what is known of it."""
        run = ArchiveRun.objects.filter(pk=number).first()
        if run is None:
            raise NotFound(f"There is no run {number}.")
        return Response(RunSerializer(run).data)


def check_nothing_is_asked_for(body: Any) -> None:
    """Raise ParseError where a body says something: a run takes no options yet."""
    if not isinstance(body, dict):
        raise ParseError("The body must be empty, or {}.")
    if body:
        names = ", ".join(sorted(map(str, body)))
        raise ParseError(f"The body must be empty, or {{}}: nothing here is called {names}.")
