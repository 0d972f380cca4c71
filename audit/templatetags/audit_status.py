"""The state of the log on the console's first page."""

from __future__ import annotations

from django import template

from audit import status

register = template.Library()


@register.simple_tag
def audit_status() -> status.Status:
    """Return the state of the log."""
    return status.read()
