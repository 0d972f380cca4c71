"""A small driver of the real thing: real processes over real files and a real S3 server.

A `Site` is one deployment. Its processes are the commands that an operator types, and
`audit.tests.driver`, which runs our own use cases and stops where a test wants to kill them.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config

from . import reader
from .starter import Started, Starter

ROOT = Path(__file__).parents[2]
PATIENCE = 60
EVENTS = 2_600
BATCH_EVENTS = 1_100  # more than a frame, and than a chunk of a purge by the driver; two are due
SMALL_EVENTS = 240
SMALL_BATCH_EVENTS = 70  # two are due


@dataclass(frozen=True)
class Template:
    """A migrated database with `EVENTS` events over 180 days, and an empty one.

    The full one has a checkpoint of its head, which waits to be published.
    """

    full: Path
    empty: Path
    records: list[bytes]

    @classmethod
    def make(cls, folder: Path, count: int = EVENTS) -> Template:
        """Make both once."""
        full, empty = folder / "full.sqlite3", folder / "empty.sqlite3"
        _manage({"DATABASE_URL": f"sqlite:///{empty}"}, "migrate", "-v0")
        shutil.copy(empty, full)
        url = {"DATABASE_URL": f"sqlite:///{full}"}
        _manage(url, "demo_events", f"--count={count}", "--days=180")
        _manage({**url, "AUDIT_COLD_PREFIX": f"template/{uuid.uuid4()}"}, "checkpoint_now")
        with closing(sqlite3.connect(full)) as connection, connection:
            connection.execute(
                "UPDATE audit_checkpoint SET state = 'pending', published_at = NULL"
            )
        _, _, rows = reader.read_hot(full)
        return cls(full, empty, [record for _, record, _ in rows])


def _manage(env: dict[str, str], *args: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *args],
        cwd=ROOT,
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )


class Site:
    """One deployment: a database file, a prefix in the bucket, an environment."""

    def __init__(self, folder: Path, template: Template, starter: Starter | None = None) -> None:
        self.starter = starter
        self.folder = folder
        self.template = template
        self.database = self.hot_database = folder / "site.sqlite3"
        self.prefix = f"site/{uuid.uuid4()}"
        self.endpoint = ""  # where the tests find the bucket; by default, where the site does
        self.env = {
            **os.environ,
            "DATABASE_URL": f"sqlite:///{self.database}",
            "AUDIT_COLD_PREFIX": self.prefix,
            "AUDIT_BATCH_MAX_EVENTS": str(BATCH_EVENTS),
            "REDIS_URL": "redis://127.0.0.1:9/0",  # nobody there, until a test has a broker
        }
        self._processes: list[Process] = []
        shutil.copy(template.full, self.database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()

    # Processes -------------------------------------------------------------------------------

    def manage(self, *args: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a management command to its end."""
        if self.starter:
            return self.starter.manage(self.env, *args, data=data or b"")
        return subprocess.run(
            [sys.executable, "manage.py", *args],
            cwd=ROOT,
            env=self.env,
            input=data,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def start(self, *args: str) -> Process:
        """Start a management command."""
        process = Process(["manage.py", *args], self.env, self.starter)
        self._processes.append(process)
        return process

    def wait_until(self, query: str) -> None:
        """Wait until a query's first value is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.rows(query)[0][0]:
            assert time.monotonic() < deadline, query
            time.sleep(0.001)

    def archive(self, *args: str) -> dict[str, Any]:
        """Run `archive_now --json`; return its answer with the exit code under `exit`."""
        done = self.manage("archive_now", "--json", *args)
        assert done.stdout, done.stderr.decode()
        answer: dict[str, Any] = json.loads(done.stdout)
        return {**answer, "exit": done.returncode}

    def ingest(self, count: int) -> subprocess.CompletedProcess[bytes]:
        """Run `ingest_events` with so many new events."""
        file = self.folder / f"{uuid.uuid4()}.jsonl"
        event = {"occurred_at": "2026-01-01T00:00:00Z", "action": "tested"}
        lines = ({**event, "external_id": f"{file.stem}-{number}"} for number in range(count))
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return self.manage("ingest_events", str(file))

    def driver(self, *args: str) -> Process:
        """Start `audit.tests.driver`."""
        process = Process(["audit.tests.driver", *args], self.env, self.starter)
        self._processes.append(process)
        return process

    # The state of things ---------------------------------------------------------------------

    def start_empty(self, **env: str) -> None:
        """Begin with an empty log, and with further settings."""
        self._begin_with(self.template.empty, env)

    def start_full(self, **env: str) -> None:
        """Begin anew with the template's history, and with further settings."""
        self._begin_with(self.template.full, env)

    def _begin_with(self, database: Path, env: dict[str, str]) -> None:
        for end in ("-wal", "-shm"):  # a killed process leaves them, and they would be replayed
            Path(f"{self.database}{end}").unlink(missing_ok=True)
        shutil.copy(database, self.database)
        self.env.update(env)

    def split(self) -> None:
        """Keep the log in a database of its own, apart from the ledger and the checkpoints."""
        self.hot_database = self.folder / "hot.sqlite3"
        self.database.rename(self.hot_database)
        shutil.copy(self.template.empty, self.database)
        self.env["HOT_DATABASE_URL"] = f"sqlite:///{self.hot_database}"
        with self.sql() as connection:
            connection.execute(
                "INSERT INTO main.audit_checkpoint SELECT * FROM hot.audit_checkpoint"
            )

    def put_back(self, old: Path) -> None:
        """Let hot have what was purged since a copy was made of it; all else stays as it is."""
        with self.sql() as connection:
            connection.execute("ATTACH ? AS old", [str(old)])
            connection.execute(
                "INSERT INTO hot.audit_auditevent SELECT * FROM old.audit_auditevent "
                "WHERE seq <= (SELECT floor_seq FROM hot.audit_logstate) "
                "AND seq NOT IN (SELECT seq FROM hot.audit_auditevent)"
            )
            connection.execute(
                "UPDATE hot.audit_logstate SET (floor_seq, floor_link) = "
                "(SELECT floor_seq, floor_link FROM old.audit_logstate)"
            )

    def dump(self) -> list[str]:
        """Return the whole database as text."""
        with self.sql() as connection:
            return list(connection.iterdump())

    @contextmanager
    def sql(self) -> Iterator[sqlite3.Connection]:
        """Open the database behind the software's back, and commit; the log's own as `hot`."""
        connection = sqlite3.connect(self.database, timeout=PATIENCE)
        connection.execute("ATTACH ? AS hot", [str(self.hot_database)])
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Return what a query finds."""
        with self.sql() as connection:
            return connection.execute(query, values).fetchall()

    def batches(self) -> list[tuple[int, int, str]]:
        """Return (start, end, state) of every row of the ledger."""
        return self.rows(
            "SELECT start_seq, end_seq, state FROM audit_archivebatch ORDER BY start_seq"
        )

    def hot_seqs(self) -> set[int]:
        """Return every seq that has a row in hot, less the archive's own events."""
        query = "SELECT seq FROM hot.audit_auditevent WHERE source != 'dezky'"
        return {row[0] for row in self.rows(query)}

    def floor(self) -> int:
        """Return the floor."""
        return int(self.rows("SELECT floor_seq FROM hot.audit_logstate")[0][0])

    @property
    def bucket(self) -> Any:
        """Return the bucket, spoken to directly."""
        return boto3.resource(
            "s3",
            endpoint_url=self.endpoint or self.env["AUDIT_COLD_ENDPOINT"],
            region_name="us-east-1",
            aws_access_key_id=self.env["AUDIT_COLD_ACCESS_KEY"],
            aws_secret_access_key=self.env["AUDIT_COLD_SECRET_KEY"],
            config=Config(s3={"addressing_style": "path"}),
        ).Bucket(self.env["AUDIT_COLD_BUCKET"])

    def listing(self) -> dict[str, Any]:
        """Return what the bucket says of each object under the site's prefix, less checkpoints."""
        found = self.bucket.objects.filter(Prefix=f"{self.prefix}/")
        return {item.key: item for item in found if "/checkpoints/" not in item.key}

    def objects(self) -> dict[str, bytes]:
        """Return every object under the site's prefix, less checkpoints."""
        return {key: item.get()["Body"].read() for key, item in self.listing().items()}

    def checkpoints(self) -> dict[str, bytes]:
        """Return every checkpoint in the bucket."""
        found = self.bucket.objects.filter(Prefix=f"{self.prefix}/checkpoints/")
        return {item.key: item.get()["Body"].read() for item in found}

    def read_log(self) -> reader.Log:
        """Read both tiers with the independent reader; raises where anything does not hold.

        The records are those that were given; the archive's own events are left away.
        """
        log = self.read_whole_log()
        given = [record for record in log.records if json.loads(record)["source"] != "dezky"]
        return dataclasses.replace(log, records=given)

    def read_whole_log(self) -> reader.Log:
        """Read both tiers with the independent reader, the archive's own events included."""
        key = base64.b64decode(self.env["AUDIT_SIGNING_KEY"])
        origin = self.env["AUDIT_ORIGIN"]
        return reader.read_all(self.objects(), self.prefix, key, origin, self.hot_database)

    def own_events_in_hot(self) -> list[str]:
        """Return the actions of the archive's own events that hot has."""
        query = "SELECT action FROM hot.audit_auditevent WHERE source = 'dezky' ORDER BY seq"
        return [row[0] for row in self.rows(query)]

    def own_events(self) -> list[dict[str, Any]]:
        """Return the archive's own events, oldest first."""
        events = [json.loads(record) for record in self.read_whole_log().records]
        return [event for event in events if event["source"] == "dezky"]


class Process:
    """A process of the driver, which says on standard output where it is."""

    def __init__(
        self, command: list[str], env: dict[str, str], starter: Starter | None = None
    ) -> None:
        """Start `manage.py …`, or a module with its arguments."""
        self._popen: subprocess.Popen[str] | Started
        if starter:
            self._popen = starter.start(env, command)
        else:
            script = command[0].endswith(".py")
            self._popen = subprocess.Popen(
                [sys.executable, *command] if script else [sys.executable, "-m", *command],
                cwd=ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read its lines until one matches; fails the test where it ends first."""
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.lines.append(line.rstrip("\n"))
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"ended without {pattern!r}:\n" + "\n".join(self.lines))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def go_on(self) -> None:
        """Let it go on from where it paused."""
        assert self._popen.stdin is not None
        self._popen.stdin.write("go on\n")
        self._popen.stdin.flush()

    def finish(self, code: int = 0) -> list[str]:
        """Wait until it has ended with this exit code; return all that it said."""
        assert self._popen.stdout is not None
        self.lines += [line.rstrip("\n") for line in self._popen.stdout]
        ended = self._popen.wait(PATIENCE)
        assert ended == code, f"exit code {ended}:\n" + "\n".join(self.lines)
        return self.lines

    def kill(self) -> int:
        """SIGKILL it, and see that this is what it died of; return its exit status."""
        if self._popen.poll() is None:
            self._popen.kill()
        code = self._popen.wait(PATIENCE)
        for stream in (self._popen.stdin, self._popen.stdout):
            assert stream is not None
            stream.close()
        return code
