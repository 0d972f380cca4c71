"""The log (hot), the ledger, the runs and the lease (default).

`AuditEvent`, `LogState` and `EventKey` live in the hot database: no foreign keys, no automatic
fields, so that they are the same on every engine. Everything else lives in `default`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import F, Q

HASH_DIGITS = 64
PROJECTION_CHARACTERS = 200


# Hot ---------------------------------------------------------------------------------------


class AuditEvent(models.Model):
    """One event: its record, its link, and projections of the record to search by.

    The record is the truth; a projection is a total function of it (see `audit.log`).
    """

    seq = models.BigIntegerField(primary_key=True)
    record = models.BinaryField()
    link = models.CharField(max_length=HASH_DIGITS)
    recorded_at = models.DateTimeField()
    occurred_at = models.DateTimeField()
    source = models.CharField(max_length=PROJECTION_CHARACTERS)
    tenant = models.CharField(max_length=PROJECTION_CHARACTERS)
    actor = models.CharField(max_length=PROJECTION_CHARACTERS)
    actor_id = models.CharField(max_length=PROJECTION_CHARACTERS)
    action = models.CharField(max_length=PROJECTION_CHARACTERS)
    target = models.CharField(max_length=PROJECTION_CHARACTERS)
    outcome = models.CharField(max_length=PROJECTION_CHARACTERS)
    external_id = models.CharField(max_length=PROJECTION_CHARACTERS)

    class Meta:
        """Two indexes besides the key: each serves a list in the console."""

        verbose_name = "event"
        indexes: ClassVar = [
            models.Index(fields=["tenant", "seq"], name="event_tenant_seq"),
            models.Index(fields=["actor_id", "seq"], name="event_actor_seq"),
        ]

    def __str__(self) -> str:
        """Return the event's place in the log."""
        return f"event {self.seq}"


class LogState(models.Model):
    """The one row that says where the log ends and how far it may be purged.

    Appending and raising the floor both lock it, so they queue and never race. `fence` is the
    newest lease token that has been seen here; it only rises.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    origin = models.CharField(max_length=PROJECTION_CHARACTERS)
    head_seq = models.BigIntegerField(default=0)
    head_link = models.CharField(max_length=HASH_DIGITS)
    head_recorded_at = models.DateTimeField(null=True)
    floor_seq = models.BigIntegerField(default=0)
    floor_link = models.CharField(max_length=HASH_DIGITS)
    fence = models.BigIntegerField(default=0)

    class Meta:
        """What must hold of the row, whoever writes it."""

        verbose_name = "log state"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(id=1), name="logstate_single"),
            models.CheckConstraint(
                condition=Q(floor_seq__gte=0, floor_seq__lte=F("head_seq")),
                name="logstate_floor_within_head",
            ),
        ]

    def __str__(self) -> str:
        """Return where the log ends."""
        return f"head {self.head_seq}, floor {self.floor_seq}"


class EventKey(models.Model):
    """What has been seen: kept longer than the event itself, so that a replay is recognised."""

    key = models.BinaryField(primary_key=True, max_length=16)
    digest = models.BinaryField(max_length=16)
    seq = models.BigIntegerField()

    class Meta:
        """Named as in the glossary."""

        verbose_name = "event key"

    def __str__(self) -> str:
        """Return the key as hex."""
        return bytes(self.key).hex()


# Default -----------------------------------------------------------------------------------


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
    where they are on their way (`OwnEvent`).
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
    """Why no checkpoint is made any more, and since when; gone once one is made again."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    error = models.TextField()
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


class SeenSettings(models.Model):
    """The settings of this app as a process last found them; secrets by their digests."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    values = models.JSONField()
    seen_at = models.DateTimeField()

    class Meta:
        """One row."""

        verbose_name = verbose_name_plural = "seen settings"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(id=1), name="seensettings_single")
        ]

    def __str__(self) -> str:
        """Return when they were seen."""
        return f"settings as of {self.seen_at:%Y-%m-%d %H:%M:%S} UTC"


class OwnEvent(models.Model):
    """An event of the archive's own on its way into the log; gone once it is there."""

    external_id = models.CharField(max_length=80, unique=True)
    event = models.JSONField()

    class Meta:
        """In the order in which they came about."""

        verbose_name = "own event"
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        """Return its external id."""
        return self.external_id


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
