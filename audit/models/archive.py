"""The archive: its lease, its runs, its ledger."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from .limits import HASH_DIGITS


class Lease(models.Model):
    """Who may run the archive now. One row a name; `token` only rises.

    `expires_at` is by the database's clock. `host`, `pid` and `pid_started` tell whether the
    holder is a process of this machine that is gone; `holder` is for people.
    """

    name = models.CharField(max_length=50, primary_key=True)
    holder = models.CharField(max_length=200, blank=True)
    host = models.CharField(max_length=100, blank=True)
    pid = models.BigIntegerField(default=0)
    pid_started = models.CharField(max_length=50, blank=True)
    token = models.BigIntegerField(default=0)
    acquired_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        """Return the name and the holder."""
        return f"{self.name}: {self.holder or 'free'}"


class ArchiveRun(models.Model):
    """One execution of the archive; its counters move while it runs.

    `request_seq` and `outcome_seq` are the seqs of the two events that it has in the log; none
    where they are on their way (`OwnEvent`). `failure` is the kind of the alarm that its end is.
    """

    class Trigger(models.TextChoices):
        """By which door the run was asked for."""

        BEAT = "beat"
        CONSOLE = "console"
        COMMAND = "command"
        API = "api", "API"

    class Outcome(models.TextChoices):
        """How a run ended; empty while it runs."""

        RUNNING = "", "running"
        ARCHIVED = "archived"
        NOTHING_DUE = "nothing_due", "nothing due"
        INTERRUPTED = "interrupted"
        REFUSED = "refused"
        FAILED = "failed"

    trigger = models.CharField(max_length=10, choices=Trigger.choices)
    request = models.CharField(max_length=36, blank=True, default="")
    requested_by = models.CharField(max_length=200, blank=True)
    requested_from = models.CharField(max_length=200, blank=True, default="")
    override = models.BooleanField(default=False)
    max_batches = models.BigIntegerField(null=True, blank=True)
    through_seq = models.BigIntegerField(null=True, blank=True)
    request_seq = models.BigIntegerField(null=True, blank=True)
    outcome_seq = models.BigIntegerField(null=True, blank=True)
    token = models.BigIntegerField(unique=True)
    holder = models.CharField(max_length=200)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    cutoff = models.DateTimeField()
    outcome = models.CharField(
        max_length=20, choices=Outcome.choices, default=Outcome.RUNNING, blank=True
    )
    phase = models.CharField(max_length=20, blank=True)
    events = models.BigIntegerField(default=0)
    batches = models.IntegerField(default=0)
    bytes_uncompressed = models.BigIntegerField(default=0)
    bytes_compressed = models.BigIntegerField(default=0)
    seconds = models.JSONField(default=dict, blank=True)
    kept = models.TextField(blank=True)
    notes = models.TextField(blank=True)
    error = models.TextField(blank=True)
    failure = models.CharField(max_length=20, blank=True, default="")

    class Meta:
        """Newest first, as an operator reads them."""

        verbose_name = "archive run"
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [("run_archive", "Can run the archive now")]

    def __str__(self) -> str:
        """Return the run's number and how it ended."""
        return f"run {self.pk}: {self.get_outcome_display()}"

    @property
    def duration(self) -> timedelta | None:
        """Return how long the run took, once it has ended."""
        return self.finished_at - self.started_at if self.finished_at else None


class ArchiveBatch(models.Model):
    """One contiguous range of seqs on its way to cold, or there: a row of the ledger."""

    class State(models.TextChoices):
        """Only ever forward: the range is fixed, both objects are confirmed, hot is gone."""

        PLANNED = "planned"
        STORED = "stored"
        PURGED = "purged"

    start_seq = models.BigIntegerField(unique=True)
    end_seq = models.BigIntegerField(unique=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PLANNED)
    event_count = models.BigIntegerField()
    start_link = models.CharField(max_length=HASH_DIGITS)
    end_link = models.CharField(max_length=HASH_DIGITS, blank=True)
    root = models.CharField(max_length=HASH_DIGITS, blank=True)
    frontier = models.JSONField(default=list, blank=True)
    last_recorded_at = models.DateTimeField(null=True, blank=True)
    bucket = models.CharField(max_length=255, blank=True)
    jsonl_key = models.CharField(max_length=1024, blank=True)
    jsonl_sha256 = models.CharField(max_length=HASH_DIGITS, blank=True)
    manifest_key = models.CharField(max_length=1024, blank=True)
    manifest_sha256 = models.CharField(max_length=HASH_DIGITS, blank=True)
    bytes_uncompressed = models.BigIntegerField(default=0)
    bytes_compressed = models.BigIntegerField(default=0)
    planned_at = models.DateTimeField()
    archived_at = models.DateTimeField(null=True, blank=True)
    purged_at = models.DateTimeField(null=True, blank=True)
    run = models.ForeignKey(
        ArchiveRun, null=True, blank=True, on_delete=models.PROTECT, related_name="batch_rows"
    )

    class Meta:
        """What must hold of a row, whoever writes it."""

        verbose_name = "batch"
        verbose_name_plural = "batches"
        ordering: ClassVar = ["-start_seq"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(start_seq__gte=1, end_seq__gte=F("start_seq")),
                name="batch_range",
            ),
            models.CheckConstraint(
                condition=Q(event_count=F("end_seq") - F("start_seq") + 1),
                name="batch_event_count",
            ),
            models.CheckConstraint(
                condition=Q(state="planned")
                | Q(
                    ~Q(end_link=""),
                    ~Q(root=""),
                    ~Q(jsonl_key=""),
                    ~Q(jsonl_sha256=""),
                    ~Q(manifest_key=""),
                    ~Q(manifest_sha256=""),
                    state__in=["stored", "purged"],
                    archived_at__isnull=False,
                ),
                name="batch_stored_is_complete",
            ),
            models.CheckConstraint(
                condition=Q(state="purged", purged_at__isnull=False)
                | Q(~Q(state="purged"), purged_at__isnull=True),
                name="batch_purged_at",
            ),
        ]

    def __str__(self) -> str:
        """Return the range and the state."""
        return f"batch {self.start_seq:,}–{self.end_seq:,} ({self.state})"
