"""A whole log as a bucket's prefix holds it, made by the format alone, and easy to tamper with.

Whoever has the keys can sign anything anew: `SignedLog` does what such a thief would do, one
thing at a time, and leaves the rest as it was.
"""

from __future__ import annotations

import copy
import gzip
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from audit.format import frames
from audit.format.chain import genesis_link, leaf_hash, next_link
from audit.format.checkpoint import Checkpoint
from audit.format.frames import Frame, Row
from audit.format.manifest import Manifest
from audit.format.merkle import EMPTY_ROOT, Frontier, subtrees
from audit.format.names import CHECKPOINTS, CheckpointName, Kind, ObjectName
from audit.format.signing import Keyring

from .factories import ORIGIN, keyring

PREFIX = "audit/v1"
FIRST = datetime(2026, 1, 2, 3, tzinfo=UTC)
# Frames end at 1024, 2048 … and where a batch ends: batch 3 has three, the others two.
SIZES = (1_500, 600, 2_500, 700, 1_100, 900)
# In a frame, at its end, at a batch's end, twice the same, and beyond where cold ends.
POINTS = (0, 700, 1_024, 1_500, 3_000, 4_600, 5_300, 5_300, 7_300, 7_800)

Make = Callable[[int], bytes]


def time_of(seq: int) -> str:
    """Return a time that rises with seq, past midnight."""
    moment = FIRST + timedelta(seconds=11 * seq)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def record(seq: int, recorded_at: str = "", says: int = 0, tenant: str = "alder") -> bytes:
    """Return a canonical record; `says` is the seq that it claims."""
    return (
        '{"action":"tested","actor":{"id":"7","ip":"192.0.2.7","name":"ada.lind"},'
        f'"data":{{"bytes":{seq * 7919 % 1_000_003}}},"external_id":"e-{seq}",'
        f'"id":"019b8d62-834a-7011-9213-{seq:012d}","occurred_at":"2026-01-01T00:00:00.000Z",'
        f'"outcome":"success","recorded_at":"{recorded_at or time_of(seq)}","seq":{says or seq},'
        '"source":"platform","target":{"id":"","name":"","type":""},'
        f'"tenant":"{tenant}","v":1}}'
    ).encode()


class SignedLog:
    """Batches of these sizes from seq 1 on, and checkpoints of these seqs.

    `files` are the objects under the prefix. Batches are counted from 1, like checkpoints.
    """

    def __init__(
        self,
        sizes: Sequence[int] = SIZES,
        points: Sequence[int] = POINTS,
        *,
        ring: Keyring | None = None,
        origin: str = ORIGIN,
        make: Make = record,
    ) -> None:
        """Make it; `make` makes the record of a seq."""
        self.ring = ring or keyring()
        self.origin = origin
        self.files: dict[str, bytes] = {}
        self.manifests: list[Manifest] = []
        self.objects: list[bytes] = []
        self.points: list[Checkpoint] = []
        self.manifest_names: list[str] = []
        self.object_names: list[str] = []
        self.point_names: list[str] = []
        link = genesis_link(origin)
        self.rows: list[Row] = []
        for seq in range(1, max(sum(sizes), *points, 0) + 1):
            item = make(seq)
            link = next_link(link, leaf_hash(item))
            self.rows.append((seq, item, link))
        self.leaves = [leaf_hash(row[1]) for row in self.rows]
        first = 1
        for size in sizes:
            self._add_batch(first, first + size - 1)
            first += size
        for seq in points:
            self.add_point(seq)

    def copy(self) -> Self:
        """Return a log that can be tampered with and leaves this one as it is."""
        return copy.deepcopy(self, {id(self.rows): self.rows, id(self.leaves): self.leaves})

    def write(self, folder: Path) -> Path:
        """Write all files into a folder; return it."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def link(self, seq: int) -> bytes:
        """Return the link of a seq."""
        return self.rows[seq - 1][2] if seq else genesis_link(self.origin)

    def root(self, seq: int) -> bytes:
        """Return the root of a seq."""
        return Frontier().extend(seq, subtrees(0, self.leaves[:seq])).root() if seq else EMPTY_ROOT

    # What the log's own writer does ----------------------------------------------------------

    def _add_batch(self, first: int, last: int) -> None:
        self.objects.append(b"")
        self.object_names.append("")
        self.manifest_names.append("")
        data, found = self.compress(list(frames.split(self.rows[first - 1 : last])))
        previous = self.files[self.manifest_names[-2]] if self.manifests else None
        self.manifests.append(
            Manifest(
                origin=self.origin,
                bucket="dezky-audit",
                key="",
                created_at=time_of(len(self.rows)),
                start_seq=first,
                end_seq=last,
                start_link=self.link(first - 1),
                end_link=self.link(last),
                root=self.root(last),
                first_recorded_at=self.time(first),
                last_recorded_at=self.time(last),
                sha256="",
                bytes_compressed=0,
                bytes_uncompressed=sum(len(row[1]) + 1 for row in self.rows[first - 1 : last]),
                frames=found,
                previous_manifest_sha256=sha256(previous).hexdigest() if previous else None,
                signed_by=(),
            )
        )
        self.put_batch(len(self.manifests), data, found)

    def time(self, seq: int) -> str:
        """Return what a record says of its time."""
        return str(frames.place_and_time(self.rows[seq - 1][1])[1])

    def compress(self, parts: Iterable[list[Row]]) -> tuple[bytes, tuple[Frame, ...]]:
        """Return the bytes of an object of these frames, and its frames."""
        data, found = b"", []
        for part in parts:
            member = gzip.compress(frames.text_of(row[1] for row in part), 6, mtime=0)
            first, last = part[0][0], part[-1][0]
            found.append(
                Frame(
                    offset=len(data),
                    length=len(member),
                    first_seq=first,
                    count=len(part),
                    end_link=part[-1][2],
                    subtrees=tuple(subtrees(first - 1, self.leaves[first - 1 : last])),
                    first_recorded_at=str(frames.place_and_time(part[0][1])[1]),
                )
            )
            data += member
        return data, tuple(found)

    def add_point(self, seq: int, **members: Any) -> str:
        """Sign a checkpoint after the newest one; return its name."""
        before = self.files[self.point_names[-1]] if self.point_names else None
        self.points.append(
            Checkpoint(
                origin=self.origin,
                index=len(self.points) + 1,
                seq=seq,
                link=self.link(seq),
                root=self.root(seq),
                at=time_of(max(seq, len(self.points))),
                previous_sha256=sha256(before).hexdigest() if before else None,
                signed_by=(),
            )
        )
        self.point_names.append("")
        return self.sign_point(len(self.points), **members)

    # What a thief of the key does, who signs anew ----------------------------------------------

    def sign(self, nth: int, ring: Keyring | None = None, **members: Any) -> str:
        """Sign a batch's manifest with other members, in the place of the one that is there."""
        ring = ring or self.ring
        signed = replace(self.manifests[nth - 1], signed_by=tuple(ring.signed_by), **members)
        data = signed.to_bytes(ring)
        name = str(
            ObjectName.of(
                Kind.MANIFEST, signed.start_seq, signed.end_seq, sha256(data).hexdigest()
            )
        )
        self.manifests[nth - 1] = signed
        self.files.pop(self.manifest_names[nth - 1], None)
        self.files[name] = data
        self.manifest_names[nth - 1] = name
        return name

    def put_batch(self, nth: int, data: bytes, found: Sequence[Frame], **members: Any) -> None:
        """Put another object in a batch's place, and sign its manifest for it."""
        manifest = self.manifests[nth - 1]
        digest = sha256(data).hexdigest()
        name = ObjectName.of(Kind.JSONL, manifest.start_seq, manifest.end_seq, digest)
        self.files.pop(self.object_names[nth - 1], None)
        self.files[str(name)] = data
        self.objects[nth - 1] = data
        self.object_names[nth - 1] = str(name)
        its_own: dict[str, Any] = {
            "key": name.key(PREFIX),
            "sha256": digest,
            "bytes_compressed": len(data),
            "frames": tuple(found),
        }
        self.sign(nth, **{**its_own, **members})

    def sign_after(self, nth: int) -> None:
        """Sign all manifests after a batch anew, so that each names the one before it."""
        for later in range(nth + 1, len(self.manifests) + 1):
            before = sha256(self.files[self.manifest_names[later - 2]]).hexdigest()
            self.sign(later, previous_manifest_sha256=before)

    def sign_point(self, nth: int, ring: Keyring | None = None, **members: Any) -> str:
        """Sign a checkpoint with other members, in the place of the one that is there."""
        ring = ring or self.ring
        point = replace(self.points[nth - 1], signed_by=tuple(ring.signed_by), **members)
        data = point.to_bytes(ring)
        name = CheckpointName.of(point.index, point.seq, sha256(data).hexdigest())
        self.points[nth - 1] = point
        self.files.pop(self.point_names[nth - 1], None)
        self.point_names[nth - 1] = f"{CHECKPOINTS}/{name}"
        self.files[f"{CHECKPOINTS}/{name}"] = data
        return f"{CHECKPOINTS}/{name}"

    def sign_points_after(self, index: int) -> None:
        """Sign all checkpoints after one anew, so that each names the one before it."""
        for later in range(index + 1, len(self.points) + 1):
            before = sha256(self.files[self.point_names[later - 2]]).hexdigest()
            self.sign_point(later, previous_sha256=before)

    # What anybody does who can write to the bucket ---------------------------------------------

    def remove(self, *names: str) -> None:
        """Remove objects."""
        for name in names:
            del self.files[name]

    def rename(self, name: str, other: str) -> None:
        """Give an object another name."""
        self.files[other] = self.files.pop(name)

    def swap(self, one: str, other: str) -> None:
        """Let two objects change places."""
        self.files[one], self.files[other] = self.files[other], self.files[one]


@cache
def _made() -> SignedLog:
    return SignedLog()


def signed_log() -> SignedLog:
    """Return a copy of a log of six batches and ten checkpoints that is made once."""
    return _made().copy()
