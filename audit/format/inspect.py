"""Read one batch's object as a whole, and hold it against its manifest and against checkpoints.

A frame that is not what was signed is named, and the next one is looked at from its own signed
link on: one flipped byte is one problem. Never more is read or inflated than a frame may hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import IO

from . import frames as frames_
from .chain import leaf_hash
from .errors import AuditError, TamperedError, UnreachableError
from .frames import Frame
from .manifest import Manifest
from .merkle import Frontier, subtrees
from .report import EVIDENCE, RESTORE, Kind, Problem
from .store import Store

COMPRESSOR = slice(8, 10)  # what a gzip header says of the compressor
MOST_TOO_LONG = 1024 * 1024  # bytes past the signed end for which an object is still read
Visit = Callable[[int, list[bytes], list[bytes]], list[Problem]]


@dataclass(frozen=True)
class Anchor:
    """What a checkpoint says of a seq."""

    seq: int
    link: bytes
    root: bytes
    index: int


@dataclass(frozen=True)
class Job:
    """One object to be read: its name, its manifest, the checkpoints in its range.

    `before` is the tree before the batch, None where it is not known.
    """

    name: str
    manifest: Manifest
    anchors: tuple[Anchor, ...] = ()
    before: Frontier | None = None


@dataclass(frozen=True)
class Inspected:
    """What was found: whether the object itself is good, and every problem of its range.

    `lost`: why nothing more can be looked at, where that is so.
    """

    good: bool
    problems: tuple[Problem, ...]
    lost: str = ""


def inspect(store: Store, job: Job, visit: Visit | None = None) -> Inspected:
    """Read an object as a whole; never raises an AuditError.

    `visit` is called with the first seq, the records and the links of each good frame, and
    returns further problems, which are not the object's.
    """
    manifest = job.manifest
    reading = _Reading(job, visit)
    lost = ""
    try:
        if store.size(job.name) > manifest.bytes_compressed + MOST_TOO_LONG:
            reading.tell_too_long()
        else:
            with store.opened(job.name) as stream:
                reading.read(stream)
            if reading.other_bytes:
                with store.opened(job.name) as stream:
                    reading.tell_other_bytes(stream)
    except UnreachableError as error:
        lost = str(error)
    except AuditError as error:
        todo = RESTORE if Kind.of(error) is Kind.GAP else "Make it readable, and verify again."
        reading.tell(
            Kind.of(error), manifest.start_seq, f"{str(error).rstrip('.')}: {reading.rest}. {todo}"
        )
    except OSError as error:
        reading.tell(
            Kind.UNVERIFIABLE,
            reading.next_seq,
            f"cannot be read ({error.strerror or error}): {reading.rest}. Make it readable, and "
            "verify again.",
        )
    reading.tell_bad_frames()
    return Inspected(reading.good and not lost, tuple(reading.problems), lost)


class _Reading:
    """One object while it is read."""

    def __init__(self, job: Job, visit: Visit | None) -> None:
        self.job = job
        self.manifest = job.manifest
        self.visit = visit
        self.problems: list[Problem] = []
        self.good = True
        self.bad_frames: list[tuple[Frame, str]] = []
        self.other_bytes = False
        self.tree = job.before
        self.next_seq = self.manifest.start_seq

    @property
    def rest(self) -> str:
        """Return what was not checked."""
        return f"seq {self.next_seq:,}–{self.manifest.end_seq:,} could not be checked"

    def tell(self, kind: Kind, seq: int, message: str) -> None:
        self.good = False
        self.problems.append(Problem(kind, message, seq, self.job.name))

    def tell_frame(self, frame: Frame, what: str) -> None:
        self.tell(Kind.TAMPERED, frame.first_seq, f"{_place(frame)}: {what}. {EVIDENCE}")

    def tell_too_long(self) -> None:
        self.tell_frame(
            self.manifest.frames[-1],
            "the object goes on after this, its last frame, which ends at byte "
            f"{self.manifest.bytes_compressed:,}",
        )

    def tell_bad_frames(self) -> None:
        """Say which frames are bad; another object altogether is one problem, not many."""
        frames = len(self.manifest.frames)
        if len(self.bad_frames) == frames > 1:
            frame, what = self.bad_frames.pop(0)
            self.tell_frame(frame, f"{what}. No other of its {frames:,} frames is good either")
            return
        for frame, what in self.bad_frames:
            self.tell_frame(frame, what)

    def tell_other_bytes(self, stream: IO[bytes]) -> None:
        """Find out in which frame there are other bytes where every record is right."""
        frames = self.manifest.frames
        odd, headers = [], []
        for frame in frames:
            data = stream.read(frame.length)
            headers.append(data[COMPRESSOR])
            if not frames_.is_plain(data):
                odd.append(frame)
        if not odd:
            common, times = Counter(headers).most_common(1)[0]
            if times > len(frames) / 2:
                odd = [frame for frame, it in zip(frames, headers, strict=True) if it != common]
        what = "its gzip header, or the bits that fill up its last byte, were changed"
        for frame in odd:
            self.tell_frame(frame, f"its records are what was signed, its bytes are not: {what}")
        if not odd:
            self.tell(
                Kind.TAMPERED,
                self.manifest.start_seq,
                "Every record is what was signed, the object's bytes are not: it was compressed "
                f"anew, or a gzip header was changed. {EVIDENCE}",
            )

    def read(self, stream: IO[bytes]) -> None:
        """Read every frame, and what comes after the last one."""
        digest, size = sha256(), 0
        link, recorded_at = self.manifest.start_link, self.manifest.first_recorded_at
        for frame in self.manifest.frames:
            self.next_seq = frame.first_seq
            data = stream.read(min(frame.length, frames_.FRAME_LENGTH))
            if len(data) < frame.length:
                what = f"the object breaks off at byte {frame.offset + len(data):,}"
                if len(data) == frames_.FRAME_LENGTH:
                    what = f"it is signed to have {frame.length:,} bytes, more than any frame"
                self.tell_frame(frame, f"{what}: {self.rest}")
                return
            digest.update(data)
            try:
                records = frames_.unpack(data, frame)
                links = frames_.replay(frame, records, link)
                recorded_at = frames_.check_places(frame.first_seq, records, recorded_at)
            except TamperedError as error:
                self.good = False
                self.bad_frames.append((frame, _reason(error)))
                recorded_at = max(recorded_at, frame.first_recorded_at)
                self.hold_end(frame)
            else:
                size += sum(map(len, records)) + len(records)
                self.hold(frame, records, links)
                if self.visit:
                    self.problems += self.visit(frame.first_seq, records, links)
            link = frame.end_link
            if self.tree:
                self.tree = self.tree.extend(frame.count, frame.subtrees)
        self.next_seq = self.manifest.end_seq
        self.check_whole(stream, digest.hexdigest(), size, recorded_at)

    def hold(self, frame: Frame, records: list[bytes], links: list[bytes]) -> None:
        """Hold the checkpoints in a frame against its links, and against the tree."""
        roots: dict[int, bytes] = {}  # many checkpoints may be of one seq
        for anchor in self.job.anchors:
            nth = anchor.seq - frame.first_seq
            if not 0 <= nth < frame.count:
                continue
            if links[nth] != anchor.link:
                self.problems.append(differs(anchor, self.job.name))
            elif self.tree:
                if nth not in roots:
                    leaves = [leaf_hash(record) for record in records[: nth + 1]]
                    tree = self.tree.extend(nth + 1, subtrees(frame.first_seq - 1, leaves))
                    roots[nth] = tree.root()
                if roots[nth] != anchor.root:
                    self.problems.append(differs(anchor, self.job.name, "root"))

    def hold_end(self, frame: Frame) -> None:
        """Hold the checkpoints at the end of a frame that is not good against its signed link."""
        for anchor in self.job.anchors:
            if anchor.seq == frame.first_seq + frame.count - 1 and anchor.link != frame.end_link:
                self.problems.append(differs(anchor, self.job.name))

    def check_whole(self, stream: IO[bytes], digest: str, size: int, recorded_at: str) -> None:
        """Hold what is known only at the end against the manifest."""
        manifest, last = self.manifest, self.manifest.frames[-1]
        if stream.read(1):
            self.tell_too_long()
        elif self.good and digest != manifest.sha256:
            self.other_bytes = True
            self.good = False
        elif self.good and size != manifest.bytes_uncompressed:
            self.tell(
                Kind.TAMPERED,
                manifest.start_seq,
                f"It inflates to {size:,} bytes, {manifest.bytes_uncompressed:,} were signed. "
                f"{EVIDENCE}",
            )
        elif self.good and recorded_at != manifest.last_recorded_at:
            self.tell_frame(last, "it ends at another time than was signed")


def differs(anchor: Anchor, where: str | None, what: str = "link") -> Problem:
    """Return the problem of a log that does not have the link or root that a checkpoint signs."""
    return Problem(
        Kind.TAMPERED,
        f"The log up to seq {anchor.seq:,} does not have the {what} for which checkpoint "
        f"{anchor.index:,} is signed: one of the two was made anew. Keep both, and compare with a "
        "copy that somebody else keeps.",
        anchor.seq,
        where,
    )


def _place(frame: Frame) -> str:
    return (
        f"Frame at byte {frame.offset:,}, seq {frame.first_seq:,}–"
        f"{frame.first_seq + frame.count - 1:,}"
    )


def _reason(error: TamperedError) -> str:
    """Return what an error says of a frame, without the frame's place."""
    text = str(error)
    return text.partition(": ")[2] if text.startswith("frame ") else text
