"""What the schedule did on each day, in the console."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from audit.models import DayGuard
from audit.unattended import BAD, GOOD, OPEN
from audit.verifications import FOUND

from .readonly import ReadOnlyAdmin, moment

State, Job = DayGuard.State, DayGuard.Job
CAME_TO = {Job.ARCHIVE: "archiverun", Job.VERIFY: "verificationrun"}


@admin.register(DayGuard)
class DayGuardAdmin(ReadOnlyAdmin):
    """A line for each day and job, newest first."""

    list_display = ("date", "what", "came_to", "outcome_text", "tries", "next_try", "begun", "who")
    list_filter = ("job", "state", "day")

    class Media:
        """Tells good news from bad."""

        css: ClassVar = {"all": ["audit/console.css"]}

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Say what the list is."""
        title = {"title": "What the schedule did on each day"}
        return super().changelist_view(request, {**title, **(extra_context or {})})

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Lead to the run or verification those who may see it."""
        may = obj and request.user.has_perm(f"audit.view_{CAME_TO[Job(obj.job)]}")
        shown = ("date", "what", "came_to", "outcome_text", "link" if may else "number")
        return [
            (None, {"fields": shown}),
            ("Tries", {"fields": ("tries", "next_try", "begun", "who")}),
        ]

    @admin.display(description="day (UTC)", ordering="day")
    def date(self, row: DayGuard) -> str:
        """Return the day."""
        return row.day.isoformat()

    @admin.display(description="job", ordering="job")
    def what(self, row: DayGuard) -> str:
        """Return what is done once a day."""
        return row.get_job_display()

    @admin.display(description="state", ordering="state")
    def came_to(self, row: DayGuard) -> SafeString:
        """Return how far the day's work is, with a sign that tells good news from bad."""
        bad = row.state == State.FAILED or (row.state == State.WAITING and row.next_try_at)
        sign = BAD if bad or row.outcome in FOUND else GOOD if row.state == State.DONE else OPEN
        kind = "audit-gap" if sign == BAD else "audit-running"
        return format_html(
            '<strong class="audit-verdict {}">{} {}</strong>', kind, sign, row.state
        )

    @admin.display(description="outcome", ordering="outcome")
    def outcome_text(self, row: DayGuard) -> str:
        """Return how the last try ended."""
        return row.outcome.replace("_", " ") or "–"

    @admin.display(description="run or verification")
    def number(self, row: DayGuard) -> str:
        """Return the number of the run or verification that the last try was."""
        return "–" if row.run is None else str(row.run)

    @admin.display(description="run or verification")
    def link(self, row: DayGuard) -> SafeString | str:
        """Lead there."""
        if row.run is None:
            return "–"
        page = reverse(f"admin:audit_{CAME_TO[Job(row.job)]}_change", args=[row.run])
        return format_html('<a href="{}">{}</a>', page, row.run)

    @admin.display(description="next try (UTC)", ordering="next_try_at")
    def next_try(self, row: DayGuard) -> str:
        """Return from when on it is tried again."""
        return moment(row.next_try_at) if row.state == State.WAITING else "–"

    @admin.display(description="begun (UTC)", ordering="claimed_at")
    def begun(self, row: DayGuard) -> str:
        """Return when the last try began."""
        return moment(row.claimed_at)

    @admin.display(description="process")
    def who(self, row: DayGuard) -> str:
        """Return the process that was, or is, at it."""
        return row.holder or "–"
