"""Alarms in the console: what is wrong or was, since when, and who was told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Case, QuerySet, Value, When
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator, capfirst

from audit import notices
from audit.models import Alarm, Notice
from audit.wording import count, state_of

from .readonly import ReadOnlyAdmin, moment

MESSAGE_CHARACTERS = 100
OPEN, CLEARED = "open", "cleared"


class StateFilter(admin.SimpleListFilter):
    """Open or cleared, which is no column of its own."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices."""
        return [(OPEN, "Open"), (CLEARED, "Cleared")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the alarms of the chosen state."""
        if self.value() in {OPEN, CLEARED}:
            return queryset.filter(cleared_at__isnull=self.value() == OPEN)
        return queryset


class KindFilter(admin.SimpleListFilter):
    """The kinds that there have been."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices."""
        been = set(Alarm.objects.order_by().values_list("kind", flat=True).distinct())
        return [(kind.value, capfirst(kind.label)) for kind in Alarm.Kind if kind in been]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the alarms of the chosen kind."""
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(Alarm)
class AlarmAdmin(ReadOnlyAdmin):
    """The alarms, grave open ones first, then open ones: nobody clears one by hand."""

    list_display = ("state", "what", "short_message", "opened", "seen", "cleared")
    list_filter = (StateFilter, KindFilter)
    search_fields = ("message", "subject")
    search_help_text = "A part of a message, or of the name of what is looked at."
    ordering = (
        Case(
            When(cleared_at=None, kind__in=Alarm.GRAVE, then=Value(0)),
            When(cleared_at=None, then=Value(1)),
            default=Value(2),
        ),
        "-opened_at",
        "-id",
    )
    fieldsets = (
        (
            None,
            {
                "fields": ("state", "what", "text", "told"),
                "description": "Nothing can be changed on this page: mend what the message names, "
                "and the look that found it clears it. What each kind means and what to do is in "
                "docs/operate.md, under “Kinds”.",
            },
        ),
        ("When", {"fields": ("opened", "seen", "cleared")}),
        ("Found by", {"fields": ("look",)}),
    )

    class Media:
        """Tells open ones from cleared ones, and lets long messages wrap."""

        css: ClassVar = {"all": ["audit/console.css"]}

    @admin.display(description="state")
    def state(self, alarm: Alarm) -> SafeString:
        """Return whether it is still so."""
        kind = f"audit-verdict audit-{OPEN if alarm.is_open else CLEARED}"
        return format_html('<strong class="{}">{}</strong>', kind, state_of(alarm))

    @admin.display(description="kind", ordering="kind")
    def what(self, alarm: Alarm) -> str:
        """Return what is wrong, in a word or two and as the handbook has it."""
        return f"{capfirst(alarm.get_kind_display())} ({alarm.kind}){', grave' * alarm.is_grave}"

    @admin.display(description="message")
    def short_message(self, alarm: Alarm) -> str:
        """Return the beginning of the sentence."""
        return Truncator(alarm.message).chars(MESSAGE_CHARACTERS)

    @admin.display(description="message")
    def text(self, alarm: Alarm) -> SafeString:
        """Return what is wrong, and what to do next."""
        return format_html('<span class="audit-text">{}</span>', alarm.message)

    @admin.display(description="opened (UTC)", ordering="opened_at")
    def opened(self, alarm: Alarm) -> str:
        """Return when it was found."""
        return moment(alarm.opened_at)

    @admin.display(description="last seen (UTC)", ordering="last_seen_at")
    def seen(self, alarm: Alarm) -> str:
        """Return when it was last found to be so."""
        return moment(alarm.last_seen_at)

    @admin.display(description="cleared (UTC)", ordering="cleared_at")
    def cleared(self, alarm: Alarm) -> str:
        """Return when it was found to be right again."""
        return moment(alarm.cleared_at)

    @admin.display(description="look")
    def look(self, alarm: Alarm) -> str:
        """Return the name of the look that found it."""
        return alarm.subject

    @admin.display(description="told")
    def told(self, alarm: Alarm) -> SafeString | str:
        """Return each message to people on a line of its own, and what became of it."""
        rows = [_fate(alarm, row) for row in alarm.notices.all()]
        if not rows:
            return "none: neither AUDIT_ALARM_EMAILS nor AUDIT_ALARM_WEBHOOK_URL was set"
        items = format_html_join("", "<li><strong>{} {}</strong>{}</li>", rows)
        return format_html('<ul class="audit-list">{}</ul>', items)


def _fate(alarm: Alarm, row: Notice) -> tuple[str, str, str]:
    """Return a sign, which message it is, and what became of it."""
    name = f"{row.event} by {row.get_channel_display().lower()}"
    tries = count(row.tries, "try", "tries")
    if row.sent_at:
        return "✓", name, f": sent {moment(row.sent_at)} UTC ({tries})"
    why = f": {row.error}" if row.error else ""
    newest = alarm.cleared_at or alarm.opened_at
    if newest < datetime.now(UTC) - notices.GIVEN_UP:
        return "✗", name, f": not sent, and given up after {tries}{why}"
    again = f"tried again from {moment(row.next_try_at)} UTC"
    return "…", name, f": not sent yet ({tries}), {again}{why}"
