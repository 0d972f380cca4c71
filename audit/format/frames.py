"""Frames: the gzip members of which a batch's JSON Lines object is made.

A frame ends at each multiple of 1,024 in seq, before the record that would take it past
4,194,304 bytes (newlines counted), and at the batch's end. Any gzip tool reads the whole
object; one range request reads one frame.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from . import merkle
from .chain import LEAF_PREFIX, LINK_PREFIX
from .errors import RecordError, TamperedError
from .record import VERSION, is_time, parse

FRAME_EVENTS = 1024
FRAME_BYTES = 4 * 1024 * 1024
FRAME_LENGTH = 2 * FRAME_BYTES  # compressed: no compressor makes what it is given twice as long
GZIP_WINDOW = 31  # zlib: the largest window, with gzip's header and trailer
GZIP_START = b"\x1f\x8b\x08\0\0\0\0\0"
GZIP_TRAILER = 8

Row = tuple[int, bytes, bytes]


@dataclass(frozen=True)
class Frame:
    """One frame's place in the object and in the log; owns its wire form in the manifest.

    `offset` and `length` are bytes of the compressed object. `subtrees` are the roots of the
    largest aligned perfect subtrees of the log's tree that cover the frame, left to right.
    """

    offset: int
    length: int
    first_seq: int
    count: int
    end_link: bytes
    subtrees: tuple[bytes, ...]
    first_recorded_at: str

    def to_json(self) -> dict[str, Any]:
        """Return the wire form."""
        return {
            "count": self.count,
            "end_link": self.end_link.hex(),
            "first_recorded_at": self.first_recorded_at,
            "first_seq": self.first_seq,
            "length": self.length,
            "offset": self.offset,
            "subtrees": [item.hex() for item in self.subtrees],
        }


def split(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Cut consecutive rows, (seq, record, link) each, into those of one frame after another."""
    frame: list[Row] = []
    size = 0
    for row in rows:
        length = len(row[1]) + 1
        size += length
        if (row[0] % FRAME_EVENTS == 1 or size > FRAME_BYTES) and frame:
            yield frame
            frame, size = [], length
        frame.append(row)
    if frame:
        yield frame


def text_of(records: Iterable[bytes]) -> bytes:
    """Return the uncompressed bytes of a frame: each record and a newline."""
    return b"\n".join([*records, b""])


def unpack(data: bytes, frame: Frame) -> list[bytes]:
    """Return the records of one frame from its compressed bytes.

    Never inflates more than a frame may hold. Raises TamperedError where the bytes are not
    exactly one gzip member with the promised number of records.
    """
    place = f"frame at byte {frame.offset}, seq {frame.first_seq}"
    inflater = zlib.decompressobj(GZIP_WINDOW)
    try:
        text = inflater.decompress(data, FRAME_BYTES + 1)
    except zlib.error as error:
        why = str(error).rpartition(": ")[2]
        raise TamperedError(f"{place}: not a gzip member ({why})") from None
    if len(text) > FRAME_BYTES:
        raise TamperedError(f"{place}: holds more than {FRAME_BYTES} bytes")
    if not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
        raise TamperedError(f"{place}: does not end where its gzip member ends")
    if not text.endswith(b"\n"):
        raise TamperedError(f"{place}: does not end in a newline")
    records = text[:-1].split(b"\n")
    if len(records) != frame.count:
        raise TamperedError(f"{place}: holds {len(records)} records, {frame.count} were signed")
    return records


def replay(frame: Frame, records: list[bytes], link: bytes) -> list[bytes]:
    """Recompute the links of a frame from the link before it; return them, one a record.

    Raises TamperedError where its end link, its subtrees, or the place and time of its first
    record are not the signed ones.
    """
    # leaf_hash and next_link, without a call for each record.
    leaves = [sha256(LEAF_PREFIX + record).digest() for record in records]
    links = [link := sha256(LINK_PREFIX + link + leaf).digest() for leaf in leaves]
    place = f"frame of seq {frame.first_seq}–{frame.first_seq + frame.count - 1}"
    if link != frame.end_link:
        raise TamperedError(f"{place}: its records do not lead to its signed link")
    if tuple(merkle.subtrees(frame.first_seq - 1, leaves)) != frame.subtrees:
        raise TamperedError(f"{place}: its records do not make its signed subtrees")
    if place_and_time(records[0]) != (frame.first_seq, frame.first_recorded_at):
        raise TamperedError(f"{place}: its first record is of another place or time")
    return links


def is_plain(data: bytes) -> bool:
    """Say whether a member is as writers make it where no check of gzip's own looks.

    That is: no flags and the time 0 in its header, and zeros in the bits that fill up the last
    byte of its compressed data. `data` is a member that inflates.
    """
    if data[:8] != GZIP_START:
        return False
    for bit in (0x80 >> number for number in range(7)):
        other = bytearray(data)
        other[-GZIP_TRAILER - 1] ^= bit
        if not _inflates(bytes(other)):
            break  # it means something, and so do those below it
        if data[-GZIP_TRAILER - 1] & bit:
            return False
    return True


def _inflates(data: bytes) -> bool:
    inflater = zlib.decompressobj(GZIP_WINDOW)
    try:
        inflater.decompress(data, FRAME_BYTES + 1)
    except zlib.error:
        return False
    return inflater.eof and not inflater.unused_data


BEFORE_TIME = b',"recorded_at":"'
STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# What comes after `outcome` in a canonical record, to its end: S is a string, V the version.
END_OF_RECORD = re.compile(
    rb',"recorded_at":"((\d{4}-\d\d-\d\d)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z)"'
    rb',"seq":([1-9]\d{0,15}),"source":S,"target":\{"id":S,"name":S,"type":S\},"tenant":S,"v":V\}'.replace(
        b"S", STRING
    ).replace(b"V", b"%d" % VERSION),
    re.DOTALL,
)


def check_places(first_seq: int, records: list[bytes], recorded_at: str) -> str:
    """See that each record says its own place, and no time before that of the one before it.

    `recorded_at` is the time before the first one; returns that of the last. A canonical record
    is held against what its end must look like. That fixes how deep in it the seq stands: a seq
    within `target` or `data` is none. What does not look like that is parsed. Raises
    TamperedError with the seq.
    """
    time, day = recorded_at.encode(), recorded_at[:10].encode()
    for seq, record in enumerate(records, first_seq):
        match = END_OF_RECORD.fullmatch(record, record.rfind(BEFORE_TIME))
        if match:
            found, its_day, said = match.groups()
            if int(said) == seq and found >= time and (its_day == day or is_time(found.decode())):
                time, day = found, its_day
                continue
        time = _check_place(seq, record, time.decode()).encode()
        day = time[:10]
    return time.decode()


def _check_place(seq: int, record: bytes, recorded_at: str) -> str:
    try:
        members = parse(record)
    except RecordError as error:
        raise TamperedError(f"the record of seq {seq:,} is none: {error}") from None
    said, version, time = (members.get(name) for name in ("seq", "v", "recorded_at"))
    if type(said) is not int or said != seq or type(version) is not int or version != VERSION:
        raise TamperedError(f"the record of seq {seq:,} says that it is of another place")
    if not is_time(time) or time < recorded_at:
        raise TamperedError(f"the record of seq {seq:,} goes back in time, or has none")
    return time


def place_and_time(record: bytes) -> tuple[object, object]:
    """Return what a record says of its own seq and time; nothing where it is no record."""
    try:
        members = json.loads(record)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        return None, None
    return members.get("seq"), members.get("recorded_at")
