"""Made-up generic events, as `ingest_events` takes them: one JSON line each, without its newline.

Standard library alone, and never a list of them all: whoever makes a file stays small.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

TENANTS = [f"tenant-{number:02d}" for number in range(40)]
PEOPLE_A_TENANT = 60
FILES = ["budget.ods", "minutes.md", "contract.pdf", "roadmap.odp", "photo.jpg", "invoices.zip"]
ACTIONS = ["login", "logout", "file_read", "file_create", "file_shared", "message_sent"]
AGENTS = ["Firefox/140.0 (Linux)", "Thunderbird/140.1", "rclone/1.70", "ownCloud-Android/4.5"]
FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def lines(count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` lines; each has an external id, so no two are the same event."""
    chance = random.Random(seed)  # noqa: S311  # made-up events need no secrecy
    moment = FIRST
    for _ in range(count):
        moment += timedelta(milliseconds=chance.randrange(1, 2000))
        tenant = chance.choice(TENANTS)
        person = f"person-{chance.randrange(PEOPLE_A_TENANT):02d}"
        file = chance.choice(FILES)
        event = {
            "occurred_at": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
            "external_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "tenant": tenant,
            "actor": {
                "id": f"{tenant}/{person}",
                "ip": f"192.0.2.{chance.randrange(1, 255)}",  # RFC 5737: for documentation only
                "name": f"{person}@{tenant}.example",
            },
            "action": chance.choice(ACTIONS),
            "target": {"id": f"{chance.getrandbits(32):08x}", "name": file, "type": "file"},
            "outcome": "success" if chance.random() < 0.9 else "failure",
            "data": {
                "agent": chance.choice(AGENTS),
                "bytes": chance.randrange(10_000_000),
                "request": f"{chance.getrandbits(128):032x}",
            },
        }
        yield json.dumps(event, separators=(",", ":")).encode()


def write_file(path: Path, count: int, seed: int) -> None:
    """Write a file of `count` lines."""
    with path.open("wb") as file:
        for line in lines(count, seed):
            file.write(line + b"\n")
