"""What the console and the HTTP interface share: who asks, from where, and for what."""

from __future__ import annotations

import logging

from django.db import DatabaseError
from django.http import HttpRequest

from . import handover
from .format.errors import AuditError
from .handover import Answer, Kind, NotTakenError
from .models import ArchiveRun
from .request import Request, note_without_run

NOT_TAKEN = "not_taken"

logger = logging.getLogger(__name__)


def ask_for_run(http: HttpRequest, trigger: ArchiveRun.Trigger) -> Answer:
    """Ask a worker for a run of the archive, for the caller of a request.

    Raises NotTakenError, once it is noted for the log that it was asked for.
    """
    who, where = _who_and_where(http)
    try:
        return handover.ask(Kind.ARCHIVE, trigger, who, where)
    except NotTakenError as error:
        try:
            asked = Request(trigger, who, where, override=True)
            note_without_run(asked, NOT_TAKEN, str(error))
        except (AuditError, DatabaseError) as failure:
            logger.warning("A request could not be noted for the log: %s", failure)
        raise


def ask_for_verification(http: HttpRequest, trigger: ArchiveRun.Trigger, level: str) -> Answer:
    """Ask a worker to verify the log, for the caller of a request; raises NotTakenError."""
    return handover.ask(Kind.VERIFY, trigger, *_who_and_where(http), level=level)


def _who_and_where(http: HttpRequest) -> tuple[str, str]:
    """Return the caller's name and address.

    The address is that of whoever connected; where that is a trusted proxy, the one that it has
    forwarded (`dezky.proxies`). A header of anybody else says nothing.
    """
    return http.user.get_username(), str(http.META.get("REMOTE_ADDR", ""))
