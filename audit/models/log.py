"""The log: what the hot database holds, and nothing else.

No foreign keys, no automatic fields, so that they are the same on every engine.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from .limits import HASH_DIGITS, PROJECTION_CHARACTERS


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
