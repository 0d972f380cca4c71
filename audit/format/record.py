"""The rules of a record, the exact bytes of an event's canonical JSON line.

One JSON object, UTF-8, keys sorted by code point, no insignificant white space, no raw newline,
no NaN or infinities, no duplicate keys, no integer beyond ±(2**53-1), no lone surrogate, at most
256 KiB, at most 32 levels deep. Times are RFC 3339 in UTC with exactly milliseconds and `Z`.

What comes in from outside is held against the same rules by `parse` before anything is made
of it: what breaks one is refused by name. Numbers with a fraction or an exponent are read as
IEEE 754 doubles (RFC 8259, section 6).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NoReturn, TypeGuard

from .errors import RecordError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1
VERSION = 1

TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}):(\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
TIME_OF_RECORD = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", re.ASCII)
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*')


def parse(line: bytes) -> dict[str, Any]:
    """Return the JSON object in `line`, held against the rules of a record.

    Raises RecordError with the reason; never anything else, whatever the bytes are. The caller
    bounds the length of `line`.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8 (byte {error.start + 1})") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise RecordError(f"not JSON: {what} at character {error.pos + 1}") from None
    except RecursionError:
        raise RecordError(f"deeper than {MAX_DEPTH} levels") from None
    if not isinstance(value, dict):
        raise RecordError("not a JSON object")
    check(value)
    return value


def read(record: bytes) -> dict[str, Any]:
    """Return the members of a record that holds to every rule; raises RecordError.

    Canonical are the bytes that writing the same value again would give, but for numbers with a
    fraction or an exponent, whose digits are the writer's choice.
    """
    if len(record) > MAX_BYTES:
        raise RecordError(f"longer than {MAX_BYTES:,} bytes")
    members = parse(record)
    shape = TOKEN.sub(lambda token: b"0" if _is_float(token[0]) else token[0], record)
    again = json.loads(shape)
    if json.dumps(again, ensure_ascii=False, sort_keys=True, separators=(",", ":")) != (
        shape.decode()
    ):
        raise RecordError("not in canonical form")
    return members


TEXTS = (
    "action",
    "external_id",
    "id",
    "occurred_at",
    "outcome",
    "recorded_at",
    "source",
    "tenant",
)
PARTIES = {"actor": {"id", "ip", "name"}, "target": {"id", "name", "type"}}
MEMBERS = {*TEXTS, *PARTIES, "data", "seq", "v"}
text_members = itemgetter(*TEXTS)
ONLY_TEXT = {str}


def check_members(members: Mapping[str, Any]) -> None:
    """Hold the members of a record against those that it must have, and their types.

    Raises RecordError.
    """
    if _are_right(members):
        return
    if members.keys() != MEMBERS:
        odd = sorted(members.keys() ^ MEMBERS)
        raise RecordError(f"the member {odd[0][:50]!r} is missing, or too much")
    for name in TEXTS:
        if type(members[name]) is not str:
            raise RecordError(f"'{name}' is not a string")
    for name, parts in PARTIES.items():
        party = members[name]
        if type(party) is not dict or party.keys() != parts:
            raise RecordError(f"'{name}' is not an object of its members")
        for part in party.values():
            if type(part) is not str:
                raise RecordError(f"a member of '{name}' is not a string")
    if type(members["data"]) is not dict:
        raise RecordError("'data' is not an object")
    if type(members["seq"]) is not int or type(members["v"]) is not int:
        raise RecordError("'seq' or 'v' is not an integer")
    if members["v"] != VERSION:
        raise RecordError(f"'v' is not {VERSION}")


def _are_right(members: Mapping[str, Any]) -> bool:
    """Say at once what nearly always holds; `check_members` finds out what does not."""
    if members.keys() != MEMBERS:
        return False
    actor, target = members["actor"], members["target"]
    return bool(
        type(members["seq"]) is int
        and type(members["v"]) is int
        and members["v"] == VERSION
        and type(members["data"]) is dict
        and type(actor) is dict
        and type(target) is dict
        and actor.keys() == PARTIES["actor"]
        and target.keys() == PARTIES["target"]
        and {
            *map(type, text_members(members)),
            *map(type, actor.values()),
            *map(type, target.values()),
        }
        == ONLY_TEXT
    )


def _is_float(token: bytes) -> bool:
    return not token.startswith(b'"') and not token.removeprefix(b"-").isdigit()


def is_time(value: object) -> TypeGuard[str]:
    """Say whether a value is a time in a record's form, and one that exists."""
    if not isinstance(value, str) or not TIME_OF_RECORD.fullmatch(value):
        return False
    try:
        return format_time(parse_time(value)) == value
    except RecordError:
        return False


def check(value: object, depth: int = 1) -> None:
    """Hold a parsed value against the rules: depth, integers, finite numbers, strings.

    Raises RecordError with the reason.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RecordError("a string has a lone surrogate") from None
    elif isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise RecordError(f"deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            for key in value:
                check(key, depth)
            value = list(value.values())
        for item in value:
            check(item, depth + 1)
    elif isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise RecordError("an integer is beyond ±(2^53-1)")
    elif isinstance(value, float) and not math.isfinite(value):
        raise RecordError("a number is not finite")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RecordError(f"duplicate key {key[:50]!r}")
            seen.add(key)
    return result


def _constant(name: str) -> NoReturn:
    raise RecordError(f"{name} is not a JSON value")


def _integer(digits: str) -> int:
    # Sixteen digits and a sign hold every allowed integer; more are never converted at all.
    if len(digits) > 17:
        raise RecordError("an integer is beyond ±(2^53-1)")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise RecordError(f"the number {digits[:50]} is too large")
    return value


def format_time(moment: datetime) -> str:
    """Return a record's form of an aware time: UTC, milliseconds (cut, not rounded), `Z`."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds") + "Z"


def parse_time(text: str) -> datetime:
    """Return the aware UTC time, cut to milliseconds, that an RFC 3339 text names.

    A leap second is the second after it. Raises RecordError.
    """
    match = TIME.fullmatch(text)
    if match is None:
        raise RecordError(f"{text[:50]!r} is not an RFC 3339 time with an offset")
    day, minute, second, fraction, offset = match.groups()
    leap = second == "60"
    milliseconds = ((fraction or "") + "000")[:3]
    try:
        moment = datetime.fromisoformat(
            f"{day}T{minute}:{'59' if leap else second}.{milliseconds}"
            f"{'+00:00' if offset in 'Zz' else offset}"
        ).astimezone(UTC)
        return moment + timedelta(seconds=leap)
    except (ValueError, OverflowError):
        raise RecordError(f"{text[:50]!r} is no time that exists in the years 1 to 9999") from None
