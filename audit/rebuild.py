"""Make the ledger anew from what is signed in the bucket.

Why nothing can be lost by it: it deletes no event and no object. A row is made only from a
manifest whose signature, links and place in the log hold, and whose object is there with its
signed length. Above the floor of hot a batch is `stored`: the next run reads it as a whole and
compares before its rows go; rows that are in hot again below the floor go in the same way. Where
the bucket does not reach as far as hot was purged, nothing is changed. All rows change in one
transaction, under the lease, together with the note of it for the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from django.db import DatabaseError

from . import adoption, conf, guard, ledger, log, storage
from .adoption import Candidate, Shelf
from .format.errors import AuditError, GapError, TamperedError
from .format.record import parse_time
from .ledger import Position
from .models import ArchiveBatch
from .request import chain, note_rebuilt
from .result import sentence

State = ArchiveBatch.State
TOLD = 100


class Outcome(StrEnum):
    """How a rebuild ended."""

    REBUILT = "rebuilt"
    UNCHANGED = "unchanged"
    PLANNED = "planned"
    BUSY = "busy"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass
class Rebuilt:
    """What a rebuild, or a look at one, answers: ranges as (start, end)."""

    outcome: Outcome = Outcome.UNCHANGED
    verified: int = 0
    highest_archived_seq: int = 0
    added: list[tuple[int, int]] = field(default_factory=list)
    replaced: list[tuple[int, int]] = field(default_factory=list)
    removed: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the documented form."""
        return {
            "outcome": self.outcome.value,
            "verified": self.verified,
            "highest_archived_seq": self.highest_archived_seq,
            "added": self.added,
            "replaced": self.replaced,
            "removed": self.removed,
            "notes": self.notes,
            "error": self.error,
        }


def rebuild(*, requested_by: str, requested_from: str, dry_run: bool = False) -> Rebuilt:
    """Hold the ledger against the bucket and make it what the manifests say.

    Never raises an AuditError. A dry run changes nothing; what a rebuild changed is an event in
    the log.
    """
    answer = Rebuilt()
    try:
        if dry_run:
            if _look(answer):
                answer.outcome = Outcome.PLANNED
        else:
            with guard.lease() as grip:
                changes = _look(answer)
                if changes:
                    old, new = changes
                    with ledger.replacing(grip, old, new):
                        note_rebuilt(requested_by, requested_from, **_told(answer, old))
                    answer.outcome = Outcome.REBUILT
                    _chain(answer)
    except guard.LeaseHeldError as error:
        answer.outcome, answer.error = Outcome.BUSY, str(error)
    except log.RolledBackError as error:
        answer.outcome, answer.error = Outcome.REFUSED, str(error)
    except (AuditError, DatabaseError) as error:
        answer.outcome, answer.error = Outcome.FAILED, sentence(error)
    return answer


def _told(answer: Rebuilt, old: list[ArchiveBatch]) -> dict[str, Any]:
    """Return what the log is told: how much was done, and what the rows said before."""
    return {
        "added": len(answer.added),
        "replaced": len(answer.replaced),
        "removed": len(answer.removed),
        "highest_archived_seq": answer.highest_archived_seq,
        "before": [
            [row.start_seq, row.end_seq, row.state, row.manifest_sha256] for row in old[:TOLD]
        ],
    }


def _chain(answer: Rebuilt) -> None:
    """Write into the log that the ledger was rebuilt, and by whom."""
    try:
        chain()
    except (AuditError, DatabaseError) as error:
        answer.notes.append(
            f"The event of it is not in the log yet; the next run writes it: {sentence(error)}"
        )


def _look(answer: Rebuilt) -> tuple[list[ArchiveBatch], list[ArchiveBatch]] | None:
    """Return the rows to delete and those to make; None where the ledger is right."""
    state = log.state_beside_ledger()
    shelf = Shelf.look(0, state.head_seq)
    found, at = _signed(shelf)
    answer.notes += shelf.notes
    answer.verified, answer.highest_archived_seq = len(found), at.seq
    if at.seq < state.floor_seq:
        raise GapError(
            f"The bucket's manifests lead from seq 1 to seq {at.seq:,}, but hot was purged up to "
            f"seq {state.floor_seq:,}: the ledger is left as it is. See that AUDIT_COLD_BUCKET, "
            "AUDIT_COLD_PREFIX and AUDIT_SIGNING_KEY are the right ones, or restore what is "
            "missing from a copy of the bucket."
        )
    rows = {row.start_seq: row for row in ArchiveBatch.objects.all()}
    old, new = [], []
    for candidate in found:
        made = _row(candidate, state.floor_seq)
        row = rows.pop(made.start_seq, None)
        if row is not None and _same(row, made):
            continue
        place = (made.start_seq, made.end_seq)
        (answer.added if row is None else answer.replaced).append(place)
        new.append(made)
        if row is not None:
            old.append(row)
    for row in rows.values():
        if row.state == State.PLANNED and _may_stay(row, at, state.head_seq):
            continue  # begun, and not in the bucket yet: the next run does it again
        answer.removed.append((row.start_seq, row.end_seq))
        old.append(row)
    return (old, new) if old or new else None


def _signed(shelf: Shelf) -> tuple[list[Candidate], Position]:
    """Return the manifests that lead on from seq 1, and where they end."""
    found, at = [], Position.start()
    while (candidate := shelf.next(at)) is not None:
        manifest = candidate.manifest
        length = storage.head(manifest.key).length
        if length != manifest.bytes_compressed:
            raise TamperedError(
                f"{manifest.key} has {length:,} bytes, {manifest.bytes_compressed:,} were signed: "
                "the ledger is left as it is. Restore the object from a copy of the bucket."
            )
        found.append(candidate)
        at = adoption.position_after(candidate)
    return found, at


def _row(candidate: Candidate, floor: int) -> ArchiveBatch:
    """Return the row that a manifest stands for, not saved."""
    manifest = candidate.manifest
    now = datetime.now(UTC)
    # Rows at or below the floor are residue: they go only after the batch was read and compared.
    in_hot = manifest.end_seq > floor
    return ArchiveBatch(
        start_seq=manifest.start_seq,
        end_seq=manifest.end_seq,
        event_count=manifest.event_count,
        start_link=manifest.start_link.hex(),
        end_link=manifest.end_link.hex(),
        root=manifest.root.hex(),
        frontier=candidate.frontier.to_hex(),
        last_recorded_at=parse_time(manifest.last_recorded_at),
        bucket=conf.cold_bucket(),
        jsonl_key=manifest.key,
        jsonl_sha256=manifest.sha256,
        manifest_key=candidate.key,
        manifest_sha256=candidate.sha256,
        bytes_uncompressed=manifest.bytes_uncompressed,
        bytes_compressed=manifest.bytes_compressed,
        planned_at=parse_time(manifest.created_at),
        archived_at=now,
        state=State.STORED if in_hot else State.PURGED,
        purged_at=None if in_hot else now,
    )


SIGNED = (
    "end_seq event_count start_link end_link root frontier last_recorded_at jsonl_key "
    "jsonl_sha256 manifest_key manifest_sha256 bytes_uncompressed bytes_compressed"
).split()


def _same(row: ArchiveBatch, made: ArchiveBatch) -> bool:
    """Say whether a row already says what is signed."""
    return row.state in ledger.IN_COLD and all(
        getattr(row, name) == getattr(made, name) for name in SIGNED
    )


def _may_stay(row: ArchiveBatch, at: Position, head: int) -> bool:
    """Say whether a planned row still continues what is in cold."""
    return (row.start_seq, row.start_link) == (at.seq + 1, at.link.hex()) and row.end_seq <= head
