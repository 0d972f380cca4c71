"""The ledger and the runs as JSON. Times are those of the records: UTC, milliseconds, `Z`."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from rest_framework import serializers

from audit.format.record import format_time
from audit.models import ArchiveBatch, ArchiveRun


class Moment(serializers.DateTimeField):
    """A time as it stands in a record."""

    def to_representation(self, value: datetime) -> str:
        """Return RFC 3339."""
        return format_time(value)


class BatchSerializer(serializers.ModelSerializer[ArchiveBatch]):
    """A row of the ledger."""

    serializer_field_mapping: ClassVar = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.DateTimeField: Moment,
    }

    class Meta:
        """Every field but the frontier, which the next batch needs and nobody else."""

        model = ArchiveBatch
        fields = (
            "start_seq",
            "end_seq",
            "state",
            "event_count",
            "planned_at",
            "archived_at",
            "purged_at",
            "bucket",
            "jsonl_key",
            "jsonl_sha256",
            "manifest_key",
            "manifest_sha256",
            "bytes_uncompressed",
            "bytes_compressed",
            "start_link",
            "end_link",
            "root",
            "last_recorded_at",
            "run",
        )


class RunSerializer(serializers.ModelSerializer[ArchiveRun]):
    """A run; `lease` is the number that its errors call it by."""

    serializer_field_mapping = BatchSerializer.serializer_field_mapping

    run = serializers.IntegerField(source="pk")
    outcome = serializers.SerializerMethodField()
    notes = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()
    lease = serializers.IntegerField(source="token")

    class Meta:
        """Every field."""

        model = ArchiveRun
        fields = (
            "run",
            "outcome",
            "error",
            "notes",
            "kept",
            "trigger",
            "requested_by",
            "requested_from",
            "request",
            "override",
            "max_batches",
            "through_seq",
            "request_seq",
            "outcome_seq",
            "started_at",
            "finished_at",
            "cutoff",
            "phase",
            "seconds",
            "events",
            "batches",
            "bytes_uncompressed",
            "bytes_compressed",
            "lease",
            "holder",
        )

    def get_outcome(self, run: ArchiveRun) -> str:
        """Return how it ended, or `running`."""
        return run.outcome or "running"

    def get_notes(self, run: ArchiveRun) -> list[str]:
        """Return the notes, each a sentence."""
        return run.notes.splitlines()

    def get_error(self, run: ArchiveRun) -> str | None:
        """Return what went wrong."""
        return run.error or None
