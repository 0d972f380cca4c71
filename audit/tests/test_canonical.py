"""Records read at once: the quick way never lets through what the rules refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import canonical, log
from audit.format.errors import RecordError
from audit.format.record import check_members, read

from .factories import generic_event
from .test_selection import values

TIME = "2026-01-01T00:00:00.000Z"


def record(seq: int = 7, **members: Any) -> bytes:
    from audit import ingest

    event = ingest.generic_event("platform", generic_event(**members))
    return log.encode(event, id="0" * 36, recorded_at=TIME, seq=seq)


def by_the_rules(text: bytes) -> tuple[object, object] | None:
    """Return what the rules say of a record, None where they refuse it."""
    try:
        members = read(text)
        check_members(members)
    except RecordError:
        return None
    return members["seq"], members["recorded_at"]


def quickly(*records: bytes) -> list[tuple[object, object]] | None:
    try:
        return list(canonical.places_and_times(list(records)))
    except RecordError:
        return None


NESTED: Any = 1
for _ in range(40):
    NESTED = [NESTED]
GOOD = record()
BROKEN = {
    "a blank": GOOD.replace(b'"data":{}', b'"data": {}'),
    "a blank at the end": GOOD + b" ",
    "members in another order": b'{"v":1,' + GOOD[1:].replace(b',"v":1}', b"}"),
    "a member twice": GOOD.replace(b'"data":{}', b'"data":{},"data":{}'),
    "a member twice within data": GOOD.replace(b'"data":{}', b'"data":{"a":1,"a":1}'),
    "an integer that is too large": GOOD.replace(b'"data":{}', b'"data":{"a":9007199254740993}'),
    "an integer of thirty digits": GOOD.replace(b'"data":{}', b'"data":{"a":' + b"9" * 30 + b"}"),
    "no number": GOOD.replace(b'"data":{}', b'"data":{"a":NaN}'),
    "an escape that need not be": GOOD.replace(b'"action":"tested"', b'"action":"\\u0074ested"'),
    "a lone surrogate": GOOD.replace(b'"action":"tested"', b'"action":"\\ud800"'),
    "not UTF-8": GOOD.replace(b'"action":"tested"', b'"action":"\xff"'),
    "too deep": GOOD.replace(b'"data":{}', b'"data":{"a":' + json.dumps(NESTED).encode() + b"}"),
    "too long": GOOD.replace(b'"data":{}', b'"data":{"a":"' + b"x" * 262_144 + b'"}'),
    "a number for a text": GOOD.replace(b'"action":"tested"', b'"action":1'),
    "a list for data": GOOD.replace(b'"data":{}', b'"data":[]'),
    "another version": GOOD.replace(b'"v":1', b'"v":2'),
    "a truth for a seq": GOOD.replace(b'"seq":7', b'"seq":true'),
    "a fraction for a seq": GOOD.replace(b'"seq":7', b'"seq":7.0'),
    "a member too much": GOOD.replace(b'"v":1', b'"v":1,"w":1'),
    "a member too few": GOOD.replace(b',"v":1', b""),
    "nothing": b"",
    "two records": GOOD + b"," + GOOD,
    "a text": b'"x"',
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_rule_is_never_let_through(name: str) -> None:
    text = BROKEN[name]
    assert by_the_rules(text) is None
    assert quickly(text) is None
    assert quickly(GOOD, text, GOOD) is None


def test_records_are_read_at_once() -> None:
    records = [record(seq) for seq in range(1, 6)]
    assert canonical._all_at_once(records) is not None
    assert quickly(*records) == [(seq, TIME) for seq in range(1, 6)]


def test_one_odd_record_does_not_spoil_the_others() -> None:
    odd = GOOD.replace(b'"data":{}', b'"data":{"x":1E5}')
    assert canonical._all_at_once([odd]) is None
    assert quickly(GOOD, odd, GOOD) == [(7, TIME)] * 3


def test_two_rows_that_only_together_are_two_records_are_not_let_through() -> None:
    """Cut within the second one's data: the bytes of all rows together are as they should be."""
    second = record(8, data={"a": [{}, {}]})
    whole = GOOD + b"," + second
    at = whole.index(b"[{},{}]") + len(b"[{}")
    assert quickly(whole[:at], whole[at + 1 :]) is None


@given(st.dictionaries(st.text(max_size=6), values, max_size=5), st.text(max_size=20))
def test_the_quick_way_and_the_rules_say_the_same(data: dict[str, Any], actor: str) -> None:
    try:
        text = record(data=data, actor=actor)
    except (RecordError, ValueError):
        return
    assert quickly(text) == ([said] if (said := by_the_rules(text)) else None)


@given(st.binary(max_size=3), st.integers(0, len(GOOD)), st.integers(0, 4))
def test_the_quick_way_lets_no_mangled_record_through(junk: bytes, at: int, gone: int) -> None:
    text = GOOD[:at] + junk + GOOD[at + gone :]
    assert quickly(text) == ([said] if (said := by_the_rules(text)) else None)
