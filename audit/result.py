"""What a run, or a dry run, answers: the same for every entrance."""

from __future__ import annotations

import errno
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.db import DatabaseError

from . import conf, ledger, log
from .format.errors import AuditError

BATCH_FIELDS = [
    "start_seq",
    "end_seq",
    "event_count",
    "jsonl_key",
    "manifest_key",
    "manifest_sha256",
    "bytes_uncompressed",
    "bytes_compressed",
]


class Outcome(StrEnum):
    """How a run, or a dry run, ended."""

    ARCHIVED = "archived"
    NOTHING_DUE = "nothing_due"
    PLANNED = "planned"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass
class Result:
    """What `archive_now --json` prints."""

    outcome: Outcome
    run: int | None = None
    batches: list[dict[str, Any]] = field(default_factory=list)
    events: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    elapsed: float = 0.0
    oldest_hot_seq: int | None = None
    highest_archived_seq: int = 0
    error: str | None = None
    kept: str = ""
    boundary_known: bool = True
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the documented form."""
        return {
            "outcome": self.outcome.value,
            "run": self.run,
            "batches": self.batches,
            "events": self.events,
            "seconds": {phase: round(value, 3) for phase, value in self.seconds.items()},
            "elapsed": round(self.elapsed, 3),
            "oldest_hot_seq": self.oldest_hot_seq,
            "highest_archived_seq": self.highest_archived_seq,
            "error": self.error,
            "notes": self.notes,
        }


def kept(archived: int, last_due: int, head: int, cutoff: datetime) -> str:
    """Say what stays in hot, and why."""
    parts = []
    not_due = max(archived, last_due)
    if last_due > archived:
        parts.append(f"seq {archived + 1:,}–{last_due:,}: due, left to a later run")
    if head > not_due:
        parts.append(
            f"seq {not_due + 1:,}–{head:,}: recorded at or after "
            f"{cutoff:%Y-%m-%d %H:%M:%S} UTC, not older than {conf.retention_days()} days"
        )
    return "; ".join(parts) or "nothing"


def with_boundary(result: Result) -> Result:
    """Add the tier boundary, where the databases can still tell it."""
    try:
        result.highest_archived_seq = ledger.highest_archived_seq()
        floor = log.current_state().floor_seq
        result.oldest_hot_seq = log.oldest_seq(above=floor)
    except (AuditError, DatabaseError) as error:
        result.boundary_known = False
        if sentence(error) != result.error:
            result.notes.append(f"The tier boundary could not be read: {sentence(error)}")
    return result


def sentence(error: BaseException) -> str:
    """Return an error's text, with its kind where the text is not one of ours."""
    text = str(error) or "no text"
    if isinstance(error, DatabaseError):
        return log.explain(error)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return (
            f"There is no room in {tempfile.gettempdir()}, where a batch is encoded before it is "
            "sent: free some, or set TMPDIR to a folder with room for one compressed batch. "
            "Nothing was lost."
        )
    return text if isinstance(error, AuditError) else f"{type(error).__name__}: {text}"
