"""Forget what has been kept for long enough: keys of deliveries, requests that ended, old days.

A key is forgotten only where its event is in cold, gone from hot, and was recorded more than
`AUDIT_DEDUP_DAYS` ago: a delivery that comes after that is taken for a new one.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from . import conf, log, storage
from .models import Alarm, ArchiveBatch, DayGuard, RunRequest

KEPT = timedelta(days=90)  # requests for runs, guarded days
CLOCK_OFF = timedelta(minutes=5)
ALARMS_KEPT = timedelta(days=5 * 365)


logger = logging.getLogger(__name__)


def forget() -> int:
    """Delete all of it; return how many keys went.

    Nothing is forgotten by a clock that is not the bucket's as well: it may have leapt ahead.
    Raises BusyError, DatabaseError, UnavailableError.
    """
    ahead = storage.clock_ahead()
    if ahead is None or abs(ahead) > CLOCK_OFF:
        logger.warning("Nothing is forgotten while this machine's clock is not the bucket's.")
        return 0
    now = datetime.now(UTC)
    try:
        cutoff = now - timedelta(days=conf.dedup_days())
    except OverflowError:  # kept for ever
        return 0
    RunRequest.objects.filter(asked_at__lt=now - KEPT).delete()
    DayGuard.objects.filter(day__lt=(now - KEPT).date()).delete()
    Alarm.objects.filter(cleared_at__lt=now - ALARMS_KEPT).delete()
    purged = ArchiveBatch.objects.filter(
        state=ArchiveBatch.State.PURGED, last_recorded_at__lt=cutoff
    )
    newest = purged.order_by("-end_seq").values_list("end_seq", flat=True).first()
    return sum(log.forget_keys(newest)) if newest else 0
