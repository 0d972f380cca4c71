"""Delete from hot what is in cold.

A row is deleted only at or below the floor, and only within a batch whose objects were confirmed
in this very run: when it was archived or adopted, or by reading it again. The floor is raised
only over such a batch, which the ledger calls stored (or purged, where hot was restored), under
a live lease, under the log's lock and under our own fence. Dying between any two lines leaves
rows that are in cold too, which the next run confirms again and deletes.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import ledger, log
from .format.errors import GapError
from .guard import Grip
from .models import ArchiveBatch


def raise_floor(grip: Grip, row: ArchiveBatch) -> None:
    """Raise the floor over a stored batch; raises FenceError, LeaseLostError or GapError."""
    with ledger.still(grip, row, ArchiveBatch.State.STORED):
        log.raise_floor(grip.token, row.start_seq, row.end_seq, row.end_link)


def raise_floor_again(grip: Grip, row: ArchiveBatch) -> None:
    """Raise the floor over a purged batch, where hot was restored from before its purge.

    All that comes before it is in cold as well, so it continues any floor.
    """
    with ledger.still(grip, row, ArchiveBatch.State.PURGED):
        log.raise_floor(grip.token, 1, row.end_seq, row.end_link)


def delete_rows(row: ArchiveBatch) -> Iterator[int]:
    """Delete a batch's rows in chunks; yields how many went in each."""
    yield from log.delete_rows(row.start_seq, row.end_seq)


def residue() -> ArchiveBatch | None:
    """Return the oldest purged batch that has rows in hot again, or still.

    Raises GapError where there are rows that should have been purged and no batch holds them.
    """
    last = ledger.last_purged()
    oldest = log.oldest_seq()
    if last is None or oldest is None or oldest > last.end_seq:
        return None
    row = ledger.holding(oldest)
    if row is None:
        raise GapError(
            f"Seq {oldest:,} is in hot below batch {last.start_seq:,}–{last.end_seq:,}, which is "
            "purged, but no batch of the ledger holds it: nothing was deleted. Run "
            "rebuild_ledger."
        )
    return row


def check_floor() -> None:
    """Raise GapError where the floor is above what is in cold."""
    floor, archived = log.current_state().floor_seq, ledger.highest_archived_seq()
    if floor > archived:
        raise GapError(
            f"Hot was purged up to seq {floor:,}, but ledger and bucket reach only seq "
            f"{archived:,}: nothing more is deleted. See that AUDIT_COLD_BUCKET, "
            "AUDIT_COLD_PREFIX and AUDIT_SIGNING_KEY are the right ones, and that nobody edited "
            "the log's state; else restore ledger or bucket from a backup."
        )
