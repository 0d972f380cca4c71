"""Where the log ends and how far it may be purged: the one `LogState` row, and its checks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import Max
from django.dispatch import receiver

from audit import conf
from audit.format.chain import genesis_link
from audit.format.errors import AuditError, GapError
from audit.models import ArchiveBatch, AuditEvent, Checkpoint, EventKey, LogState
from audit.routers import hot_alias

from .database import write_transaction


class RolledBackError(AuditError):
    """Hot is older than what is known elsewhere, or belongs to another log."""


class FenceError(AuditError):
    """A newer lease has been taken: this run may change nothing any more."""


def locked_state() -> LogState:
    """Lock and return the log's state inside a transaction on hot, making it for a new log.

    Raises RolledBackError where the row is missing though a log exists, or is of another log.
    """
    states = LogState.objects.select_for_update()
    state = states.first()
    if state is None:
        # Of two processes that both find a new log, one inserts the row and both lock it.
        LogState.objects.bulk_create([_new_state()], ignore_conflicts=True)
        state = states.get()
    check_state(state, archived_seq(), checkpointed_seq())
    return state


def current_state() -> LogState:
    """Return the log's state as it is now, without a lock and without changing anything.

    Raises RolledBackError as `locked_state` does.
    """
    # What is known elsewhere first: the head only rises, so none of it is beyond the head.
    archived, checkpointed = archived_seq(), checkpointed_seq()
    state = LogState.objects.first()
    if state is None:
        try:
            state = _new_state()
        except RolledBackError:
            # The very first append may have come in between.
            state = LogState.objects.first()
            if state is None:
                raise
    check_state(state, archived, checkpointed)
    return state


def state_beside_ledger() -> LogState:
    """Return the log's state as it is now, where the ledger itself is in doubt.

    Raises RolledBackError where there is none, or where it is of another log.
    """
    state = LogState.objects.first()
    if state is None:
        raise RolledBackError(
            "The hot database has no log in it: restore it from its newest backup first."
        )
    check_state(state, archived=0, checkpointed=checkpointed_seq())
    return state


def _new_state() -> LogState:
    """Return the state of a new log, not saved; it may have checkpoints that say it is empty."""
    signed = Checkpoint.objects.filter(seq__gt=0)
    if signed.exists() or any(
        model.objects.exists() for model in (AuditEvent, EventKey, ArchiveBatch)
    ):
        raise RolledBackError(
            "The log's state is missing though the log is not empty: nothing is appended. "
            "Restore the hot database from its newest backup."
        )
    link = genesis_link(conf.origin()).hex()
    return LogState(id=1, origin=conf.origin(), head_link=link, floor_link=link)


def archived_seq() -> int:
    """Return the newest seq that the ledger knows, planned or in cold."""
    return ArchiveBatch.objects.aggregate(seq=Max("end_seq"))["seq"] or 0


def newest_checkpoint() -> tuple[int, int, str] | None:
    """Return index, seq and link of the newest checkpoint's row."""
    return Checkpoint.objects.order_by("-index").values_list("index", "seq", "link").first()


def checkpointed_seq() -> int:
    """Return the seq of the newest checkpoint, 0 where there is none."""
    newest = newest_checkpoint()
    return newest[1] if newest else 0


def check_state(state: LogState, archived: int, checkpointed: int) -> None:
    """Raise RolledBackError where the state is of another log, or behind ledger or checkpoints."""
    if state.origin != conf.origin():
        raise RolledBackError(
            f"This log's origin is '{state.origin}', but AUDIT_ORIGIN is '{conf.origin()}': "
            "set AUDIT_ORIGIN back, or point at this deployment's own database."
        )
    if state.head_seq < archived:
        raise RolledBackError(
            f"The hot database ends at seq {state.head_seq:,}, but the ledger knows seq "
            f"{archived:,}: hot was rolled back. Nothing is appended or archived; restore the "
            "hot database from its newest backup."
        )
    if state.head_seq < checkpointed:
        raise RolledBackError(
            f"The hot database ends at seq {state.head_seq:,}, but a checkpoint is signed for seq "
            f"{checkpointed:,}: hot was rolled back. Nothing is appended or archived; restore the "
            "hot database from its newest backup."
        )


def link_at(state: LogState, seq: int) -> str | None:
    """Return the link of a seq in hot; None where hot has purged it, empty where it is missing."""
    if seq == state.head_seq:
        return str(state.head_link)
    if seq == state.floor_seq:
        return str(state.floor_link)
    if seq < state.floor_seq:
        return None
    return AuditEvent.objects.filter(seq=seq).values_list("link", flat=True).first() or ""


def check_checkpoint(state: LogState) -> None:
    """Hold the log against its newest checkpoint, under the lock; raises RolledBackError.

    A log that was cut and continued reaches as far as before, and is another one.
    """
    newest = newest_checkpoint()
    if newest is None:
        return
    index, seq, signed = newest
    if link_at(state, seq) not in {None, signed}:
        raise RolledBackError(
            f"Seq {seq:,} in the hot database is not the one for which checkpoint {index:,} is "
            "signed: the log was rolled back and continued, or changed. Nothing is appended; keep "
            "the database as it is, and restore it from its newest backup."
        )


@dataclass(frozen=True)
class Claim:
    """What the bucket says that the log holds: a seq and its link, signed in the object `key`."""

    seq: int
    link: str
    key: str


class Look(Protocol):
    """Finds out what the bucket claims."""

    def begin(self) -> None:
        """Begin to look; may wait a little, and never raises."""

    def claims(self) -> Sequence[Claim] | None:
        """Return the claims, None while they are not known."""


class Lookout:
    """What the bucket claims of the log, held against it once in each process."""

    def __init__(self) -> None:
        """Begin without a look: nothing is asked."""
        self._look: Look | None = None

    def use(self, look: Look | None) -> None:
        """Ask this from now on, until its claims were found to hold."""
        self._look = look

    def begin(self) -> None:
        """Begin to look, before anything is locked."""
        if look := self._look:  # another thread may have done with it meanwhile
            look.begin()

    def check(self, state: LogState) -> None:
        """Hold the log against the claims, under the lock; raises RolledBackError."""
        look = self._look
        claims = look.claims() if look else None
        if claims is None:
            return
        for claim in claims:
            if state.head_seq < claim.seq or link_at(state, claim.seq) not in {None, claim.link}:
                raise RolledBackError(
                    f"{claim.key} in the bucket is signed for seq {claim.seq:,}, which the hot "
                    f"database, at seq {state.head_seq:,}, does not have as it was: hot was "
                    "rolled back. Nothing is appended; restore it from its newest backup; if that "
                    "object is wrong, keep it under another name and restart this process."
                )
        self._look = None  # the head only rises


lookout = Lookout()


def check_head(state: LogState) -> None:
    """Hold the state against the newest row, under the lock.

    What is appended to a head that is not the log's own would never be archived. Raises
    RolledBackError.
    """
    newest = AuditEvent.objects.order_by("-seq").values_list("seq", "link").first()
    if state.head_seq > state.floor_seq:
        fits = newest == (state.head_seq, state.head_link)
    else:
        fits = state.head_link == state.floor_link and (
            newest is None or newest[0] <= state.floor_seq
        )
    if not fits:
        raise RolledBackError(
            f"The log's state says that it ends at seq {state.head_seq:,}, but its newest row is "
            f"{f'seq {newest[0]:,}' if newest else 'missing'}, or has another link: the hot "
            "database was changed, or restored in parts. Nothing is appended; keep the database "
            "as it is, and compare with a backup."
        )


def _file_identity(connection: BaseDatabaseWrapper) -> tuple[int, int] | None:
    """Return which file an SQLite database is now, None where it is none."""
    try:
        found = os.stat(connection.settings_dict["NAME"])  # noqa: PTH116  # may be no path
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


@receiver(connection_created)
def _remember_file(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if connection.vendor == "sqlite":
        # Kept on the connection, so that it is forgotten with it.
        setattr(connection, "audit_file", _file_identity(connection))  # noqa: B010  # not typed


def check_file() -> None:
    """Raise RolledBackError where the database's file is no longer the one that is open.

    What is appended to a file that was removed or replaced by a backup is gone when the process
    ends; and signed would be what the file that is there now does not hold.
    """
    connection = connections[hot_alias()]
    if connection.vendor == "sqlite" and getattr(connection, "audit_file", None) != (
        _file_identity(connection)
    ):
        raise RolledBackError(
            f"The database file {connection.settings_dict['NAME']} was removed or replaced while "
            "this process had it open: nothing is appended or signed. Restart this process."
        )


def raise_fence(token: int) -> None:
    """Make a lease's token the newest that hot has seen; raises FenceError if it is not."""
    with write_transaction():
        state = locked_state()
        check_file()
        check_head(state)
        check_checkpoint(state)
        won = LogState.objects.filter(id=state.id, fence__lt=token).update(fence=token)
        if won != 1:
            raise FenceError(f"Lease {token} is not newer than {state.fence}: run again.")


def raise_floor(token: int, start_seq: int, end_seq: int, end_link: str) -> None:
    """Declare start … end to be in cold, so that it may be deleted here.

    In one transaction under the log's lock. Raises FenceError where a newer run has begun, and
    GapError where the range does not touch the floor or is beyond the head.
    """
    with write_transaction():
        state = locked_state()
        check_file()
        if state.fence != token:
            raise FenceError(
                f"A newer run (lease {state.fence}) has begun: this one (lease {token}) purges "
                "nothing more."
            )
        if not (start_seq <= state.floor_seq + 1 and end_seq <= state.head_seq):
            raise GapError(
                f"Seqs {start_seq:,}–{end_seq:,} do not continue the floor at "
                f"{state.floor_seq:,}: nothing was purged. Check the ledger against the bucket."
            )
        if end_seq > state.floor_seq:
            LogState.objects.filter(id=state.id).update(floor_seq=end_seq, floor_link=end_link)
