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

from audit import conf, guard, log, plan, selection, status
from audit.handover import NotTakenError
from audit.models import ArchiveRun
from audit.result import Outcome, Result, with_boundary
from audit.web import ask_for_run
from audit.wording import boundary_line, count, result_line_of

from .readonly import moment

PERMISSION = "audit.run_archive"
PLAN = "admin:audit_archive_now"
SHOWN = 50
LEVELS = {
    Outcome.ARCHIVED.value: messages.SUCCESS,
    Outcome.NOTHING_DUE.value: messages.SUCCESS,
}


def may_run(request: HttpRequest) -> bool:
    """Say whether the user may run the archive."""
    return request.user.has_perm(PERMISSION)


def archive_now(request: HttpRequest) -> HttpResponse:
    """GET shows the plan, which changes nothing; POST asks a worker to run it."""
    if not may_run(request):
        raise PermissionDenied
    if request.method == "POST":
        return _run(request)
    if request.method in {"GET", "HEAD"}:
        return _show(request)
    return HttpResponseNotAllowed(["GET", "HEAD", "POST"])


def _run(request: HttpRequest) -> HttpResponse:
    """Ask for a run; say how far it came on its page, or on the plan's where there is none."""
    try:
        answer = ask_for_run(request, ArchiveRun.Trigger.CONSOLE)
    except NotTakenError as error:
        messages.error(request, str(error))
        return redirect(PLAN)
    if answer.run is None:
        level = messages.ERROR if answer.refused else messages.INFO
        messages.add_message(request, level, answer.error or "A worker has taken it.")
        for note in answer.notes:
            messages.warning(request, note)
        return redirect(PLAN)
    run = ArchiveRun.objects.get(pk=answer.run)
    if run.outcome == ArchiveRun.Outcome.RUNNING:
        messages.info(request, f"{result_line_of(run).capitalize()} so far.")
    else:
        boundary = boundary_line(with_boundary(Result(Outcome.PLANNED)))
        level = LEVELS.get(run.outcome, messages.ERROR)
        messages.add_message(request, level, f"{result_line_of(run)}; {boundary}")
    if run.error:
        messages.error(request, run.error)
    if request.user.has_perm("audit.view_archiverun"):
        return redirect("admin:audit_archiverun_change", answer.run)
    return redirect(PLAN)


def _show(request: HttpRequest) -> HttpResponse:
    """Show what a run would do now, and who runs where somebody does."""
    found = plan.dry_run()
    state = status.read()
    problems = [found.error] if found.error else []
    problems += [problem for problem in state.problems if problem != found.error]
    try:
        holder = guard.holder()
        running = ArchiveRun.objects.filter(outcome=ArchiveRun.Outcome.RUNNING).first()
    except DatabaseError as error:
        holder, running = "", None
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
        "running": running,
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
