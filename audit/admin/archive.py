"""The ledger and the runs in the console."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from audit import guard
from audit.models import ArchiveBatch, ArchiveRun
from audit.wording import count, result_line_of

from .at_work import AtWorkAdmin
from .readonly import ReadOnlyAdmin, lines, moment
from .run_now import PLAN, archive_now, may_run

ERROR_CHARACTERS = 70


@admin.register(ArchiveBatch)
class ArchiveBatchAdmin(ReadOnlyAdmin):
    """The ledger, newest first."""

    list_display = ("seqs", "state", "events", "compressed", "archived", "purged", "run")
    list_filter = ("state", "archived_at")
    search_fields = ("=start_seq", "=end_seq", "jsonl_key", "manifest_key", "manifest_sha256")
    search_help_text = "A first or last seq, or a part of a key or of a manifest's SHA-256."
    change_list_template = "admin/audit/archive_list.html"
    actions = ("archive_now",)
    list_select_related = ("run",)
    fieldsets = (
        (None, {"fields": ("seqs", "state", "events", "run")}),
        ("When", {"fields": ("planned", "archived", "purged", "last_recorded")}),
        (
            "In the bucket",
            {
                "fields": (
                    "bucket",
                    "jsonl_key",
                    "jsonl_sha256",
                    "manifest_key",
                    "manifest_sha256",
                    "uncompressed",
                    "compressed",
                )
            },
        ),
        ("In the chain", {"fields": ("start_link", "end_link", "root")}),
    )

    def has_run_archive_permission(self, request: HttpRequest) -> bool:
        """Say who is offered the action."""
        return may_run(request)

    @admin.action(description="Run archive now", permissions=["run_archive"])
    def archive_now(self, request: HttpRequest, queryset: QuerySet[ArchiveBatch]) -> HttpResponse:
        """Lead to the plan; nothing is run here."""
        self.message_user(
            request,
            "A run takes all that is due, whatever was selected. This is the plan:",
            messages.WARNING,
        )
        return redirect(PLAN)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Lead to the run those who may see it."""
        (_, first), *others = super().get_fieldsets(request, obj)
        may = request.user.has_perm("audit.view_archiverun")
        fields = [name if may or name != "run" else "run_id" for name in first["fields"]]
        return [(None, {**first, "fields": fields}), *others]

    @admin.display(description="seqs", ordering="start_seq")
    def seqs(self, batch: ArchiveBatch) -> str:
        """Return the range."""
        return f"{batch.start_seq:,}–{batch.end_seq:,}"

    @admin.display(description="events", ordering="event_count")
    def events(self, batch: ArchiveBatch) -> str:
        """Return how many events there are."""
        return f"{batch.event_count:,}"

    @admin.display(description="compressed", ordering="bytes_compressed")
    def compressed(self, batch: ArchiveBatch) -> str:
        """Return the size of the object in the bucket."""
        return filesizeformat(batch.bytes_compressed) if batch.bytes_compressed else "–"

    @admin.display(description="uncompressed")
    def uncompressed(self, batch: ArchiveBatch) -> str:
        """Return the size of the records."""
        return filesizeformat(batch.bytes_uncompressed)

    @admin.display(description="planned (UTC)")
    def planned(self, batch: ArchiveBatch) -> str:
        """Return when the range was fixed."""
        return moment(batch.planned_at)

    @admin.display(description="archived (UTC)", ordering="archived_at")
    def archived(self, batch: ArchiveBatch) -> str:
        """Return when both objects were confirmed."""
        return moment(batch.archived_at)

    @admin.display(description="purged (UTC)", ordering="purged_at")
    def purged(self, batch: ArchiveBatch) -> str:
        """Return when the hot rows were gone."""
        return moment(batch.purged_at)

    @admin.display(description="last event recorded (UTC)")
    def last_recorded(self, batch: ArchiveBatch) -> str:
        """Return the time of the newest event in it."""
        return moment(batch.last_recorded_at)


@admin.register(ArchiveRun)
class ArchiveRunAdmin(AtWorkAdmin):
    """The runs, newest first."""

    gone = (
        "It says that it is running, but its process is gone or has let its lease run out: the "
        "next run closes it and finishes its work."
    )

    list_display = (
        "number",
        "started",
        "found",
        "short_error",
        "moved",
        "batches",
        "took",
        "trigger",
        "requested_by",
    )
    list_filter = ("outcome", "trigger", "started_at")
    search_fields = ("requested_by", "error", "notes")
    search_help_text = "A part of a name, of an error or of a note."
    change_list_template = "admin/audit/archive_list.html"
    fieldsets = (
        (None, {"fields": ("result", "found", "error_text", "note_lines", "kept")}),
        (
            "Asked for",
            {
                "fields": (
                    "trigger",
                    "requested_by",
                    "came_from",
                    "overriding",
                    "limits",
                    "asked_seq",
                    "ended_seq",
                )
            },
        ),
        ("When", {"fields": ("started", "finished", "took", "cutoff_at", "phase", "phases")}),
        ("Moved", {"fields": ("moved", "batches", "uncompressed", "compressed")}),
        ("Lease", {"fields": ("token", "holder")}),
    )

    def get_urls(self) -> list[URLPattern]:
        """Add the plan, which is no page of a run: there is none yet."""
        view = self.admin_site.admin_view(archive_now)
        return [path("archive-now/", view, name="audit_archive_now"), *super().get_urls()]

    def is_at_work(self, row: ArchiveRun) -> bool:
        """Say whether its lease is held: whoever wins the lease closes the runs before it."""
        return bool(guard.holder())

    def progress(self, row: ArchiveRun) -> str:
        """Return the phase that it is in, and what it has moved."""
        moved = f"{count(row.events, 'event')} in {count(row.batches, 'batch', 'batches')} so far"
        return f", in phase “{row.phase}”: {moved}" if row.phase else f": {moved}"

    @admin.display(description="result")
    def result(self, run: ArchiveRun) -> str:
        """Return the line with which the command ends."""
        return result_line_of(run)

    @admin.display(description="requested from")
    def came_from(self, run: ArchiveRun) -> str:
        """Return the machine or the address that it was asked for from."""
        return run.requested_from or "–"

    @admin.display(description="override")
    def overriding(self, run: ArchiveRun) -> str:
        """Return whether it was to run whatever ARCHIVE_ENABLED says."""
        return "yes: whatever ARCHIVE_ENABLED says" if run.override else "no"

    @admin.display(description="limits")
    def limits(self, run: ArchiveRun) -> str:
        """Return how far it was to go, where that was said."""
        said = []
        if run.max_batches is not None:
            said.append(f"at most {count(run.max_batches, 'batch', 'batches')}")
        if run.through_seq is not None:
            said.append(f"through seq {run.through_seq:,}, whatever its age")
        return ", ".join(said) or "none: all that is due"

    @admin.display(description="request's event")
    def asked_seq(self, run: ArchiveRun) -> str:
        """Return the seq of the event that it was asked for."""
        return _seq(run.request_seq)

    @admin.display(description="outcome's event")
    def ended_seq(self, run: ArchiveRun) -> str:
        """Return the seq of the event of how it ended."""
        return _seq(run.outcome_seq)

    @admin.display(description="run", ordering="id")
    def number(self, run: ArchiveRun) -> str:
        """Return the run's number."""
        return f"run {run.pk}"

    @admin.display(description="started (UTC)", ordering="started_at")
    def started(self, run: ArchiveRun) -> str:
        """Return when it began."""
        return moment(run.started_at)

    @admin.display(description="finished (UTC)")
    def finished(self, run: ArchiveRun) -> str:
        """Return when it ended."""
        return moment(run.finished_at)

    @admin.display(description="cutoff (UTC)")
    def cutoff_at(self, run: ArchiveRun) -> str:
        """Return the time before which an event had to be recorded to be due."""
        return moment(run.cutoff)

    @admin.display(description="took")
    def took(self, run: ArchiveRun) -> str:
        """Return how long it took."""
        return f"{run.duration.total_seconds():,.1f} s" if run.duration else "–"

    @admin.display(description="events", ordering="events")
    def moved(self, run: ArchiveRun) -> str:
        """Return how many events it moved."""
        return f"{run.events:,}"

    @admin.display(description="uncompressed")
    def uncompressed(self, run: ArchiveRun) -> str:
        """Return the size of the records."""
        return filesizeformat(run.bytes_uncompressed)

    @admin.display(description="compressed")
    def compressed(self, run: ArchiveRun) -> str:
        """Return the size of the objects in the bucket."""
        return filesizeformat(run.bytes_compressed)

    @admin.display(description="phases")
    def phases(self, run: ArchiveRun) -> SafeString:
        """Return the seconds of each phase."""
        return lines(f"{name}: {seconds:.3f} s" for name, seconds in run.seconds.items())

    @admin.display(description="error")
    def short_error(self, run: ArchiveRun) -> str:
        """Return the beginning of what went wrong."""
        return Truncator(run.error).chars(ERROR_CHARACTERS) or "–"

    @admin.display(description="error")
    def error_text(self, run: ArchiveRun) -> str:
        """Return what went wrong."""
        return run.error or "none"

    @admin.display(description="notes")
    def note_lines(self, run: ArchiveRun) -> SafeString:
        """Return the notes, a line each."""
        return lines(run.notes.splitlines())


def _seq(seq: int | None) -> str:
    return f"seq {seq:,}" if seq is not None else "not in the log yet"
