"""What a run writes down of itself: its row, its counters, its notes, its events in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from django.db import DEFAULT_DB_ALIAS, DatabaseError, transaction

from . import guard, ledger, log, request, selection
from .format.errors import AuditError
from .guard import Grip
from .models import ArchiveBatch, ArchiveRun
from .request import Request
from .result import BATCH_FIELDS, Outcome, Result, kept, sentence, with_boundary
from .watcher import Clock, Watcher

AT_THE_END = ("outcome", "failure", "finished_at", "seconds", "notes", "error", "kept")

logger = logging.getLogger(__name__)


class Journal:
    """The row of one run, from its beginning to its end.

    `bounds`: the newest seq that is due, and the head, once they are known. `looked`: whether
    the bucket has been looked at, so that the run's own events may be written into the log.
    """

    def __init__(self, grip: Grip, asked: Request, watcher: Watcher) -> None:
        """Make the row, and note that the run was asked for."""
        self.watcher = watcher
        self.batches: list[ArchiveBatch] = []
        self.notes: list[str] = []
        self.clock = Clock()
        self.bounds: tuple[int, int] | None = None
        self.looked = False
        now = datetime.now(UTC)
        started = now.replace(microsecond=now.microsecond // 1000 * 1000)
        with transaction.atomic(using=DEFAULT_DB_ALIAS):
            self.row = ArchiveRun.objects.create(
                trigger=asked.trigger,
                request=asked.id,
                requested_by=asked.requested_by,
                requested_from=asked.requested_from,
                override=asked.override,
                max_batches=asked.max_batches,
                through_seq=asked.through_seq,
                token=grip.token,
                holder=guard.Process.current().label,
                started_at=started,
                cutoff=selection.cutoff_at(started),
            )
            asked.note(started)

    def show(self, phase: str) -> None:
        """Show on the row and to the watcher what the run is at."""
        self.row.phase = phase
        self._save("phase")
        self.watcher.begins(phase)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase, and show it."""
        self.show(name)
        with self.clock.phase(name):
            yield

    def chain(self) -> None:
        """Write noted events into the log: this run's, and what dead or busy ones have left."""
        try:
            request.chain()
        except log.RolledBackError:
            raise
        except (AuditError, DatabaseError) as error:
            self._not_chained(error)

    def close(self, outcome: Outcome, error: str | None, failure: str) -> Result:
        """Write down how the run ended; `failure` is the kind of the alarm that this is."""
        self.row.outcome = outcome.value
        self.row.failure = failure
        self.row.finished_at = datetime.now(UTC)
        seconds = self.clock.seconds()
        self.row.seconds = {name: round(spent, 3) for name, spent in seconds.items()}
        self.row.notes = "\n".join(self.notes)
        self.row.error = error or ""
        try:
            if self.bounds:
                self.row.kept = kept(ledger.highest_archived_seq(), *self.bounds, self.row.cutoff)
            with log.write_transaction(DEFAULT_DB_ALIAS):
                if self._save(*AT_THE_END):
                    request.note_end_of(self.row)
            if self.looked:
                self.chain()
        except (AuditError, DatabaseError) as reason:
            # The next run closes the row; what happened is still told to whoever asked.
            logger.exception("How the run ended could not be written down.")
            self.notes.append(f"The run's row could not be written: {sentence(reason)}")
        return with_boundary(
            Result(
                outcome,
                run=self.row.pk,
                batches=[
                    {name: getattr(row, name) for name in BATCH_FIELDS} for row in self.batches
                ],
                events=self.row.events,
                seconds=seconds,
                elapsed=self.clock.elapsed(),
                error=error,
                kept=self.row.kept,
                notes=self.notes,
            )
        )

    def add(self, result: Result, notes: list[str]) -> None:
        """Add notes to a run that is closed already."""
        if not notes:
            return
        result.notes += notes
        try:
            ArchiveRun.objects.filter(pk=self.row.pk).update(notes="\n".join(result.notes))
        except DatabaseError as error:
            logger.warning("Notes of %s could not be written down: %s", self.row, error)

    def _not_chained(self, error: BaseException) -> None:
        logger.warning("The events of %s are not in the log yet: %s", self.row, error)
        self.notes.append(
            f"Its own events are not in the log yet; the next run writes them: {sentence(error)}"
        )

    def _save(self, *fields: str) -> bool:
        """Write the counters down, unless another run has closed the row; say whether it has."""
        self.row.batches = len(self.batches)
        self.row.events = sum(row.event_count for row in self.batches)
        self.row.bytes_uncompressed = sum(row.bytes_uncompressed for row in self.batches)
        self.row.bytes_compressed = sum(row.bytes_compressed for row in self.batches)
        names = ["batches", "events", "bytes_uncompressed", "bytes_compressed", *fields]
        return bool(
            ArchiveRun.objects.filter(pk=self.row.pk, outcome=ArchiveRun.Outcome.RUNNING).update(
                **{name: getattr(self.row, name) for name in names}
            )
        )
