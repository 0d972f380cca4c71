"""Plan and encode: which events are due, and their bytes, every link recomputed.

A range whose rows do not lead from the link before it to its own is never encoded as if it were
good: the first seq that does not fit stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from typing import BinaryIO

from isal import igzip

from . import conf, log
from .anchors import Anchors
from .canonical import places_and_times
from .format import merkle
from .format.chain import LEAF_PREFIX, LINK_PREFIX
from .format.errors import AuditError, GapError, RecordError, TamperedError
from .format.frames import Frame, Row, split, text_of
from .format.manifest import Manifest
from .format.merkle import Frontier
from .format.names import Kind, ObjectName
from .format.record import format_time, is_time
from .ledger import Position
from .models import ArchiveBatch
from .storage import Digests

GZIP_LEVEL = 2  # of isal: ten times faster than gzip's level 6 at nearly its ratio


def cutoff_at(started: datetime) -> datetime:
    """Return the time before which an event must have been recorded to be due."""
    try:
        return started - timedelta(days=conf.retention_days())
    except OverflowError:  # kept for ever
        return datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Range:
    """Consecutive events that make one batch; bytes are uncompressed, newlines counted."""

    start_seq: int
    end_seq: int
    bytes_uncompressed: int

    @property
    def event_count(self) -> int:
        """Return how many events there are."""
        return self.end_seq - self.start_seq + 1


def last_due(after: int, head: int, cutoff: datetime) -> int:
    """Return the newest seq that is due, `after` where none is.

    Raises GapError where the row that follows it is missing: the time of what is missing is
    not known, so it may have been due.
    """
    last = log.last_seq_before(cutoff, after, head)
    if last < head:
        _require(log.oldest_seq(above=last), last + 1)
    return last


class BeyondHeadError(AuditError):
    """A seq was asked for that the log has not reached."""


class BegunError(AuditError):
    """A batch that was begun does not fit what was asked for."""


def last_wanted(after: int, due: int, head: int, through: int | None) -> int:
    """Return the newest seq to archive: what is due, or what was asked for whatever its age.

    Raises BeyondHeadError where the log ends before what was asked for.
    """
    if through is None:
        return due
    if through > head:
        raise BeyondHeadError(
            f"Seq {through:,} was asked for, but the log ends at seq {head:,}: nothing was done. "
            "Give a seq that is there."
        )
    return max(after, through)


def check_begun(row: ArchiveBatch, through: int | None) -> None:
    """Raise BegunError where a batch that was begun goes beyond what was asked for."""
    if through is not None and row.end_seq > through:
        raise BegunError(
            f"{row} was begun by an earlier run and goes beyond seq {through:,}: nothing of it "
            "was done. Run without a seq first, or give one from its end on."
        )


def next_range(after: int, last: int) -> Range | None:
    """Cut the next batch off the due events after + 1 … last; None where nothing is due.

    Raises GapError at the first seq that is not there.
    """
    max_events, max_bytes = conf.batch_max_events(), conf.batch_max_bytes()
    end = min(last, after + max_events)
    if end > after:
        count, size = log.measure(after + 1, end)
        if count == end - after and size + count <= max_bytes:
            return Range(after + 1, end, size + count)
    seq, size = after, 0
    for found, length in log.read_sizes(after + 1, last):
        _require(found, seq + 1)
        if seq - after == max_events or (size and size + length + 1 > max_bytes):
            return Range(after + 1, seq, size)
        seq, size = found, size + length + 1
    if seq < last:
        _require(None, seq + 1)
    return Range(after + 1, seq, size) if seq > after else None


def _require(found: int | None, expected: int) -> None:
    if found != expected:
        raise GapError(
            f"Seq {expected:,} is missing from the hot database"
            + (f" (the next one there is {found:,})" if found else "")
            + ": the archive stops before it and deletes nothing. Restore it from a backup, and "
            "find out who removed it."
        )


@dataclass(frozen=True)
class Encoded:
    """A batch's JSON Lines object, written to `file`, and what its manifest will say of it."""

    file: BinaryIO
    digests: Digests
    frames: tuple[Frame, ...]
    end_link: bytes
    frontier: Frontier
    bytes_uncompressed: int
    last_recorded_at: str


def compress(text: bytes) -> bytes:
    """Return one gzip member without a time in it."""
    return bytes(igzip.compress(text, GZIP_LEVEL, mtime=0))


def encode(
    at: Position,
    end_seq: int,
    file: BinaryIO,
    progress: Callable[[int], None],
    anchors: Anchors,
) -> Encoded:
    """Encode the events after a position up to `end_seq` into `file`, frame by frame.

    `progress` is called with the number of events of each frame. Raises GapError or
    TamperedError at the first seq that does not fit, or where the range does not agree with the
    checkpoints in it, or does not lead on to the one after it.
    """
    sha, md5_ = sha256(), md5(usedforsecurity=False)
    link, frontier = at.link, at.frontier
    frames: list[Frame] = []
    offset = size = 0
    seq, recorded_at = at.seq, at.recorded_at
    for rows in split(log.read_range(at.seq + 1, end_seq)):
        first = seq + 1
        leaves, link = _check(rows, first, link)
        first_recorded_at, recorded_at = _check_records(rows, recorded_at)
        if anchors.within(first, len(rows)):
            anchors.hold(first, [row[2] for row in rows])
        seq = rows[-1][0]
        text = text_of([row[1] for row in rows])
        data = compress(text)
        file.write(data)
        sha.update(data)
        md5_.update(data)
        subtrees = merkle.subtrees(first - 1, leaves)
        frontier = frontier.extend(len(rows), subtrees)
        frames.append(
            Frame(
                offset=offset,
                length=len(data),
                first_seq=first,
                count=len(rows),
                end_link=link,
                subtrees=tuple(subtrees),
                first_recorded_at=first_recorded_at,
            )
        )
        offset += len(data)
        size += len(text)
        progress(len(rows))
    if seq < end_seq:
        _require(None, seq + 1)
    anchors.lead_on(seq, link)
    file.flush()  # what finds no room must say so here, not when it is sent
    return Encoded(
        file=file,
        digests=Digests(offset, md5_.digest(), sha.hexdigest()),
        frames=tuple(frames),
        end_link=link,
        frontier=frontier,
        bytes_uncompressed=size,
        last_recorded_at=recorded_at,
    )


def _check(rows: Iterable[Row], seq: int, link: bytes) -> tuple[list[bytes], bytes]:
    """Recompute the links of rows from the link before them; return leaves and the last link."""
    leaves = []
    for found, record, stored_link in rows:
        if found != seq:
            _require(found, seq)
        leaf = sha256(LEAF_PREFIX + record).digest()  # leaf_hash and next_link, without the calls
        link = sha256(LINK_PREFIX + link + leaf).digest()
        if link != stored_link:
            raise TamperedError(
                f"Seq {seq:,} in the hot database was changed: its record does not lead from "
                "the link before it to its own. The archive stops before it and deletes "
                "nothing. Keep the database as it is, and compare with a backup."
            )
        leaves.append(leaf)
        seq += 1
    return leaves, link


def _check_records(rows: list[Row], recorded_at: str) -> tuple[str, str]:
    """Hold each row's bytes against what a reader of the object needs.

    Whoever can write to hot can recompute links. What could then not be read back, or lies
    about its place or its time, must not leave hot either. `recorded_at` is the time of the
    record before them; returns the first and the last time of these.
    """
    first, seq = "", rows[0][0]
    try:
        for said, time in places_and_times([row[1] for row in rows]):
            if said != seq:
                raise RecordError("it has another seq in it")
            if time != recorded_at or not first:
                if not is_time(time) or time < recorded_at:
                    raise RecordError("its time is none, or goes back")
                recorded_at = time
            first = first or recorded_at  # which is a time by now
            seq += 1
    except RecordError as error:
        raise TamperedError(
            f"Seq {seq:,} in the hot database was changed: its bytes are no record of that place "
            f"and time ({error}). The archive stops before it and deletes nothing. Keep the "
            "database as it is, and compare with a backup."
        ) from None
    return first, recorded_at


def manifest_of(row: ArchiveBatch, at: Position, encoded: Encoded) -> Manifest:
    """Return the manifest of an encoded batch; `created_at` is the time it was planned."""
    name = ObjectName.of(Kind.JSONL, row.start_seq, row.end_seq, encoded.digests.sha256)
    return Manifest(
        origin=conf.origin(),
        bucket=conf.cold_bucket(),
        key=name.key(conf.cold_prefix()),
        created_at=format_time(row.planned_at),
        start_seq=row.start_seq,
        end_seq=row.end_seq,
        start_link=at.link,
        end_link=encoded.end_link,
        root=encoded.frontier.root(),
        first_recorded_at=encoded.frames[0].first_recorded_at,
        last_recorded_at=encoded.last_recorded_at,
        sha256=encoded.digests.sha256,
        bytes_compressed=encoded.digests.length,
        bytes_uncompressed=encoded.bytes_uncompressed,
        frames=encoded.frames,
        previous_manifest_sha256=at.manifest_sha256,
        signed_by=tuple(conf.keyring().signed_by),
    )
