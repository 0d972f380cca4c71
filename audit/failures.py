"""Which alarm an error is: the one place that sorts them."""

from __future__ import annotations

import errno

from django.db import DatabaseError

from . import log, storage
from .format.errors import GapError, TamperedError, UnreachableError, UnverifiableError
from .format.keys import KeyringError
from .models import Alarm

Kind = Alarm.Kind
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def kind_of(error: BaseException) -> Kind:
    """Return the kind of the alarm that an error is; `run_failed` where it is no other.

    In this order: some of these are kinds of others.
    """
    for types, kind in (
        (log.RolledBackError, Kind.APPEND_REFUSED),
        (storage.FullError, Kind.FULL),
        (storage.ClockError, Kind.CLOCK),
        ((storage.UnavailableError, UnreachableError), Kind.BUCKET),
        ((KeyringError, UnverifiableError), Kind.KEY_MISSING),
        (TamperedError, Kind.TAMPERING),
        (GapError, Kind.GAP),
        (log.BusyError, Kind.DATABASE),
    ):
        if isinstance(error, types):
            return kind
    if isinstance(error, DatabaseError):
        return Kind.FULL if log.is_full(error) else Kind.DATABASE
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return Kind.FULL
    return Kind.RUN_FAILED
