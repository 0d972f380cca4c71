"""An independent reader of the log: the standard library, and nothing of this project.

Written from docs/formats.md. It shares no code with what it checks: where the two disagree,
one of them is wrong.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

NAME = re.compile(r"(\d{20})-(\d{20})-([0-9a-f]{16})\.(jsonl\.gz|manifest\.json)")


class WrongError(Exception):
    """The log is not what its documents say."""


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def need(truth: object, text: str) -> None:
    if not truth:
        raise WrongError(text)


def tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word and recursive: slow, and obviously right."""
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha(b"\x01", tree_hash(leaves[:k]), tree_hash(leaves[k:]))


@dataclass
class Log:
    """What was read so far: every record in order, the newest link, all leaves."""

    link: bytes
    records: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)

    def add(self, record: bytes) -> None:
        document = json.loads(record)
        need(document["seq"] == len(self.records) + 1, f"seq {document['seq']} is out of place")
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        need(canonical.encode() == record, f"record {document['seq']} is not canonical")
        leaf = sha(b"\x00", record)
        self.link = sha(b"\x02", self.link, leaf)
        self.leaves.append(leaf)
        self.records.append(record)


@dataclass
class Cold:
    """The log as far as it is in the bucket."""

    log: Log
    batches: list[tuple[int, int]]


def read_cold(objects: Mapping[str, bytes], prefix: str, key: bytes, origin: str) -> Cold:
    """Recompute everything that the bucket's objects claim, from the first event on."""
    log = Log(sha(b"dezky-audit/v1\n", origin.encode()))
    manifests = sorted(name for name in objects if name.endswith(".manifest.json"))
    batches = []
    previous = None
    for name in manifests:
        need(name.startswith(prefix + "/"), f"{name} is not under the prefix")
        match = NAME.fullmatch(name.removeprefix(prefix + "/"))
        assert match is not None, name
        data = objects[name]
        digest = hashlib.sha256(data).hexdigest()
        need(digest.startswith(match[3]), f"{name} does not match its digest")
        document = json.loads(data)
        inner = document["manifest"]
        body = json.dumps(inner, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        check_signature(document, body.encode(), key)
        need((inner["start_seq"], inner["end_seq"]) == (int(match[1]), int(match[2])), name)
        need(inner["origin"] == origin, "origin")
        need(inner["format"] == "dezky-audit-manifest/v1", "format")
        need(inner["start_seq"] == len(log.records) + 1, f"{name} leaves a gap or overlaps")
        need(inner["start_link"] == log.link.hex(), "start_link")
        need(inner["previous_manifest_sha256"] == previous, "previous manifest")
        read_object(objects[inner["key"]], inner, log)
        need(inner["end_link"] == log.link.hex(), "end_link")
        need(inner["root"] == tree_hash(log.leaves).hex(), "root")
        need(inner["end_seq"] == len(log.records), "end_seq")
        need(inner["event_count"] == inner["end_seq"] - inner["start_seq"] + 1, "event_count")
        previous = digest
        batches.append((inner["start_seq"], inner["end_seq"]))
    return Cold(log, batches)


def check_signature(document: dict[str, object], body: bytes, key: bytes) -> None:
    key_id = "k-" + hashlib.sha256(key).hexdigest()[:8]
    inner, signatures = document["manifest"], document["signatures"]
    assert isinstance(inner, dict)
    assert isinstance(signatures, list)
    need(inner["signed_by"] == [f"hmac-sha256:{key_id}"], "signed_by")
    need(len(signatures) == 1, "number of signatures")
    need(signatures[0]["key_id"] == key_id, "key id")
    need(signatures[0]["algorithm"] == "hmac-sha256", "algorithm")
    expected = hmac.new(key, b"dezky-audit/manifest/v1\n" + body, hashlib.sha256).digest()
    need(base64.b64decode(signatures[0]["signature"]) == expected, "signature")


def read_object(data: bytes, inner: dict[str, object], log: Log) -> None:
    need(hashlib.sha256(data).hexdigest() == inner["sha256"], "the object's digest")
    need(len(data) == inner["bytes_compressed"], "the object's length")
    frames = inner["frames"]
    assert isinstance(frames, list)
    at = size = 0
    for number, frame in enumerate(frames):
        need(frame["offset"] == at, "a frame's offset")
        need(frame["first_seq"] == len(log.records) + 1, "a frame's first seq")
        inflater = zlib.decompressobj(31)
        text = inflater.decompress(data[at : at + frame["length"]])
        need(inflater.eof and not inflater.unused_data, "a frame's end")
        lines = text.split(b"\n")
        need(lines.pop() == b"", "a frame's last newline")
        need(len(lines) == frame["count"] <= 1024, "a frame's count")
        need(len(text) <= 4_194_304, "a frame's size")
        before = len(log.leaves)
        for line in lines:
            log.add(line)
        need(frame["end_link"] == log.link.hex(), "a frame's link")
        need(frame["subtrees"] == cover(log.leaves, before), "a frame's subtrees")
        first = json.loads(lines[0])
        need(frame["first_recorded_at"] == first["recorded_at"], "a frame's time")
        last_frame = number == len(frames) - 1
        need(last_frame or len(log.records) % 1024 == 0 or size_forced(text), "a frame's cut")
        at += frame["length"]
        size += len(text)
    need(at == len(data), "what follows the last frame")
    need(size == inner["bytes_uncompressed"], "the size in the manifest")


def size_forced(text: bytes) -> bool:
    """Say whether a frame may have ended because the next record would not have fitted."""
    return len(text) > 4_194_304 - 262_145


def cover(leaves: list[bytes], first: int) -> list[str]:
    """Hash the largest aligned perfect subtrees over leaves[first:], left to right."""
    found = []
    while first < len(leaves):
        size = 1
        while first % (size * 2) == 0 and first + size * 2 <= len(leaves):
            size *= 2
        found.append(tree_hash(leaves[first : first + size]).hex())
        first += size
    return found


def read_hot(database: Path) -> tuple[int, int, list[tuple[int, bytes, str]]]:
    """Return head, floor, and the (seq, record, link) of every row, straight from the file."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        head, floor = connection.execute(
            "SELECT head_seq, floor_seq FROM audit_logstate"
        ).fetchone() or (0, 0)
        rows = connection.execute("SELECT seq, record, link FROM audit_auditevent ORDER BY seq")
        result = [(seq, bytes(record), link) for seq, record, link in rows]
    connection.close()
    return head, floor, result


def read_all(
    objects: Mapping[str, bytes], prefix: str, key: bytes, origin: str, database: Path
) -> Log:
    """Read cold, then hot: every seq exactly once, every link recomputed, up to the head."""
    cold = read_cold(objects, prefix, key, origin)
    head, floor, rows = read_hot(database)
    log = cold.log
    need(floor <= len(log.records), "the floor is above what is in cold")
    for seq, record, link in rows:
        if seq <= floor:
            continue  # residue of a purge, no part of the log
        if seq <= len(log.records):
            need(log.records[seq - 1] == record, f"seq {seq} differs between the tiers")
            continue
        log.add(record)
        need(log.link.hex() == link, f"the link of seq {seq}")
    need(len(log.records) == head, f"the log ends at {len(log.records)}, the head is {head}")
    return log
