"""What torture and soak share: a site is hit while it is ingested into, until the first lie.

A lie is whatever does not hold. It is told with the seed, what came before it and where the
evidence is. What hits the site, and what must hold then, each of the two has for itself.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from . import environment
from .fault_proxy import (
    FaultProxy,
    break_off,
    refuse,
    refuse_after_storing,
    reset_within_answer,
    reset_within_request,
)
from .simulator import ROOT, Site, Template

PATIENCE = 120

FALSE_ALARM = re.compile(
    r"was changed|[Rr]estore|rolled back|differs|is missing|evidence|Traceback|Error:|no such tab"
)
FAULTS = {
    "refuse": refuse(503, "SlowDown"),
    "refuse after storing": refuse_after_storing(500, "InternalError"),
    "reset within the request": reset_within_request,
    "reset within the answer": reset_within_answer,
    "break off": break_off,
}


class LieError(Exception):
    """Something that does not hold."""


def must(truth: object, text: str) -> None:
    if not truth:
        raise LieError(text)


class Child:
    """A process whose lines are read as it says them."""

    def __init__(
        self, command: list[str], env: dict[str, str], hear: Callable[[str], None]
    ) -> None:
        self.popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.ended = False
        self._hear = hear
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            if line.endswith("\n"):  # else it was killed amid a line, which says nothing
                self._hear(line.rstrip("\n"))
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self.ended = True
            self._news.notify_all()

    def wait_until(self, true: Callable[[], bool]) -> bool:
        """Wait for a line that makes it true; return False where the process ended before."""
        with self._news:
            heard = self._news.wait_for(lambda: self.ended or true(), PATIENCE)
            must(heard, f"A process hangs after: {self.lines[-3:]}")
            return true()

    def says(self, count: int) -> bool:
        """Wait until it has said so many lines."""
        return self.wait_until(lambda: len(self.lines) >= count)

    def finish(self) -> str:
        """Wait until it has ended; return its last line."""
        self.wait_until(lambda: False)
        self.popen.wait(PATIENCE)
        return self.lines[-1] if self.lines else ""

    def kill(self) -> bool:
        """SIGKILL it; return whether that is what it died of."""
        self.popen.kill()
        killed = self.popen.wait(PATIENCE) == -signal.SIGKILL
        self._thread.join()
        return killed

    def go_on(self) -> None:
        """Let it go on from where it paused."""
        assert self.popen.stdin is not None
        self.popen.stdin.write("go on\n")
        self.popen.stdin.flush()


class Server:
    """The S3 server, which can be killed and comes back on its port."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env, self.port = folder, env, 0
        self.has_probe = False
        self.start()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.child = Child(
            [
                sys.executable,
                str(ROOT / "scripts/local_s3.py"),
                f"--dir={self.folder}",
                f"--port={self.port}",
                f"--bucket={self.env['AUDIT_COLD_BUCKET']}",
                "--with-parent",
            ],
            self.env,
            lambda line: None,
        )
        must(self.child.says(1), "The S3 server did not start.")
        ready = re.fullmatch(r"ready (http://.*:(\d+))", self.child.lines[0])
        must(ready, f"The S3 server did not start: {self.child.lines}")
        assert ready is not None
        self.endpoint, self.port = ready[1], int(ready[2])
        self.wait_for_its_data()

    def wait_for_its_data(self) -> None:
        """Wait until it gives away what it had: it answers before it has found its volumes."""
        probe, data = self.bucket.Object("probe"), b"dezky"
        if not self.has_probe:
            probe.put(Body=data)
            self.has_probe = True
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                must(probe.get()["Body"].read() == data, "The S3 server changed an object.")
                return
            except (BotoCoreError, ClientError) as error:
                must(time.monotonic() < give_up, f"The S3 server lost an object: {error}")

    def objects(self, prefix: str, known: dict[tuple[str, str], bytes]) -> dict[str, bytes]:
        """Return every object under a prefix; those whose ETag is known are not read again."""
        found = {}
        for item in self.bucket.objects.filter(Prefix=f"{prefix}/"):
            place = item.key, item.e_tag
            if place not in known:
                known[place] = item.get()["Body"].read()
            found[item.key] = known[place]
        return found

    @property
    def bucket(self) -> Any:
        """Return the bucket, spoken to directly."""
        return boto3.resource(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.env["AUDIT_COLD_ACCESS_KEY"],
            aws_secret_access_key=self.env["AUDIT_COLD_SECRET_KEY"],
            config=Config(s3={"addressing_style": "path"}),
        ).Bucket(self.env["AUDIT_COLD_BUCKET"])


class Session:
    """One session: a site of its own, those who ingest into it, and what came of it."""

    writers_wanted: int
    each: int  # events a call
    every: str  # seconds between calls
    batch_events: int
    busy_seconds: int  # for so long SQLite waits for a lock
    recent_lines: int  # of history that a lie is told with

    def __init__(
        self, folder: Path, seed: int, server: Server, proxy: FaultProxy, *, split: bool = False
    ) -> None:
        self.folder, self.seed, self.random = folder, seed, random.Random(seed)  # noqa: S311  # dice
        self.began = time.monotonic()
        self.counts: Counter[str] = Counter()  # what was done
        self.outcomes: Counter[str] = Counter()  # how things ended
        self.recent: deque[str] = deque(maxlen=self.recent_lines)
        self.history = (folder / "history.log").open("w", encoding="utf-8")
        self.acknowledged: dict[str, int] = {}
        self.lies: list[str] = []  # what the writers' listeners found
        self.lock = threading.Lock()
        self.children: list[Child] = []
        self.writers: list[Child] = []
        self.server, self.proxy = server, proxy
        (folder / "site").mkdir()
        self.site = Site(folder / "site", empty_template(folder))
        self.site.endpoint = server.endpoint
        if split:
            self.site.split()
        for name in {"DATABASE_URL", "HOT_DATABASE_URL"} & self.site.env.keys():
            self.site.env[name] += f"?timeout={self.busy_seconds}"
        self.site.env.update(
            AUDIT_HOT_RETENTION_DAYS="0",
            AUDIT_BATCH_MAX_EVENTS=str(self.batch_events),
            AUDIT_COLD_ENDPOINT=proxy.endpoint,
        )

    def start(self, *arguments: str, hear: Callable[[str], None] = lambda line: None) -> Child:
        """Start a process of the site."""
        child = Child([sys.executable, *arguments], self.site.env, hear)
        self.children = [child, *(each for each in self.children if each.popen.poll() is None)]
        return child

    def start_writers(self) -> None:
        """Start all that ingest."""
        self.writers = [self.new_writer() for _ in range(self.writers_wanted)]

    def new_writer(self) -> Child:
        """Start a process that ingests for ever."""
        self.counts["writers"] += 1
        return self.start(
            *("-m", "audit.tests.driver", "append", f"--name=w{self.counts['writers']}"),
            *("--calls=0", f"--each={self.each}", f"--every={self.every}"),
            hear=self.hear_writer,
        )

    def hear_writer(self, line: str) -> None:
        """Take down what a writer was told."""
        with self.lock:
            if match := re.fullmatch(r"acknowledged (\d+) (\S+)", line):
                if match[2] in self.acknowledged:
                    self.lies.append(f"{match[2]} was acknowledged twice")
                self.acknowledged[match[2]] = int(match[1])
            elif line.startswith("busy "):
                self.outcomes["writer busy"] += 1
            else:
                self.lies.append(f"A writer said: {line}")

    def replace_writer(self) -> None:
        """Kill a writer, and start another."""
        number = self.random.randrange(self.writers_wanted)
        must(self.writers[number].kill(), f"A writer died: {self.writers[number].lines[-20:]}")
        self.did("kills", "killed a writer")
        self.writers[number] = self.new_writer()

    def end_writers(self) -> None:
        """Kill all that ingest."""
        while self.writers:
            self.writers.pop().kill()

    def check_writers(self) -> None:
        """See that all that ingest live, and have heard no lie."""
        with self.lock:
            must(not self.lies, "; ".join(self.lies[:3]))
        for writer in self.writers:
            must(writer.popen.poll() is None, f"A writer died: {writer.lines[-20:]}")
            del writer.lines[:-20]

    @property
    def seconds(self) -> float:
        """For how long it has gone on."""
        return time.monotonic() - self.began

    def did(self, what: str, text: str) -> None:
        """Count and keep what was done."""
        self.counts[what] += 1
        self.note(text)

    def note(self, text: str) -> None:
        """Keep what happened."""
        line = f"{self.seconds:8.3f} {text}"
        self.recent.append(line)
        self.history.write(line + "\n")
        self.history.flush()

    def close(self) -> None:
        """End every process."""
        for child in self.children:
            child.kill()
        self.history.close()


def empty_template(folder: Path) -> Template:
    """Make a migrated database with nothing in it."""
    empty = folder / "empty.sqlite3"
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": f"sqlite:///{empty}"},
        check=True,
    )
    return Template(empty, empty, [])


def check_events(events: Iterable[dict[str, Any]], acknowledged: dict[str, int]) -> None:
    """See that none is there twice, and each that was acknowledged is at the seq that was told."""
    places: dict[str, int] = {}
    for event in events:
        name = f"{event['source']} {event['external_id']}"
        must(name not in places, f"{name} is in the log twice: {places.get(name)}, {event}")
        places[name] = event["seq"]
    for name, seq in acknowledged.items():
        there = places.get(f"platform {name}")
        must(there == seq, f"{name} was acknowledged as seq {seq}, and is at {there}.")


def run(
    parser: argparse.ArgumentParser,
    go: Callable[[argparse.Namespace, Path, Server, FaultProxy], bool],
) -> int:
    """Take the arguments and go, in a folder of its own; return the exit code."""
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), metavar="S")
    parser.add_argument("--keep", action="store_true", help="keep the files in any case")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=f"dezky-{parser.prog.removesuffix('.sh')}-"))
    say(f"seed {arguments.seed}; files in {folder}")
    server = Server(folder / "s3", dict(os.environ))
    try:
        with FaultProxy(server.endpoint) as proxy:
            whole = go(arguments, folder, server, proxy)
    finally:
        server.child.kill()
        shutil.rmtree(environment.FOLDER, ignore_errors=True)
    if whole and not arguments.keep:
        shutil.rmtree(folder)
    return 0 if whole else 1


def endure(
    session: Session, go_on: Callable[[], None], lie_is: type[Exception] = LieError
) -> bool:
    """Go on to the end or to the first lie, which is told; return whether it ended well."""
    try:
        go_on()
    except lie_is as lie:
        if not isinstance(lie, LieError):
            traceback.print_exc(file=sys.stdout)
        session.note(f"LIE: {lie}")
        say("What came before it:", *session.recent)
        say(f"LIE: {lie}", f"Seed {session.seed}; the evidence is in {session.folder}.")
        return False
    finally:
        session.close()
    return True


def say(*lines: str) -> None:
    """Print lines at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
