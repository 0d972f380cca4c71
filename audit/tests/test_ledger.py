"""The ledger only goes forward, and only for whoever holds the lease."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from audit import guard, ledger
from audit.format.errors import GapError, TamperedError
from audit.models import ArchiveBatch, ArchiveRun, Lease

pytestmark = pytest.mark.django_db(transaction=True)


def make_run(grip: guard.Grip) -> ArchiveRun:
    now = datetime.now(UTC)
    return ArchiveRun.objects.create(
        trigger="command", token=grip.token, holder="test", started_at=now, cutoff=now
    )


def test_a_planned_row_fixes_its_range() -> None:
    with guard.lease() as grip:
        row = ledger.plan(grip, make_run(grip), ledger.position(), 10, 1000)
    assert (row.start_seq, row.end_seq, row.event_count, row.state) == (1, 10, 10, "planned")
    assert ledger.planned() == row
    assert ledger.highest_archived_seq() == 0


def test_a_row_that_another_run_moved_on_is_left_alone() -> None:
    with guard.lease() as grip:
        row = ledger.plan(grip, make_run(grip), ledger.position(), 10, 1000)
        with pytest.raises(guard.LeaseLostError, match="is no longer stored"):
            ledger.mark_purged(grip, row)
        assert ArchiveBatch.objects.get().state == "planned"
        ArchiveBatch.objects.all().delete()
        with pytest.raises(guard.LeaseLostError, match="is no longer planned"):
            ledger.name_objects(grip, row, jsonl_key="elsewhere")


def test_nothing_is_written_without_the_lease() -> None:
    with guard.lease() as grip:
        run = make_run(grip)
        Lease.objects.update(expires_at=datetime(2000, 1, 1, tzinfo=UTC))
        with pytest.raises(guard.LeaseLostError, match="Lease 1 has expired or was taken over"):
            ledger.plan(grip, run, ledger.position(), 10, 1000)
    assert not ArchiveBatch.objects.exists()


def test_a_gap_that_another_run_has_made_meanwhile_is_looked_at_again() -> None:
    looks = []

    def look() -> str:
        looks.append(1)
        if len(looks) == 1:  # another run stores a batch, and what was looked for is purged
            ArchiveBatch.objects.create(
                start_seq=1,
                end_seq=3,
                event_count=3,
                state="stored",
                start_link="s",
                end_link="e",
                root="r",
                jsonl_key="k",
                jsonl_sha256="d",
                manifest_key="m",
                manifest_sha256="d",
                planned_at=datetime.now(UTC),
                archived_at=datetime.now(UTC),
            )
            raise GapError("Seq 2 is missing")
        return "found"

    assert ledger.undisturbed(look) == "found"
    assert len(looks) == 2


def test_a_gap_that_nobody_has_made_meanwhile_is_one() -> None:
    def look() -> None:
        raise GapError("Seq 2 is missing")

    with pytest.raises(GapError, match="Seq 2 is missing"):
        ledger.undisturbed(look)


def test_a_position_is_not_believed_where_its_frontier_does_not_make_its_root() -> None:
    row = ArchiveBatch(start_seq=1, end_seq=1, end_link="00" * 32, root="11" * 32)
    row.frontier = ["22" * 32]
    with pytest.raises(TamperedError, match="its frontier does not make its root"):
        ledger.Position.after(row)
    row.frontier = []
    with pytest.raises(TamperedError, match="hashes are no frontier"):
        ledger.Position.after(row)
