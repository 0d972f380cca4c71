"""What is wrong by what the databases and this machine say: looked at every minute."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db.models import F

from . import anchors, conf, daily, log, verifications
from .alarms import Finding, Kind, Look, NotNowError, open_alarms
from .format.keys import KeyringError
from .models import (
    ArchiveRun,
    Checkpoint,
    CheckpointRefusal,
    DayGuard,
    Heartbeat,
    LogState,
    VerificationRun,
)
from .routers import hot_alias
from .wording import count

PUBLISHED_WITHIN = timedelta(hours=2)
LOOKED_WITHIN = timedelta(hours=1)
LEAP = timedelta(minutes=5)  # what is further ahead than that is of a clock that has leapt
ROOM = "room"
CLEARLY_MORE = 1.25  # than the least
CAUGHT_UP_WITHIN = timedelta(hours=3)  # after a pause the day's verification begins by itself
VERIFIED_WITHIN = {
    VerificationRun.Level.MANIFESTS: timedelta(hours=36),
    VerificationRun.Level.FULL: timedelta(days=8),
}
ALARMING = (ArchiveRun.Outcome.FAILED, ArchiveRun.Outcome.REFUSED)
# What stopped a run, where that is worth an alarm of its own and not just of a failed run.
GRAVE = {Kind.TAMPERING, Kind.GAP, Kind.KEY_MISSING, Kind.APPEND_REFUSED, Kind.FULL, Kind.CLOCK}
OF_VERDICT = {
    VerificationRun.Outcome.TAMPERED: Kind.TAMPERING,
    VerificationRun.Outcome.GAP: Kind.GAP,
}


def last_run() -> Iterator[Finding]:
    """Find that the last run that has ended has failed."""
    ended = ArchiveRun.objects.exclude(outcome=ArchiveRun.Outcome.RUNNING)
    # What was stopped, or died and was taken over, or was asked for what cannot be, neither failed
    # nor put anything right.
    ended = ended.exclude(outcome=ArchiveRun.Outcome.INTERRUPTED)
    row = ended.exclude(outcome__in=ALARMING, failure="").first()
    if row is None or row.outcome not in ALARMING:
        return
    kind = Kind(row.failure) if row.failure in set(GRAVE) else Kind.RUN_FAILED
    yield Finding(kind, f"Run {row.pk} ({row.get_outcome_display()}): {row.error}")


def verdicts() -> Iterator[Finding]:
    """Find what verifications have found and no later one has taken back."""
    died = False
    for row in verifications.bad_news():
        if row.is_silent:
            died = True
            continue
        yield Finding(
            OF_VERDICT.get(VerificationRun.Outcome(row.outcome), Kind.UNVERIFIABLE),
            f"Verification {row.pk} ({row.outcome}, {row.level}): "
            f"{verifications.first_problem(row)}",
        )
    if died:
        raise NotNowError  # what the one before has found, stands


def guarded_days() -> Iterator[Finding]:
    """Find that a day's work was tried as often as it may be, and none was done since."""
    kinds = {DayGuard.Job.ARCHIVE: Kind.RUN_FAILED, DayGuard.Job.VERIFY: Kind.UNVERIFIABLE}
    ended = DayGuard.objects.filter(
        state__in=[DayGuard.State.FAILED, DayGuard.State.DONE],
        day__lte=conf.schedule_clock()().date(),  # a clock may have leapt ahead, and back
    )
    if not conf.archive_enabled():
        ended = ended.exclude(job=DayGuard.Job.ARCHIVE)
    for job, kind in kinds.items():
        row = ended.filter(job=job).first()
        if row and row.state == DayGuard.State.FAILED and not daily.is_made_up_for(row):
            yield Finding(
                kind,
                f"The schedule has tried its {row.get_job_display()} of {row.day} "
                f"{count(row.tries, 'time')}, and it was not done (the last one: "
                f"{row.outcome or 'its process died'}). The next day tries again; see why, and "
                f"run {'archive_now' if job == DayGuard.Job.ARCHIVE else 'verify_audit'} now.",
            )


def unanswered(since: datetime) -> Iterator[Finding]:
    """Find that no worker has done since then what is sent every minute."""
    row = Heartbeat.objects.filter(name=Heartbeat.SCHEDULE).first()
    if row is None or not since <= row.at <= datetime.now(UTC) + LEAP:
        when = f"{row.at:%Y-%m-%d %H:%M:%S} UTC" if row else "it began"
        yield Finding(
            Kind.SCHEDULE,
            f"No worker has answered the schedule since {when}: nothing is looked at and nobody "
            "is told of anything. See that the worker for the queue 'short' runs, and what it "
            "logs.",
        )


def long_queue() -> Iterator[Finding]:
    """Find that nobody does the work of the queue `long`."""
    now = datetime.now(UTC)
    beats = dict(Heartbeat.objects.values_list("name", "at"))
    since, looked = beats.get(Heartbeat.SINCE, now), beats.get(Heartbeat.SAFETY_NET)
    if looked and since <= looked <= now and now - looked <= LOOKED_WITHIN:
        return
    if now - since <= LOOKED_WITHIN:
        raise NotNowError  # it has just come up, and may look yet
    yield Finding(
        Kind.SCHEDULE,
        "The safety net has not looked for an hour: no worker takes what the queue 'long' has, or "
        "all of its processes are busy with others. See that its worker runs, and what it is at; "
        "else nothing is archived or verified either.",
    )


def unverified() -> Iterator[Finding]:
    """Find that the log has not been verified for too long."""
    now = datetime.now(UTC)
    since = Heartbeat.objects.filter(name=Heartbeat.SINCE, at__lte=now).first()
    if since is None:
        raise NotNowError  # the schedule has never worked, or not since a clock has leapt
    first = DayGuard.objects.filter(job=DayGuard.Job.VERIFY, claimed_at__lte=now).last()
    began = first.claimed_at if first and first.claimed_at else since.at
    found = []
    for level, within in VERIFIED_WITHIN.items():
        levels = [level, VerificationRun.Level.FULL]
        newest = verifications.last_whole(*levels)
        age = now - (newest.finished_at if newest and newest.finished_at else began)
        if age > within:
            found.append(
                Finding(
                    Kind.UNVERIFIABLE,
                    f"No verification of level {level} has come to an end for {age.days} days: "
                    "see how the last ones ended, and run verify_audit.",
                )
            )
    # The row of one that died where nobody can see that says for a day that it is at work.
    at_work = verifications.running().filter(started_at__gt=now - conf.LONGEST_TASK)
    if found and (now - since.at < CAUGHT_UP_WITHIN or at_work.exists()):
        raise NotNowError
    yield from found


def refused_checkpoint() -> Iterator[Finding]:
    """Find that no checkpoint is made any more."""
    for row in CheckpointRefusal.objects.all():
        yield Finding(
            Kind(row.failure or Kind.TAMPERING),
            f"No checkpoint is made since {row.since:%Y-%m-%d %H:%M:%S} UTC: {row.error}",
        )


def waiting_checkpoints() -> Iterator[Finding]:
    """Find checkpoints that wait for the bucket for too long."""
    since = datetime.now(UTC) - PUBLISHED_WITHIN
    waiting = Checkpoint.objects.filter(state=Checkpoint.State.PENDING, at__lt=since)
    if number := waiting.count():
        yield Finding(
            Kind.BUCKET,
            f"{count(number, 'checkpoint')} not published for more than two hours: run "
            "checkpoint_now, which publishes what waits for the bucket, or says why it cannot.",
        )


def keys() -> Iterator[Finding]:
    """Find that nothing can be signed, or that the newest checkpoint's key is not known."""
    today = datetime.now(UTC).date()
    try:
        keyring = conf.keyring()
    except KeyringError as error:
        yield Finding(Kind.KEY_MISSING, str(error))
        return
    signers = keyring.signers
    ended = [key.key_id for key in signers if key.until and key.until < today]
    if not signers or ended:
        yield Finding(
            Kind.KEY_MISSING,
            (f"The signing key {ended[0]} has come to its end" if ended else "No key signs")
            + ": nothing is archived and no checkpoint is made. Set AUDIT_SIGNING_KEYS; "
            "docs/operate.md has the steps, under 'Rotate keys'.",
        )
    if row := Checkpoint.objects.first():
        anchors.signed(row)  # raises, which is a finding, too


def room() -> Iterator[Finding]:
    """Find that a disk that is written to has too little room.

    What was found is over when there is clearly more: else it would come and go with each run.
    """
    least, before = conf.min_free_bytes(), open_alarms().filter(subject=ROOM).first()
    folders = {Path(tempfile.gettempdir()): "batches are encoded before they are sent"}
    for config in settings.DATABASES.values():
        if config["ENGINE"] == "django.db.backends.sqlite3":
            folders[Path(config["NAME"]).parent] = "the database is"
    said = set()
    for folder, what in folders.items():
        free, device = shutil.disk_usage(folder).free, folder.stat().st_dev
        told = before is not None and f" {folder}, where" in f" {before.message}"
        if free < least * (CLEARLY_MORE if told else 1) and device not in said:
            said.add(device)
            yield Finding(
                Kind.FULL,
                f"{folder}, where {what}, has {free / 1024**2:,.0f} MB left, and "
                f"AUDIT_MIN_FREE_MB is {least / 1024**2:,.0f}: make room, until "
                f"{least * CLEARLY_MORE / 1024**2:,.0f} MB are free, before no event can be taken "
                "any more.",
            )


def hot() -> Iterator[Finding]:
    """Find that hot takes nothing, where it is another database than the one that has our rows."""
    if hot_alias() != "default":
        with log.write_transaction():
            LogState.objects.update(fence=F("fence"))
    yield from ()


LOOKS = (
    Look("run", last_run),
    Look("verification", verdicts),
    Look("days", guarded_days),
    Look("long queue", long_queue),
    Look("unverified", unverified),
    Look("checkpoint", refused_checkpoint),
    Look("checkpoints", waiting_checkpoints),
    Look("keys", keys),
    Look(ROOM, room),
    Look("hot", hot),
)
