"""Run archive now: the plan, and the button that runs it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from audit import archive, conf, guard, log, plan, selection, status
from audit.models import ArchiveRun
from audit.result import Outcome, Result
from audit.web import request_of
from audit.wording import boundary_line, count, result_line

from .readonly import moment

PERMISSION = "audit.run_archive"
PLAN = "admin:audit_archive_now"
SHOWN = 50
LEVELS = {Outcome.ARCHIVED: messages.SUCCESS, Outcome.NOTHING_DUE: messages.SUCCESS}


def may_run(request: HttpRequest) -> bool:
    """Say whether the user may run the archive."""
    return request.user.has_perm(PERMISSION)


def archive_now(request: HttpRequest) -> HttpResponse:
    """GET shows the plan, which changes nothing; POST runs it, within the request."""
    if not may_run(request):
        raise PermissionDenied
    if request.method == "POST":
        return _run(request)
    if request.method in {"GET", "HEAD"}:
        return _show(request)
    return HttpResponseNotAllowed(["GET", "HEAD", "POST"])


def _run(request: HttpRequest) -> HttpResponse:
    """Run, and say how it ended on the run's page, or on the plan's where there is no run."""
    result = archive.run(request_of(request, ArchiveRun.Trigger.CONSOLE))
    if result.run is None:
        messages.error(request, result.error or result_line(result))
        for note in result.notes:
            messages.warning(request, note)
        return redirect(PLAN)
    level = LEVELS.get(result.outcome, messages.ERROR)
    messages.add_message(request, level, f"{result_line(result)}; {boundary_line(result)}")
    if result.error:
        messages.error(request, result.error)
    if request.user.has_perm("audit.view_archiverun"):
        return redirect("admin:audit_archiverun_change", result.run)
    return redirect(PLAN)


def _show(request: HttpRequest) -> HttpResponse:
    """Show what a run would do now, and who runs where somebody does."""
    found = plan.dry_run()
    state = status.read()
    problems = [found.error] if found.error else []
    problems += [problem for problem in state.problems if problem != found.error]
    try:
        holder = guard.holder()
    except DatabaseError as error:
        holder = ""
        problems.append(log.explain(error))
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": "Run archive now",
        "opts": ArchiveRun._meta,
        "has_view_permission": request.user.has_perm("audit.view_archiverun"),
        "plan": found,
        "planned": found.outcome == Outcome.PLANNED,
        "summary": _summary(found),
        "boundary": boundary_line(found),
        "batches": found.batches[:SHOWN],
        "more": len(found.batches) - SHOWN,
        "notes": [note for note in found.notes if note not in problems],
        "problems": list(dict.fromkeys(problems)),
        "holder": holder,
        "cutoff": moment(selection.cutoff_at(datetime.now(UTC))),
        "retention": count(conf.retention_days(), "day"),
        "bucket": conf.cold_bucket(),
        "prefix": conf.cold_prefix(),
        "endpoint": conf.cold_endpoint(),
    }
    return TemplateResponse(request, "admin/audit/archive_now.html", context)


def _summary(found: Result) -> str:
    """Return what is due, in one line."""
    if not found.batches:
        return "Nothing is due."
    events = count(found.events, "event")
    return f"Due: {events} in {count(len(found.batches), 'batch', 'batches')}."
