"""What the console and the HTTP interface share: who asks for a run, and from where."""

from __future__ import annotations

from django.http import HttpRequest

from .models import ArchiveRun
from .request import Request


def request_of(http: HttpRequest, trigger: ArchiveRun.Trigger) -> Request:
    """Return the request for a run that its caller makes.

    A person, or a program under a person's name, asks: so `ARCHIVE_ENABLED` does not matter. The
    address is that of whoever connected, a proxy's where there is one: a header that names
    another can be written by anybody.
    """
    return Request(
        trigger=trigger,
        requested_by=http.user.get_username(),
        requested_from=str(http.META.get("REMOTE_ADDR", "")),
        override=True,
    )
