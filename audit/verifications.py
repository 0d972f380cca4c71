"""The rows of verifications: opened and closed, those that died, and what still counts of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.models import QuerySet

from . import log
from .format.errors import AuditError
from .guard import Process
from .models import VerificationRun
from .request import OVER_HTTP

Level, Outcome = VerificationRun.Level, VerificationRun.Outcome
FOUND = (Outcome.TAMPERED, Outcome.GAP)

# Within a request nobody waits longer; and a process of another machine cannot be asked.
HOLDS = timedelta(hours=1)
DIES = timedelta(days=1)


class AlreadyVerifyingError(AuditError):
    """A verification that was asked for over HTTP is at work, and this one was, too."""

    def __init__(self, text: str, run: int) -> None:
        """Take the sentence, and the number of the one that is at work."""
        super().__init__(text)
        self.run = run


def open_row(trigger: str, **members: Any) -> VerificationRun:
    """Write down that a verification begins, and close those of processes that died.

    Of those that are asked for over HTTP, the console included, one is at work at a time: each
    takes a thread of the server and reads all that the log has. Raises AlreadyVerifyingError,
    BusyError, DatabaseError.
    """
    now, me = datetime.now(UTC), Process.current()
    with log.write_transaction(DEFAULT_DB_ALIAS):
        for row in dead(now):
            close_dead(row, now)
        if trigger in OVER_HTTP and (other := over_http(now)):
            raise AlreadyVerifyingError(
                f"Verification {other.pk} is at work, asked for by {other.requested_by} at "
                f"{other.started_at:%Y-%m-%d %H:%M:%S} UTC ({other.holder}): one at a time over "
                "HTTP. Wait until it has ended, or run verify_audit.",
                other.pk,
            )
        return VerificationRun.objects.create(
            trigger=trigger,
            holder=me.label,
            host=me.host,
            pid=me.pid,
            pid_started=me.started,
            started_at=now,
            **members,
        )


def close_dead(row: VerificationRun, now: datetime) -> None:
    """Close the row of a process that died; if it did not, it writes how it ended over this."""
    error = (
        f"Its process ({row.holder}) ended without a word, or has been at it for more than a day: "
        "nothing can be said about the log by it. Verify again."
    )
    VerificationRun.objects.filter(pk=row.pk, outcome=Outcome.RUNNING).update(
        outcome=Outcome.UNVERIFIABLE, finished_at=now, report={"error": error}
    )


def running() -> QuerySet[VerificationRun]:
    """Return those that say that they are running, newest first."""
    return VerificationRun.objects.filter(outcome=Outcome.RUNNING)


def dead(now: datetime) -> list[VerificationRun]:
    """Return those that say so though their process is gone, or they began a day ago."""
    return [
        row for row in running() if row.started_at < now - DIES or Process.holding(row).is_gone()
    ]


def over_http(now: datetime) -> VerificationRun | None:
    """Return the one that was asked for over HTTP and is at work, None where none is."""
    rows = running().filter(trigger__in=OVER_HTTP, started_at__gte=now - HOLDS)
    return next((row for row in rows if not Process.holding(row).is_gone()), None)


def last(*levels: str) -> VerificationRun | None:
    """Return the newest one of the whole log that has ended, at any level or at one of these."""
    return _ended(*levels).first()


def last_whole(*levels: str) -> VerificationRun | None:
    """Return the newest of those that came to an end of their own."""
    return next((row for row in _ended(*levels).iterator(100) if row.is_whole), None)


def last_telling(*levels: str) -> VerificationRun | None:
    """Return the newest of those that say something about the log, or why they could not."""
    return next((row for row in _ended(*levels).iterator(100) if not row.is_silent), None)


def _ended(*levels: str) -> QuerySet[VerificationRun]:
    ended = VerificationRun.objects.filter(batch_seq=None).exclude(outcome=Outcome.RUNNING)
    return ended.filter(level__in=levels or Level.values)


def bad_news() -> Iterator[VerificationRun]:
    """Yield those whose news still counts.

    What was found to be wrong counts until a later verification of the whole log that looked at
    as much is ok: one of the manifests alone does not take back what a full one has found. That
    something could not be looked at counts until the next one.
    """
    newest, covered = last(), 0
    if newest is not None and newest.outcome != Outcome.OK:
        yield newest
    for levels in ([Level.FULL], [Level.MANIFESTS, Level.FULL]):
        ended = VerificationRun.objects.filter(pk__gt=covered)
        found = ended.filter(level=levels[0], outcome__in=FOUND).first()
        if found is None:
            continue
        good = ended.filter(pk__gt=found.pk, batch_seq=None, level__in=levels, outcome=Outcome.OK)
        if not good.exists():
            covered = found.pk  # what it found, one of the manifests before it found as well
            if found != newest:
                yield found


def first_problem(row: VerificationRun, *, place: bool = True) -> str:
    """Return the first problem of the worst kind in one line; where there is none, why not.

    `place`: with the object that it is in.
    """
    problems = problems_of(row)
    if not problems:
        return str(row.report.get("error") or "it says nothing more")
    worst = (problem for problem in problems if problem.get("kind") == row.outcome)
    problem = next(worst, problems[0])
    where = problem.get("object") if place else ""
    return f"{f'{where}: ' if where else ''}{problem.get('message', '')}"


def problems_of(row: VerificationRun) -> list[dict[str, Any]]:
    """Return the problems that were told one by one."""
    return list(row.report.get("problems") or [])


def problem_count(row: VerificationRun) -> int:
    """Return how many problems there were, told or only counted."""
    return len(problems_of(row)) + int(row.report.get("more_problems") or 0)
