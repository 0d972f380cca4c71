"""The quick way to read lines says what the rules say, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import quick
from audit.format.errors import RecordError
from audit.format.record import parse
from audit.ingest import generic_event
from audit.log import encode

from .factories import generic_event as given_event


def by_the_rules(line: bytes) -> dict[str, Any] | None:
    try:
        return generic_event("platform", parse(line))
    except RecordError:
        return None


def quickly(line: bytes) -> dict[str, Any] | None:
    (event,) = quick.events("platform", [line])
    return event


def held_together(line: bytes) -> None:
    """Where the quick way says something, the rules say the same: to the byte."""
    event = quickly(line)
    if event is not None:
        expected = by_the_rules(line)
        assert expected is not None
        assert encode(event) == encode(expected)


FULL = {
    "occurred_at": "2026-01-02T03:04:05.678Z",
    "external_id": "e-1",
    "tenant": "alder",
    "actor": {"id": "a-1", "ip": "192.0.2.1", "name": 'Ada "the" \\ first'},
    "action": "file_read",
    "target": {"id": "t-1", "name": "ü\n\U0001f512", "type": "file"},
    "outcome": "success",
    "data": {"z": [1.5, 1e22, -0.0, None, True], "a": {"ü": 2**53 - 1}, '"': '":'},
}
LINE = json.dumps(FULL, ensure_ascii=False).encode()


# What nearly every line is like is read the quick way ----------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"occurred_at": "2026-01-02T03:04:05+01:00"},
        {"occurred_at": "2016-12-31T23:59:60Z"},
        {"actor": "Ada", "target": None},
        {"actor": {"id": "a"}, "target": {}},
        {"actor": {"id": None}, "data": None, "outcome": "", "tenant": None},
        {"data": {"a": [[[[[[{}]]]]]]}},
    ],
)
def test_a_usual_line_is_read_at_once(members: dict[str, Any]) -> None:
    for line in (
        json.dumps({**FULL, **members}, ensure_ascii=False).encode(),
        json.dumps(given_event(**members), separators=(",", ":")).encode(),
    ):
        assert quickly(line) is not None
        held_together(line)


def test_each_line_has_its_own_answer() -> None:
    double = LINE.replace(b'"action"', b'"action": "first", "action"')
    found = quick.events("platform", [LINE, b"bad", double, LINE])
    assert [event is not None for event in found] == [True, False, False, True]
    assert quick.events("platform", []) == []


# What breaks a rule is left to the rules ----------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"file_read"', b'"x", "action": "file_read"'),
        (b'"file_read"', b'"x", "\\u0061ction": "file_read"'),
        (b'"a": {', b'"a": 1, "a": {'),
        (b'"a": {', b'"a": 1, "a" : {"\\u0022": 1, "\\u0022\\u0022": 2, '),
        (b'"id": "a-1"', b'"id": "a-1", "id": "a-2"'),
        (b'"data": {', b'"data": {"id": 1}, "data": {'),
        (b'"tenant": "alder"', b'"tenant": "alder", "extra": 1'),
        (b'"tenant": "alder"', b'"tenant": 1'),
        (b'"success"', b'"maybe"'),
        (b'"file_read"', b'""'),
        (b'"file_read"', b"null"),
        (b"1.5", b"NaN"),
        (b"1.5", b"-Infinity"),
        (b"1.5", b"1e999"),
        (b"1.5", b"9007199254740992"),
        (b"1.5", b"-9007199254740992"),
        (b"1.5", b"1" * 400),
        (b"1.5", b"01"),
        (b"1.5", b"[" * 40 + b"]" * 40),
        (b"alder", b"\\ud83d"),
        (b"alder", b"\\ud83d_____\\udd12"),
        (b"alder", b"\xed\xa0\xbd"),
        (b"alder", b"\xff"),
        (b"alder", b"\x1f"),
        (b"alder", b"\t"),
        (b"2026-01-02", b"2026-02-30"),
        (b"T03:04:05.678Z", b"T03:04:05.678"),
        (b"{", b"\xef\xbb\xbf{"),
        (b"}", b"}}"),
        (b"}", b"},"),
    ],
)
def test_what_breaks_a_rule_is_never_read_the_quick_way(old: bytes, new: bytes) -> None:
    line = LINE.replace(old, new)
    assert line != LINE
    assert quickly(line) is None
    assert by_the_rules(line) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"1.5", b"-0"),
        (b"1.5", b"5e-324"),
        (b"1.5", b"123456789012345678.5"),
        (b"1.5", b"1e2"),
        (b"1.5", b"[" * 20 + b"]" * 20),
        (b"alder", b"\\u0022"),
        (b"alder", b"\\ud83d\\udd12"),
        (b"alder", b"\\u00fc\\/\\u0000"),
        (b"T03:04:05.678Z", b"t24:00:00Z"),
        (b"T03:04:05.678Z", b"T24:00:00.000Z"),
    ],
)
def test_what_is_strange_is_read_as_the_rules_read_it(old: bytes, new: bytes) -> None:
    held_together(LINE.replace(old, new))


# Whatever the bytes are ---------------------------------------------------------------------


texts = st.text(max_size=8) | st.sampled_from(['"', '":', "\\", "\\u0022", "\x00", "\x7f", ""])
numbers = st.integers(-(2**54), 2**54) | st.floats() | st.sampled_from([2**53 - 1, -(2**53), -0.0])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
party = st.dictionaries(st.sampled_from(["id", "ip", "name", "type"]), st.none() | texts)
times = st.sampled_from(
    ["2026-01-02T03:04:05.678Z", "2026-01-02t03:04:60+01:00", "x"]
) | st.datetimes(timezones=st.timezones() | st.none()).map(lambda moment: moment.isoformat())
members = st.fixed_dictionaries(
    {"occurred_at": times, "action": texts},
    optional={
        "external_id": st.none() | texts,
        "tenant": st.none() | texts,
        "actor": st.none() | texts | party,
        "target": st.none() | texts | party,
        "outcome": st.sampled_from([None, "", "success", "failure", "unknown", "x"]),
        "data": st.none() | st.dictionaries(texts, values, max_size=4),
    },
)
lines = st.builds(
    lambda event, to_ascii, between: json.dumps(
        event, ensure_ascii=to_ascii, separators=between
    ).encode("utf-8", "surrogatepass"),
    members,
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]),
)
PIECES = [
    *(b'" \\ , : { } [ ] 0 - . e5 null NaN 1e999 9007199254740992 \\u0022 \\ud83d \\"'.split()),
    *(b"\t", b"\x00", b"\xff", b"\xed\xa0\x80", b'"a":1,', b'"id":"x",', b'"action":"y",'),
    *(b'"data":{},', b'"tenant":null,', b'"x":"\\u0022",'),
]


@given(lines)
def test_the_quick_way_and_the_rules_agree_on_every_event(line: bytes) -> None:
    held_together(line)


@given(lines, st.data())
def test_the_quick_way_and_the_rules_agree_on_mangled_lines(line: bytes, data: Any) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at, gone = data.draw(st.integers(0, len(line))), data.draw(st.integers(0, 3))
        line = line[:at] + data.draw(st.sampled_from([b"", *PIECES])) + line[at + gone :]
    held_together(line)


@given(st.lists(lines, max_size=5))
def test_lines_read_together_are_as_each_alone(together: list[bytes]) -> None:
    together = [*together, LINE]
    assert [event and encode(event) for event in quick.events("platform", together)] == [
        event and encode(event) for event in map(quickly, together)
    ]
