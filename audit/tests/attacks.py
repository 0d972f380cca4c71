"""What somebody with access to a database or a bucket can do to a log, and a log to do it to.

A `Scene` is a copy of one archived log: the database's file is its own, the objects are those of
the session's site and are put back when the test is over. It is verified in this process.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections
from django.test import override_settings

from audit import log, verify
from audit.format.chain import leaf_hash, next_link
from audit.format.checkpoint import Checkpoint
from audit.format.manifest import Manifest
from audit.format.names import CheckpointName, Kind, ObjectName
from audit.format.signing import Keyring
from audit.verify import Asked, Verified

from .factories import generic_event
from .simulator import Site, Template
from .starter import Starter

BATCH = 20
COLD = 3 * BATCH
BUSY_SECONDS = 2
HMAC, ED25519, ENDED, STRANGER = (
    base64.b64encode(sha256(name).digest()).decode() for name in (b"1", b"2", b"3", b"4")
)
ONE, TWO = f"hmac-sha256:k-one:{HMAC}", f"ed25519:e-two:{ED25519}"
OLD = f"hmac-sha256:k-old:{ENDED}:until=2026-01-01"
NEWER = f"hmac-sha256:k-newer:{base64.b64encode(sha256(b'5').digest()).decode()}"
UNKNOWN = f"hmac-sha256:k-stranger:{STRANGER}"
KEYS = f"{ONE},+{TWO},{NEWER},{OLD}"
COLUMNS = (
    "recorded_at occurred_at source tenant actor actor_id action target outcome external_id"
).split()


def lines(name: str, count: int) -> bytes:
    """Return events as `ingest_events` takes them."""
    events = [
        generic_event(
            external_id=f"{name}-{number}",
            tenant="alfa",
            actor={"id": f"u-{number}", "name": f"User {number}"},
            target={"id": f"t-{number}", "name": f"File {number}", "type": "file"},
        )
        for number in range(count)
    ]
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


class Archived:
    """A log of which 60 events are in cold, in three batches; copies of its database from before.

    Cold ends at seq 60. Two own events of the run follow, then 25 more, which the last checkpoint
    covers, and 5 that none does.
    """

    def __init__(self, site: Site) -> None:
        """Make it."""
        self.site = site
        self.old: dict[str, Path] = {}
        site.start_empty(
            AUDIT_HOT_RETENTION_DAYS="0",
            AUDIT_BATCH_MAX_EVENTS=str(BATCH),
            AUDIT_SIGNING_KEY="",
            AUDIT_SIGNING_KEYS=KEYS,
        )
        self.ingest("cold", COLD)
        self.keep("unarchived")
        answer = site.archive()
        assert answer["outcome"] == "archived", answer
        self.keep("archived")
        self.ingest("signed", 25)
        assert site.manage("checkpoint_now").returncode == 0
        self.keep("signed")
        self.ingest("unsigned", 5)
        self.keep("now")
        self.objects = {**site.objects(), **site.checkpoints()}

    def ingest(self, name: str, count: int) -> None:
        done = self.site.manage("ingest_events", "-", data=lines(name, count))
        assert done.returncode == 0, done.stderr

    def keep(self, name: str) -> None:
        """Keep a copy of the database as it is."""
        self.old[name] = self.site.folder / f"{name}.sqlite3"
        with self.site.sql() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(self.site.database, self.old[name])


class Scene:
    """One log to attack."""

    def __init__(self, folder: Path, archived: Archived, blocker: Any) -> None:
        self.archived, self._blocker = archived, blocker
        self.prefix = archived.site.prefix
        self.database = folder / "scene.sqlite3"
        self.keys = KEYS
        self.settings: dict[str, Any] = {}
        self.endpoint = self.bucket = ""
        self._touched: set[str] = set()
        self.restore("now")

    def restore(self, name: str) -> None:
        """Put a copy from before in the place of the database."""
        for end in ("-wal", "-shm"):
            Path(f"{self.database}{end}").unlink(missing_ok=True)
        shutil.copy(self.archived.old[name], self.database)

    # The database ----------------------------------------------------------------------------

    @contextmanager
    def sql(self) -> Iterator[sqlite3.Connection]:
        """Open the database behind the software's back."""
        connection = sqlite3.connect(self.database)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def run(self, *statements: str) -> None:
        """Carry out statements."""
        with self.sql() as connection:
            for statement in statements:
                connection.execute(statement)

    def one(self, query: str, *values: Any) -> Any:
        """Return the first value of a query's first row."""
        with self.sql() as connection:
            return connection.execute(query, values).fetchone()[0]

    @property
    def head(self) -> int:
        """Return the head."""
        return int(self.one("SELECT head_seq FROM audit_logstate"))

    @property
    def signed(self) -> int:
        """Return the seq of the newest checkpoint."""
        return int(self.one("SELECT max(seq) FROM audit_checkpoint"))

    def edit(self, seq: int, **changes: Any) -> None:
        """Change a record and the columns that say the same, not its link."""
        record = json.loads(self.one("SELECT record FROM audit_auditevent WHERE seq = ?", seq))
        record |= changes
        data = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        columns = {name: value for name, value in changes.items() if name in COLUMNS}
        for name in ("recorded_at", "occurred_at"):
            if name in columns:
                columns[name] = columns[name].replace("T", " ").replace("Z", "000")
        names = "".join(f", {name} = ?" for name in columns)
        with self.sql() as connection:
            connection.execute(
                f"UPDATE audit_auditevent SET record = ?{names} WHERE seq = ?",  # noqa: S608  # our own names
                [data.encode(), *columns.values(), seq],
            )

    def rechain(self, first: int, last: int | None = None) -> None:
        """Recompute the links from a seq on, up to one or to the head and in the state, too."""
        with self.sql() as connection:
            found = connection.execute(
                "SELECT link FROM audit_auditevent WHERE seq = ? UNION ALL "
                "SELECT floor_link FROM audit_logstate WHERE floor_seq = ?",
                [first - 1, first - 1],
            ).fetchone()
            link = bytes.fromhex(found[0])
            rows = connection.execute(
                "SELECT seq, record FROM audit_auditevent WHERE seq >= ? AND seq <= ? "
                "ORDER BY seq",
                [first, last or 10**9],
            ).fetchall()
            for seq, record in rows:
                link = next_link(link, leaf_hash(record))
                connection.execute(
                    "UPDATE audit_auditevent SET link = ? WHERE seq = ?", [link.hex(), seq]
                )
            if last is None:
                connection.execute(
                    "UPDATE audit_logstate SET head_seq = ?, head_link = ?, head_recorded_at = "
                    "(SELECT recorded_at FROM audit_auditevent WHERE seq = ?)",
                    [seq, link.hex(), seq],
                )

    # The bucket ------------------------------------------------------------------------------

    @property
    def _bucket(self) -> Any:
        return self.archived.site.bucket

    def key(self, start: int, kind: Kind = Kind.JSONL) -> str:
        """Return the key of a batch's object."""
        return next(
            key
            for key in self.archived.objects
            if f"/{start:020d}-" in key and key.endswith(kind.value)
        )

    def point_key(self, index: int) -> str:
        """Return the key of a checkpoint's object."""
        return next(key for key in self.archived.objects if f"/checkpoints/{index:012d}-" in key)

    def get(self, key: str) -> bytes:
        """Return an object as the archive left it."""
        return self.archived.objects[key]

    def put(self, key: str, data: bytes) -> None:
        """Put an object in the place of another one, or where there is none."""
        self._touched.add(key)
        self._bucket.Object(key).put(Body=data)

    def remove(self, *keys: str) -> None:
        """Remove objects."""
        for key in keys:
            self._touched.add(key)
            self._bucket.Object(key).delete()

    def tidy(self) -> None:
        """Put back what was touched."""
        for key in self._touched:
            if key in self.archived.objects:
                self._bucket.Object(key).put(Body=self.archived.objects[key])
            else:
                self._bucket.Object(key).delete()

    def manifest(self, start: int) -> Manifest:
        """Return a batch's manifest."""
        return Manifest.from_bytes(self.get(self.key(start, Kind.MANIFEST)), self.keyring())

    def keyring(self, keys: str = KEYS) -> Keyring:
        """Return a keyring."""
        return Keyring.of("", keys)

    def put_manifest(self, data: bytes, start: int, *, in_place: bool = False) -> str:
        """Put a manifest in the place of a batch's own, under the name of its digest or not."""
        own = self.key(start, Kind.MANIFEST)
        key = own
        if not in_place:
            self.remove(own)
            end = start + BATCH - 1
            name = ObjectName.of(Kind.MANIFEST, start, end, sha256(data).hexdigest())
            key = name.key(self.prefix)
        self.put(key, data)
        return key

    def sign(self, keys: str, start: int, **changes: Any) -> bytes:
        """Return a batch's manifest, signed again by other keys, with changes."""
        keyring = self.keyring(keys)
        manifest = replace(self.manifest(start), signed_by=tuple(keyring.signed_by), **changes)
        return manifest.to_bytes(keyring)

    def checkpoint(self, index: int) -> Checkpoint:
        """Return a checkpoint."""
        return Checkpoint.from_bytes(self.get(self.point_key(index)), self.keyring())

    def add_checkpoint(
        self, after: int, *, row: bool = True, obj: bool = True, **changes: Any
    ) -> str:
        """Sign one that follows another, with changes; returns its name."""
        before = self.checkpoint(after)
        values = {
            "index": after + 1,
            "previous_sha256": sha256(self.get(self.point_key(after))).hexdigest(),
            **changes,
        }
        point = replace(before, **values)
        data = point.to_bytes(self.keyring(f"{ONE},+{TWO}"))
        digest = sha256(data).hexdigest()
        name = CheckpointName.of(point.index, point.seq, digest)
        if obj:
            self.put(name.key(self.prefix), data)
        if row:
            with self.sql() as connection:
                connection.execute(
                    'INSERT INTO audit_checkpoint ("index", seq, link, root, at, sha256, '
                    "document, frontier, state, published_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, '[]', 'published', '2026-01-01 00:00:00')",
                    [
                        *(point.index, point.seq, point.link.hex(), point.root.hex()),
                        *(point.at.replace("T", " ").replace("Z", "000"), digest, data),
                    ],
                )
        return str(name)

    # What is made of it ------------------------------------------------------------------------

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be this deployment, in this process."""
        values = {"AUDIT_SIGNING_KEY": "", "AUDIT_SIGNING_KEYS": self.keys, **self.settings}
        place = self.prefix, self.endpoint, self.bucket
        with inside(self._blocker, self.database, *place, **values):
            yield

    def manage(self, *args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        """Run a management command to its end, in a process of its own."""
        starter = self.archived.site.starter
        assert starter is not None
        return starter.manage({**self.env, **env}, *args)

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of its commands."""
        return {
            **self.archived.site.env,
            "AUDIT_SIGNING_KEYS": self.keys,
            "DATABASE_URL": f"sqlite:///{self.database}",
        }

    def dump(self) -> list[str]:
        """Return the whole database as text, less what a verification writes down of itself."""
        with self.sql() as connection:
            return [
                line
                for line in connection.iterdump()
                if "audit_verificationrun" not in line and "sqlite_sequence" not in line
            ]

    def verify(self, level: str = verify.FULL, **asked: Any) -> Verified:
        """Verify it."""
        with self.inside():
            return verify.verify(Asked("command", "test", level=level, **asked))

    def append(self, count: int = 1, **members: Any) -> list[int]:
        """Append events; returns their seqs."""
        from .factories import drafts

        with self.inside():
            return [answer.seq for answer in log.append(drafts(count), **members)]


@contextmanager
def inside(
    blocker: Any,
    database: Path,
    prefix: str,
    endpoint: str = "",
    bucket: str = "",
    **values: Any,
) -> Iterator[None]:
    """Be the deployment over a database's file and a prefix of the bucket, in this process."""
    connection = connections["default"]
    connection.close()
    config = connection.settings_dict
    before = config["NAME"], config["OPTIONS"]
    values = {"AUDIT_COLD_PREFIX": prefix, "AUDIT_BATCH_MAX_EVENTS": BATCH, **values}
    if endpoint or bucket:  # else the client stays, which takes long to make
        stores: Any = copy.deepcopy(settings.STORAGES)
        for name, option, value in (
            ("AUDIT_COLD_ENDPOINT", "endpoint_url", endpoint),
            ("AUDIT_COLD_BUCKET", "bucket_name", bucket),
        ):
            if value:
                stores["cold"]["OPTIONS"][option] = values[name] = value
        values["STORAGES"] = stores
    config["NAME"] = str(database)
    config["OPTIONS"] = {**before[1], "timeout": BUSY_SECONDS}
    try:
        with blocker.unblock(), override_settings(**values):
            yield
    finally:
        connection.close()
        config["NAME"], config["OPTIONS"] = before


@contextmanager
def archived_site(folder: Path, template: Template, start: Starter) -> Iterator[Archived]:
    """Make the archived log that scenes are copies of."""
    with Site(folder, template, start) as site:
        yield Archived(site)


def assert_readable(found: Verified) -> None:
    """See that each problem says what, where, and what to do, and can be read aloud."""
    for problem in found.report.problems:
        text = problem.message
        # What an object is said of stands before it.
        assert text[0].isupper() or text[0].isdigit() or problem.object, text
        assert text.endswith("."), text
        assert text.count(". ") >= 1 or ": " in text or "; " in text, text  # what, and what to do
        assert not re.search(r"\.\.|::|: :|\.:|\.;|,\.|\s\s|\n|None|Error|Traceback", text), text


def assert_found(
    found: Verified, outcome: str, seq: int | None, words: str = "", where: str | None = None
) -> None:
    """See that a problem of this kind has this place."""
    problems = found.report.problems
    said = "\n".join(map(str, problems))
    assert found.report.outcome == outcome, said
    assert any(
        problem.kind == outcome
        and (seq is None or problem.seq == seq)
        and words in problem.message
        and (where is None or where in (problem.object or ""))
        for problem in problems
    ), said
    assert_readable(found)
