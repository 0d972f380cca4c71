"""What state the log is in, for whoever looks at the console."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db import DatabaseError

from . import conf, guard, ledger, log, selection
from .format.errors import AuditError
from .models import ArchiveBatch, ArchiveRun

SHOWN = 5


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
        ledger.check_whole()
        ledger.undisturbed(lambda: _look(status, now or datetime.now(UTC)))
    except AuditError as error:
        status.problems.append(str(error))
    except DatabaseError as error:
        status.problems.append(log.explain(error))
    status.problems += _of_runs(status.last_run)
    return status


def _look(status: Status, now: datetime) -> None:
    """Read where the log ends, where the tiers meet, and what is due."""
    status.highest_archived_seq = at = ledger.highest_archived_seq()
    state = log.current_state()
    status.head_seq = state.head_seq
    status.oldest_hot_seq = log.oldest_seq(above=state.floor_seq)
    status.due = selection.last_due(at, state.head_seq, selection.cutoff_at(now)) - at


def _of_runs(run: ArchiveRun | None) -> Iterator[str]:
    """Say what the last run has left, or that it died."""
    if run is None:
        return
    if run.error:
        yield f"The last run ({run.get_outcome_display()}): {run.error}"
    try:
        if guard.holder():
            return
        if run.outcome == ArchiveRun.Outcome.RUNNING:
            yield (
                f"{run} says that it is running, but its process ({run.holder}) is gone or has "
                "let its lease run out: the next run finishes its work."
            )
        for batch in ArchiveBatch.objects.exclude(state=ArchiveBatch.State.PURGED)[:SHOWN]:
            yield f"{batch} is not finished: the next run goes on with it."
    except DatabaseError as error:
        yield log.explain(error)
