"""Checkpoints in the console."""

from __future__ import annotations

from typing import ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from audit import log
from audit.anchors import key_of
from audit.models import Checkpoint

from .readonly import ReadOnlyAdmin, moment

DIGITS_SHOWN = 16


@admin.register(Checkpoint)
class CheckpointAdmin(ReadOnlyAdmin):
    """The signed statements of where the log ended, newest first."""

    list_display = ("number", "place", "signed_at", "where", "published", "short_digest")
    list_filter = ("state", "published_at")
    search_fields = ("=index", "=seq", "^sha256", "^root")
    search_help_text = "An index, a seq, or the beginning of a SHA-256 or of a root."
    fieldsets = (
        (None, {"fields": ("number", "place", "signed_at", "where", "published")}),
        ("In the chain", {"fields": ("link", "root")}),
        ("In the bucket", {"fields": ("key", "digest")}),
        ("Signed", {"fields": ("text",)}),
    )

    class Media:
        """Lets the document wrap."""

        css: ClassVar = {"all": ["audit/console.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Checkpoint]:
        """Leave out what only the next checkpoint needs."""
        return super().get_queryset(request).defer("frontier")

    @admin.display(description="checkpoint", ordering="index")
    def number(self, row: Checkpoint) -> str:
        """Return its index."""
        return f"{row.index:,}"

    @admin.display(description="seq", ordering="seq")
    def place(self, row: Checkpoint) -> str:
        """Return the seq for which it is signed."""
        return f"{row.seq:,}"

    @admin.display(description="signed (UTC)", ordering="at")
    def signed_at(self, row: Checkpoint) -> str:
        """Return the time that it has in it."""
        return moment(row.at)

    @admin.display(description="state", ordering="state")
    def where(self, row: Checkpoint) -> str:
        """Return whether its object is confirmed."""
        waits = row.state == Checkpoint.State.PENDING
        return "pending: waits for the bucket" if waits else row.state

    @admin.display(description="published (UTC)", ordering="published_at")
    def published(self, row: Checkpoint) -> str:
        """Return when its object was confirmed in the bucket."""
        return moment(row.published_at)

    @admin.display(description="SHA-256", ordering="sha256")
    def short_digest(self, row: Checkpoint) -> str:
        """Return the beginning of its digest, as its object's name has it."""
        return f"{row.sha256[:DIGITS_SHOWN]}…"

    @admin.display(description="SHA-256")
    def digest(self, row: Checkpoint) -> str:
        """Return the whole digest of the document."""
        return row.sha256

    @admin.display(description="key in the bucket")
    def key(self, row: Checkpoint) -> str:
        """Return its object's whole key."""
        return key_of(row)

    @admin.display(description="document")
    def text(self, row: Checkpoint) -> SafeString:
        """Return the signed document, exactly as it is."""
        text = log.as_bytes(row.document).decode("utf-8", errors="backslashreplace")
        return format_html('<pre class="audit-record">{}</pre>', text)
