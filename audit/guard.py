"""Lease and fence: one run at a time, and a run that lost its turn changes nothing.

The lease is a row with an expiry by the database's clock. Whoever runs renews it from a thread
of its own; every write to the ledger happens in a transaction that first finds the lease still
live under the run's own token, and thereby locks it: a takeover waits until that is committed.
For hot, which may be another database, the run writes its token to `LogState.fence`, which only
rises; raising the floor requires it unchanged. So a holder that was stopped, overtaken and woken
again can neither record nor purge.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.db import DEFAULT_DB_ALIAS, connection
from django.db import Error as DatabaseError
from django.db.models import Max
from django.db.models.functions import Now

from . import conf, log, request
from .format.errors import AuditError
from .models import ArchiveRun, DayGuard, Lease, LogState, RunRequest, VerificationRun

NAME = "archive"
RENEWALS_A_LIFE = 3

logger = logging.getLogger(__name__)


class LeaseHeldError(AuditError):
    """Another run holds the lease."""


class LeaseLostError(AuditError):
    """The run's lease has expired or was taken over."""


@dataclass(frozen=True)
class Process:
    """A process as another one on the same machine can find it again.

    `host` is the machine's boot and the PID namespace: two containers of one machine cannot see
    each other's processes, so they must not judge them. Empty where the system cannot tell.
    """

    label: str
    host: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        pid = os.getpid()
        return cls(
            f"{socket.gethostname()}, process {pid}"[:200], _host(), pid, _started(pid) or ""
        )

    @classmethod
    def holding(cls, row: Lease | VerificationRun | DayGuard | RunRequest) -> Process:
        """Return the process that holds a lease, or does what a row is of."""
        return cls(row.holder, row.host, row.pid, row.pid_started)

    def is_gone(self) -> bool:
        """Say whether this is a process of this machine that certainly no longer runs."""
        if not self.host or self.host != _host() or not self.started:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # there, and not ours to ask
        # Where its start cannot be read either, it may be alive.
        return _started(self.pid) not in {None, self.started}


def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot.

    Empty for one that has ended and was not reaped, None where it cannot be read.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    # proc(5): after the name come the state (field 3) and, 19 further on, the start time (22).
    return "" if fields[0] in "ZX" else fields[19]


class Grip:
    """A lease that is held: renewed by a thread until it is let go."""

    def __init__(self, token: int) -> None:
        """Take the token under which the lease was won."""
        self.token = token
        self._release = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def _renew(self) -> bool:
        return bool(
            Lease.objects.filter(name=NAME, token=self.token, expires_at__gt=Now()).update(
                expires_at=Now() + timedelta(seconds=conf.lease_seconds())
            )
        )

    def _keep(self) -> None:
        try:
            while not self._release.wait(conf.lease_seconds() / RENEWALS_A_LIFE):
                try:
                    if not self._renew():
                        return
                except DatabaseError as error:
                    # Renewed at the next turn; if it cannot be, the lease expires, and every
                    # write below finds that out by itself.
                    logger.warning("The lease could not be renewed: %s", error)
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction on `default` that commits only under a live lease of ours.

        Every write to the ledger goes through here. Raises LeaseLostError.
        """
        with log.write_transaction(DEFAULT_DB_ALIAS):
            if not self._renew():
                raise self.lost()
            yield

    def is_live(self) -> bool:
        """Say whether the lease is still ours."""
        return Lease.objects.filter(name=NAME, token=self.token, expires_at__gt=Now()).exists()

    def lost(self) -> LeaseLostError:
        """Return the error of a run whose lease is gone."""
        return LeaseLostError(
            f"Lease {self.token} has expired or was taken over: this run recorded and purged "
            "nothing more. The next run goes on where it stopped."
        )

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def release(self) -> None:
        """Stop renewing and free the lease, if it is still ours."""
        self._release.set()
        self._thread.join()
        try:
            Lease.objects.filter(name=NAME, token=self.token).update(expires_at=None, holder="")
        except DatabaseError as error:
            # What the run did is done and told; the lease ends by itself.
            logger.warning("The lease could not be released: %s", error)


@contextmanager
def lease() -> Iterator[Grip]:
    """Hold the archive's lease; raises LeaseHeldError, which names the holder, where it is taken.

    An expired lease is taken over, and so is one whose holder was a process of this machine that
    is gone. The run that it belonged to is closed as interrupted.
    """
    grip = Grip(_acquire())
    grip.start()
    try:
        yield grip
    finally:
        grip.release()


def holder() -> str:
    """Return who runs the archive now; empty where nobody does."""
    row = Lease.objects.filter(name=NAME, expires_at__gt=Now()).first()
    return row.holder if row and not Process.holding(row).is_gone() else ""


def _acquire() -> int:
    """Win the lease by a conditional update; return the new token."""
    me = Process.current()
    with log.write_transaction(DEFAULT_DB_ALIAS):
        Lease.objects.get_or_create(name=NAME)
        row = Lease.objects.select_for_update().get(name=NAME)
        if row.expires_at is not None and not Process.holding(row).is_gone():
            free = Lease.objects.filter(name=NAME, token=row.token, expires_at__lte=Now())
        else:
            free = Lease.objects.filter(name=NAME, token=row.token)
        fence = LogState.objects.values_list("fence", flat=True).first() or 0
        known = ArchiveRun.objects.aggregate(token=Max("token"))["token"] or 0
        token = 1 + max(row.token, fence, known)
        won = free.update(
            token=token,
            holder=me.label,
            host=me.host,
            pid=me.pid,
            pid_started=me.started,
            acquired_at=Now(),
            expires_at=Now() + timedelta(seconds=conf.lease_seconds()),
        )
        if won != 1:
            raise LeaseHeldError(
                f"Another run holds the lease: {row.holder}, since "
                f"{row.acquired_at:%Y-%m-%d %H:%M:%S} UTC. Wait until it has ended; if it died, "
                f"its lease ends at {row.expires_at:%H:%M:%S} UTC."
            )
        for run in ArchiveRun.objects.filter(outcome=ArchiveRun.Outcome.RUNNING):
            _close(run, token)
    return token


def _close(run: ArchiveRun, token: int) -> None:
    """Close the run of a dead holder, as far as it came."""
    run.outcome = ArchiveRun.Outcome.INTERRUPTED
    run.finished_at = datetime.now(UTC)
    run.error = (
        f"Its process ({run.holder}) ended without a word, or was stalled for longer than its "
        f"lease; lease {token} took over. Nothing was lost."
    )
    run.save(update_fields=["outcome", "finished_at", "error"])
    request.note_end_of(run)
