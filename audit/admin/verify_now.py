"""Verify now: what it will look at, how the log was the last time, and the button."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.db.models import Count, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from audit import conf, ledger, log, status, verifications
from audit.handover import NotTakenError
from audit.models import ArchiveBatch, ArchiveRun, VerificationRun
from audit.web import ask_for_verification
from audit.wording import tiers_line, verified_line_of

PERMISSION = "audit.verify_log"
PAGE = "admin:audit_verify_now"
Level, Outcome = VerificationRun.Level, VerificationRun.Outcome
LEVELS = {
    Outcome.RUNNING.value: messages.INFO,
    Outcome.OK.value: messages.SUCCESS,
    Outcome.UNVERIFIABLE.value: messages.WARNING,
}


def verify_now(request: HttpRequest) -> HttpResponse:
    """GET shows what there is to verify; POST asks a worker to verify it."""
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    if request.method == "POST":
        return _verify(request)
    if request.method in {"GET", "HEAD"}:
        return _show(request)
    return HttpResponseNotAllowed(["GET", "HEAD", "POST"])


def _verify(request: HttpRequest) -> HttpResponse:
    """Ask for it, and say what was found on the verification's page, or on this one."""
    level = request.POST.get("level", "")
    if level not in Level.values:
        messages.error(request, "Choose how much is to be read: nothing was verified.")
        return redirect(PAGE)
    try:
        answer = ask_for_verification(request, ArchiveRun.Trigger.CONSOLE, level)
    except NotTakenError as error:
        messages.error(request, str(error))
        return redirect(PAGE)
    if answer.refused or answer.run is None:
        news = messages.ERROR if answer.refused else messages.INFO
        messages.add_message(request, news, answer.error or "A worker has taken it.")
        return redirect(PAGE)
    run = VerificationRun.objects.get(pk=answer.run)
    news = LEVELS.get(run.outcome, messages.ERROR)
    messages.add_message(request, news, verified_line_of(run))
    if request.user.has_perm("audit.view_verificationrun"):
        return redirect("admin:audit_verificationrun_change", answer.run)
    if run.outcome not in {Outcome.OK, Outcome.RUNNING}:
        what = f"{run.outcome.capitalize()}: {verifications.first_problem(run)}"
        messages.add_message(request, news, what)
    return redirect(PAGE)


def _show(request: HttpRequest) -> HttpResponse:
    """Show what a verification would look at, and the one that is at work where there is one."""
    state = status.read()
    problems = state.problems
    try:
        other = verifications.over_http(datetime.now(UTC))
        size = _size()
    except DatabaseError as error:
        other, size = None, {}
        problems = list(dict.fromkeys([*problems, log.explain(error)]))
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "Verify now",
        "opts": VerificationRun._meta,
        "has_view_permission": request.user.has_perm("audit.view_verificationrun"),
        "state": state,
        "problems": problems,
        "other": other,
        "size": size,
        "boundary": tiers_line(state.highest_archived_seq, state.oldest_hot_seq),
        "chosen": Level.MANIFESTS.value,
        "bucket": conf.cold_bucket(),
        "prefix": conf.cold_prefix(),
        "endpoint": conf.cold_endpoint(),
    }
    return TemplateResponse(request, "admin/audit/verify_now.html", context)


def _size() -> dict[str, int]:
    """Return how much there is in cold by the ledger."""
    rows = ArchiveBatch.objects.filter(state__in=ledger.IN_COLD)
    return rows.aggregate(
        batches=Count("pk"), events=Sum("event_count"), bytes=Sum("bytes_compressed")
    )
