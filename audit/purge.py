"""Delete from hot what is in cold.

Only what is at or below the floor is ever deleted, and the floor is raised only over a batch
that the ledger calls stored, under a live lease, under the log's lock and under our own fence.
Dying between any two lines leaves rows that are in cold too, which the next run deletes.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import ledger, log
from .guard import Grip
from .models import ArchiveBatch


def raise_floor(grip: Grip, row: ArchiveBatch) -> None:
    """Raise the floor over a stored batch; raises FenceError or LeaseLostError."""
    with ledger.still_stored(grip, row):
        log.raise_floor(grip.token, row.start_seq, row.end_seq, row.end_link)


def delete_rows() -> Iterator[int]:
    """Delete what is at or below the floor in chunks; yields how many rows went in each."""
    yield from log.delete_residue()


def finish(grip: Grip, row: ArchiveBatch) -> None:
    """Mark a batch purged, once its rows are gone."""
    ledger.mark_purged(grip, row)


def settle_floor(grip: Grip) -> None:
    """Raise the floor to the newest purged batch, where hot was restored from before its purge."""
    row = ledger.last_purged()
    if row is None:
        return
    with grip.transaction():
        # All that is below a purged batch is in cold as well: the range starts at the first seq.
        log.raise_floor(grip.token, 1, row.end_seq, row.end_link)
