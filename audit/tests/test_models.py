"""What the database itself refuses, whoever writes to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from audit.models import (
    ArchiveBatch,
    ArchiveRun,
    AuditEvent,
    CheckpointRefusal,
    EventKey,
    Lease,
    LogState,
)

from .factories import ledger_row

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def refused(constraint: str, model: Any, /, **values: Any) -> None:
    """Check that the rows of a model cannot be changed to these values."""
    before = list(model.objects.values_list())
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        model.objects.update(**values)
    assert list(model.objects.values_list()) == before


def run(token: int = 1) -> ArchiveRun:
    return ArchiveRun.objects.create(
        trigger="command", token=token, holder="test", started_at=NOW, cutoff=NOW
    )


# The log's state ---------------------------------------------------------------------------


@pytest.fixture
def state() -> LogState:
    """Make the one row."""
    return LogState.objects.create(
        origin="x", head_seq=10, head_link="", floor_seq=4, floor_link=""
    )


def test_there_is_one_state_and_no_other(state: LogState) -> None:
    for pk in (0, 2, -1):
        with pytest.raises(IntegrityError, match="logstate_single"), transaction.atomic():
            LogState.objects.create(id=pk, origin="x", head_link="", floor_link="")
    with pytest.raises(IntegrityError), transaction.atomic():
        LogState.objects.create(origin="y", head_link="", floor_link="")
    assert LogState.objects.get() == state


@pytest.mark.parametrize("values", [{"floor_seq": 11}, {"floor_seq": -1}, {"head_seq": 3}])
@pytest.mark.usefixtures("state")
def test_the_floor_lies_between_nothing_and_the_head(values: dict[str, int]) -> None:
    refused("logstate_floor_within_head", LogState, **values)


@pytest.mark.parametrize("floor", [0, 10])
@pytest.mark.usefixtures("state")
def test_the_floor_may_be_at_either_end(floor: int) -> None:
    assert LogState.objects.update(floor_seq=floor) == 1


def test_a_state_says_where_the_log_ends(state: LogState) -> None:
    assert str(state) == "head 10, floor 4"


def test_there_is_one_refusal_of_a_checkpoint_and_no_other() -> None:
    CheckpointRefusal.objects.create(error="x", since=NOW, last=NOW)
    refused("checkpointrefusal_single", CheckpointRefusal, id=2)


# Events and keys ---------------------------------------------------------------------------


def event(seq: int) -> AuditEvent:
    return AuditEvent(seq=seq, record=b"{}", link="", recorded_at=NOW, occurred_at=NOW)


def test_a_seq_belongs_to_one_event() -> None:
    event(1).save(force_insert=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        event(1).save(force_insert=True)
    assert str(AuditEvent.objects.get()) == "event 1"


def test_a_key_belongs_to_one_event() -> None:
    key = EventKey.objects.create(key=b"k" * 16, digest=b"d" * 16, seq=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        EventKey.objects.create(key=b"k" * 16, digest=b"e" * 16, seq=2)
    assert str(key) == "6b" * 16


def test_the_largest_seq_fits() -> None:
    event(2**53 - 1).save()
    assert AuditEvent.objects.get().seq == 2**53 - 1


# The ledger --------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end", "count"), [(0, 5, 6), (-1, 5, 7), (6, 5, 0), (7, 5, -1)])
def test_a_range_begins_at_1_or_later_and_is_not_empty(start: int, end: int, count: int) -> None:
    with pytest.raises(IntegrityError, match="batch_range"), transaction.atomic():
        ledger_row(start, end, event_count=count)


@pytest.mark.parametrize("count", [0, 9, 11])
def test_a_batch_counts_as_many_events_as_its_range_has(count: int) -> None:
    ledger_row(1, 10)
    refused("batch_event_count", ArchiveBatch, event_count=count)


@pytest.mark.parametrize(("start", "end"), [(1, 20), (5, 10)])
def test_no_two_batches_begin_or_end_at_the_same_seq(start: int, end: int) -> None:
    ledger_row(1, 10)
    with pytest.raises(IntegrityError, match=r"(?i)unique"), transaction.atomic():
        ledger_row(start, end)


@pytest.mark.parametrize("state", ["stored", "purged"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("end_link", ""),
        ("root", ""),
        ("jsonl_key", ""),
        ("jsonl_sha256", ""),
        ("manifest_key", ""),
        ("manifest_sha256", ""),
        ("archived_at", None),
    ],
)
def test_what_is_stored_is_complete(state: str, name: str, value: str | None) -> None:
    ledger_row(1, 10, state)
    refused("batch_stored_is_complete", ArchiveBatch, **{name: value})


def test_a_planned_batch_cannot_become_stored_without_its_objects() -> None:
    ledger_row(1, 10, "planned")
    refused("batch_stored_is_complete", ArchiveBatch, state="stored", archived_at=NOW)
    refused("batch_stored_is_complete", ArchiveBatch, state="purged", purged_at=NOW)


def test_there_is_no_other_state() -> None:
    ledger_row(1, 10)
    refused("batch_stored_is_complete", ArchiveBatch, state="lost")
    refused("batch_stored_is_complete", ArchiveBatch, state="")


def test_a_batch_is_purged_at_a_time_and_only_then() -> None:
    ledger_row(1, 10)
    refused("batch_purged_at", ArchiveBatch, purged_at=NOW)
    refused("batch_purged_at", ArchiveBatch, state="purged")
    ArchiveBatch.objects.update(state="purged", purged_at=NOW)
    refused("batch_purged_at", ArchiveBatch, purged_at=None)


def test_batches_come_newest_first_and_say_what_they_are() -> None:
    ledger_row(1, 1_000, "purged")
    ledger_row(1_001, 2_000, "planned")
    assert [str(row) for row in ArchiveBatch.objects.all()] == [
        "batch 1,001–2,000 (planned)",
        "batch 1–1,000 (purged)",
    ]


# Runs and the lease ------------------------------------------------------------------------


def test_a_token_belongs_to_one_run() -> None:
    run(1)
    with pytest.raises(IntegrityError, match="token"), transaction.atomic():
        run(1)


def test_a_run_whose_batches_are_in_the_ledger_cannot_be_deleted() -> None:
    made = run()
    ledger_row(1, 10, run=made)
    with pytest.raises(ProtectedError):
        made.delete()


def test_a_run_says_how_it_ended_and_how_long_it_took() -> None:
    made = run()
    assert (str(made), made.duration) == (f"run {made.pk}: running", None)
    made.outcome, made.finished_at = "nothing_due", NOW + timedelta(seconds=3)
    assert (str(made), made.duration) == (f"run {made.pk}: nothing due", timedelta(seconds=3))


def test_runs_come_newest_first() -> None:
    first, second = run(1), run(2)
    assert list(ArchiveRun.objects.all()) == [second, first]


def test_a_lease_says_who_holds_it() -> None:
    lease = Lease.objects.create(name="archive")
    assert str(lease) == "archive: free"
    lease.holder = "host, process 1"
    assert str(lease) == "archive: host, process 1"
