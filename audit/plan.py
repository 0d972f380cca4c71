"""What a run would do now: a look at the plan, which changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import DatabaseError

from . import ledger, log, selection
from .format.errors import AuditError
from .result import BATCH_FIELDS, Outcome, Result, kept, sentence, with_boundary


def dry_run(*, max_batches: int | None = None, through_seq: int | None = None) -> Result:
    """Return what a run would do now, by the ledger and hot alone; changes nothing."""
    result = Result(Outcome.PLANNED)
    try:
        ledger.undisturbed(lambda: _look(result, max_batches, through_seq))
    except (AuditError, DatabaseError) as error:
        result.outcome, result.error = Outcome.FAILED, sentence(error)
        if isinstance(error, log.RolledBackError):
            result.outcome = Outcome.REFUSED
    return with_boundary(result)


def _look(result: Result, max_batches: int | None, through_seq: int | None) -> None:
    """Fill in what a run would do."""
    result.batches, result.notes, result.events = [], [], 0
    cutoff = selection.cutoff_at(datetime.now(UTC))
    head = log.current_state().head_seq
    at, unfinished = ledger.highest_archived_seq(), ledger.planned()
    result.notes += [f"{row} will be confirmed and purged" for row in ledger.stored()]
    due = selection.last_due(at, head, cutoff)
    last = selection.last_wanted(at, due, head, through_seq)
    while max_batches is None or len(result.batches) < max_batches:
        if unfinished is not None and not result.batches:
            selection.check_begun(unfinished, through_seq)
            result.notes.append(f"{unfinished} was begun and will be done again")
            found: selection.Range | None = selection.Range(
                unfinished.start_seq, unfinished.end_seq, unfinished.bytes_uncompressed
            )
        else:
            found = selection.next_range(at, last)
        if found is None:
            break
        at = found.end_seq
        result.batches.append(
            dict.fromkeys(BATCH_FIELDS)
            | {
                "start_seq": found.start_seq,
                "end_seq": found.end_seq,
                "event_count": found.event_count,
                "bytes_uncompressed": found.bytes_uncompressed,
            }
        )
        result.events += found.event_count
    result.kept = kept(at, due, head, cutoff)
