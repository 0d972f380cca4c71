"""Frames: where an object is cut, and what is refused when one is read."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import igzip

from audit.format import merkle
from audit.format.chain import genesis_link, leaf_hash
from audit.format.errors import TamperedError
from audit.format.frames import (
    FRAME_BYTES,
    FRAME_EVENTS,
    Frame,
    Row,
    check_places,
    is_plain,
    place_and_time,
    replay,
    split,
    text_of,
    unpack,
)
from audit.tests import signed_log
from audit.tests.factories import ORIGIN, chained, record

LARGEST = b"x" * (256 * 1024 - 1)  # sixteen of these, each with its newline, fill a frame


def gzip_member(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def rows(first: int, sizes: list[int]) -> list[Row]:
    return [(seq, b"x" * size, b"") for seq, size in enumerate(sizes, first)]


def ranges(cut: list[list[Row]]) -> list[tuple[int, int]]:
    return [(part[0][0], part[-1][0]) for part in cut]


def frame_of(records: list[bytes], **members: Any) -> Frame:
    made = chained(records)
    values: dict[str, Any] = {
        "offset": 0,
        "length": 0,
        "first_seq": 1,
        "count": len(records),
        "end_link": made[-1][2] if made else b"",
        "subtrees": tuple(merkle.subtrees(0, [leaf_hash(item) for item in records])),
        "first_recorded_at": str(place_and_time(records[0])[1]) if records else "",
    }
    return Frame(**{**values, **members})


# Where a frame ends ------------------------------------------------------------------------


def test_nothing_makes_no_frame() -> None:
    assert list(split([])) == []


def test_a_frame_ends_at_each_multiple_of_1024_in_seq_wherever_the_batch_begins() -> None:
    assert ranges(list(split(rows(1, [1] * 2_049)))) == [(1, 1024), (1025, 2048), (2049, 2049)]
    assert ranges(list(split(rows(1_000, [1] * 1_100)))) == [
        (1000, 1024),
        (1025, 2048),
        (2049, 2099),
    ]
    assert ranges(list(split(rows(1_024, [1, 1])))) == [(1024, 1024), (1025, 1025)]


def test_a_frame_may_be_exactly_as_large_as_allowed() -> None:
    assert ranges(list(split(rows(1, [len(LARGEST)] * 17)))) == [(1, 16), (17, 17)]


def test_a_frame_ends_before_the_record_that_would_take_it_over_the_limit() -> None:
    assert ranges(list(split(rows(1, [len(LARGEST)] * 15 + [len(LARGEST) + 1])))) == [
        (1, 15),
        (16, 16),
    ]


def test_newlines_count() -> None:
    # The records alone are 4,194,304 bytes; with their newlines they are not.
    assert ranges(list(split(rows(1, [FRAME_BYTES // 2] * 2)))) == [(1, 1), (2, 2)]


@given(
    st.integers(1, 5_000),
    st.lists(st.sampled_from([1, 100, 200_000, 262_143, 262_144]), max_size=60),
)
def test_every_cut_has_its_reason_and_nothing_is_lost(first: int, sizes: list[int]) -> None:
    given_rows = rows(first, sizes)
    cut = list(split(given_rows))
    assert [row for part in cut for row in part] == given_rows
    for part in cut:
        assert len({(row[0] - 1) // FRAME_EVENTS for row in part}) == 1
        assert sum(len(row[1]) + 1 for row in part) <= FRAME_BYTES
    for part, after in itertools.pairwise(cut):
        full = sum(len(row[1]) + 1 for row in [*part, after[0]]) > FRAME_BYTES
        assert full or part[-1][0] % FRAME_EVENTS == 0


def test_text_is_each_record_and_a_newline() -> None:
    assert text_of([b"{1}", b"{2}"]) == b"{1}\n{2}\n"


def test_compressed_bytes_carry_no_time() -> None:
    member = gzip_member(b"{}\n")
    assert member[4:8] == bytes(4)
    assert gzip.decompress(member) == b"{}\n"


# Unpacking ---------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=50).filter(lambda item: b"\n" not in item), min_size=1))
def test_records_come_out_as_they_went_in(records: list[bytes]) -> None:
    frame = frame_of(records)
    assert unpack(gzip_member(text_of(records)), frame) == records


RECORDS = [record(1), record(2), record(3)]
TEXT = text_of(RECORDS)
MEMBER = gzip_member(TEXT)


def refusal(data: bytes, count: int = 3) -> str:
    frame = frame_of(RECORDS, count=count, offset=77, first_seq=5)
    with pytest.raises(TamperedError) as caught:
        unpack(data, frame)
    reason = str(caught.value)
    assert reason.startswith("frame at byte 77, seq 5: ")
    return reason.removeprefix("frame at byte 77, seq 5: ")


@pytest.mark.parametrize(
    "after", [b"\0", b"\0" * 512, b"x", b"\x1f\x8b", MEMBER, gzip_member(b"")]
)
def test_anything_after_the_member_is_refused(after: bytes) -> None:
    assert refusal(MEMBER + after) == "does not end where its gzip member ends"


@pytest.mark.parametrize("length", range(len(MEMBER)))
def test_a_member_cut_short_anywhere_is_refused(length: int) -> None:
    assert refusal(MEMBER[:length]) == "does not end where its gzip member ends"


@pytest.mark.parametrize(
    "data",
    [TEXT, zlib.compress(TEXT), MEMBER[10:], b"\0" + MEMBER],
    ids=["plain", "zlib", "deflate", "shifted"],
)
def test_what_is_no_gzip_member_is_refused(data: bytes) -> None:
    assert refusal(data).startswith("not a gzip member (")


@pytest.mark.parametrize("place", [-8, -4], ids=["checksum", "length"])
def test_a_wrong_checksum_or_length_is_refused(place: int) -> None:
    data = bytearray(MEMBER)
    data[place] ^= 1
    assert refusal(bytes(data)).startswith("not a gzip member (")


@given(st.integers(0, len(MEMBER) * 8 - 1))
def test_a_flipped_bit_is_refused_or_changes_no_record(bit: int) -> None:
    """Bits of the gzip header that mean nothing are held by the digest of the whole object."""
    data = bytearray(MEMBER)
    data[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(TamperedError):
        assert unpack(bytes(data), frame_of(RECORDS)) == RECORDS


def test_a_frame_as_large_as_allowed_is_unpacked() -> None:
    assert unpack(gzip_member(text_of([LARGEST] * 16)), frame_of([], count=16)) == [LARGEST] * 16


def test_a_frame_one_byte_larger_is_refused() -> None:
    data = gzip_member(text_of([LARGEST] * 15 + [LARGEST + b"x"]))
    assert refusal(data, 16) == "holds more than 4194304 bytes"


def test_a_bomb_is_refused_and_never_inflated() -> None:
    bomb = gzip.compress(bytes(16 * FRAME_BYTES), 1)
    tracemalloc.start()
    try:
        assert refusal(bomb) == "holds more than 4194304 bytes"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * FRAME_BYTES


def test_a_bomb_of_many_members_is_refused_at_the_first() -> None:
    assert refusal(gzip_member(b"{}\n" * 3) * 1_000) == "does not end where its gzip member ends"


def test_a_last_line_without_its_newline_is_refused() -> None:
    assert refusal(gzip_member(TEXT[:-1])) == "does not end in a newline"
    assert refusal(gzip_member(b"")) == "does not end in a newline"


@pytest.mark.parametrize("count", [0, 2, 4])
def test_more_or_fewer_records_than_were_signed_are_refused(count: int) -> None:
    assert refusal(MEMBER, count) == f"holds 3 records, {count} were signed"


def test_random_bytes_are_refused() -> None:
    with pytest.raises(TamperedError):
        unpack(os.urandom(100), frame_of(RECORDS))


# Replaying ---------------------------------------------------------------------------------


def test_links_are_recomputed_one_a_record() -> None:
    links = replay(frame_of(RECORDS), RECORDS, genesis_link(ORIGIN))
    assert links == [row[2] for row in chained(RECORDS)]


@pytest.mark.parametrize(
    "records",
    [
        [RECORDS[0], b"{}", RECORDS[2]],
        [RECORDS[1], RECORDS[0], RECORDS[2]],
        RECORDS[:2],
        [*RECORDS, b"{}"],
    ],
    ids=["changed", "swapped", "removed", "added"],
)
def test_other_records_do_not_lead_to_the_signed_link(records: list[bytes]) -> None:
    with pytest.raises(TamperedError, match="seq 1–3: its records do not lead to its signed link"):
        replay(frame_of(RECORDS), records, genesis_link(ORIGIN))


def test_the_link_before_the_frame_matters() -> None:
    with pytest.raises(TamperedError, match="do not lead to its signed link"):
        replay(frame_of(RECORDS), RECORDS, genesis_link("another-log"))


def test_other_subtrees_than_the_records_make_are_refused() -> None:
    frame = frame_of(RECORDS)
    for wrong in (frame.subtrees[:1], frame.subtrees[::-1], (*frame.subtrees, b"x" * 32), ()):
        with pytest.raises(TamperedError, match="seq 1–3: its records do not make its signed"):
            replay(replace(frame, subtrees=wrong), RECORDS, genesis_link(ORIGIN))


def test_subtrees_depend_on_where_the_frame_begins() -> None:
    with pytest.raises(TamperedError, match="do not make its signed subtrees"):
        replay(replace(frame_of(RECORDS), first_seq=2), RECORDS, genesis_link(ORIGIN))


@pytest.mark.parametrize(
    "members", [{"first_recorded_at": "2026-01-02T03:00:00.000Z"}, {"first_recorded_at": ""}]
)
def test_a_frame_begins_at_the_time_that_its_first_record_says(members: dict[str, str]) -> None:
    frame = frame_of(RECORDS, **members)
    with pytest.raises(TamperedError, match="seq 1–3: its first record is of another place or"):
        replay(frame, RECORDS, genesis_link(ORIGIN))


def test_a_frame_begins_at_the_seq_that_its_first_record_says() -> None:
    records = [record(7), record(8)]
    with pytest.raises(TamperedError, match="seq 1–2: its first record is of another place or"):
        replay(frame_of(records), records, genesis_link(ORIGIN))


@pytest.mark.parametrize(
    "line", [b"", b"\xff", b"{", b"[]", b"17", b'{"a":1}', b"[" * 100_000, b"9" * 10_000]
)
def test_what_is_no_record_has_neither_place_nor_time(line: bytes) -> None:
    assert place_and_time(line) == (None, None)


# Places and times ------------------------------------------------------------------------

TIMES = ["2026-01-02T03:00:00.000Z", "2026-01-02T03:00:00.001Z", "2026-01-03T00:00:00.000Z"]


def canonical_record(seq: int, recorded_at: str = TIMES[0], /, **members: str) -> bytes:
    item = signed_log.record(seq, recorded_at)
    for name, value in members.items():
        given = json.loads(item)
        given[name] = json.loads(value)
        item = json.dumps(given, sort_keys=True, separators=(",", ":")).encode()
    return item


def place_refusal(records: list[bytes], recorded_at: str = "", first: int = 5) -> str:
    with pytest.raises(TamperedError) as caught:
        check_places(first, records, recorded_at)
    return str(caught.value)


def test_the_time_of_the_last_record_comes_back() -> None:
    records = [canonical_record(seq, time) for seq, time in enumerate(TIMES, 5)]
    assert check_places(5, records, "") == TIMES[-1]
    assert check_places(5, records, TIMES[0]) == TIMES[-1]


@given(st.text(), st.text(), st.text())
def test_no_text_in_a_record_hides_its_place(source: str, name: str, tenant: str) -> None:
    members = {
        "source": source,
        "target": {"id": name, "name": tenant, "type": source},
        "tenant": tenant,
        "data": {name: {"recorded_at": TIMES[0], "seq": 9, "source": tenant}},
    }
    given = {**json.loads(signed_log.record(5)), **members}
    for ascii_alone in (False, True):
        with contextlib.suppress(UnicodeEncodeError):
            text = json.dumps(
                given, sort_keys=True, separators=(",", ":"), ensure_ascii=ascii_alone
            )
            assert check_places(5, [text.encode()], "") == given["recorded_at"]
            assert "says that it is of another place" in place_refusal([text.encode()], first=9)


def test_a_record_that_is_not_in_the_usual_form_is_parsed() -> None:
    loose = b'{ "seq": 5, "v": 1, "recorded_at": "2026-01-02T03:00:00.000Z" }'
    assert check_places(5, [loose, canonical_record(6)], "") == TIMES[0]


def test_a_seq_deeper_in_a_record_is_not_its_own() -> None:
    """Made by whoever has the key, so that a hasty look at the record's end is content."""
    end = b',"recorded_at":"%s","seq":5,"source":"s","target":{"id":"","name":"","type":""}' % (
        TIMES[0].encode()
    )
    tail = b',"tenant":"","v":1}'
    nested = b'{"recorded_at":"%s","seq":9,"target":{"a":""' % TIMES[0].encode() + end + tail
    for record_ in (
        nested + tail,
        nested + b',"w":1}',
        nested + b"}",
        nested.replace(b'"target"', b'"x"') + b',"v":1}',
    ):
        assert "another place" in place_refusal([record_]), record_


@pytest.mark.parametrize(
    ("record_", "said"),
    [
        (canonical_record(6), "says that it is of another place"),
        (canonical_record(5, v="2"), "says that it is of another place"),
        (canonical_record(5, v="true"), "says that it is of another place"),
        (canonical_record(5, v="1.0"), "says that it is of another place"),
        (canonical_record(5, seq='"5"'), "says that it is of another place"),
        (canonical_record(5).replace(b'"seq":5', b'"seq":05'), "is none: not JSON"),
        (canonical_record(5).replace(b'"seq":5', b'"seq":' + b"5" * 9_999), "is none: an integer"),
        (canonical_record(5, "2025-12-31T23:59:59.999Z"), "goes back in time"),
        (canonical_record(5, "2026-02-30T00:00:00.000Z"), "goes back in time, or has none"),
        (canonical_record(5, "2026-02-03T24:00:00.000Z"), "goes back in time, or has none"),
        (canonical_record(5, "2026-02-03T00:00:60.000Z"), "goes back in time, or has none"),
        (canonical_record(5, "2026-02-03T00:00:00.00Z"), "goes back in time, or has none"),
        (canonical_record(5, "٢٠٢٦-02-03T00:00:00.000Z"), "goes back in time, or has none"),
        (b"", "is none: not JSON"),
        (b"\xff", "is none: not UTF-8"),
        (b"[" * 100_000, "is none: deeper than 32 levels"),
        (b'{"seq":5,"seq":5,"v":1}', "is none: duplicate key"),
    ],
)
def test_a_record_of_another_place_or_time_is_refused(record_: bytes, said: str) -> None:
    assert said in place_refusal([record_], TIMES[0])


def test_the_seq_of_the_first_bad_record_is_named() -> None:
    records = [canonical_record(5, TIMES[1]), canonical_record(6, TIMES[0])]
    assert place_refusal(records) == "the record of seq 6 goes back in time, or has none"


# What gzip itself does not hold -----------------------------------------------------------------


def test_members_of_the_usual_writers_are_plain() -> None:
    for size in range(1, 200):
        data = os.urandom(size).hex().encode()
        for level in (0, 1, 6, 9):
            assert is_plain(gzip.compress(data, level, mtime=0))
        assert is_plain(bytes(igzip.compress(data, 2, mtime=0)))


def test_a_bit_that_no_check_of_gzip_s_own_holds_is_seen() -> None:
    seen = 0
    for bit in range(8 * 8, len(MEMBER) * 8):
        data = bytearray(MEMBER)
        data[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(TamperedError):
            assert unpack(bytes(data), frame_of(RECORDS)) == RECORDS
            if bit // 8 not in {8, 9}:  # what it says of its compressor, which varies
                assert not is_plain(bytes(data)), bit
                seen += 1
    assert 0 < seen < 8


@pytest.mark.parametrize("place", range(3, 8))
def test_flags_and_a_time_are_seen(place: int) -> None:
    data = bytearray(MEMBER)
    data[place] = 1
    assert not is_plain(bytes(data))
