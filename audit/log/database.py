"""Transactions on the databases, and what they answer when something is wrong."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from audit.format.errors import AuditError
from audit.routers import hot_alias

logger = logging.getLogger(__name__)

# How long a writer that has waited for less than the first sleeps before it asks again: seconds.
PAUSES = ((0.05, 0.005), (0.3, 0.002), (math.inf, 0.0005))


class BusyError(AuditError):
    """The database stayed locked by another writer for as long as we wait."""


@contextmanager
def write_transaction(alias: str | None = None, *, durable: bool = False) -> Iterator[None]:
    """One transaction, on hot unless an alias is named; a durable one is part of no other.

    Raises BusyError where the database stayed locked by somebody else.
    """
    alias = alias or hot_alias()
    started = time.monotonic()
    try:
        with _turn(connections[alias]), transaction.atomic(using=alias, durable=durable):
            yield
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        raise BusyError(
            f"The database stayed locked by another process for "
            f"{time.monotonic() - started:.0f} s: nothing was written. Find out what holds it "
            "(a stalled or stopped writer?), then try again."
        ) from None


@contextmanager
def _turn(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Wait until it is this writer's turn on SQLite; other engines queue by themselves.

    SQLite lets whoever asks at the right moment have its lock, and those who wait ask ever more
    rarely: a single event could wait for many seconds behind writers of thousands. So writers
    first lock a file beside the database, and ask for it the more often the longer they wait.
    The lock ends with its process. Whoever cannot use the file goes without.
    """
    path = Path(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or connection.in_atomic_block or not path.is_file():
        yield
        return
    with ExitStack() as stack:
        try:
            file = _open_beside(path.resolve())
            stack.callback(os.close, file)
            _wait(file, float(connection.settings_dict["OPTIONS"].get("timeout", 5)))
        except OSError as error:
            logger.debug("Writing without a turn: %s", error)
        yield


def _open_beside(database: Path) -> int:
    """Open the file that writers lock; it belongs to whom the database belongs to."""
    name = f"{database}.queue"
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        file = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(name, flags)
    owner = database.stat()
    with suppress(OSError):  # only root may give it to somebody else
        os.fchown(file, owner.st_uid, owner.st_gid)
    os.fchmod(file, owner.st_mode & 0o666)
    return file


def _wait(file: int, seconds: float) -> None:
    """Lock a file; raises OperationalError where somebody else has it for so long."""
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
            if waited > seconds:
                raise OperationalError("database is locked") from None
            time.sleep(next(pause for until, pause in PAUSES if waited < until))
        else:
            return


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


def is_full(error: BaseException) -> bool:
    """Say whether a database has no room to write."""
    text = str(error)
    return isinstance(error, DatabaseError) and ("is full" in text or "No space left" in text)
