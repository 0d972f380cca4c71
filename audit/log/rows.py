"""Rows of the log by their seqs: ordered ranges, a time found by bisection, range delete."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from django.db import DatabaseError
from django.db.models import Count, Sum
from django.db.models.functions import Length

from audit.format.errors import GapError
from audit.format.record import MAX_BYTES
from audit.models import AuditEvent

from .database import write_transaction
from .drafts import TEXT_COLUMNS
from .state import current_state

READ_CHUNK = 5_000  # rows at most, and about so many bytes:
WHOLE_CHUNK = 1_000
WHOLE_COLUMNS = ("seq", "record", "link", "recorded_at", "occurred_at", *TEXT_COLUMNS)
READ_CHUNK_BYTES = 8 * 1024 * 1024
DELETE_CHUNK = 20_000


class WholeRow(NamedTuple):
    """A row with all its columns; `texts` are in the order of `drafts.TEXT_COLUMNS`."""

    seq: int
    record: bytes
    link: bytes
    recorded_at: Any
    occurred_at: Any
    texts: tuple[Any, ...]


def read_range(first: int, last: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (seq, record, link) of the rows in first … last, in order, in flat memory.

    Read in chunks of their own, so that no snapshot is held open while a caller works.
    """
    limit = READ_CHUNK_BYTES // MAX_BYTES
    while first <= last:
        rows = AuditEvent.objects.filter(seq__gte=first, seq__lte=last).order_by("seq")
        chunk = list(rows.values_list("seq", "record", "link")[:limit])
        size = sum(len(record) for _, record, _ in chunk)
        yield from _as_stored(chunk)
        if len(chunk) < limit:
            return
        first = chunk[-1][0] + 1
        # The next chunk has as many rows as would have fitted, were they like these.
        limit = min(READ_CHUNK, 1 + READ_CHUNK_BYTES * len(chunk) // (size + 1))


def read_whole(first: int, last: int) -> Iterator[list[WholeRow]]:
    """Yield the rows in first … last with all their columns, in order, chunk by chunk.

    A value that its column cannot hold, which Django cannot even read, is None.
    """
    limit = READ_CHUNK_BYTES // MAX_BYTES
    while first <= last:
        rows = AuditEvent.objects.filter(seq__gte=first, seq__lte=last).order_by("seq")[:limit]
        try:
            found = list(rows.values_list(*WHOLE_COLUMNS))
        except (ValueError, TypeError, AttributeError, OverflowError, DatabaseError):
            seqs = list(rows.values_list("seq", flat=True))
            found = [values for seq in seqs if (values := _value_by_value(seq))]
        chunk = [
            WholeRow(seq, as_bytes(record), as_hash(link), recorded_at, occurred_at, tuple(texts))
            for seq, record, link, recorded_at, occurred_at, *texts in found
        ]
        if not chunk:
            return
        yield chunk
        first = math.floor(chunk[-1].seq) + 1  # it is no whole number where somebody meddled
        size = sum(len(row.record) for row in chunk)
        limit = min(WHOLE_CHUNK, 1 + READ_CHUNK_BYTES * len(chunk) // (size + 1))


def _value_by_value(seq: Any) -> tuple[Any, ...]:
    """Return a row's values, None for each that cannot be read; nothing where it was purged."""
    row = AuditEvent.objects.filter(seq=seq)
    if (record := row.values_list("record", flat=True).first()) is None:
        return ()
    values: list[Any] = [seq, record]
    for name in WHOLE_COLUMNS[2:]:
        try:
            values.append(row.values_list(name, flat=True).first())
        except (ValueError, TypeError, AttributeError, OverflowError, DatabaseError):
            values.append(None)
    return tuple(values)


def newest_seq() -> int | None:
    """Return the newest seq in hot, or None where there is none."""
    return AuditEvent.objects.order_by("-seq").values_list("seq", flat=True).first()


def _as_stored(chunk: list[tuple[int, Any, Any]]) -> Iterable[tuple[int, bytes, bytes]]:
    try:
        if all(type(record) is bytes for _, record, _ in chunk):
            return [(seq, record, bytes.fromhex(link)) for seq, record, link in chunk]
    except (ValueError, TypeError):
        pass
    # Somebody put something else there, or the engine has other types: value by value.
    return ((seq, as_bytes(record), as_hash(link)) for seq, record, link in chunk)


def as_bytes(value: object) -> bytes:
    """Return a binary column's value, whatever somebody may have put there instead."""
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    return str(value).encode("utf-8", "surrogatepass")


def as_hash(value: object) -> bytes:
    """Return a hash that is kept as hex; what is not ours becomes a hash that fits nothing."""
    try:
        raw = bytes.fromhex(str(value))
    except ValueError:
        return b""
    return raw if raw.hex() == value else b""


def read_sizes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield (seq, bytes of the record) of the rows in first … last, in order."""
    while first <= last:
        rows = AuditEvent.objects.filter(seq__gte=first, seq__lte=last).order_by("seq")
        chunk = list(rows.values_list("seq", Length("record"))[:READ_CHUNK])
        yield from chunk
        if len(chunk) < READ_CHUNK:
            return
        first = chunk[-1][0] + 1


def measure(first: int, last: int) -> tuple[int, int]:
    """Return how many rows there are in first … last, and the bytes of their records."""
    rows = AuditEvent.objects.filter(seq__gte=first, seq__lte=last)
    found = rows.aggregate(count=Count("seq"), size=Sum(Length("record")))
    return found["count"], found["size"] or 0


def count_by_source(first: int, last: int) -> dict[str, int]:
    """Return how many rows each source has in first … last; what was purged has none."""
    rows = AuditEvent.objects.filter(seq__gte=first, seq__lte=last).order_by()
    return dict(rows.values_list("source").annotate(count=Count("seq")))


def oldest_seq(above: int = 0) -> int | None:
    """Return the oldest seq in hot above a floor, or None where there is none."""
    row = AuditEvent.objects.filter(seq__gt=above).order_by("seq").values_list("seq").first()
    return row[0] if row else None


def last_seq_before(cutoff: datetime, floor: int, head: int) -> int:
    """Return the newest seq above the floor that was recorded before the cutoff, or the floor.

    Found by bisection: `recorded_at` rises with seq.
    """
    low, high = floor, head  # everything at or below low is older than the cutoff
    while low < high:
        middle = (low + high + 1) // 2
        row = (
            AuditEvent.objects.filter(seq__gte=middle, seq__lte=high)
            .order_by("seq")
            .values_list("seq", "recorded_at")
            .first()
        )
        if row is not None and row[1] < cutoff:
            low = row[0]
        else:
            high = middle - 1
    return low


def delete_rows(first: int, last: int) -> Iterator[int]:
    """Delete the rows first … last, chunk by chunk; yields how many went in each.

    Needs neither lock nor fence: nothing is ever appended at or below the floor, and what is
    there is in cold. Raises GapError, and deletes nothing, where the range is above the floor.
    """
    floor = current_state().floor_seq
    if last > floor:
        raise GapError(f"Seq {last:,} is above the floor at {floor:,}: nothing was deleted.")
    while (oldest := oldest_seq(above=first - 1)) is not None and oldest <= last:
        first = oldest + DELETE_CHUNK
        with write_transaction():
            rows = AuditEvent.objects.filter(seq__gte=oldest, seq__lt=min(first, last + 1))
            gone, _ = rows.delete()
        yield gone
