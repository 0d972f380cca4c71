"""What state the log is in, for whoever looks at the console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db import DatabaseError

from . import conf, guard, ledger, log, selection, verifications
from .format.errors import AuditError
from .models import (
    ArchiveBatch,
    ArchiveRun,
    Checkpoint,
    CheckpointRefusal,
    LogState,
    VerificationRun,
)

SHOWN = 5
PUBLISHED_WITHIN = timedelta(hours=2)


@dataclass
class Status:
    """Where the log ends, where the tiers meet, what is due, what was done last and how it ended.

    `problems` has one sentence for each thing that is wrong; what could not be read because of
    one is None. `last_verification` is the newest one of the whole log that has ended.
    """

    origin: str
    head_seq: int | None = None
    highest_archived_seq: int | None = None
    oldest_hot_seq: int | None = None
    due: int | None = None
    retention_days: int = 0
    last_run: ArchiveRun | None = None
    last_verification: VerificationRun | None = None
    newest_checkpoint: Checkpoint | None = None
    problems: list[str] = field(default_factory=list)


def read(now: datetime | None = None) -> Status:
    """Return the state; never raises, what is wrong is said in it."""
    now = now or datetime.now(UTC)
    status = Status(conf.origin(), retention_days=conf.retention_days())
    problems: list[str] = []
    looks: list[Callable[[], Iterator[str]]] = [
        lambda: _of_log(status, now),
        lambda: _of_verifications(status, now),
        lambda: _of_runs(status),
        lambda: _of_checkpoints(status, now),
    ]
    for look in looks:
        try:
            problems += look()
        except AuditError as error:
            problems.append(str(error))
        except DatabaseError as error:
            problems.append(log.explain(error))
    status.problems = list(dict.fromkeys(problems))
    return status


def _of_log(status: Status, now: datetime) -> Iterator[str]:
    """Look where the log ends, where the tiers meet, and what is due; raises what is wrong."""
    status.last_run = ArchiveRun.objects.first()
    ledger.check_whole()
    ledger.undisturbed(lambda: _look(status, now))
    yield from ()


def _look(status: Status, now: datetime) -> None:
    """Read where the log ends, where the tiers meet, and what is due."""
    status.highest_archived_seq = at = ledger.highest_archived_seq()
    state = _state()
    status.head_seq = state.head_seq
    status.oldest_hot_seq = log.oldest_seq(above=state.floor_seq)
    status.due = selection.last_due(at, state.head_seq, selection.cutoff_at(now)) - at


def _state() -> LogState:
    """Return the log's state, held against ledger and checkpoints; raises RolledBackError."""
    while True:
        state = log.current_state()
        try:
            log.check_checkpoint(state)
        except log.RolledBackError:
            # What it looked for may have been purged meanwhile.
            if log.current_state().floor_seq == state.floor_seq:
                raise
        else:
            return state


def _of_runs(status: Status) -> Iterator[str]:
    """Say what the last run has left, or that it died."""
    run = status.last_run
    if run is None:
        return
    if run.error:
        yield f"The last run ({run.get_outcome_display()}): {run.error}"
    if guard.holder():
        return
    if run.outcome == ArchiveRun.Outcome.RUNNING:
        yield (
            f"{run} says that it is running, but its process ({run.holder}) is gone or has let "
            "its lease run out: the next run finishes its work."
        )
    for batch in ArchiveBatch.objects.exclude(state=ArchiveBatch.State.PURGED)[:SHOWN]:
        yield f"{batch} is not finished: the next run goes on with it."


def _of_checkpoints(status: Status, now: datetime) -> Iterator[str]:
    """Say which checkpoints wait for the bucket for too long, and why one was refused."""
    rows = Checkpoint.objects.defer("document", "frontier")
    status.newest_checkpoint = rows.first()
    waiting = rows.filter(state=Checkpoint.State.PENDING, at__lt=now - PUBLISHED_WITHIN)
    if oldest := waiting.last():
        number = waiting.count()
        yield (
            f"{number:,} checkpoint{'' if number == 1 else 's'} not published yet, signed since "
            f"{oldest.at:%Y-%m-%d %H:%M:%S} UTC: run checkpoint_now, which publishes what waits, "
            "or says why it cannot."
        )
    for refusal in CheckpointRefusal.objects.all():
        yield (
            f"No checkpoint is made since {refusal.since:%Y-%m-%d %H:%M:%S} UTC (last tried at "
            f"{refusal.last:%Y-%m-%d %H:%M:%S} UTC): {refusal.error}"
        )


def _of_verifications(status: Status, now: datetime) -> Iterator[str]:
    """Say what verifications have found that no later one has put right, and which have died."""
    status.last_verification = verifications.last()
    for row in verifications.bad_news():
        others = verifications.problem_count(row) - 1
        yield (
            f"Verification {row.pk} ({row.outcome}, {row.level}): "
            f"{verifications.first_problem(row)}"
            + (f" And {others:,} more." if others > 0 else "")
        )
    for row in verifications.dead(now)[:SHOWN]:
        yield (
            f"Verification {row.pk} says that it is running, but its process ({row.holder}) is "
            "gone, or it began more than a day ago: the next one closes it."
        )
