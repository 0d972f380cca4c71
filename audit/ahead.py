"""Encode one batch before its turn, in a lane of its own.

It touches nothing but a temporary file. The batch gets its row in the ledger when its turn
comes, and what was encoded is used only if it continues the ledger there. What went wrong ahead
goes wrong again in its turn, where it stops the run; or it does not: two batches had no room
side by side, or another run was in between.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from django.db import DatabaseError

from . import log, selection
from .anchors import Anchors
from .format.errors import AuditError
from .lane import Lane
from .ledger import Position
from .selection import Encoded, Range
from .watcher import Clock

CACHE_KIB = 2 * 1024  # each page is read once

logger = logging.getLogger(__name__)


class EncodingStoppedError(AuditError):
    """The run is over; what was encoded ahead is not needed any more."""


@dataclass(frozen=True)
class Prepared:
    """A batch that is encoded, and the place that it continues."""

    at: Position
    range: Range
    encoded: Encoded

    def fits(self, at: Position) -> bool:
        """Say whether it continues this place."""
        return (self.at.seq, self.at.link) == (at.seq, at.link)


def encode(
    at: Position, end_seq: int, progress: Callable[[int], None], anchors: Anchors
) -> Encoded:
    """Write a batch's object to a temporary file, every link recomputed; the caller closes it."""
    file = tempfile.TemporaryFile(prefix="dezky-audit-")  # noqa: SIM115  # closed once sent
    try:
        return selection.encode(at, end_seq, file, progress, anchors)
    except BaseException:
        file.close()
        raise


class Ahead:
    """At most one batch that is encoded before its turn."""

    def __init__(
        self,
        lane: Lane,
        clock: Clock,
        find: Callable[[int], Range | None],
        progress: Callable[[int], None],
    ) -> None:
        """Find the range after a seq by `find`; tell `progress` how many events were encoded."""
        self._lane = lane
        self._clock = clock
        self._find = find
        self._progress = progress
        self._over = threading.Event()
        self._job: Future[Prepared | None] | None = None

    def begin(self, at: Position, anchors: Anchors) -> None:
        """Begin with the batch that continues a place."""
        self._job = self._lane.begin(lambda: self._encode(at, anchors))

    def is_at_work(self) -> bool:
        """Say whether `take` would have to wait."""
        return self._job is not None and not self._job.done()

    def take(self, at: Position) -> Prepared | None:
        """Wait for the batch that was begun, and hand it over if it continues this place."""
        job, self._job = self._job, None
        if job is None:
            return None
        try:
            prepared = job.result()
        except (AuditError, DatabaseError, OSError) as error:
            logger.info("Encoding ahead failed and is done again in its turn: %s", error)
            return None
        if prepared and not prepared.fits(at):
            prepared.encoded.file.close()
            return None
        return prepared

    def drop(self) -> None:
        """Stop, and forget what was encoded: the run is over."""
        self._over.set()
        if prepared := self.take(Position.start()):
            prepared.encoded.file.close()

    def _encode(self, at: Position, anchors: Anchors) -> Prepared | None:
        log.bound_page_cache(CACHE_KIB)
        with self._clock.phase("plan"):
            found = self._find(at.seq)
        if found is None:
            return None
        with self._clock.phase("encode"):
            return Prepared(at, found, encode(at, found.end_seq, self._advance, anchors))

    def _advance(self, events: int) -> None:
        self._progress(events)
        if self._over.is_set():
            raise EncodingStoppedError("Encoding stopped with its run.")
