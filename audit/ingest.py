"""Turn what a source sent into drafts that can be appended.

An event's key says which event it is, its digest what it says. With an `external_id` the key is
made of source, scope and that id; a line of a file without one is known by its own bytes and by
how often they came before in the whole file. When in doubt, twice rather than never.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tenants.models import Tenant

from . import quick
from .format.errors import RecordError
from .format.record import VERSION, format_time, parse, parse_time
from .log import Draft, short_digest

OUTCOMES = ("success", "failure", "unknown")
OWN_SOURCE = "dezky"
MAX_LINE_BYTES = 1024 * 1024
MEMBERS = frozenset(
    ["occurred_at", "external_id", "tenant", "actor", "action", "target", "outcome", "data"]
)
ACTOR = ("id", "ip", "name")
TARGET = ("id", "name", "type")
FILE_SCOPE = "file"
TENANTS_A_QUERY = 900


def generic_event(source: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record's members, less those that append assigns, of a generic event.

    `occurred_at` and `action` are required; `actor` and `target` are objects, or a text that
    is their name. Raises RecordError with the reason.
    """
    unknown = sorted(set(given) - MEMBERS)
    if unknown:
        raise RecordError(f"unknown member {unknown[0][:50]!r}: put what is your own under 'data'")
    outcome = _text(given, "outcome") or "unknown"
    if outcome not in OUTCOMES:
        raise RecordError(f"outcome {outcome[:50]!r} is none of {', '.join(OUTCOMES)}")
    action = _text(given, "action")
    if not action:
        raise RecordError("'action' is missing")
    occurred_at = _text(given, "occurred_at")
    if not occurred_at:
        raise RecordError("'occurred_at' is missing")
    data = given.get("data")
    if data is not None and not isinstance(data, dict):
        raise RecordError("'data' is not an object")
    return {
        "action": action,
        "actor": _party(given, "actor", ACTOR),
        "data": data or {},
        "external_id": _text(given, "external_id"),
        "occurred_at": format_time(parse_time(occurred_at)),
        "outcome": outcome,
        "source": source,
        "target": _party(given, "target", TARGET),
        "tenant": _text(given, "tenant"),
        "v": VERSION,
    }


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RecordError(f"'{name}' is not a string")
    return value


def _party(given: Mapping[str, Any], name: str, members: tuple[str, ...]) -> dict[str, str]:
    value = given.get(name)
    if value is None or isinstance(value, str):
        return {**dict.fromkeys(members, ""), "name": value or ""}
    if not isinstance(value, dict):
        raise RecordError(f"'{name}' is neither an object nor a string")
    unknown = sorted(set(value) - set(members))
    if unknown:
        raise RecordError(f"unknown member {unknown[0][:50]!r} of '{name}'")
    return {member: _text(value, member) for member in members}


def draft(event: Mapping[str, Any], scope: str, key: bytes | None = None) -> Draft:
    """Return the draft of an event; `key` is needed where it has no external id."""
    return Draft.of(event, key or event_key(event["source"], scope, event["external_id"]))


def event_key(*parts: str) -> bytes:
    """Return the 16-byte key made of texts, each with its length, so that none run together."""
    return short_digest(b"".join(map(_with_length, parts)))


def _with_length(part: str) -> bytes:
    encoded = part.encode()
    return len(encoded).to_bytes(8) + encoded


class Occurrences:
    """Counts how often a line was seen in a file, in a private temporary database.

    SQLite spills it to a file that is deleted on close, so that a huge file needs no memory.
    Any thread may count, one at a time.
    """

    def __init__(self) -> None:
        """Begin to count."""
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("BEGIN")
        self._database.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, n INT) WITHOUT ROWID")

    def count(self, digest: bytes) -> int:
        """Return the how-manyth occurrence this is, from 1 up."""
        row = self._database.execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1 RETURNING n",
            (digest,),
        ).fetchone()
        return int(row[0])

    def close(self) -> None:
        """Delete the counts."""
        self._database.close()


class LineReader:
    """Turns lines of one file of generic events into drafts."""

    def __init__(self, source: str) -> None:
        """Read for this source."""
        self.source = source
        self._occurrences = Occurrences()
        self._begin_of_key = b"".join(map(_with_length, (source, FILE_SCOPE)))

    def drafts(self, lines: Sequence[bytes]) -> list[Draft | RecordError]:
        """Return the draft of each line, or the reason why there is none."""
        quick_events = quick.events(self.source, lines)
        return [self._draft(line, event) for line, event in zip(lines, quick_events, strict=True)]

    def draft(self, line: bytes) -> Draft:
        """Return the draft of one line; raises RecordError with the reason why there is none."""
        (found,) = self.drafts([line])
        if isinstance(found, RecordError):
            raise found
        return found

    def _draft(self, line: bytes, event: dict[str, Any] | None) -> Draft | RecordError:
        try:
            if len(line) > MAX_LINE_BYTES:
                raise RecordError(f"longer than {MAX_LINE_BYTES:,} bytes")
            if event is None:
                event = generic_event(self.source, parse(line))
            return Draft.of(event, self._key(line, event["external_id"]))
        except RecordError as error:
            return error

    def _key(self, line: bytes, external_id: str) -> bytes:
        """Return what `event_key` gives of source, scope and id; or of the line and its count."""
        if external_id:
            return short_digest(self._begin_of_key + _with_length(external_id))
        digest = short_digest(line)
        nth = self._occurrences.count(digest)
        return event_key(self.source, FILE_SCOPE, digest.hex(), str(nth))

    def close(self) -> None:
        """Forget the lines."""
        self._occurrences.close()


@contextmanager
def line_reader(source: str) -> Iterator[LineReader]:
    """Open a `LineReader` for one file."""
    reader = LineReader(source)
    try:
        yield reader
    finally:
        reader.close()


def unknown_tenants(slugs: Iterable[str]) -> set[str]:
    """Return the slugs that no tenant has; an event without a tenant is not unknown."""
    unknown = {slug for slug in slugs if slug}
    # No tenant's slug has NUL in it, and PostgreSQL would not even take the question.
    asked = [slug for slug in unknown if "\x00" not in slug]
    for at in range(0, len(asked), TENANTS_A_QUERY):
        found = Tenant.objects.filter(slug__in=asked[at : at + TENANTS_A_QUERY])
        unknown.difference_update(found.values_list("slug", flat=True))
    return unknown
