"""The ledger and the runs in the console."""

from __future__ import annotations

from django.contrib import admin

from audit.models import ArchiveBatch, ArchiveRun

from .readonly import ReadOnlyAdmin


@admin.register(ArchiveBatch)
class ArchiveBatchAdmin(ReadOnlyAdmin):
    """The ledger, newest first."""

    list_display = (
        "start_seq",
        "end_seq",
        "state",
        "event_count",
        "bytes_compressed",
        "archived_at",
        "purged_at",
        "run",
    )
    list_filter = ("state", "archived_at")
    search_fields = ("=start_seq", "=end_seq", "jsonl_key", "manifest_key", "manifest_sha256")
    list_select_related = ("run",)


@admin.register(ArchiveRun)
class ArchiveRunAdmin(ReadOnlyAdmin):
    """The runs, newest first."""

    list_display = (
        "id",
        "started_at",
        "trigger",
        "requested_by",
        "outcome",
        "phase",
        "batches",
        "events",
        "duration",
        "error",
    )
    list_filter = ("outcome", "trigger", "started_at")
    search_fields = ("requested_by", "error", "notes")
