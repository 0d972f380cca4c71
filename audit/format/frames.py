"""Frames: the gzip members of which a batch's JSON Lines object is made.

A frame ends at each multiple of 1,024 in seq, before the record that would take it past
4,194,304 bytes (newlines counted), and at the batch's end. Any gzip tool reads the whole
object; one range request reads one frame.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from . import merkle
from .chain import leaf_hash, next_link
from .errors import TamperedError

FRAME_EVENTS = 1024
FRAME_BYTES = 4 * 1024 * 1024
GZIP_WINDOW = 31  # zlib: the largest window, with gzip's header and trailer

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
        raise TamperedError(f"{place}: not a gzip member ({error})") from None
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
    leaves = [leaf_hash(record) for record in records]
    links = []
    for leaf in leaves:
        link = next_link(link, leaf)
        links.append(link)
    place = f"frame of seq {frame.first_seq}–{frame.first_seq + frame.count - 1}"
    if link != frame.end_link:
        raise TamperedError(f"{place}: its records do not lead to its signed link")
    if tuple(merkle.subtrees(frame.first_seq - 1, leaves)) != frame.subtrees:
        raise TamperedError(f"{place}: its records do not make its signed subtrees")
    if place_and_time(records[0]) != (frame.first_seq, frame.first_recorded_at):
        raise TamperedError(f"{place}: its first record is of another place or time")
    return links


def place_and_time(record: bytes) -> tuple[object, object]:
    """Return what a record says of its own seq and time; nothing where it is no record."""
    try:
        members = json.loads(record)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        return None, None
    return members.get("seq"), members.get("recorded_at")
