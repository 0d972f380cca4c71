"""The verification over HTTP: the last one, a new one, one by its number."""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from rest_framework import status
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from audit import log, verifications
from audit.models import ArchiveRun, Checkpoint, VerificationRun
from audit.result import Outcome, Result, sentence, with_boundary
from audit.verifications import AlreadyVerifyingError
from audit.web import verify_for

from .access import MayReadVerifications, MayVerify
from .serializers import CheckpointSerializer, UnresolvedSerializer, VerificationSerializer

Level = VerificationRun.Level


@method_decorator(never_cache, name="dispatch")
class Verify(APIView):
    """How the log was found to be the last time; and a new verification, within the request."""

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
        """Verify; say where the report is, or why there is none."""
        level = level_of(request.data)
        try:
            found = verify_for(request, ArchiveRun.Trigger.API, level)
        except AlreadyVerifyingError as error:
            return Response(
                {"detail": str(error), "outcome": "busy", **_place(error.run)},
                status.HTTP_409_CONFLICT,
            )
        except log.BusyError as error:
            return Response({"detail": str(error)}, status.HTTP_503_SERVICE_UNAVAILABLE)
        except DatabaseError:
            raise
        except Exception as error:
            return Response(
                {
                    "detail": f"This program failed ({sentence(error)}): that says nothing about "
                    "the log."
                },
                status.HTTP_500_INTERNAL_SERVER_ERROR,
            )
        place = _place(found.run)
        return Response(
            {**place, "outcome": found.report.outcome, "level": found.level},
            status.HTTP_202_ACCEPTED,
            headers={"Location": place["url"]},
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
    return {"run": run, "url": reverse("audit-verification", args=[run])}
