"""What may become a record, and what is refused by name."""

from __future__ import annotations

import contextlib
import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audit.format.errors import RecordError
from audit.format.record import (
    MAX_DEPTH,
    MAX_INTEGER,
    check,
    format_time,
    is_time,
    parse,
    parse_time,
    read,
)


def reason_for(line: bytes) -> str:
    with pytest.raises(RecordError) as caught:
        parse(line)
    return str(caught.value)


# What is taken -----------------------------------------------------------------------------


def test_an_object_is_taken_as_it_is() -> None:
    line = '{"a":[1,-2.5,"ü\\n\\u0000\U0001f512",null,true,{}],"":""}'
    assert parse(line.encode()) == {"a": [1, -2.5, "ü\n\0\U0001f512", None, True, {}], "": ""}


def test_the_largest_integers_that_json_carries_exactly_are_taken() -> None:
    assert parse(b'{"a":[9007199254740991,-9007199254740991]}') == {
        "a": [MAX_INTEGER, -MAX_INTEGER]
    }


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse(rb'{"a":"\ud83d\ude00"}') == {"a": "\U0001f600"}


def test_as_many_levels_as_allowed_are_taken() -> None:
    parse(b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}")


def test_equal_keys_of_different_objects_are_no_duplicates() -> None:
    assert parse(b'{"a":{"a":1},"b":{"a":1}}') == {"a": {"a": 1}, "b": {"a": 1}}


# What is not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not JSON: Expecting value at character 1"),
        (b"hello", "not JSON: Expecting value at character 1"),
        (b'{"a":1', "not JSON: Expecting ',' delimiter at character 7"),
        (b'{"a":1} {"a":1}', "not JSON: Extra data at character 9"),
        (b'{"a":1,}', "not JSON: "),
        (b"{'a':1}", "not JSON: "),
        (b'{"a":01}', "not JSON: "),
        (b'{"a":"\x01"}', "not JSON: Invalid control character at character 7"),
        (b'\xef\xbb\xbf{"a":1}', "not JSON: "),
        (b"null", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"17", "not a JSON object"),
        (b'{"a":"\xff"}', "not UTF-8 (byte 7)"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8 (byte 7)"),
        (b'{"a":"\xc0\xaf"}', "not UTF-8 (byte 7)"),
        (b'{"a":NaN}', "NaN is not a JSON value"),
        (b'{"a":[Infinity]}', "Infinity is not a JSON value"),
        (b'{"a":-Infinity}', "-Infinity is not a JSON value"),
        (b'{"a":1e400}', "the number 1e400 is too large"),
        (b'{"a":1,"a":1}', "duplicate key 'a'"),
        (b'{"b":[{"a":1,"\\u0061":2}]}', "duplicate key 'a'"),
        (b'{"a":9007199254740992}', "an integer is beyond ±(2^53-1)"),
        (b'{"a":-9007199254740992}', "an integer is beyond ±(2^53-1)"),
        (b'{"a":18446744073709551616}', "an integer is beyond ±(2^53-1)"),
        (b'{"a":' + b"9" * 5_000 + b"}", "an integer is beyond ±(2^53-1)"),
        (b'{"a":"\\ud800"}', "a string has a lone surrogate"),
        (b'{"\\udfff":1}', "a string has a lone surrogate"),
        (b'{"a":["\\ude00\\ud83d"]}', "a string has a lone surrogate"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_reason(line: bytes, reason: str) -> None:
    assert reason_for(line).startswith(reason)


def test_one_level_too_many_is_refused() -> None:
    line = b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}"
    assert reason_for(line) == "deeper than 32 levels"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("levels", [900, 1_100, 100_000])
def test_any_depth_is_refused_and_overflows_nothing(
    opening: bytes, closing: bytes, levels: int
) -> None:
    line = b'{"a":' + opening * levels + b"1" + closing * levels + b"}"
    assert reason_for(line) == "deeper than 32 levels"


def test_a_reason_quotes_no_more_than_the_start_of_a_hostile_key() -> None:
    name = b"k" * 100_000
    assert len(reason_for(b'{"%s":1,"%s":2}' % (name, name))) < 100


def test_a_reason_can_be_printed_whatever_the_key_holds() -> None:
    assert reason_for(rb'{"\ud800":1,"\ud800":2}') == r"duplicate key '\ud800'"


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_nothing_else_is_raised(line: bytes) -> None:
    try:
        assert isinstance(parse(line), dict)
    except RecordError as error:
        str(error).encode()


any_text = st.text(st.characters(exclude_categories=()), max_size=8)
any_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(any_text, any_value, max_size=4))
@example({"a": 2**53})
@example({"a": math.inf})
def test_json_that_is_taken_keeps_every_value_and_obeys_every_rule(value: dict[str, Any]) -> None:
    line = json.dumps(value).encode()
    try:
        taken = parse(line)
    except RecordError:
        assert not obeys(value, 1)
        return
    assert taken == value
    assert obeys(taken, 1)
    assert orjson.loads(orjson.dumps(taken, option=orjson.OPT_SORT_KEYS)) == value


def obeys(value: object, depth: int) -> bool:
    """Say whether a value obeys the rules, in words of their own."""
    if isinstance(value, dict):
        return (
            depth <= 32
            and all(obeys(name, depth) for name in value)
            and all(obeys(item, depth + 1) for item in value.values())
        )
    if isinstance(value, list):
        return depth <= 32 and all(obeys(item, depth + 1) for item in value)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool) or abs(int(str(value))) < 2**53


@given(st.data())
def test_a_record_that_was_mangled_is_taken_or_refused_and_nothing_else(
    data: st.DataObject,
) -> None:
    line = b'{"action":"\\ud83d\\ude00","data":{"a":[1,-2.5e3,null,"x"]},"seq":17,"v":1}'
    at = data.draw(st.integers(0, len(line)))
    gone = data.draw(st.integers(0, 4))
    there = data.draw(st.binary(max_size=4) | st.sampled_from([b"e", b"{", b"[", b'"', b"\\u"]))
    try:
        check(parse(line[:at] + there + line[at + gone :]))
    except RecordError as error:
        str(error).encode()


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 2**53, "\ud800", {"\ud800": 1}, [[[2**64]]]]
)
def test_a_value_made_otherwise_is_held_against_the_same_rules(value: object) -> None:
    with pytest.raises(RecordError):
        check(value)


# Times -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
        ("2026-01-02t03:04:05z", "2026-01-02T03:04:05.000Z"),
        ("2026-01-02 03:04:05+00:00", "2026-01-02T03:04:05.000Z"),
        ("2026-01-02T03:04:05.6Z", "2026-01-02T03:04:05.600Z"),
        ("2026-01-02T03:04:05.678999999999Z", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02T03:04:05+05:30", "2026-01-01T21:34:05.000Z"),
        ("2026-01-02T03:04:05-00:00", "2026-01-02T03:04:05.000Z"),
        ("1900-01-01T00:00:00Z", "1900-01-01T00:00:00.000Z"),
        ("2200-12-31T23:59:59.999Z", "2200-12-31T23:59:59.999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ("2016-12-31T23:59:60.500Z", "2017-01-01T00:00:00.500Z"),
    ],
)
def test_a_time_is_read_in_every_form_and_written_in_one(text: str, time: str) -> None:
    assert format_time(parse_time(text)) == time


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1767323045",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05,678Z",
        "2026-01-02T03:04:05 Z",
        "2026-01-02T03:04:05Z\n",
        "2026-02-30T03:04:05Z",
        "2026-13-01T03:04:05Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:61Z",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+0100",
        "+2026-01-02T03:04:05Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T23:59:60Z",
        "٢٠٢٦-01-02T03:04:05Z",
        "\ud800",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_time(text)
    str(caught.value).encode()


moments = st.datetimes(
    datetime(1, 1, 3),  # noqa: DTZ001  # hypothesis adds the zone
    datetime(9999, 12, 29),  # noqa: DTZ001  # that is what is tested
    timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


def cut(moment: datetime) -> datetime:
    utc = moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


@given(moments)
def test_any_moment_in_any_zone_is_read_in_utc_and_cut_to_milliseconds(moment: datetime) -> None:
    assert parse_time(moment.isoformat()) == cut(moment)


@given(moments)
def test_a_time_is_written_with_milliseconds_and_z_and_reads_back(moment: datetime) -> None:
    text = format_time(moment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert parse_time(text) == cut(moment)


@given(moments, moments)
def test_written_times_sort_as_the_moments_do(one: datetime, other: datetime) -> None:
    assert (format_time(one) < format_time(other)) == (cut(one) < cut(other))


@given(st.text(max_size=40) | st.from_regex(r"\A[0-9T:.+Z -]{0,40}\Z"))
def test_any_text_is_a_time_or_refused_and_nothing_else(text: str) -> None:
    with contextlib.suppress(RecordError):
        assert parse_time(text).utcoffset() == timedelta(0)


# Reading a record back --------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"a":1,"b":[true,false,null,-5],"c":{"d":"e"}}',
        '{"a":"ä\u2028\x7f😀","ä":1,"\uffff":2,"😀":3}'.encode(),
        b'{"a":"\\u0000\\u001f\\"\\\\\\b\\f\\n\\r\\t/"}',
        b'{"a":1e-7,"b":1E+16,"c":-0.0,"d":5.0,"e":0.10}',
        b'{"a":"1.0","b":"-1e5"}',
    ],
)
def test_a_canonical_record_is_read(line: bytes) -> None:
    assert read(line) == json.loads(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": 1}',
        b' {"a":1}',
        b'{"a":1}\n',
        b'{"b":1,"a":2}',
        b'{"a":{"d":1,"c":2}}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":"\\u001F"}',
        b'{"a":"\\u00e4"}',
        b'{"a":-0}',
        '{"😀":1,"\uffff":2}'.encode(),
    ],
)
def test_another_spelling_of_the_same_record_is_refused(line: bytes) -> None:
    json.loads(line)
    with pytest.raises(RecordError, match="not in canonical form"):
        read(line)


def test_a_record_is_read_by_all_other_rules_too() -> None:
    with pytest.raises(RecordError, match="duplicate key"):
        read(b'{"a":1,"a":1}')
    with pytest.raises(RecordError, match="deeper than 32 levels"):
        read(b'{"a":' + b"[" * 32 + b"]" * 32 + b"}")
    with pytest.raises(RecordError, match="longer than 262,144 bytes"):
        read(b'{"a":"' + b"x" * 262_144 + b'"}')


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("2026-01-01T00:00:00.000Z", True),
        ("0001-01-01T00:00:00.000Z", True),
        ("2026-13-01T00:00:00.000Z", False),
        ("2026-02-30T00:00:00.000Z", False),
        ("2026-01-01T00:00:60.000Z", False),
        ("2026-01-01T00:00:00Z", False),
        ("2026-01-01t00:00:00.000z", False),
        (1, False),
        (None, False),
    ],
)
def test_a_time_of_a_record_has_one_form_and_exists(value: object, good: bool) -> None:
    assert is_time(value) is good
