"""What each child measures of itself, and how it says so."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dezky.env import SQLITE_BUSY_SECONDS, SQLITE_PRAGMAS

MEGABYTE = 1_000_000


class BenchError(Exception):
    """What was measured is not what should have been; the message says why in a sentence."""


class Stopwatch:
    """Seconds of each phase and of the whole, from when it is made."""

    def __init__(self) -> None:
        """Begin."""
        self.began = time.monotonic()
        self.phases: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add what is done inside to a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.monotonic() - began

    @property
    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.began


def peak_mb() -> float:
    """Return the most memory that this process ever had in use, in MB of 1,000,000 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


def database_path() -> str:
    """Return the file that DATABASE_URL names."""
    return os.environ["DATABASE_URL"].removeprefix("sqlite:///")


def open_database(cache_kib: int | None = None) -> sqlite3.Connection:
    """Open it with the raw driver as the software opens it; the page cache may be another."""
    database = sqlite3.connect(database_path(), timeout=SQLITE_BUSY_SECONDS, isolation_level=None)
    for name, value in SQLITE_PRAGMAS.items():
        database.execute(f"PRAGMA {name}={value}")
    if cache_kib is not None:
        database.execute(f"PRAGMA cache_size=-{cache_kib}")
    return database


def wait_for_go() -> None:
    """Say that all is ready, and wait for a word on standard input."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        sys.exit("Whoever started this is gone.")


def say(**values: Any) -> None:
    """Print one JSON object on a line of its own."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()
