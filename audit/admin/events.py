"""Events in the console."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from audit import ingest, log
from audit.format.errors import AuditError, RecordError
from audit.format.record import parse
from audit.models import AuditEvent

from .readonly import ReadOnlyAdmin, moment

COUNTED = 10_000


if TYPE_CHECKING:
    EventPaginator = Paginator[AuditEvent]
else:  # generic for the type checker only
    EventPaginator = Paginator


class BoundedPaginator(EventPaginator):
    """Counts no further than a person would page: a log has millions of rows."""

    @cached_property
    def count(self) -> int:
        """Return the number of rows, or the most that are counted."""
        rows: Any = self.object_list
        return int(rows.order_by()[:COUNTED].count())


class OutcomeFilter(admin.SimpleListFilter):
    """The outcomes that exist; asking the table for them would read all of it."""

    title = "outcome"
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices."""
        return [(outcome, outcome) for outcome in ingest.OUTCOMES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the events of the chosen outcome."""
        return queryset.filter(outcome=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """The hot log, newest first."""

    list_display = ("seq", "recorded", "tenant_flagged", "who", "action", "outcome", "source")
    list_filter = (OutcomeFilter,)
    # Exact, so that the two indexes serve: `=` would ignore case and read the whole table.
    search_fields = ("tenant__exact", "actor_id__exact")
    search_help_text = "The whole name of a tenant, or the whole id of an actor."
    ordering = ("-seq",)
    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50
    list_max_show_all = 200
    fields = (
        "seq",
        "recorded",
        "occurred",
        "tenant_flagged",
        "source",
        "who",
        "actor_id",
        "action",
        "target",
        "outcome",
        "external_id",
        "link",
        "pretty_record",
    )

    class Media:
        """Lets long lines of a record wrap."""

        css: ClassVar = {"all": ["audit/console.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEvent]:
        """Return what is part of the log: what is at or below the floor is not any more."""
        rows = super().get_queryset(request)
        try:
            return rows.filter(seq__gt=log.current_state().floor_seq)
        except AuditError as error:
            self.message_user(request, str(error), "ERROR")
            return rows

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Look the tenants of a page up in one query."""
        changelist = super().get_changelist_instance(request)
        unknown = ingest.unknown_tenants(event.tenant for event in changelist.result_list)
        for event in changelist.result_list:
            event.tenant_is_unknown = event.tenant in unknown
        return changelist

    @admin.display(description="recorded (UTC)", ordering="seq")
    def recorded(self, event: AuditEvent) -> str:
        """Return the time of recording with its milliseconds."""
        return moment(event.recorded_at)

    @admin.display(description="occurred (UTC)")
    def occurred(self, event: AuditEvent) -> str:
        """Return the source's own time with its milliseconds."""
        return moment(event.occurred_at)

    @admin.display(description="actor", ordering="actor_id")
    def who(self, event: AuditEvent) -> str:
        """Return the actor's name."""
        return event.actor

    @admin.display(description="tenant", ordering="tenant")
    def tenant_flagged(self, event: AuditEvent) -> str | SafeString:
        """Return the tenant, flagged where nobody knows it."""
        unknown = getattr(event, "tenant_is_unknown", None)
        if unknown is None:
            unknown = bool(ingest.unknown_tenants([event.tenant]))
        if unknown:
            return format_html("{} <strong>(unknown)</strong>", event.tenant)
        return event.tenant

    @admin.display(description="record")
    def pretty_record(self, event: AuditEvent) -> SafeString:
        """Return the record, indented for reading; the stored bytes stay as they are."""
        raw = log.as_bytes(event.record)
        try:
            text = json.dumps(parse(raw), ensure_ascii=False, indent=2)
        except RecordError:
            text = raw.decode("utf-8", errors="backslashreplace")
        return format_html('<pre class="audit-record">{}</pre>', text)
