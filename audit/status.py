"""What state the log is in, for whoever looks at the console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db import DatabaseError

from . import conf, guard, ledger, log, selection, unattended, verifications
from .format.errors import AuditError
from .models import (
    Alarm,
    ArchiveBatch,
    ArchiveRun,
    Checkpoint,
    CheckpointRefusal,
    LogState,
    VerificationRun,
)
from .unattended import ALARMS, BAD, GOOD, OFF, Line

SHOWN = 5
PUBLISHED_WITHIN = timedelta(hours=2)
HEART = 200  # characters of a sentence that tell it from others


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in a sentence; `heart` is what an alarm of it says as well."""

    text: str
    heart: str

    @classmethod
    def of(cls, text: str) -> Problem:
        """Return one that an alarm tells with the same words, if one does."""
        return cls(text, text)


@dataclass
class Status:
    """Where the log ends, where the tiers meet, what is due, what was done last and how it ended.

    `problems` has one sentence for each thing that is wrong now; what could not be read because of
    one is None. `alarms` are those that are open, `untold` is what of the problems none of them
    tells. `last_verification` is the newest one of the whole log that has ended.
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
    schedule: list[Line] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)


def read(now: datetime | None = None) -> Status:
    """Return the state; never raises, what is wrong is said in it."""
    now = now or datetime.now(UTC)
    status = Status(conf.origin(), retention_days=conf.retention_days())
    problems: list[Problem] = []
    looks: list[Callable[[], Iterator[Problem]]] = [
        lambda: _of_alarms(status),
        lambda: _of_log(status, now),
        lambda: _of_verifications(status, now),
        lambda: _of_runs(status),
        lambda: _of_checkpoints(status, now),
        lambda: _of_schedule(status, now),
    ]
    for look in looks:
        try:
            problems += look()
        except AuditError as error:
            problems.append(Problem.of(str(error)))
        except DatabaseError as error:
            problems.append(Problem.of(log.explain(error)))
    status.problems = list(dict.fromkeys(problem.text for problem in problems))
    status.untold = list(
        dict.fromkeys(
            problem.text
            for problem in problems
            if not any(problem.heart[:HEART] in alarm.message for alarm in status.alarms)
        )
    )
    return status


def _of_alarms(status: Status) -> Iterator[Problem]:
    """Look which alarms are open, and who was told."""
    found = Alarm.objects.filter(cleared_at=None).prefetch_related("notices")
    status.alarms = sorted(found, key=lambda alarm: not alarm.is_grave)
    number = len(status.alarms)
    text = f"{number} open" if number else "none is open"
    status.schedule = [Line(ALARMS, BAD if number else GOOD, text)]
    yield from ()


def _of_log(status: Status, now: datetime) -> Iterator[Problem]:
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


def _of_runs(status: Status) -> Iterator[Problem]:
    """Say what the last run has left, or that it died."""
    run = status.last_run
    if run is None:
        return
    if run.error:
        yield Problem(f"The last run ({run.get_outcome_display()}): {run.error}", run.error)
    if guard.holder():
        return
    if run.outcome == ArchiveRun.Outcome.RUNNING:
        yield Problem.of(
            f"Run {run.pk} says that it is running, but its process ({run.holder}) is gone or "
            "has let its lease run out: the next run finishes its work."
        )
    for batch in ArchiveBatch.objects.exclude(state=ArchiveBatch.State.PURGED)[:SHOWN]:
        yield Problem(f"{batch} is not finished: the next run goes on with it.", str(batch))


def _of_checkpoints(status: Status, now: datetime) -> Iterator[Problem]:
    """Say which checkpoints wait for the bucket for too long, and why one was refused."""
    rows = Checkpoint.objects.defer("document", "frontier")
    status.newest_checkpoint = rows.first()
    waiting = rows.filter(state=Checkpoint.State.PENDING, at__lt=now - PUBLISHED_WITHIN)
    if oldest := waiting.last():
        number = waiting.count()
        yield Problem(
            f"{number:,} checkpoint{'' if number == 1 else 's'} not published yet, signed since "
            f"{oldest.at:%Y-%m-%d %H:%M:%S} UTC: run checkpoint_now, which publishes what waits, "
            "or says why it cannot.",
            "run checkpoint_now, which publishes",
        )
    for refusal in CheckpointRefusal.objects.all():
        yield Problem(
            f"No checkpoint is made since {refusal.since:%Y-%m-%d %H:%M:%S} UTC (last tried at "
            f"{refusal.last:%Y-%m-%d %H:%M:%S} UTC): {refusal.error}",
            refusal.error,
        )


def _of_verifications(status: Status, now: datetime) -> Iterator[Problem]:
    """Say what verifications have found that no later one has put right, and which have died."""
    status.last_verification = verifications.last()
    for row in verifications.bad_news():
        others = verifications.problem_count(row) - 1
        said = f"Verification {row.pk} ({row.outcome}, {row.level}): "
        said += verifications.first_problem(row)
        yield Problem(said + (f" And {others:,} more." if others > 0 else ""), said)
    for row in verifications.dead(now)[:SHOWN]:
        yield Problem.of(
            f"Verification {row.pk} says that it is running, but its process ({row.holder}) is "
            "gone, or it began more than a day ago: the next one closes it."
        )


def _of_schedule(status: Status, now: datetime) -> Iterator[Problem]:
    """Look how what is done unattended stands, and say where nothing is."""
    lines, problems = unattended.look(now)
    if not status.alarms and lines[0].sign != GOOD:
        status.schedule = [Line(ALARMS, OFF, "none is open, and nobody looks")]
    status.schedule += lines
    for text in problems:
        yield Problem(text, text.partition(" since ")[0])  # an alarm has the time in other words
