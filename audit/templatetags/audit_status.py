"""The state of the log on the console's first page."""

from __future__ import annotations

from django import template

from audit import status, wording
from audit.models import Alarm, ArchiveRun, VerificationRun

register = template.Library()


@register.simple_tag
def audit_status() -> status.Status:
    """Return the state of the log."""
    return status.read()


@register.filter
def told(alarm: Alarm) -> str:
    """Return by which ways people were told of an alarm."""
    return wording.told(alarm)


@register.filter
def verdict(run: VerificationRun | ArchiveRun) -> str:
    """Return how a run or a verification ended, as a person reads it."""
    return wording.verdict(run)
