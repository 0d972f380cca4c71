"""The verification over HTTP: the last one, a new one, one by its number."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from rest_framework import status
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from audit import verifications
from audit.handover import NotTakenError
from audit.models import ArchiveRun, Checkpoint, VerificationRun
from audit.result import Outcome, Result, with_boundary
from audit.web import NOT_TAKEN, ask_for_verification

from .access import MayReadVerifications, MayVerify
from .serializers import CheckpointSerializer, UnresolvedSerializer, VerificationSerializer

Level = VerificationRun.Level
REFUSED = {
    "failed": status.HTTP_503_SERVICE_UNAVAILABLE,
    "broken": status.HTTP_500_INTERNAL_SERVER_ERROR,
}


@method_decorator(never_cache, name="dispatch")
class Verify(APIView):
    """How the log was found to be the last time; and a new verification, by a worker."""

    http_method_names = ("get", "head", "post")

    def get_permissions(self) -> list[BasePermission]:
        """Let nobody begin one who may only look."""
        return [MayVerify() if self.request.method == "POST" else MayReadVerifications()]

    def get(self, request: Request) -> Response:
        """Return the last verifications of the whole log, what still counts, what lies where."""
        last, last_full = verifications.last(), verifications.last(Level.FULL)
        unresolved = list(verifications.bad_news())
        newest = Checkpoint.objects.defer("document", "frontier").first()
        tiers = with_boundary(Result(Outcome.PLANNED))
        return Response(
            {
                "last": VerificationSerializer(last).data if last else None,
                "last_full": VerificationSerializer(last_full).data if last_full else None,
                "unresolved": UnresolvedSerializer(unresolved, many=True).data,
                "running": list(verifications.running().values_list("pk", flat=True)),
                "checkpoint": CheckpointSerializer(newest).data if newest else None,
                "highest_archived_seq": (
                    tiers.highest_archived_seq if tiers.boundary_known else None
                ),
                "oldest_hot_seq": tiers.oldest_hot_seq,
                "notes": tiers.notes,
            }
        )

    def post(self, request: Request) -> Response:
        """Ask for a verification; say where its report will be, or why there is none."""
        level = level_of(request.data)
        try:
            answer = ask_for_verification(request, ArchiveRun.Trigger.API, level)
        except NotTakenError as error:
            said = {"detail": str(error), "outcome": NOT_TAKEN}
            return Response(said, status.HTTP_503_SERVICE_UNAVAILABLE)
        place = _place(answer.run)
        if answer.refused == "busy":
            said = {"detail": str(answer.error), "outcome": "busy", **place}
            return Response(said, status.HTTP_409_CONFLICT)
        if answer.refused:
            return Response({"detail": answer.error}, REFUSED[answer.refused])
        return Response(
            {**place, "outcome": answer.outcome, "level": level},
            status.HTTP_202_ACCEPTED,
            headers={"Location": place["url"]} if place["url"] else {},
        )


@method_decorator(never_cache, name="dispatch")
class Verification(APIView):
    """One verification, while it goes on and afterwards."""

    http_method_names = ("get", "head")
    permission_classes = (MayReadVerifications,)

    def get(self, request: Request, number: int) -> Response:
        """Return its report."""
        row = VerificationRun.objects.filter(pk=number).first()
        if row is None:
            raise NotFound(f"There is no verification {number}.")
        return Response(VerificationSerializer(row).data)


def level_of(body: Any) -> str:
    """Return the level that a body asks for; raises ParseError where it says anything else."""
    levels = " or ".join(f'{{"level": "{level}"}}' for level in Level.values)
    if isinstance(body, dict) and set(body) <= {"level"}:
        level = body.get("level", Level.MANIFESTS.value)
        if level in Level.values:
            return str(level)
    raise ParseError(f"The body must be empty, or {{}}, or {levels}.")


def _place(run: int | None) -> dict[str, Any]:
    """Return the number and the address of a verification."""
    return {"run": run, "url": reverse("audit-verification", args=[run]) if run else None}
