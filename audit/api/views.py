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

from audit import guard
from audit.handover import NotTakenError
from audit.models import ArchiveBatch, ArchiveRun
from audit.result import Outcome, Result, with_boundary
from audit.web import NOT_TAKEN, ask_for_run

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
    """A run of the archive, by a worker."""

    http_method_names = ("post",)

    def post(self, request: Request) -> Response:
        """Ask for a run; say where it can be looked at, or why there is none."""
        check_nothing_is_asked_for(request.data)
        try:
            answer = ask_for_run(request, ArchiveRun.Trigger.API)
        except NotTakenError as error:
            nothing = {"detail": str(error), "outcome": NOT_TAKEN, "notes": []}
            return Response(nothing, status.HTTP_503_SERVICE_UNAVAILABLE)
        if answer.refused:
            said = {"detail": answer.error, "outcome": answer.outcome, "notes": answer.notes}
            if answer.refused == "busy":
                held = {**said, "holder": guard.holder() or None}
                return Response(held, status.HTTP_409_CONFLICT)
            return Response(said, status.HTTP_503_SERVICE_UNAVAILABLE)
        url = reverse("audit-archive-run", args=[answer.run]) if answer.run else None
        return Response(
            {"run": answer.run, "url": url, "outcome": answer.outcome},
            status.HTTP_202_ACCEPTED,
            headers={"Location": url} if url else {},
        )


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
