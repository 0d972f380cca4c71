"""Write a signed log into a folder, as a copy of a bucket has it: by the format alone, no service.

Arguments: the folder, how many events, how many in a batch. The key is written beside the folder.
Prints the bytes of all records and of all objects.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from isal import igzip

from audit.format import frames
from audit.format.chain import genesis_link, leaf_hash, next_link
from audit.format.checkpoint import Checkpoint
from audit.format.frames import Frame, Row
from audit.format.keys import HmacKey
from audit.format.manifest import Manifest
from audit.format.merkle import Frontier, subtrees
from audit.format.names import CHECKPOINTS, CheckpointName, Kind, ObjectName
from audit.format.record import format_time
from audit.format.signing import Keyring
from benchmarks.children.report import say
from benchmarks.lines import lines

ORIGIN, PREFIX, BUCKET, SEED = "dezky-bench", "audit/v1", "dezky-audit", 1
GZIP_LEVEL = 2  # the archive's
DIFFERENT = 20_480  # events that differ in more than seq and time: far more than gzip looks back
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
BETWEEN = timedelta(milliseconds=173)
POINT_EVERY = 20_000  # events; about an hour of them


def records(count: int) -> Iterator[bytes]:
    """Yield canonical records of about 530 bytes."""
    parts = []
    for line in lines(min(count, DIFFERENT), SEED):
        event = json.loads(line)
        head = {name: event[name] for name in event if name < "recorded_at"}
        head["id"] = "019b8d62-834a-7011-9213-141516171819"
        tail = {"source": "platform", "target": event["target"], "tenant": event["tenant"], "v": 1}
        parts.append((_canonical(head)[:-1], _canonical(tail)[1:]))
    for number in range(count):
        head_bytes, tail_bytes = parts[number % len(parts)]
        time = format_time(FIRST + number * BETWEEN).encode()
        middle = b',"recorded_at":"%s","seq":%d,' % (time, number + 1)
        yield head_bytes + middle + tail_bytes


def _canonical(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


class Log:
    """The log while it is written."""

    def __init__(self, folder: Path, keyring: Keyring) -> None:
        """Begin it."""
        self.folder = folder
        self.keyring = keyring
        self.link = genesis_link(ORIGIN)
        self.tree = Frontier()
        self.previous: str | None = None
        self.previous_point: str | None = None
        self.points = 0
        self.bytes_uncompressed = self.bytes_compressed = 0

    def batch(self, rows: list[Row]) -> None:
        """Write a batch: its object and its manifest."""
        data, found, size = bytearray(), [], 0
        start_link = self.link
        for part in frames.split(rows):
            text = frames.text_of(row[1] for row in part)
            member = igzip.compress(text, GZIP_LEVEL, mtime=0)
            first = part[0][0]
            leaves = [leaf_hash(row[1]) for row in part]
            frame = Frame(
                offset=len(data),
                length=len(member),
                first_seq=first,
                count=len(part),
                end_link=part[-1][2],
                subtrees=tuple(subtrees(first - 1, leaves)),
                first_recorded_at=_time(part[0]),
            )
            self.tree = self.tree.extend(frame.count, frame.subtrees)
            found.append(frame)
            data += member
            size += len(text)
        digest = sha256(data).hexdigest()
        first, last = rows[0][0], rows[-1][0]
        name = ObjectName.of(Kind.JSONL, first, last, digest)
        manifest = Manifest(
            origin=ORIGIN,
            bucket=BUCKET,
            key=name.key(PREFIX),
            created_at=_time(rows[-1]),
            start_seq=first,
            end_seq=last,
            start_link=start_link,
            end_link=rows[-1][2],
            root=self.tree.root(),
            first_recorded_at=_time(rows[0]),
            last_recorded_at=_time(rows[-1]),
            sha256=digest,
            bytes_compressed=len(data),
            bytes_uncompressed=size,
            frames=tuple(found),
            previous_manifest_sha256=self.previous,
            signed_by=tuple(self.keyring.signed_by),
        ).to_bytes(self.keyring)
        self.previous = sha256(manifest).hexdigest()
        (self.folder / str(name)).write_bytes(data)
        manifest_name = ObjectName.of(Kind.MANIFEST, first, last, self.previous)
        (self.folder / str(manifest_name)).write_bytes(manifest)
        self.link = rows[-1][2]
        self.bytes_uncompressed += size
        self.bytes_compressed += len(data)

    def point(self, row: Row, tree: Frontier) -> None:
        """Write a checkpoint."""
        self.points += 1
        data = Checkpoint(
            origin=ORIGIN,
            index=self.points,
            seq=row[0],
            link=row[2],
            root=tree.root(),
            at=_time(row),
            previous_sha256=self.previous_point,
            signed_by=tuple(self.keyring.signed_by),
        ).to_bytes(self.keyring)
        self.previous_point = sha256(data).hexdigest()
        name = CheckpointName.of(self.points, row[0], self.previous_point)
        (self.folder / CHECKPOINTS / str(name)).write_bytes(data)


def _time(row: Row) -> str:
    return str(frames.place_and_time(row[1])[1])


def write(folder: Path, count: int, batch_events: int) -> None:
    """Write the whole log."""
    (folder / CHECKPOINTS).mkdir(parents=True)
    key = HmacKey("k-bench", secrets.token_bytes(32))
    text = f"{key.algorithm}:{key.key_id}:{base64.b64encode(key.secret).decode()}\n"
    folder.with_suffix(".keys").write_text(text)
    log = Log(folder, Keyring([key]))
    rows: list[Row] = []
    link, tree, leaves = log.link, Frontier(), []
    for seq, record in enumerate(records(count), 1):
        leaf = leaf_hash(record)
        link = next_link(link, leaf)
        rows.append((seq, record, link))
        leaves.append(leaf)
        if seq % POINT_EVERY == 0 or seq == count:
            tree = tree.extend(len(leaves), subtrees(tree.size, leaves))
            leaves = []
            log.point(rows[-1], tree)
        if len(rows) == batch_events or seq == count:
            log.batch(rows)
            rows = []
    say(bytes_uncompressed=log.bytes_uncompressed, bytes_compressed=log.bytes_compressed)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
