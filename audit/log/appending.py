"""Append: one transaction that gives seqs, chains, and writes events, keys and the new head."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from audit.format.chain import leaf_hash, next_link
from audit.format.record import format_time, parse_time
from audit.models import AuditEvent, EventKey, LogState
from audit.routers import hot_alias

from .database import write_transaction
from .drafts import TEXT_COLUMNS, Appended, Draft, conflict_key, project
from .state import check_checkpoint, check_file, check_head, locked_state, lookout

KEYS_A_QUERY = 900
UUID_BYTES = 10
VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
EVENT_COLUMNS = ["seq", "record", "link", "recorded_at", "occurred_at", *TEXT_COLUMNS]


def append(
    drafts: Sequence[Draft],
    *,
    now: datetime | None = None,
    before_commit: Callable[[], None] | None = None,
) -> list[Appended]:
    """Append events in one transaction; return what became of each, in their order.

    `now` is the time to record them at and defaults to the clock; only `demo_events` and tests
    set it. What was seen before, in the log or earlier in the same call, is a duplicate and
    takes no seq. `before_commit` is called when only the commit is left: that needs no
    interpreter, so a thread that is begun there costs nothing. Raises RolledBackError or
    BusyError; then nothing was appended.
    """
    if not drafts:
        return []
    lookout.begin()
    with write_transaction(durable=True):
        state = locked_state()
        check_file()
        check_head(state)
        check_checkpoint(state)
        lookout.check(state)
        if now is None:
            # Read under the lock, so that the order of the times is the order of the seqs.
            now = datetime.now(UTC)
        recorded_at = max(now, state.head_recorded_at or now)
        recorded_at = recorded_at.replace(microsecond=recorded_at.microsecond // 1000 * 1000)
        seen = _known(drafts)
        answers: list[Appended] = []
        fresh: list[Draft] = []
        keys: list[tuple[bytes, bytes, int]] = []
        for draft in drafts:
            seq = state.head_seq + len(fresh) + 1
            answer, key = _place(draft, seen, seq)
            answers.append(answer)
            if not answer.duplicate:
                seen[key] = (draft.digest, seq)
                fresh.append(draft)
                keys.append((key, draft.digest, seq))
        if fresh:
            _write(state, fresh, keys, recorded_at)
        if before_commit:
            before_commit()
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


def _known(drafts: Sequence[Draft]) -> dict[bytes, tuple[bytes, int]]:
    """Look up which of the drafts' keys are taken, in the log: {key: (digest, seq)}.

    A key of its own is asked for only where a draft needs one: the log, or an earlier draft, has
    its key and says something else.
    """
    keys = [draft.key for draft in drafts]
    seen = _seen(keys)
    if not seen and len(set(keys)) == len(keys):
        return seen
    first = {draft.key: draft.digest for draft in reversed(drafts)}
    first.update((key, digest) for key, (digest, _) in seen.items())
    contested = [draft for draft in drafts if first[draft.key] != draft.digest]
    return seen | _seen(list(map(conflict_key, contested)))


def has(key: bytes) -> bool:
    """Say whether the log has an event of this key."""
    return bool(_seen([key]))


def _seen(keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
    """Look up which keys are taken: {key: (digest, seq)}."""
    seen = {}
    with connections[hot_alias()].cursor() as cursor:
        for at in range(0, len(keys), KEYS_A_QUERY):
            asked = keys[at : at + KEYS_A_QUERY]
            cursor.execute(_select_keys(len(asked)), asked)
            for key, digest, seq in cursor.fetchall():
                seen[bytes(key)] = (bytes(digest), seq)
    return seen


def _write(
    state: LogState,
    fresh: Sequence[Draft],
    keys: Sequence[tuple[bytes, bytes, int]],
    recorded_at: datetime,
) -> None:
    """Write records head+1 …, their keys and the new head, inside the caller's transaction."""
    connection = connections[hot_alias()]
    as_column = time_column(connection)
    recorded_text = format_time(recorded_at)
    recorded_column = as_column(recorded_text)
    seq, link = state.head_seq, bytes.fromhex(state.head_link)
    rows = []
    ids = uuid7s(int(recorded_at.timestamp() * 1000), len(fresh))
    for draft, identity in zip(fresh, ids, strict=True):
        seq += 1
        record = draft.record(identity, recorded_text, seq)
        link = next_link(link, leaf_hash(record))
        occurred_column = as_column(draft.event["occurred_at"])
        rows.append(
            (seq, record, link.hex(), recorded_column, occurred_column, *project(draft.event))
        )
    with connection.cursor() as cursor:
        cursor.executemany(_insert(AuditEvent, tuple(EVENT_COLUMNS)), rows)
        # In order of their keys, so that the index is walked once.
        cursor.executemany(_insert(EventKey, ("key", "digest", "seq")), sorted(keys))
    LogState.objects.filter(id=state.id).update(
        head_seq=seq, head_link=link.hex(), head_recorded_at=recorded_at
    )


def time_column(connection: BaseDatabaseWrapper) -> Callable[[str], Any]:
    """Return what makes of a record's time the value that Django would give its column."""
    if connection.vendor == "sqlite" and connection.timezone_name == "UTC":
        return sqlite_time
    as_column = connection.ops.adapt_datetimefield_value
    return lambda text: as_column(parse_time(text))


def sqlite_time(text: str) -> str:
    """Return SQLite's text of a time, without a detour by way of `datetime`: as its `str` is."""
    milliseconds = text[20:23]
    return f"{text[:10]} {text[11:19]}{'' if milliseconds == '000' else f'.{milliseconds}000'}"


@cache
def _select_keys(count: int) -> str:
    quote = connections[hot_alias()].ops.quote_name
    names = ", ".join(map(quote, ("key", "digest", "seq")))
    marks = ", ".join(["%s"] * count)
    return (
        f"SELECT {names} FROM {quote(EventKey._meta.db_table)} WHERE {quote('key')} IN ({marks})"  # noqa: S608  # our own names
    )


@cache
def _insert(model: type[AuditEvent | EventKey], columns: tuple[str, ...]) -> str:
    quote = connections[hot_alias()].ops.quote_name
    names = ", ".join(map(quote, columns))
    marks = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({marks})"  # noqa: S608  # our own names


def uuid7(milliseconds: int) -> str:
    """Return a UUID of version 7 (RFC 9562, section 5.7) with 74 random bits."""
    return next(uuid7s(milliseconds, 1))


def uuid7s(milliseconds: int, count: int) -> Iterator[str]:
    """Yield `count` of them: one question to the system for all their random bits."""
    time = f"{milliseconds:012x}"
    begin = f"{time[:8]}-{time[8:]}-7"
    digits = os.urandom(UUID_BYTES * count).hex()
    for at in range(0, len(digits), 2 * UUID_BYTES):
        # Two of the four bits of the first digit are random, 18 digits more are.
        yield (
            f"{begin}{digits[at + 1 : at + 4]}-{VARIANT[digits[at]]}"
            f"{digits[at + 4 : at + 7]}-{digits[at + 7 : at + 19]}"
        )
