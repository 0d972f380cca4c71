"""The ledger, the runs and the verifications as JSON.

Times are those of the records: UTC, milliseconds, `Z`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.db import models
from django.urls import reverse
from rest_framework import serializers

from audit.format.record import format_time
from audit.models import ArchiveBatch, ArchiveRun, Checkpoint, VerificationRun
from audit.verifications import first_problem


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


class CheckpointSerializer(serializers.ModelSerializer[Checkpoint]):
    """Where the newest signed statement ends, and whether it is in the bucket."""

    serializer_field_mapping = BatchSerializer.serializer_field_mapping

    class Meta:
        """What tells it apart."""

        model = Checkpoint
        fields = ("index", "seq", "at", "state", "published_at", "sha256")


NO_REPORT: dict[str, Any] = {
    "first_seq": None,
    "last_seq": None,
    "root": None,
    "manifests": None,
    "objects": None,
    "checkpoints": None,
    "problems": [],
    "more_problems": 0,
    "notes": [],
    "more_notes": 0,
    "checks": [],
    "oldest_hot_seq": None,
    "highest_archived_seq": None,
    "error": None,
}


class VerificationSerializer(serializers.ModelSerializer[VerificationRun]):
    """A verification: its row, and what `verify_audit --json` prints of its report."""

    serializer_field_mapping = BatchSerializer.serializer_field_mapping

    run = serializers.IntegerField(source="pk")
    url = serializers.SerializerMethodField()
    outcome = serializers.SerializerMethodField()

    class Meta:
        """Every field but those of its process, which `holder` names."""

        model = VerificationRun
        fields = (
            "run",
            "url",
            "outcome",
            "level",
            "batch_seq",
            "trigger",
            "requested_by",
            "requested_from",
            "holder",
            "started_at",
            "finished_at",
            "events",
        )

    def get_url(self, row: VerificationRun) -> str:
        """Return its address."""
        return reverse("audit-verification", args=[row.pk])

    def get_outcome(self, row: VerificationRun) -> str:
        """Return what it found, or `running`."""
        return row.outcome or "running"

    def to_representation(self, instance: VerificationRun) -> dict[str, Any]:
        """Return the row's members and the report's."""
        report = {name: instance.report.get(name, none) for name, none in NO_REPORT.items()}
        return {**super().to_representation(instance), **report}


class UnresolvedSerializer(serializers.ModelSerializer[VerificationRun]):
    """A verification whose bad news no later one has put right, in short."""

    serializer_field_mapping = BatchSerializer.serializer_field_mapping

    run = serializers.IntegerField(source="pk")
    problem = serializers.SerializerMethodField()

    class Meta:
        """What it found, and its first problem of the worst kind."""

        model = VerificationRun
        fields = ("run", "level", "outcome", "finished_at", "problem")

    def get_problem(self, row: VerificationRun) -> str:
        """Return that problem in one line, with its object."""
        return first_problem(row)
