"""What state the log is in, for whoever looks at the console."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db import DatabaseError

from . import conf, ledger, log, selection
from .format.errors import AuditError
from .models import ArchiveRun


@dataclass
class Status:
    """Where the log ends, where the tiers meet, what is due, and how the last run ended.

    `problems` has one sentence for each thing that is wrong; what could not be read because of
    one is None.
    """

    origin: str
    head_seq: int | None = None
    highest_archived_seq: int | None = None
    oldest_hot_seq: int | None = None
    due: int | None = None
    retention_days: int = 0
    last_run: ArchiveRun | None = None
    problems: list[str] = field(default_factory=list)


def read(now: datetime | None = None) -> Status:
    """Return the state; never raises, what is wrong is said in it."""
    status = Status(conf.origin(), retention_days=conf.retention_days())
    try:
        status.last_run = ArchiveRun.objects.first()
        status.highest_archived_seq = ledger.highest_archived_seq()
        state = log.current_state()
        status.head_seq = state.head_seq
        status.oldest_hot_seq = log.oldest_seq(above=state.floor_seq)
        at = status.highest_archived_seq
        cutoff = selection.cutoff_at(now or datetime.now(UTC))
        status.due = selection.last_due(at, state.head_seq, cutoff) - at
    except AuditError as error:
        status.problems.append(str(error))
    except DatabaseError as error:
        status.problems.append(log.explain(error))
    run = status.last_run
    if run is not None and run.error:
        status.problems.append(f"The last run ({run.get_outcome_display()}): {run.error}")
    return status
