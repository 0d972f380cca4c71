"""What runs unattended, and what is wrong."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from .archive import ArchiveRun
from .limits import PROJECTION_CHARACTERS


class RunRequest(models.Model):
    """A run or a verification that was asked for over HTTP, on its way to a worker.

    Whoever asks waits a little for a worker to take it, and else withdraws it: both by a
    conditional update, so that nothing begins behind the back of one who was told that it did not.
    `host`, `pid` and `pid_started` tell, as those of the lease do, whether its worker is gone.
    """

    class Kind(models.TextChoices):
        """What was asked for."""

        ARCHIVE = "archive"
        VERIFY = "verify"

    class State(models.TextChoices):
        """Asked, then taken and ended, or withdrawn."""

        ASKED = "asked"
        TAKEN = "taken"
        ENDED = "ended"
        WITHDRAWN = "withdrawn"

    id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    level = models.CharField(max_length=10, blank=True)
    trigger = models.CharField(max_length=10, choices=ArchiveRun.Trigger.choices)
    requested_by = models.CharField(max_length=200, blank=True)
    requested_from = models.CharField(max_length=200, blank=True)
    asked_at = models.DateTimeField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.ASKED)
    holder = models.CharField(max_length=200, blank=True)
    host = models.CharField(max_length=100, blank=True)
    pid = models.BigIntegerField(default=0)
    pid_started = models.CharField(max_length=50, blank=True)
    run = models.BigIntegerField(null=True, blank=True)
    answer = models.JSONField(default=dict, blank=True)

    class Meta:
        """Newest first."""

        verbose_name = "request for a run"
        verbose_name_plural = "requests for a run"
        ordering: ClassVar = ["-asked_at"]

    def __str__(self) -> str:
        """Return what was asked for, and how far it came."""
        return f"{self.kind} asked for at {self.asked_at:%Y-%m-%d %H:%M:%S} UTC: {self.state}"


class DayGuard(models.Model):
    """What the schedule did on one day (UTC) of a job that it does once a day.

    `tries` counts those that count, `token` all that were begun. `host`, `pid` and `pid_started`
    tell, as those of the lease do, whether the process at work is gone.
    """

    class Job(models.TextChoices):
        """What is done once a day."""

        ARCHIVE = "archive"
        VERIFY = "verify"

    class State(models.TextChoices):
        """To be tried (again), at work, done for the day, or failed as often as it may."""

        WAITING = "waiting"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    job = models.CharField(max_length=10, choices=Job.choices)
    day = models.DateField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    tries = models.IntegerField(default=0)
    token = models.BigIntegerField(default=0)
    next_try_at = models.DateTimeField(null=True, blank=True)
    claimed_at = models.DateTimeField(null=True, blank=True)
    holder = models.CharField(max_length=200, blank=True)
    host = models.CharField(max_length=100, blank=True)
    pid = models.BigIntegerField(default=0)
    pid_started = models.CharField(max_length=50, blank=True)
    outcome = models.CharField(max_length=20, blank=True)
    run = models.BigIntegerField(null=True, blank=True)

    class Meta:
        """One row a job and day."""

        verbose_name = "day of the schedule"
        verbose_name_plural = "days of the schedule"
        ordering: ClassVar = ["-day", "job"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "day"], name="dayguard_once"),
        ]

    def __str__(self) -> str:
        """Return the job, the day and what became of it."""
        return f"{self.job} of {self.day}: {self.state}"


class Heartbeat(models.Model):
    """When a part of the schedule was last known to work."""

    SCHEDULE = "schedule"  # beat, broker, a worker and the database together
    SINCE = "schedule_since"  # the first of those that came without a pause
    SAFETY_NET = "safety_net"

    name = models.CharField(max_length=30, primary_key=True)
    at = models.DateTimeField()
    holder = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        """Return the part and the time."""
        return f"{self.name}: {self.at:%Y-%m-%d %H:%M:%S} UTC"


class Alarm(models.Model):
    """Something that is wrong: open until it was looked at again and found to be right.

    `subject` names the look that found it, or several that found it together, which alone can
    clear it; one of each kind and subject is open at a time.
    """

    class Kind(models.TextChoices):
        """What is wrong."""

        RUN_FAILED = "run_failed", "run failed"
        ARCHIVE_BEHIND = "archive_behind", "archive behind"
        UNFINISHED = "unfinished", "unfinished batch"
        TAMPERING = "tampering"
        GAP = "gap"
        KEY_MISSING = "key_missing", "key missing"
        APPEND_REFUSED = "append_refused", "append refused"
        FULL = "full", "disk or quota full"
        CLOCK = "clock"
        BUCKET = "bucket", "bucket does not answer"
        BROKER = "broker", "broker does not answer"
        DATABASE = "database", "database takes nothing"
        UNKNOWN_OBJECTS = "unknown_objects", "unknown objects"
        UNVERIFIABLE = "unverifiable"
        SCHEDULE = "schedule", "schedule stands still"
        BROKEN = "broken", "look failed"

    WATCH, SAFETY_NET = "watch", "safety net"  # subjects: who looks at several things
    # What may be evidence of a crime, or keeps the log from being one.
    GRAVE: ClassVar = (Kind.TAMPERING, Kind.GAP, Kind.KEY_MISSING, Kind.APPEND_REFUSED)

    kind = models.CharField(max_length=20, choices=Kind.choices)
    subject = models.CharField(max_length=50, blank=True)
    message = models.TextField()
    opened_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    cleared_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        """Newest first; one open alarm of each kind and subject."""

        ordering: ClassVar = ["-opened_at", "-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "subject"],
                condition=Q(cleared_at__isnull=True),
                name="alarm_open_once",
            ),
        ]

    def __str__(self) -> str:
        """Return what is wrong, and since when."""
        return f"{self.get_kind_display()}, since {self.opened_at:%Y-%m-%d %H:%M:%S} UTC"

    @property
    def is_open(self) -> bool:
        """Say whether it is still so."""
        return self.cleared_at is None

    @property
    def is_grave(self) -> bool:
        """Say whether it is for whoever answers for the log, at once."""
        return self.kind in self.GRAVE


class Notice(models.Model):
    """A message about an alarm on its way to people: one for each channel, until it is sent."""

    class Event(models.TextChoices):
        """What is told of the alarm."""

        OPENED = "opened"
        CLEARED = "cleared"

    class Channel(models.TextChoices):
        """By which way."""

        EMAIL = "email", "e-mail"
        WEBHOOK = "webhook"

    alarm = models.ForeignKey(Alarm, on_delete=models.CASCADE, related_name="notices")
    event = models.CharField(max_length=10, choices=Event.choices)
    channel = models.CharField(max_length=10, choices=Channel.choices)
    tries = models.IntegerField(default=0)
    next_try_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        """Each thing is told once by each way."""

        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["alarm", "event", "channel"], name="notice_once"),
        ]

    def __str__(self) -> str:
        """Return what is told by which way."""
        return f"{self.event} by {self.channel}"


class SourceCount(models.Model):
    """How many events a source has had recorded, so far as they were counted.

    Seqs have no gaps, so the sum over all sources is the seq up to which they were.
    """

    source = models.CharField(max_length=PROJECTION_CHARACTERS, primary_key=True)
    events = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        """Return the source and its number."""
        return f"{self.source}: {self.events}"
