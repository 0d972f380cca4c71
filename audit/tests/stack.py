"""The unattended part of a site: a real broker, workers and beat, each a process of its own.

What the schedule does every minute or hour it does every second here, and only what a test names;
what its guards take for the time is what the test says (`audit.tests.worker_app`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from celery import Celery

from dezky.celery import configuration

from .redis_server import RedisServer
from .simulator import PATIENCE, ROOT, Site

APP = "audit.tests.worker_app"
POLL = 0.02


class Part:
    """A worker, or beat, with all its children."""

    def __init__(self, env: dict[str, str], log: Path, *args: str) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", APP, *args],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL it and all its children at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def said(self) -> str:
        """Return what it has logged."""
        return self.log.read_text(errors="replace")


class Stack:
    """Starts the parts, and kills what is left of them."""

    def __init__(self, site: Site, redis: RedisServer) -> None:
        self.site, self.redis = site, redis
        self.clock = site.folder / "clock"
        self.parts: list[Part] = []
        site.env |= {
            "REDIS_URL": redis.url,
            "TEST_CLOCK": str(self.clock),
            "LOG_FORMAT": "line",
            "LOG_LEVEL": "INFO",
            "ARCHIVE_ENABLED": "true",
            "AUDIT_MIN_FREE_MB": "1",
        }
        self.at("2026-11-24T03:00:00")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for part in self.parts:
            part.kill()

    def at(self, time_of_day: str) -> None:
        """Let it be this time (UTC) for the schedule's guards."""
        new = self.clock.with_suffix(f".{uuid.uuid4()}")
        new.write_text(time_of_day)
        new.replace(self.clock)

    def worker(self, queues: str = "long,short", processes: int = 1) -> Part:
        """Start a worker."""
        name = f"worker-{len(self.parts)}"
        return self._start(
            "worker", "-Q", queues, "-c", str(processes), "-n", f"{name}@test", "--without-mingle"
        )

    def beat(self, *entries: str) -> Part:
        """Start a beat, for these entries of the schedule."""
        return self._start("beat", "--pidfile=", TEST_SCHEDULE=",".join(entries))

    def send(self, task: str, *args: str, id: str | None = None) -> str:  # noqa: A002  # Celery's name
        """Send one message to the queue for long work; return its id."""
        options = configuration()["broker_transport_options"]
        with Celery(broker=self.redis.url, set_as_current=False) as producer:
            producer.conf.broker_transport_options = options
            sent = producer.send_task(task, args, queue="long", task_id=id, ignore_result=True)
            return str(sent.id)

    def _start(self, *args: str, **env: str) -> Part:
        log = self.site.folder / f"{args[0]}-{len(self.parts)}.log"
        part = Part({**self.site.env, **env}, log, *args)
        self.parts.append(part)
        return part

    def wait_until(self, holds: Callable[[], object], what: str = "") -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                logs = "\n".join(f"{part.log.name}:\n{part.said()[-3000:]}" for part in self.parts)
                state = f"{self.runs()} {self.day()} {self.alarms()}"
                raise AssertionError(f"not within {PATIENCE} s: {what}\n{state}\n{logs}")
            time.sleep(POLL)

    def kill_holder(self) -> None:
        """SIGKILL the process that is at the day's archive run, and wait until that is seen."""
        ((pid,),) = self.site.rows("SELECT pid FROM audit_dayguard WHERE state = 'running'")
        os.kill(pid, signal.SIGKILL)

    def runs(self, trigger: str = "beat") -> list[tuple[int, str]]:
        """Return number and outcome of each run of a trigger."""
        query = "SELECT id, outcome FROM audit_archiverun WHERE trigger = ? ORDER BY id"
        return self.site.rows(query, trigger)

    def day(self, job: str = "archive") -> tuple[str, int, str]:
        """Return state, tries and outcome of the newest guarded day."""
        query = "SELECT state, tries, outcome FROM audit_dayguard WHERE job = ? ORDER BY day DESC"
        found: list[tuple[str, int, str]] = self.site.rows(query, job)
        return found[0] if found else ("", 0, "")

    def wait_for_day(self, state: str) -> None:
        """Wait until the newest guarded day of the archive is in this state."""
        self.wait_until(lambda: self.day()[0] == state, f"the day to be {state}")

    def alarms(self) -> list[tuple[str, str, bool]]:
        """Return kind, subject and whether it is open, of each alarm in its order."""
        query = "SELECT kind, subject, cleared_at IS NULL FROM audit_alarm ORDER BY id"
        return [(kind, subject, bool(is_open)) for kind, subject, is_open in self.site.rows(query)]

    def beats(self) -> str:
        """Return when the schedule was last known to work, empty where it never was."""
        found = self.site.rows("SELECT at FROM audit_heartbeat WHERE name = 'schedule'")
        return str(found[0][0]) if found else ""

    def wait_for_beats(self, number: int = 2) -> None:
        """Wait until the schedule has been seen to work so many times more."""
        for _ in range(number):
            before = self.beats()
            self.wait_until(partial(self.has_beaten_since, before), "a heartbeat")

    def has_beaten_since(self, before: str) -> bool:
        """Say whether the schedule has worked once more."""
        return self.beats() != before

    def wait_for_try(self, tries: int) -> None:
        """Wait until the schedule has tried so many runs, and each has ended."""
        self.wait_until(
            lambda: len(self.runs()) == tries and self.day()[0] != "running", f"try {tries}"
        )
