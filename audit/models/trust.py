"""What is signed of the log, and how it was found to be."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q

from .archive import ArchiveRun
from .limits import HASH_DIGITS


class Checkpoint(models.Model):
    """A signed statement of where the log ended: the exact bytes, and where they are kept.

    `frontier` is believed only where it folds to the signed root.
    """

    class State(models.TextChoices):
        """Only ever forward: signed here, confirmed in the bucket."""

        PENDING = "pending"
        PUBLISHED = "published"

    index = models.BigIntegerField(primary_key=True)
    seq = models.BigIntegerField()
    link = models.CharField(max_length=HASH_DIGITS)
    root = models.CharField(max_length=HASH_DIGITS)
    at = models.DateTimeField()
    sha256 = models.CharField(max_length=HASH_DIGITS, unique=True)
    document = models.BinaryField()
    frontier = models.JSONField(default=list, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    published_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        """What must hold of a row, whoever writes it."""

        ordering: ClassVar = ["-index"]
        indexes: ClassVar = [models.Index(fields=["seq"], name="checkpoint_seq")]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(index__gte=1, seq__gte=0), name="checkpoint_place"),
            models.CheckConstraint(
                condition=Q(state="published", published_at__isnull=False)
                | Q(state="pending", published_at__isnull=True),
                name="checkpoint_published_at",
            ),
        ]

    def __str__(self) -> str:
        """Return its index and seq."""
        return f"checkpoint {self.index:,} of seq {self.seq:,}"


class CheckpointRefusal(models.Model):
    """Why no checkpoint is made any more, and since when; gone once one is made again.

    `failure` is the kind of the alarm that it is.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    error = models.TextField()
    failure = models.CharField(max_length=20, blank=True, default="")
    since = models.DateTimeField()
    last = models.DateTimeField()

    class Meta:
        """One row."""

        verbose_name = "refusal of a checkpoint"
        verbose_name_plural = "refusals of a checkpoint"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(id=1), name="checkpointrefusal_single")
        ]

    def __str__(self) -> str:
        """Return when it was refused last."""
        return f"checkpoint refused, last at {self.last:%Y-%m-%d %H:%M:%S} UTC"


class VerificationRun(models.Model):
    """One verification: who asked for it, how far it looked, and what it found.

    `host`, `pid` and `pid_started` tell, as those of the lease do, whether the process of one
    that says it is running is gone; `holder` is for people.
    """

    class Level(models.TextChoices):
        """How much was read."""

        MANIFESTS = "manifests", "manifests: signatures, continuity, sizes"
        FULL = "full", "full: every byte"

    class Outcome(models.TextChoices):
        """What the whole of it comes to; empty while it runs."""

        RUNNING = "", "running"
        OK = "ok"
        TAMPERED = "tampered"
        UNVERIFIABLE = "unverifiable"
        GAP = "gap"

    trigger = models.CharField(max_length=10, choices=ArchiveRun.Trigger.choices)
    request = models.CharField(max_length=36, blank=True, default="")
    requested_by = models.CharField(max_length=200, blank=True)
    requested_from = models.CharField(max_length=200, blank=True, default="")
    level = models.CharField(max_length=10, choices=Level.choices)
    batch_seq = models.BigIntegerField(null=True, blank=True)
    holder = models.CharField(max_length=200, blank=True)
    host = models.CharField(max_length=100, blank=True)
    pid = models.BigIntegerField(default=0)
    pid_started = models.CharField(max_length=50, blank=True)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(
        max_length=20, choices=Outcome.choices, default=Outcome.RUNNING, blank=True
    )
    events = models.BigIntegerField(default=0)
    report = models.JSONField(default=dict, blank=True)

    class Meta:
        """Newest first, as an operator reads them."""

        verbose_name = "verification"
        ordering: ClassVar = ["-id"]
        permissions: ClassVar = [("verify_log", "Can verify the log")]

    def __str__(self) -> str:
        """Return its number and what it found."""
        return f"verification {self.pk}: {self.get_outcome_display()}"

    @property
    def duration(self) -> timedelta | None:
        """Return how long it took, once it has ended."""
        return self.finished_at - self.started_at if self.finished_at else None

    @property
    def is_whole(self) -> bool:
        """Say whether it came to an end of its own: it did not die, was not stopped or broken."""
        return not {"error", "stopped", "broken"} & self.report.keys()

    @property
    def is_silent(self) -> bool:
        """Say whether it has died or was stopped, and so says nothing of the log."""
        ended = {"error", "stopped"} & self.report.keys()
        return self.outcome == self.Outcome.UNVERIFIABLE and bool(ended)
