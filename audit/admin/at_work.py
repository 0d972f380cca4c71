"""Pages of what may still be at work: they load themselves again until it has ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from audit.wording import verdict

from .readonly import ReadOnlyAdmin

EVERY = 3  # seconds


class AtWorkAdmin(ReadOnlyAdmin):
    """Says whether a row that says so is at work, and how far it is."""

    change_form_template = "admin/audit/at_work.html"
    gone = ""  # what is said of one that says that it is running, and is not

    class Media:
        """Tells good news from bad, and lets long keys wrap."""

        css: ClassVar = {"all": ["audit/console.css"]}

    @admin.display(description="outcome", ordering="outcome")
    def found(self, row: Any) -> SafeString:
        """Return how it ended."""
        kind = f"audit-verdict audit-{row.outcome or 'running'}"
        return format_html('<strong class="{}">{}</strong>', kind, verdict(row))

    def is_at_work(self, row: Any) -> bool:
        """Say whether the process of a row that says that it is running is there."""
        raise NotImplementedError

    def progress(self, row: Any) -> str:
        """Return how far it is, in words that go on a sentence."""
        raise NotImplementedError

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        """Add whether it is at work; `?still` keeps the page as it is."""
        row = context["original"]
        if not row.outcome:
            at_work = self.is_at_work(row)
            elapsed = datetime.now(UTC) - row.started_at
            context |= {
                "at_work": at_work,
                "every": EVERY,
                "refresh": at_work and "still" not in request.GET,
                "progress": f"{elapsed.total_seconds():,.0f} s{self.progress(row)}",
                "gone": "" if at_work else self.gone,
            }
        return super().render_change_form(request, context, *args, **options)
