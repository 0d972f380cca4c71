"""The hot log: append, ordered range, range delete. The one place that knows database engines.

Why nothing can be lost or slipped in here:

- Every append locks the one `LogState` row first, so writers queue and no seq is ever skipped
  or given twice; the primary key is the backstop.
- Events, their keys and the new head are written in one transaction: what was acknowledged is
  there as a whole, and what was not acknowledged is not there at all.
- The floor is raised only under the same lock, so no append can ever write at or below it, and
  deleting what is at or below it needs no lock at all.
- A head that is behind the ledger means that hot was rolled back: nothing is appended then,
  since it would give the same seqs to other events.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import Max
from django.db.models.functions import Length
from django.dispatch import receiver

from . import conf
from .format.chain import genesis_link, leaf_hash, next_link
from .format.errors import AuditError, GapError, RecordError
from .format.record import MAX_BYTES, format_time
from .models import PROJECTION_CHARACTERS, ArchiveBatch, AuditEvent, EventKey, LogState
from .routers import hot_alias

KEY_BYTES = 16
READ_CHUNK = 5_000  # rows at most, and about so many bytes:
READ_CHUNK_BYTES = 8 * 1024 * 1024
DELETE_CHUNK = 5_000
KEYS_A_QUERY = 900
SEQ_DIGITS = 16  # of 2**53 - 1, the largest seq that JSON can carry exactly
UNASSIGNED = {"id": "0" * 36, "recorded_at": "0" * 24, "seq": 10**SEQ_DIGITS - 1}


class RolledBackError(AuditError):
    """Hot is older than what is known elsewhere, or belongs to another log."""


class BusyError(AuditError):
    """The database stayed locked by another writer for as long as we wait."""


class FenceError(AuditError):
    """A newer lease has been taken: this run may change nothing any more."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that is ready to be appended: checked, bounded and keyed.

    `event` has every member of a record but `id`, `recorded_at` and `seq`. `key` says which
    event it is and `digest` what it says; both are 16 bytes.
    """

    event: Mapping[str, Any]
    occurred_at: datetime
    key: bytes
    digest: bytes

    @classmethod
    def of(
        cls, event: Mapping[str, Any], occurred_at: datetime, key: bytes, digest: bytes
    ) -> Draft:
        """Return the draft; raises RecordError where its record could be too large."""
        size = len(encode(event, **UNASSIGNED))
        if size > MAX_BYTES:
            raise RecordError(f"its record would have {size:,} bytes, {MAX_BYTES:,} are allowed")
        return cls(event, occurred_at, key, digest)


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one draft.

    `duplicate`: it was there already, under this seq. `conflict`: another event has the same
    key and says something else; this one was kept under a key of its own.
    """

    seq: int
    duplicate: bool = False
    conflict: bool = False


def encode(event: Mapping[str, Any], **assigned: Any) -> bytes:
    """Return the record: the canonical bytes, written once and never again."""
    try:
        return orjson.dumps({**event, **assigned}, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise RecordError(f"cannot be a record: {error}") from None


def project(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the text projections of a record, in the order of `TEXT_COLUMNS`.

    Total: NUL is removed and each is cut at 200 characters, so none can fail an insert.
    """
    actor, target = event["actor"], event["target"]
    return tuple(
        text.replace("\x00", "")[:PROJECTION_CHARACTERS]
        for text in (
            event["source"],
            event["tenant"],
            actor["name"] or actor["id"],
            actor["id"],
            event["action"],
            target["name"] or target["id"],
            event["outcome"],
            event["external_id"],
        )
    )


TEXT_COLUMNS = "source tenant actor actor_id action target outcome external_id".split()
EVENT_COLUMNS = ["seq", "record", "link", "recorded_at", "occurred_at", *TEXT_COLUMNS]


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
    check_state(state)
    return state


def current_state() -> LogState:
    """Return the log's state as it is now, without a lock and without changing anything.

    Raises RolledBackError as `locked_state` does.
    """
    state = LogState.objects.first() or _new_state()
    check_state(state)
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


def check_state(state: LogState) -> None:
    """Raise RolledBackError where the state is of another log or is behind the ledger."""
    if state.origin != conf.origin():
        raise RolledBackError(
            f"This log's origin is '{state.origin}', but AUDIT_ORIGIN is '{conf.origin()}': "
            "set AUDIT_ORIGIN back, or point at this deployment's own database."
        )
    archived = ArchiveBatch.objects.aggregate(seq=Max("end_seq"))["seq"] or 0
    if state.head_seq < archived:
        raise RolledBackError(
            f"The hot database ends at seq {state.head_seq:,}, but the ledger knows seq "
            f"{archived:,}: hot was rolled back. Nothing is appended or archived; restore the "
            "hot database from its newest backup."
        )


# Append ------------------------------------------------------------------------------------


def append(drafts: Sequence[Draft], *, now: datetime | None = None) -> list[Appended]:
    """Append events in one transaction; return what became of each, in their order.

    `now` is the time to record them at and defaults to the clock; only `demo_events` and tests
    set it. What was seen before, in the log or earlier in the same call, is a duplicate and
    takes no seq. Raises RolledBackError or BusyError; then nothing was appended.
    """
    if not drafts:
        return []
    with write_transaction(durable=True):
        state = locked_state()
        _check_file()
        _check_head(state)
        if now is None:
            # Read under the lock, so that the order of the times is the order of the seqs.
            now = datetime.now(UTC)
        recorded_at = max(now, state.head_recorded_at or now)
        recorded_at = recorded_at.replace(microsecond=recorded_at.microsecond // 1000 * 1000)
        seen = _seen(drafts)
        answers = []
        fresh: list[tuple[Draft, bytes]] = []
        for draft in drafts:
            answer, key = _place(draft, seen, state.head_seq + len(fresh) + 1)
            answers.append(answer)
            if not answer.duplicate:
                seen[key] = (draft.digest, answer.seq)
                fresh.append((draft, key))
        if fresh:
            _write(state, fresh, recorded_at)
    return answers


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
        connection.audit_file = _file_identity(connection)  # type: ignore[attr-defined]


def _check_file() -> None:
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


def _check_head(state: LogState) -> None:
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


def _place(
    draft: Draft, seen: Mapping[bytes, tuple[bytes, int]], next_seq: int
) -> tuple[Appended, bytes]:
    """Decide what a draft is, and under which key it is kept."""
    known = seen.get(draft.key)
    if known is None:
        return Appended(next_seq), draft.key
    if known[0] == draft.digest:
        return Appended(known[1], duplicate=True), draft.key
    key = conflict_key(draft)
    known = seen.get(key)
    if known is None:
        return Appended(next_seq, conflict=True), key
    return Appended(known[1], duplicate=True, conflict=True), key


def conflict_key(draft: Draft) -> bytes:
    """Return the key of an event whose own key is taken by one that says something else."""
    return short_digest(draft.key + draft.digest)


def short_digest(data: bytes) -> bytes:
    """Return the 16 bytes of a digest that keys and digests of events have."""
    return leaf_hash(data)[:KEY_BYTES]


def _seen(drafts: Sequence[Draft]) -> dict[bytes, tuple[bytes, int]]:
    """Look up which of the drafts' keys are taken: {key: (digest, seq)}."""
    keys = list({key for draft in drafts for key in (draft.key, conflict_key(draft))})
    seen = {}
    for at in range(0, len(keys), KEYS_A_QUERY):
        rows = EventKey.objects.filter(key__in=keys[at : at + KEYS_A_QUERY])
        for key, digest, seq in rows.values_list("key", "digest", "seq"):
            seen[bytes(key)] = (bytes(digest), seq)
    return seen


def _write(state: LogState, fresh: Sequence[tuple[Draft, bytes]], recorded_at: datetime) -> None:
    """Write records head+1 …, their keys and the new head, inside the caller's transaction."""
    connection = connections[hot_alias()]
    as_column = connection.ops.adapt_datetimefield_value
    recorded_text, recorded_column = format_time(recorded_at), as_column(recorded_at)
    milliseconds = int(recorded_at.timestamp() * 1000)
    seq, link = state.head_seq, bytes.fromhex(state.head_link)
    rows, keys = [], []
    for draft, key in fresh:
        seq += 1
        record = encode(draft.event, id=uuid7(milliseconds), recorded_at=recorded_text, seq=seq)
        link = next_link(link, leaf_hash(record))
        rows.append(
            (
                seq,
                record,
                link.hex(),
                recorded_column,
                as_column(draft.occurred_at),
                *project(draft.event),
            )
        )
        keys.append((key, draft.digest, seq))
    with connection.cursor() as cursor:
        cursor.executemany(_insert(AuditEvent, tuple(EVENT_COLUMNS)), rows)
        cursor.executemany(_insert(EventKey, ("key", "digest", "seq")), keys)
    LogState.objects.filter(id=state.id).update(
        head_seq=seq, head_link=link.hex(), head_recorded_at=recorded_at
    )


@cache
def _insert(model: type[AuditEvent | EventKey], columns: tuple[str, ...]) -> str:
    quote = connections[hot_alias()].ops.quote_name
    names = ", ".join(map(quote, columns))
    marks = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({marks})"  # noqa: S608  # our own names


def uuid7(milliseconds: int) -> str:
    """Return a UUID of version 7 (RFC 9562, section 5.7) with 74 random bits."""
    value = milliseconds << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


# Read --------------------------------------------------------------------------------------


def read_range(first: int, last: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (seq, record, link) of the rows in first … last, in order, in flat memory.

    Read in chunks of their own, so that no snapshot is held open while a caller works.
    """
    limit = READ_CHUNK_BYTES // MAX_BYTES
    while first <= last:
        rows = AuditEvent.objects.filter(seq__gte=first, seq__lte=last).order_by("seq")
        chunk = list(rows.values_list("seq", "record", "link")[:limit])
        size = 0
        for seq, record, link in chunk:
            yield seq, as_bytes(record), as_hash(link)
            size += len(record)
        if len(chunk) < limit:
            return
        first = chunk[-1][0] + 1
        # The next chunk has as many rows as would have fitted, were they like these.
        limit = min(READ_CHUNK, 1 + READ_CHUNK_BYTES * len(chunk) // (size + 1))


def as_bytes(value: object) -> bytes:
    """Return a binary column's value, whatever somebody may have put there instead."""
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    return str(value).encode("utf-8", "surrogatepass")


def as_hash(value: object) -> bytes:
    """Return a hash that is kept as hex; what is no hex becomes a hash that fits nothing."""
    try:
        return bytes.fromhex(str(value))
    except ValueError:
        return b""


def read_sizes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield (seq, bytes of the record) of the rows in first … last, in order."""
    while first <= last:
        rows = AuditEvent.objects.filter(seq__gte=first, seq__lte=last).order_by("seq")
        chunk = list(rows.values_list("seq", Length("record"))[:READ_CHUNK])
        yield from chunk
        if len(chunk) < READ_CHUNK:
            return
        first = chunk[-1][0] + 1


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


# Purge -------------------------------------------------------------------------------------


def raise_fence(token: int) -> None:
    """Make a lease's token the newest that hot has seen; raises FenceError if it is not."""
    with write_transaction():
        state = locked_state()
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
