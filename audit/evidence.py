"""Read rows of which nothing is known to be right: whoever can write there can put anything there.

A column may hold what its type does not allow (SQLite takes a text for a number), and then Django
cannot even read the row. Such a row was changed, which is an answer, and no failure of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, TypeVar

from django.db import DatabaseError
from django.db.models import Model, QuerySet

from .format.errors import TamperedError
from .format.names import MAX_SEQ
from .ledger import IN_COLD
from .models import ArchiveBatch, Checkpoint, LogState

M = TypeVar("M", bound=Model)
# What Django raises at a value that its column cannot hold; and what SQLite's driver says then.
UNREADABLE = (ValueError, TypeError, AttributeError, OverflowError)
UNDECODABLE = "decode"


class UnreadableRowError(TamperedError):
    """A row holds a value that its column cannot have: somebody put it there."""


def state() -> LogState | None:
    """Return the log's state, None where there is none; raises UnreadableRowError."""
    return _first(LogState.objects.all(), "The log's state")


def floor_seq() -> int:
    """Return the floor, 0 where it is not known."""
    found = LogState.objects.filter(floor_seq__lte=MAX_SEQ).values_list("floor_seq", flat=True)
    return int(found.first() or 0)


def head_seq() -> int:
    """Return the head, 0 where it is not known."""
    found = LogState.objects.filter(head_seq__lte=MAX_SEQ).values_list("head_seq", flat=True)
    return int(found.first() or 0)


def batch(start_seq: int) -> ArchiveBatch | None:
    """Return the ledger's row of the batch from a seq on; raises UnreadableRowError."""
    rows = ArchiveBatch.objects.filter(start_seq=start_seq)
    return _first(rows, f"The ledger's row of the batch from seq {start_seq:,} on")


def archived_seq(state_: str = "") -> int:
    """Return the newest seq that is in cold by the ledger; with a state, of the rows in it."""
    rows = ArchiveBatch.objects.filter(
        state__in=[state_] if state_ else IN_COLD, end_seq__lte=MAX_SEQ
    )
    return int(rows.order_by("-end_seq").values_list("end_seq", flat=True).first() or 0)


def checkpoints() -> Iterator[Checkpoint | UnreadableRowError]:
    """Yield the checkpoints' rows in their order; for one that cannot be read, what it means."""
    rows = Checkpoint.objects.order_by("index")
    try:
        found = list(rows)
    except (*UNREADABLE, DatabaseError):
        for key in list(rows.values_list("pk", flat=True)):
            try:
                row = _first(rows.filter(pk=key), f"The row of checkpoint {key}")
            except UnreadableRowError as error:
                yield error
            else:
                if row is not None:
                    yield row
        return
    for item in found:
        try:
            yield _checked(item, f"The row of checkpoint {item.pk}")
        except UnreadableRowError as error:
            yield error


def _first(rows: QuerySet[M], what: str) -> M | None:
    try:
        row = rows.first()
    except UNREADABLE:
        raise _unreadable(what) from None
    except DatabaseError as error:
        if UNDECODABLE in str(error):
            raise _unreadable(what) from None
        raise
    return None if row is None else _checked(row, what)


def _checked(row: M, what: str) -> M:
    """Return a row whose values are of their columns' types."""
    for field in row._meta.concrete_fields:
        if not _fits(field.get_internal_type(), getattr(row, field.attname)):
            raise _unreadable(f"{what}, column {field.attname},")
    return row


def _fits(kind: str, value: Any) -> bool:
    if value is None:
        return True  # where a column may be empty is for whoever reads it
    if kind in {"BigIntegerField", "SmallIntegerField", "IntegerField"}:
        return type(value) is int
    if kind == "CharField":
        return isinstance(value, str)
    return kind != "DateTimeField" or isinstance(value, datetime)


def _unreadable(what: str) -> UnreadableRowError:
    return UnreadableRowError(
        f"{what} holds a value that does not belong there: it was changed. Keep the database as "
        "it is, and compare with a backup."
    )
