"""Forget what has been kept for long enough: keys of deliveries, requests that ended, old days.

A key is forgotten only where its event is in cold, gone from hot, and was recorded more than
`AUDIT_DEDUP_DAYS` ago: a delivery that comes after that is taken for a new one.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from . import conf, log
from .models import Alarm, ArchiveBatch, DayGuard, RunRequest

KEPT = timedelta(days=90)  # requests for runs, guarded days
ALARMS_KEPT = timedelta(days=5 * 365)


def forget() -> int:
    """Delete all of it; return how many keys went. Raises BusyError, DatabaseError."""
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
