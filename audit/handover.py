"""Hand a run or a verification that was asked for over HTTP to a worker.

Whoever asks is told within seconds: that it has begun, that it could not, or that no worker took
it. The last is made sure of by a row that either the worker takes or whoever asked withdraws, each
by a conditional update: nothing begins later behind the back of one who was told that it did not.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import current_app
from kombu.exceptions import OperationalError as BrokerError

from .format.errors import AuditError
from .guard import Process
from .models import ArchiveRun, RunRequest, VerificationRun

TASK = "audit.carry_out"
SENT_WITHIN = 2.0  # seconds
TAKEN_WITHIN = 5.0
BEGUN_WITHIN = 25.0  # once it is taken: a database may be locked for 20
ENDED_WITHIN = 2.0  # once it has begun: a short one is answered with its outcome
POLL = 0.1
DIES = timedelta(days=1)  # after which a worker of another machine is taken for dead

Kind, State = RunRequest.Kind, RunRequest.State


class NotTakenError(AuditError):
    """No worker takes what is asked for."""


@dataclass(frozen=True)
class Answer:
    """What became of a request within the time that its asker waits.

    `run` is the number of the run or verification, None where it came to none; `outcome` is
    `running` while it goes on. `error` says why there is none, or why it failed; `refused` says
    in which way there is none: `busy`, `failed`, or `broken` where this program failed.
    """

    run: int | None
    outcome: str
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    refused: str = ""


def ask(kind: RunRequest.Kind, trigger: str, who: str, where: str, *, level: str = "") -> Answer:
    """Ask for a run or a verification; return how far it came. Raises NotTakenError."""
    row = RunRequest.objects.create(
        id=uuid.uuid4(),
        kind=kind,
        level=level,
        trigger=trigger,
        requested_by=who,
        requested_from=where,
        asked_at=datetime.now(UTC),
    )
    try:
        _send(str(row.pk))
    except (BrokerError, OSError) as error:
        _withdraw(row)
        raise NotTakenError(
            "The broker does not answer, so no worker can be asked: nothing was begun. See that "
            "Redis is up and REDIS_URL is right, or run it from a shell."
        ) from error
    if not _wait(row, lambda: row.state != State.ASKED, TAKEN_WITHIN) and _withdraw(row):
        raise NotTakenError(
            f"No worker took it within {TAKEN_WITHIN:.0f} seconds: nothing was begun. See that "
            "a worker for the queue 'long' is up and not busy with others, or run it from a shell."
        )
    _wait(row, lambda: row.state == State.ENDED or _run_of(row) is not None, BEGUN_WITHIN)
    _wait(row, lambda: row.state == State.ENDED, ENDED_WITHIN)
    if row.state == State.ENDED:
        return Answer(**row.answer)
    return Answer(_run_of(row), "running")


def _send(request_id: str) -> None:
    """Send the request's message, by a connection that gives up sooner than a worker's may."""
    options = {"socket_timeout": SENT_WITHIN, "socket_connect_timeout": SENT_WITHIN}
    once = {"max_retries": 0}
    with current_app.connection_for_write(transport_options=options | once) as connection:
        current_app.tasks[TASK].apply_async(
            [request_id], connection=connection, retry=False, expires=2 * TAKEN_WITHIN
        )


def take(request_id: str) -> RunRequest | None:
    """Take a request; None where it was withdrawn, or taken before."""
    me = Process.current()
    won = RunRequest.objects.filter(pk=request_id, state=State.ASKED).update(
        state=State.TAKEN,
        holder=me.label,
        host=me.host,
        pid=me.pid,
        pid_started=me.started,
    )
    return RunRequest.objects.get(pk=request_id) if won else None


def end(row: RunRequest, answer: Answer) -> bool:
    """Write down what became of it; say whether nobody else had done so."""
    taken = RunRequest.objects.filter(pk=row.pk, state=State.TAKEN)
    return bool(taken.update(run=answer.run, answer=vars(answer), state=State.ENDED))


def close_dead() -> int:
    """End the requests whose worker died; return how many there were.

    A run that it had begun the next run closes, and a verification the next one.
    """
    now, number = datetime.now(UTC), 0
    for row in RunRequest.objects.filter(state=State.TAKEN):
        if Process.holding(row).is_gone() or row.asked_at < now - DIES:
            why = f"Its worker ({row.holder}) ended without a word: ask again."
            refused = "" if _run_of(row) else "failed"
            number += end(row, Answer(_run_of(row), "failed", why, refused=refused))
    return number


def _withdraw(row: RunRequest) -> bool:
    asked = RunRequest.objects.filter(pk=row.pk, state=State.ASKED)
    return bool(asked.update(state=State.WITHDRAWN))


def _wait(row: RunRequest, found: Callable[[], bool], seconds: float) -> bool:
    """Look at the row again and again; say whether what is waited for came in time."""
    until = time.monotonic() + seconds
    while True:
        row.refresh_from_db()
        if found():
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(POLL)


def _run_of(row: RunRequest) -> int | None:
    """Return the number of the run or verification that carries it out, once there is one."""
    runs: Any = ArchiveRun if row.kind == Kind.ARCHIVE else VerificationRun
    found: int | None = (
        runs.objects.filter(request=str(row.pk)).values_list("pk", flat=True).first()
    )
    return found
