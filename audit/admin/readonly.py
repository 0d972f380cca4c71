"""What all evidence has in common in the console."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString, mark_safe

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:  # generic for the type checker only
    ModelAdmin = admin.ModelAdmin


def moment(value: datetime | None) -> str:
    """Return a time in UTC with its milliseconds; a dash where there is none."""
    if value is None:
        return "–"
    return value.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")


def lines(texts: Iterable[str]) -> SafeString:
    """Return texts, escaped, a line each; a dash where there is none."""
    return format_html_join(mark_safe("<br>"), "{}", ((text,) for text in texts)) or mark_safe("–")


class ReadOnlyAdmin(ModelAdmin):
    """Nobody adds, changes or deletes here, whatever permissions they hold."""

    actions: Any = None

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False
