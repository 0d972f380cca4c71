"""Read lines of generic events the quick way, and leave open whatever is in doubt.

`audit.format.record` and `audit.ingest` have the rules and the last word. This says yes to nearly
every line in a tenth of the time, and never to one that breaks a rule: what it gives is what they
would give, and where it gives nothing they take the line, or refuse it by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from .format.errors import RecordError
from .format.record import MAX_INTEGER, VERSION, format_time, parse_time

Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
LEVELS = 8  # of an event's data; deeper ones are left open

Value: Any = None | bool | Integer | float | str
for _ in range(LEVELS):
    Value = None | bool | Integer | float | str | list[Value] | dict[str, Value]


class Actor(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Who did it."""

    id: str | UnsetType | None = UNSET
    ip: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET


class Target(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What it was done to."""

    id: str | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    type: str | UnsetType | None = UNSET


class Given(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members of a generic event, as `audit.ingest.generic_event` takes them.

    What is not given stays unset, so that writing it again gives no more than was read.
    """

    occurred_at: str
    action: Annotated[str, msgspec.Meta(min_length=1)]
    external_id: str | UnsetType | None = UNSET
    tenant: str | UnsetType | None = UNSET
    actor: str | Actor | UnsetType | None = UNSET
    target: str | Target | UnsetType | None = UNSET
    outcome: Literal["success", "failure", "unknown", ""] | UnsetType | None = UNSET
    data: dict[str, Value] | UnsetType | None = UNSET


# A quote in other words would spoil the count of quotes; half a character is for the rules.
DOUBTFUL = re.compile(rb"\\u(?:0022|[dD][89a-fA-F])")
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z", re.ASCII)
_decode = msgspec.json.Decoder(Given).decode
_encode = msgspec.json.Encoder().encode


def events(source: str, lines: Sequence[bytes]) -> list[dict[str, Any] | None]:
    """Return for each line the event that `generic_event` makes of it, None where in doubt."""
    given = [_given(line) for line in lines]
    if not _nothing_was_lost(lines, given):
        given = [
            one if _nothing_was_lost([line], [one]) else None
            for line, one in zip(lines, given, strict=True)
        ]
    return [_event(source, one) if one else None for one in given]


def _given(line: bytes) -> Given | None:
    if b"\\u" in line and DOUBTFUL.search(line):
        return None
    try:
        return _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _nothing_was_lost(lines: Sequence[bytes], given: Sequence[Given | None]) -> bool:
    """Say whether no line has a duplicate key.

    Of two members with one key only the last is read, and the key alone has two quotes more than
    writing everything again. No line can have fewer, so all lines can be counted together.
    """
    read = sum([line.count(b'"') for line, one in zip(lines, given, strict=True) if one])
    return read == _encode([one for one in given if one]).count(b'"')


def _event(source: str, given: Given) -> dict[str, Any] | None:
    actor, target = given.actor, given.target
    try:
        return {
            "action": given.action,
            "actor": {"id": actor.id or "", "ip": actor.ip or "", "name": actor.name or ""}
            if type(actor) is Actor
            else {"id": "", "ip": "", "name": actor or ""},
            "data": given.data or {},
            "external_id": given.external_id or "",
            "occurred_at": _time(given.occurred_at),
            "outcome": given.outcome or "unknown",
            "source": source,
            "target": {"id": target.id or "", "name": target.name or "", "type": target.type or ""}
            if type(target) is Target
            else {"id": "", "name": target or "", "type": ""},
            "tenant": given.tenant or "",
            "v": VERSION,
        }
    except RecordError:
        return None


def _time(text: str) -> str:
    """Return a record's form of a time; raises RecordError as `parse_time` does."""
    if TIME.fullmatch(text):
        try:
            datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            return text
    return format_time(parse_time(text))
