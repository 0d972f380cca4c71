"""The manifest: the signed JSON description of one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import IO, Any

from . import frames as frames_
from .errors import TamperedError
from .frames import Frame
from .merkle import Frontier
from .names import MAX_SEQ, Kind, ObjectName
from .shape import Shape
from .signing import Document, Keyring, canonical

MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MANIFEST = Document("manifest", ("created_at", "last_recorded_at"), MAX_MANIFEST_BYTES)
SHAPE = Shape(MANIFEST.name)


@dataclass(frozen=True)
class Manifest:
    """What one batch's object holds and how it continues the log; owns its wire form.

    Hashes are raw bytes, except `sha256` and `previous_manifest_sha256`, which are hex like
    the digests that the ledger keeps. Times are texts in a record's form.
    """

    origin: str
    bucket: str
    key: str
    created_at: str
    start_seq: int
    end_seq: int
    start_link: bytes
    end_link: bytes
    root: bytes
    first_recorded_at: str
    last_recorded_at: str
    sha256: str
    bytes_compressed: int
    bytes_uncompressed: int
    frames: tuple[Frame, ...]
    previous_manifest_sha256: str | None
    signed_by: tuple[str, ...]

    @property
    def event_count(self) -> int:
        """Return how many records the batch holds."""
        return self.end_seq - self.start_seq + 1

    def body(self) -> bytes:
        """Return the RFC 8785 bytes of the inner object: what is signed."""
        return canonical(self._to_json())

    def to_bytes(self, keyring: Keyring) -> bytes:
        """Return the file: the inner object and a signature by each signing key."""
        return MANIFEST.seal(self._to_json(), keyring)

    def _to_json(self) -> dict[str, Any]:
        return {
            "bucket": self.bucket,
            "bytes_compressed": self.bytes_compressed,
            "bytes_uncompressed": self.bytes_uncompressed,
            "created_at": self.created_at,
            "end_link": self.end_link.hex(),
            "end_seq": self.end_seq,
            "event_count": self.event_count,
            "first_recorded_at": self.first_recorded_at,
            "format": MANIFEST.format,
            "frames": [frame.to_json() for frame in self.frames],
            "key": self.key,
            "last_recorded_at": self.last_recorded_at,
            "origin": self.origin,
            "previous_manifest_sha256": self.previous_manifest_sha256,
            "root": self.root.hex(),
            "sha256": self.sha256,
            "signed_by": list(self.signed_by),
            "start_link": self.start_link.hex(),
            "start_seq": self.start_seq,
        }

    @classmethod
    def from_bytes(cls, data: bytes, keyring: Keyring) -> Manifest:
        """Return the manifest in a file whose signatures are good and whose parts agree.

        Raises TamperedError where it is not what was signed or contradicts itself,
        UnverifiableError where it may be right but no key of its signatures is known.
        """
        inner = MANIFEST.unseal(data, keyring)
        manifest = cls._from_json(inner)
        SHAPE.require(manifest.body() == canonical(inner), "the document")
        manifest._check()
        return manifest

    @classmethod
    def _from_json(cls, inner: dict[str, Any]) -> Manifest:
        values: dict[str, Any] = {}
        for field in fields(cls):
            name = field.name
            value = inner.get(name)
            if name == "frames":
                values[name] = tuple(_frame(item) for item in SHAPE.array(value, name))
            elif name == "signed_by":
                values[name] = tuple(SHAPE.strings(value, name))
            elif name == "previous_manifest_sha256":
                values[name] = SHAPE.hash_or_null(value, name)
            elif name == "sha256":
                values[name] = SHAPE.hash(value, name).hex()
            elif name in {"start_link", "end_link", "root"}:
                values[name] = SHAPE.hash(value, name)
            elif field.type == "int":
                values[name] = SHAPE.number(value, name)
            elif name.endswith("_at"):
                values[name] = SHAPE.time(value, name)
            else:
                values[name] = SHAPE.string(value, name)
        return cls(**values)

    def _check(self) -> None:
        """Hold the parts against each other: range, name, frames end to end, times in order."""
        SHAPE.agree(1 <= self.start_seq <= self.end_seq <= MAX_SEQ, "its range")
        name = ObjectName.of(Kind.JSONL, self.start_seq, self.end_seq, self.sha256)
        SHAPE.agree(self.key.rpartition("/")[2] == str(name), "the name of its object")
        offset, seq, recorded_at = 0, self.start_seq, self.first_recorded_at
        for frame in self.frames:
            SHAPE.agree(frame.offset == offset and frame.length > 0, f"the frame at byte {offset}")
            SHAPE.agree(frame.first_seq == seq and frame.count > 0, f"the frame at seq {seq}")
            SHAPE.agree(
                (seq - 1) // frames_.FRAME_EVENTS
                == (seq + frame.count - 2) // frames_.FRAME_EVENTS,
                f"the frame at seq {seq}",
            )
            SHAPE.agree(recorded_at <= frame.first_recorded_at, f"the time at seq {seq}")
            offset, seq, recorded_at = (
                offset + frame.length,
                seq + frame.count,
                frame.first_recorded_at,
            )
        SHAPE.agree(offset == self.bytes_compressed and seq == self.end_seq + 1, "its frames")
        SHAPE.agree(self.frames[-1].end_link == self.end_link, "its end link")
        SHAPE.agree(self.frames[0].first_recorded_at == self.first_recorded_at, "its first time")
        SHAPE.agree(recorded_at <= self.last_recorded_at, "its last time")

    def extend(self, frontier: Frontier) -> Frontier:
        """Return the frontier after this batch from the one before it.

        Raises TamperedError where the frames' subtrees do not lead to the signed root.
        """
        try:
            for frame in self.frames:
                frontier = frontier.extend(frame.count, frame.subtrees)
        except ValueError as error:
            raise TamperedError(f"{self.key}: {error}") from None
        if frontier.size != self.end_seq or frontier.root() != self.root:
            raise TamperedError(f"{self.key}: its frames do not lead to its signed root")
        return frontier

    def replay(self, stream: IO[bytes]) -> Iterator[tuple[int, list[bytes], list[bytes]]]:
        """Read the object frame by frame: yields (first seq, records, links) of each.

        Every byte is hashed, every link and subtree recomputed. A frame is yielded before the
        whole object has been hashed: only a caller that exhausts the iterator knows that all
        of it is right. Raises TamperedError.
        """
        digest = sha256()
        link = self.start_link
        size, last = 0, b""
        for frame in self.frames:
            data = stream.read(frame.length)
            digest.update(data)
            records = frames_.unpack(data, frame)
            links = frames_.replay(frame, records, link)
            link = links[-1]
            size += sum(map(len, records)) + len(records)
            last = records[-1]
            yield frame.first_seq, records, links
        if stream.read(1):
            raise TamperedError(f"{self.key}: goes on after its last frame")
        if digest.hexdigest() != self.sha256:
            raise TamperedError(f"{self.key}: its bytes are not the signed ones")
        if size != self.bytes_uncompressed:
            raise TamperedError(f"{self.key}: inflates to {size} bytes, not to the signed number")
        if frames_.place_and_time(last) != (self.end_seq, self.last_recorded_at):
            raise TamperedError(f"{self.key}: its last record is of another place or time")


def _frame(value: object) -> Frame:
    SHAPE.require(isinstance(value, dict), "a frame")
    assert isinstance(value, dict)  # noqa: S101  # for the type checker
    SHAPE.require(set(value) == {field.name for field in fields(Frame)}, "a frame")
    subtrees = SHAPE.strings(value["subtrees"], "a frame's subtrees")
    return Frame(
        offset=SHAPE.number(value["offset"], "a frame's offset"),
        length=SHAPE.number(value["length"], "a frame's length"),
        first_seq=SHAPE.number(value["first_seq"], "a frame's first seq"),
        count=SHAPE.number(value["count"], "a frame's count"),
        end_link=SHAPE.hash(value["end_link"], "a frame's end link"),
        subtrees=tuple(SHAPE.hash(item, "a frame's subtree") for item in subtrees),
        first_recorded_at=SHAPE.time(value["first_recorded_at"], "a frame's time"),
    )
