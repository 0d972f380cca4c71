"""Append: one transaction that gives seqs, chains, and writes events, keys and the new head."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache

from django.db import connections

from audit.format.chain import leaf_hash, next_link
from audit.format.record import format_time
from audit.models import AuditEvent, EventKey, LogState
from audit.routers import hot_alias

from .database import write_transaction
from .drafts import TEXT_COLUMNS, Appended, Draft, conflict_key, encode, project
from .state import check_file, check_head, locked_state

KEYS_A_QUERY = 900
EVENT_COLUMNS = ["seq", "record", "link", "recorded_at", "occurred_at", *TEXT_COLUMNS]


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
        check_file()
        check_head(state)
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
