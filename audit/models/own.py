"""What the archive notes of itself on the way into the log."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q


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
