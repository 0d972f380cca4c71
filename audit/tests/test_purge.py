"""Purge: only over what is stored, only under the lease, only what a batch of the ledger holds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from audit import guard, ledger, log, purge
from audit.format.errors import GapError
from audit.models import ArchiveBatch, ArchiveRun, AuditEvent, Lease, LogState

from .factories import drafts

pytestmark = pytest.mark.django_db(transaction=True)


def planned(grip: guard.Grip) -> ArchiveBatch:
    """Append ten events and plan a batch over the first six."""
    log.append(drafts(10))
    log.raise_fence(grip.token)
    now = datetime.now(UTC)
    run = ArchiveRun.objects.create(
        trigger="command", token=grip.token, holder="test", started_at=now, cutoff=now
    )
    return ledger.plan(grip, run, ledger.Position.start(), 6, 1_000)


def store(row: ArchiveBatch, state: str = "stored") -> None:
    link = AuditEvent.objects.get(seq=row.end_seq).link
    now = datetime.now(UTC)
    ArchiveBatch.objects.filter(pk=row.pk).update(
        state=state,
        end_link=link,
        root="r",
        jsonl_key="k",
        jsonl_sha256="d",
        manifest_key="m",
        manifest_sha256="d",
        archived_at=now,
        purged_at=now if state == "purged" else None,
    )
    row.refresh_from_db()


def test_the_floor_is_raised_only_over_a_stored_batch() -> None:
    with guard.lease() as grip:
        row = planned(grip)
        with pytest.raises(guard.LeaseLostError, match="is no longer stored"):
            purge.raise_floor(grip, row)
        assert LogState.objects.get().floor_seq == 0
        store(row)
        purge.raise_floor(grip, row)
        assert LogState.objects.get().floor_seq == 6


def test_the_floor_is_raised_only_under_the_lease() -> None:
    with guard.lease() as grip:
        row = planned(grip)
        store(row)
        Lease.objects.update(expires_at=datetime(2000, 1, 1, tzinfo=UTC))
        with pytest.raises(guard.LeaseLostError, match="has expired or was taken over"):
            purge.raise_floor(grip, row)
    assert LogState.objects.get().floor_seq == 0


def test_only_the_batchs_own_rows_are_deleted() -> None:
    with guard.lease() as grip:
        row = planned(grip)
        store(row)
        purge.raise_floor(grip, row)
        assert list(purge.delete_rows(row)) == [6]
    assert AuditEvent.objects.count() == 4


def test_rows_of_a_purged_batch_are_residue() -> None:
    with guard.lease() as grip:
        row = planned(grip)
        assert purge.residue() is None
        store(row, "purged")
        assert purge.residue() == row
        AuditEvent.objects.filter(seq__lte=6).delete()
        assert purge.residue() is None


def test_rows_below_a_purged_batch_that_no_batch_holds_are_never_deleted() -> None:
    with guard.lease() as grip:
        row = planned(grip)
        store(row, "purged")
        ArchiveBatch.objects.update(start_seq=3, event_count=4)
        with pytest.raises(GapError, match="Seq 1 is in hot below batch 3–6"):
            purge.residue()


def test_a_floor_above_what_is_in_cold_is_a_gap() -> None:
    log.append(drafts(10))
    purge.check_floor()
    LogState.objects.update(floor_seq=4)
    with pytest.raises(GapError, match="purged up to seq 4, but ledger and bucket reach only"):
        purge.check_floor()
