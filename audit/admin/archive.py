"""The ledger and the runs in the console."""

from __future__ import annotations

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from audit.models import ArchiveBatch, ArchiveRun

from .readonly import ReadOnlyAdmin, lines, moment

ERROR_CHARACTERS = 70


@admin.register(ArchiveBatch)
class ArchiveBatchAdmin(ReadOnlyAdmin):
    """The ledger, newest first."""

    list_display = ("seqs", "state", "events", "compressed", "archived", "purged", "run")
    list_filter = ("state", "archived_at")
    search_fields = ("=start_seq", "=end_seq", "jsonl_key", "manifest_key", "manifest_sha256")
    search_help_text = "A first or last seq, or a part of a key or of a manifest's SHA-256."
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
class ArchiveRunAdmin(ReadOnlyAdmin):
    """The runs, newest first."""

    list_display = (
        "number",
        "started",
        "outcome",
        "moved",
        "batches",
        "took",
        "trigger",
        "requested_by",
        "short_error",
    )
    list_filter = ("outcome", "trigger", "started_at")
    search_fields = ("requested_by", "error", "notes")
    search_help_text = "A part of a name, of an error or of a note."
    fieldsets = (
        (None, {"fields": ("number", "outcome", "error_text", "note_lines", "kept")}),
        ("Asked for", {"fields": ("trigger", "requested_by", "override")}),
        ("When", {"fields": ("started", "finished", "took", "phase", "phases")}),
        ("Moved", {"fields": ("moved", "batches", "uncompressed", "compressed")}),
        ("Lease", {"fields": ("token", "holder", "cutoff")}),
    )

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
