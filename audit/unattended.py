"""How what is done unattended stands: the schedule, its two nightly jobs, the safety net.

A line each, by what the databases say. That nothing runs by itself is a problem only where
something should.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta

from . import conf, daily, verifications
from .daily import Job, State
from .models import Alarm, DayGuard, Heartbeat

ALARMS, SCHEDULE, SAFETY_NET = "Alarms", "Schedule", "Safety net"
NIGHTLY_ARCHIVE, NIGHTLY_VERIFICATION = "Nightly archive", "Nightly verification"
ANSWERS_WITHIN = timedelta(minutes=3)
LOOKS_WITHIN = timedelta(minutes=45)  # it looks every 15
GOOD, BAD, OPEN, OFF = "✓", "✗", "…", "–"


@dataclass(frozen=True)
class Line:
    """How one part stands; `sign` tells good from bad without a colour."""

    name: str
    sign: str
    text: str


def look(now: datetime) -> tuple[list[Line], list[str]]:
    """Return a line for each part, and a sentence for each problem. Raises DatabaseError."""
    if not conf.broker_url():
        why = "nothing runs by itself: REDIS_URL is not set"
        problems = [f"ARCHIVE_ENABLED is on, but {why}."] if conf.archive_enabled() else []
        return [Line(SCHEDULE, OFF, why)], problems
    beats = dict(Heartbeat.objects.values_list("name", "at"))
    answered = _answered(beats.get(Heartbeat.SCHEDULE), now)
    problems = []
    if answered.sign == BAD:
        said = f"{answered.text[0].upper()}{answered.text[1:]}"
        problems = [f"{said}. See that beat and worker run, and what they log."]
    looked = _looked(beats.get(Heartbeat.SAFETY_NET), now)
    return [answered, _archive(now), _verification(now), looked], problems


def _answered(at: datetime | None, now: datetime) -> Line:
    """Say when beat, broker, worker and database last did together what they do every minute."""
    if at is None:
        return Line(SCHEDULE, BAD, "no worker has answered yet: nothing runs by itself")
    if now - at > ANSWERS_WITHIN:
        since = f"no worker has answered since {_full(at)}: nothing runs by itself"
        return Line(SCHEDULE, BAD, since)
    if at - now > ANSWERS_WITHIN:
        text = f"a worker answered at {_full(at)}, which is yet to come: a clock is wrong"
        return Line(SCHEDULE, BAD, text)
    return Line(SCHEDULE, GOOD, f"answered at {at:%H:%M:%S} UTC")


def _archive(now: datetime) -> Line:
    if not conf.archive_enabled():
        text = "off: ARCHIVE_ENABLED is not set, so it runs when somebody asks"
        return Line(NIGHTLY_ARCHIVE, OFF, text)
    from_hour = time(conf.run_hour_utc(), conf.ARCHIVE_MINUTE)
    sign, text = _today(Job.ARCHIVE, "run", from_hour, now)
    return Line(NIGHTLY_ARCHIVE, sign, text)


def _verification(now: datetime) -> Line:
    from_hour = time(conf.verify_hour_utc(), conf.VERIFY_MINUTE)
    sign, text = _today(Job.VERIFY, "verification", from_hour, now)
    return Line(NIGHTLY_VERIFICATION, sign, text)


def _today(job: DayGuard.Job, noun: str, begins: time, now: datetime) -> tuple[str, str]:
    """Say what was done today of a job that is done once a day, and when it is time again."""
    row = DayGuard.objects.filter(job=job, day=now.date()).first()
    if row is None:
        first = now.replace(hour=begins.hour, minute=begins.minute, second=0)
        if now < first:
            return OPEN, f"from {first:%H:%M} UTC today"
        following = now.replace(minute=begins.minute)
        if following <= now:
            following += timedelta(hours=1)
        return OPEN, f"due since {first:%H:%M}, begins at {following:%H:%M} UTC"
    if row.state == State.RUNNING:
        return OPEN, f"at work since {_clock(row.claimed_at)}: {row.holder}"
    came = row.outcome.replace("_", " ") or "not begun"
    came += f" today ({noun} {row.run})" if row.run else " today"
    if row.state == State.WAITING:
        if row.next_try_at is None:
            return OPEN, f"{came}; due again"
        again = f"try {row.tries} of {daily.MOST_TRIES}, the next from {_clock(row.next_try_at)}"
        return BAD, f"{came}, {again}"
    good = row.state == State.DONE and row.outcome not in verifications.FOUND
    tries = "" if row.state == State.DONE else f", {row.tries} tries"
    return (GOOD if good else BAD), f"{came}{tries}; again tomorrow from {begins:%H:%M} UTC"


def _looked(at: datetime | None, now: datetime) -> Line:
    if at is None:
        return Line(SAFETY_NET, OPEN, "has not looked yet")
    if now - at > LOOKS_WITHIN:
        return Line(SAFETY_NET, BAD, f"has not looked since {_full(at)}")
    if Alarm.objects.filter(cleared_at=None, subject=Alarm.SAFETY_NET).exists():
        return Line(SAFETY_NET, BAD, f"looked at {_clock(at)}, and not to the end: see the alarm")
    return Line(SAFETY_NET, GOOD, f"looked last at {_clock(at)}")


def _clock(at: datetime | None) -> str:
    return f"{at:%H:%M} UTC" if at else "a time that is not known"


def _full(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
