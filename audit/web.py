"""What the console and the HTTP interface share: who asks, from where, and for what."""

from __future__ import annotations

from django.http import HttpRequest

from . import verify
from .models import ArchiveRun
from .request import Request
from .verify import Asked, Verified


def request_of(http: HttpRequest, trigger: ArchiveRun.Trigger) -> Request:
    """Return the request for a run that its caller makes.

    A person, or a program under a person's name, asks: so `ARCHIVE_ENABLED` does not matter.
    """
    return Request(trigger, *_who_and_where(http), override=True)


def verify_for(http: HttpRequest, trigger: ArchiveRun.Trigger, level: str) -> Verified:
    """Verify the log for the caller of a request, by one process; raises as `verify` does."""
    return verify.verify(Asked(trigger, *_who_and_where(http), level=level, processes=1))


def _who_and_where(http: HttpRequest) -> tuple[str, str]:
    """Return the caller's name and address.

    The address is that of whoever connected, a proxy's where there is one: a header that names
    another can be written by anybody.
    """
    return http.user.get_username(), str(http.META.get("REMOTE_ADDR", ""))
