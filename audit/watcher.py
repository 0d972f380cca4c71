"""What an entrance sees of a run while it goes on, and how it stops one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Step(StrEnum):
    """What has just been done: the boundaries between which a run may die."""

    LEASED = "leased"
    FENCED = "fenced"
    LISTED = "listed"
    ADOPTED = "adopted"
    RANGE_FIXED = "range fixed"
    ENCODED = "encoded"
    JSONL_NAMED = "jsonl named"
    JSONL_SENT = "jsonl sent"
    MANIFEST_NAMED = "manifest named"
    MANIFEST_SENT = "manifest sent"
    CONFIRMED = "confirmed"
    RECORDED = "recorded"
    FLOOR_RAISED = "floor raised"
    CHUNK_DELETED = "chunk deleted"
    ROWS_DELETED = "rows deleted"
    PURGED = "purged"


class Watcher:
    """What an entrance sees of a run while it goes on, and how it stops one. Does nothing.

    `advances`, `done` and `stopping` are called by the run's lanes, too: by several threads.
    """

    def expects(self, events: int) -> None:
        """Hear how many events are to be archived."""

    def begins(self, phase: str) -> None:
        """Hear that a phase begins."""

    def advances(self, events: int) -> None:
        """Hear that this many events more were encoded."""

    def done(self, step: Step) -> None:
        """Hear that a step has been done."""

    def stopping(self) -> bool:
        """Say whether the run should stop after the current step."""
        return False

    def stop_where_asked(self, events: int) -> None:
        """Hear that a verification has looked at this many events more.

        Raises KeyboardInterrupt, as Ctrl-C does, where it should stop.
        """
        if self.stopping():
            raise KeyboardInterrupt


class Clock:
    """Counts the seconds that are spent in each phase, by all threads together.

    Of nested phases, only the innermost runs. Where phases overlap, their sum is more than the
    time that passed.
    """

    def __init__(self) -> None:
        """Begin outside of any phase."""
        self._seconds: dict[str, float] = {}
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._thread = threading.local()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase so far."""
        with self._lock:
            return dict(self._seconds)

    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._began

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Be in a phase, then again in the one around it."""
        outer = self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, name: str | None) -> str | None:
        now = time.monotonic()
        before, since = getattr(self._thread, "now", (None, now))
        if before is not None:
            with self._lock:
                self._seconds[before] = self._seconds.get(before, 0.0) + now - since
        self._thread.now = name, now
        return str(before) if before is not None else None
