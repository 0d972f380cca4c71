"""What tests are made of: events, drafts, records, batches, each with one call."""

from __future__ import annotations

import gzip
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from audit import ingest, log
from audit.format.chain import genesis_link, leaf_hash, next_link
from audit.format.frames import Frame, Row, split, text_of
from audit.format.keys import HmacKey
from audit.format.manifest import Manifest
from audit.format.merkle import Frontier, subtrees
from audit.format.names import Kind, ObjectName
from audit.format.signing import Keyring
from audit.models import ArchiveBatch

ORIGIN = "dezky-test"
OCCURRED_AT = "2026-01-02T03:04:05.678Z"
numbers = itertools.count(1)


def generic_event(**members: Any) -> dict[str, Any]:
    """Return an event as a source sends it; None leaves a member out."""
    event = {"occurred_at": OCCURRED_AT, "action": "tested", **members}
    return {name: value for name, value in event.items() if value is not None}


def draft(source: str = "platform", **members: Any) -> log.Draft:
    """Return the draft of an event, with an external id of its own unless one is given."""
    event = generic_event(**{"external_id": f"event-{next(numbers)}", **members})
    return ingest.draft(ingest.generic_event(source, event), "test")


def drafts(count: int, **members: Any) -> list[log.Draft]:
    """Return this many drafts."""
    return [draft(**members) for _ in range(count)]


def key(name: str = "a") -> HmacKey:
    """Return the signing key of this name."""
    secret = sha256(name.encode()).digest()
    return HmacKey(f"k-{sha256(secret).hexdigest()[:8]}", secret)


def keyring(*names: str, others: str = "") -> Keyring:
    """Return a keyring whose keys of these names sign; those of `others` only verify."""
    return Keyring([key(name) for name in names or ("a",)], [key(name) for name in others])


def record(seq: int) -> bytes:
    """Return something that has the form of a record as far as the format cares."""
    return b'{"recorded_at":"%s","seq":%d}' % (recorded_at(seq).encode(), seq)


def recorded_at(seq: int) -> str:
    """Return a time that rises with seq."""
    return f"2026-01-02T03:{seq // 60 % 60:02d}:{seq % 60:02d}.000Z"


def chained(records: list[bytes], first: int = 1, link: bytes | None = None) -> list[Row]:
    """Return rows (seq, record, link) of records that follow one another."""
    link = genesis_link(ORIGIN) if link is None else link
    rows = []
    for seq, item in enumerate(records, first):
        link = next_link(link, leaf_hash(item))
        rows.append((seq, item, link))
    return rows


@dataclass(frozen=True)
class Batch:
    """A batch of a log: its object's bytes, its manifest, and the log before it."""

    data: bytes
    manifest: Manifest
    before: Frontier
    rows: list[Row]


def batch(count: int = 3, *, after: int = 0, **members: Any) -> Batch:
    """Return the batch of `count` events that follows `after` earlier ones.

    `members` take the place of the manifest's own.
    """
    rows = chained([record(seq) for seq in range(1, after + count + 1)])
    leaves = [leaf_hash(row[1]) for row in rows]
    before = Frontier().extend(after, subtrees(0, leaves[:after]))
    start_link = rows[after - 1][2] if after else genesis_link(ORIGIN)
    data, frames, size = b"", [], 0
    for part in split(rows[after:]):
        text = text_of(row[1] for row in part)
        member = gzip.compress(text, 6, mtime=0)
        first = part[0][0]
        frames.append(
            Frame(
                offset=len(data),
                length=len(member),
                first_seq=first,
                count=len(part),
                end_link=part[-1][2],
                subtrees=tuple(subtrees(first - 1, leaves[first - 1 : part[-1][0]])),
                first_recorded_at=recorded_at(first),
            )
        )
        data += member
        size += len(text)
    digest = sha256(data).hexdigest()
    values: dict[str, Any] = {
        "origin": ORIGIN,
        "bucket": "dezky-audit",
        "key": ObjectName.of(Kind.JSONL, after + 1, after + count, digest).key("audit/v1"),
        "created_at": "2026-01-02T04:00:00.000Z",
        "start_seq": after + 1,
        "end_seq": after + count,
        "start_link": start_link,
        "end_link": rows[-1][2],
        "root": before.extend(count, subtrees(after, leaves[after:])).root(),
        "first_recorded_at": recorded_at(after + 1),
        "last_recorded_at": recorded_at(after + count),
        "sha256": digest,
        "bytes_compressed": len(data),
        "bytes_uncompressed": size,
        "frames": tuple(frames),
        "previous_manifest_sha256": sha256(b"previous").hexdigest() if after else None,
        "signed_by": tuple(keyring().signed_by),
    }
    return Batch(data, Manifest(**{**values, **members}), before, rows[after:])


def ledger_row(
    start_seq: int, end_seq: int, state: str = "stored", **members: Any
) -> ArchiveBatch:
    """Return a saved row of the ledger that is complete for its state."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {"planned_at": now, "start_link": "00" * 32}
    if state != "planned":
        values |= {
            "archived_at": now,
            "bucket": "dezky-audit",
            "end_link": "01" * 32,
            "jsonl_key": "audit/v1/x.jsonl.gz",
            "jsonl_sha256": "02" * 32,
            "manifest_key": "audit/v1/x.manifest.json",
            "manifest_sha256": "03" * 32,
            "root": "04" * 32,
        }
    if state == "purged":
        values["purged_at"] = now
    return ArchiveBatch.objects.create(
        start_seq=start_seq,
        end_seq=end_seq,
        state=state,
        **{"event_count": end_seq - start_seq + 1, **values, **members},
    )
