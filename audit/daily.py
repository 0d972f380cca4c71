"""Once a day and no more: the guard of what the schedule has done every day.

The schedule ticks more often than once a day, from as many beats as there are, and a message may
come twice. Whoever gets a tick first claims the day's row by a conditional update, and does the
work only where it won. What fails is tried again later that day, three times in all; what was
merely interrupted, or found another run at work, does not count. A claim whose process is gone is
taken over. The time is given by the caller: it decides which day it is, and whether it is time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from . import conf, guard, log
from .guard import Process
from .models import ArchiveRun, DayGuard, VerificationRun

MOST_TRIES = 3
PAUSES = (timedelta(minutes=30), timedelta(minutes=90))  # before the second try, and the third

GOOD = (ArchiveRun.Outcome.ARCHIVED, ArchiveRun.Outcome.NOTHING_DUE)

Job, State = DayGuard.Job, DayGuard.State


class End(Enum):
    """What a try came to: the day's work is done, to be tried again, or was not tried at all."""

    DONE = "done"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Claim:
    """The right to do a day's work, until somebody takes it over."""

    row: int
    token: int


def utc_now() -> datetime:
    """Return the time by this machine's clock."""
    return datetime.now(UTC)


def claim(job: DayGuard.Job, now: datetime, from_hour: int) -> Claim | None:
    """Claim the work of the day that it is; None where there is nothing to do yet, or any more.

    Before `from_hour` (UTC) it is too early; at any later hour of the day it is time. Raises
    BusyError, DatabaseError.
    """
    if now.hour < from_hour:
        return None
    me = Process.current()
    with log.write_transaction(DEFAULT_DB_ALIAS):
        _close_earlier(job, now)
        DayGuard.objects.get_or_create(job=job, day=now.date())
        row = DayGuard.objects.select_for_update().get(job=job, day=now.date())
        if row.state == State.RUNNING:
            if not _is_abandoned(row) or not _take_back(row, now):
                return None
        elif row.state != State.WAITING or (row.next_try_at and now < row.next_try_at):
            return None
        token = row.token + 1
        won = _update(
            row.pk,
            row.token,
            state=State.RUNNING,
            tries=row.tries + 1,
            token=token,
            claimed_at=datetime.now(UTC),
            holder=me.label,
            host=me.host,
            pid=me.pid,
            pid_started=me.started,
        )
    return Claim(row.pk, token) if won else None


def settle(claimed: Claim, now: datetime, end: End, outcome: str, run: int | None) -> None:
    """Write down what a try came to; nothing where somebody has taken the claim over."""
    with log.write_transaction(DEFAULT_DB_ALIAS):
        row = DayGuard.objects.select_for_update().get(pk=claimed.row)
        tries = row.tries - (1 if end is End.NOT_TRIED else 0)
        state, next_try = State.WAITING, None
        if end is End.DONE:
            state = State.DONE
        elif end is End.FAILED and tries >= MOST_TRIES:
            state = State.FAILED
        elif end is End.FAILED:
            next_try = now + PAUSES[tries - 1]
        _update(
            claimed.row,
            claimed.token,
            state=state,
            tries=tries,
            next_try_at=next_try,
            outcome=outcome,
            run=run,
        )


def _update(pk: int, held: int, **changes: object) -> bool:
    return bool(DayGuard.objects.filter(pk=pk, token=held).update(**changes))


def _take_back(row: DayGuard, now: datetime) -> bool:
    """Take a claim from who is gone; say whether the work may be begun anew at once.

    Once it may. Whatever kills those who try it, again and again, is given time.
    """
    if _settle_if_done(row):
        return False
    if row.tries >= MOST_TRIES:
        _update(row.pk, row.token, state=State.FAILED)
        return False
    if row.tries == 1:
        return True
    _update(row.pk, row.token, state=State.WAITING, next_try_at=now + PAUSES[row.tries - 1])
    return False


def _close_earlier(job: DayGuard.Job, now: datetime) -> None:
    """Give up what was tried on days that are over; what is still at work goes on."""
    tried = DayGuard.objects.filter(job=job, day__lt=now.date(), tries__gt=0)
    for row in tried.filter(state__in=[State.WAITING, State.RUNNING]):
        if row.state == State.RUNNING and (not _is_abandoned(row) or _settle_if_done(row)):
            continue
        _update(row.pk, row.token, state=State.FAILED)


def _settle_if_done(row: DayGuard) -> bool:
    """Settle a claim whose work has come to a good end, and only that was not written down."""
    done = _done_since(row, trigger=ArchiveRun.Trigger.BEAT)
    return done is not None and _update(
        row.pk, row.token, state=State.DONE, outcome=done.outcome, run=done.pk
    )


def is_made_up_for(row: DayGuard) -> bool:
    """Say whether anybody has done since what a day's last try did not."""
    return _done_since(row) is not None


def _done_since(row: DayGuard, **by: str) -> ArchiveRun | VerificationRun | None:
    """Return what has come to a good end since a day's work was claimed."""
    if row.claimed_at is None:
        return None
    since: dict[str, Any] = {"started_at__gte": row.claimed_at, **by}
    if row.job == Job.ARCHIVE:
        return ArchiveRun.objects.filter(outcome__in=GOOD, **since).first()
    verified = VerificationRun.objects.filter(batch_seq=None, finished_at__isnull=False, **since)
    able = verified.exclude(outcome=VerificationRun.Outcome.UNVERIFIABLE)
    return next((row for row in able if row.is_whole), None)


def _is_abandoned(row: DayGuard) -> bool:
    """Say whether whoever is at a day's work is gone, or must be.

    Whether a process of another machine is gone, its lease tells, which a run renews; that a
    verification has ended, its row.
    """
    if Process.holding(row).is_gone():
        return True
    age = datetime.now(UTC) - row.claimed_at if row.claimed_at else conf.LONGEST_TASK
    if age > timedelta(seconds=2 * conf.lease_seconds()):
        at_work = guard.holder() if row.job == Job.ARCHIVE else _is_verifying(row)
        if not at_work:
            return True
    return age >= conf.LONGEST_TASK


def _is_verifying(row: DayGuard) -> bool:
    running = VerificationRun.objects.filter(outcome=VerificationRun.Outcome.RUNNING)
    return running.filter(started_at__gte=row.claimed_at, holder=row.holder).exists()
