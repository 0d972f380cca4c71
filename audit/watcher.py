"""What an entrance sees of a run while it goes on, and how it stops one."""

from __future__ import annotations

import time
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
    """What an entrance sees of a run while it goes on, and how it stops one. Does nothing."""

    def begins(self, phase: str, events: int) -> None:
        """Hear that a phase begins, and over how many events (0: not known)."""

    def advances(self, events: int) -> None:
        """Hear that the phase got on by this many events."""

    def done(self, step: Step) -> None:
        """Hear that a step has been done."""

    def stopping(self) -> bool:
        """Say whether the run should stop after the current step."""
        return False


class Clock:
    """Counts the seconds of each phase; of nested ones, only the innermost runs."""

    def __init__(self) -> None:
        """Begin outside of any phase."""
        self.seconds: dict[str, float] = {}
        self.phase: str | None = None
        self._since = time.monotonic()

    def switch(self, phase: str | None) -> None:
        """Go over to another phase."""
        now = time.monotonic()
        if self.phase is not None:
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self._since
        self.phase, self._since = phase, now
