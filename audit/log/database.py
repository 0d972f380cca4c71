"""Transactions on the databases, and what they answer when something is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DatabaseError, OperationalError, connections, transaction

from audit.format.errors import AuditError
from audit.routers import hot_alias


class BusyError(AuditError):
    """The database stayed locked by another writer for as long as we wait."""


@contextmanager
def write_transaction(alias: str | None = None, *, durable: bool = False) -> Iterator[None]:
    """One transaction, on hot unless an alias is named; a durable one is part of no other.

    Raises BusyError where the database stayed locked by somebody else.
    """
    started = time.monotonic()
    try:
        with transaction.atomic(using=alias or hot_alias(), durable=durable):
            yield
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        raise BusyError(
            f"The database stayed locked by another process for "
            f"{time.monotonic() - started:.0f} s: nothing was written. Find out what holds it "
            "(a stalled or stopped writer?), then try again."
        ) from None


def bound_page_cache(kib: int) -> None:
    """Let this thread's connection to hot keep at most so many KiB of pages (SQLite alone)."""
    connection = connections[hot_alias()]
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA cache_size=-{kib:d}")


def explain(error: DatabaseError) -> str:
    """Return a sentence on what a database said, with what to do next."""
    text = str(error)
    if is_lock_timeout(error):
        return (
            "The database stayed locked by another process: find out what holds it (a stalled or "
            "stopped writer?), then try again. Nothing was lost."
        )
    if "no such table" in text or "no such column" in text:
        other = " and manage.py migrate --database hot" if hot_alias() == "hot" else ""
        return f"The database is not up to date ({text}): run manage.py migrate{other}."
    return f"The database failed ({text}): see that it is up and has room, then try again."


def is_lock_timeout(error: BaseException) -> bool:
    """Say whether a database gave up waiting for a lock."""
    text = str(error)
    return isinstance(error, OperationalError) and ("locked" in text or "lock timeout" in text)
