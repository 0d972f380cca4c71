"""Where the log ends and how far it may be purged: the one `LogState` row, and its checks."""

from __future__ import annotations

import os
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import Max
from django.dispatch import receiver

from audit import conf
from audit.format.chain import genesis_link
from audit.format.errors import AuditError, GapError
from audit.models import ArchiveBatch, AuditEvent, EventKey, LogState
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
    check_state(state, archived_seq())
    return state


def current_state() -> LogState:
    """Return the log's state as it is now, without a lock and without changing anything.

    Raises RolledBackError as `locked_state` does.
    """
    # The ledger first: the head only rises, so what was archived by then is not beyond it.
    archived = archived_seq()
    state = LogState.objects.first()
    if state is None:
        try:
            state = _new_state()
        except RolledBackError:
            # The very first append may have come in between.
            state = LogState.objects.first()
            if state is None:
                raise
    check_state(state, archived)
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
    check_state(state, archived=0)
    return state


def _new_state() -> LogState:
    """Return the state of a new log, not saved."""
    if any(model.objects.exists() for model in (AuditEvent, EventKey, ArchiveBatch)):
        raise RolledBackError(
            "The log's state is missing though the log is not empty: nothing is appended. "
            "Restore the hot database from its newest backup."
        )
    link = genesis_link(conf.origin()).hex()
    return LogState(id=1, origin=conf.origin(), head_link=link, floor_link=link)


def archived_seq() -> int:
    """Return the newest seq that the ledger knows, planned or in cold."""
    return ArchiveBatch.objects.aggregate(seq=Max("end_seq"))["seq"] or 0


def check_state(state: LogState, archived: int) -> None:
    """Raise RolledBackError where the state is of another log or is behind the ledger."""
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
    ends.
    """
    connection = connections[hot_alias()]
    if connection.vendor == "sqlite" and getattr(connection, "audit_file", None) != (
        _file_identity(connection)
    ):
        raise RolledBackError(
            f"The database file {connection.settings_dict['NAME']} was removed or replaced while "
            "this process had it open: nothing is appended. Restart this process."
        )


def raise_fence(token: int) -> None:
    """Make a lease's token the newest that hot has seen; raises FenceError if it is not."""
    with write_transaction():
        state = locked_state()
        check_file()
        check_head(state)
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
