"""Move old events to object storage.

Why no event can be lost:

- A batch's rows are deleted only after both of its objects were confirmed in the bucket: by
  length and MD5 where this run sent them, by reading every byte where it did not.
- Its range is fixed before anything is sent, its bytes are what was chained (every link is
  recomputed), and names carry digests, so no object can replace another.
- The ledger and the floor only move forward, under a lease and a fence that a newer run takes
  away. Dying on any line leaves each event whole in hot, or in a confirmed object, or in both;
  the next run begins by finishing what it finds.

The nine steps of docs/architecture.md are the methods of `_Run`, in their order.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import BinaryIO

from django.db import DatabaseError

from . import adoption, cold, conf, guard, ledger, log, purge, selection, storage
from .format.errors import AuditError, GapError
from .format.names import Kind, ObjectName
from .format.record import parse_time
from .guard import Grip
from .models import ArchiveBatch, ArchiveRun
from .result import BATCH_FIELDS, Outcome, Result, kept, sentence, with_boundary
from .watcher import Clock, Step, Watcher

logger = logging.getLogger(__name__)


class InterruptedRunError(AuditError):
    """The run was asked to stop."""


class RefusedError(AuditError):
    """The run is not allowed."""


def run(
    *,
    trigger: ArchiveRun.Trigger,
    requested_by: str,
    override: bool,
    max_batches: int | None = None,
    watcher: Watcher | None = None,
) -> Result:
    """Archive everything that is due; return what became of it. Never raises an AuditError.

    `override`: an operator asked, so `ARCHIVE_ENABLED` does not matter. At most `max_batches`
    are archived, if that is given.
    """
    try:
        with guard.lease() as grip:
            return _Run(grip, trigger, requested_by, override, max_batches, watcher).execute()
    except guard.LeaseHeldError as error:
        return with_boundary(Result(Outcome.BUSY, error=str(error)))
    except (AuditError, DatabaseError) as error:
        return with_boundary(Result(Outcome.FAILED, error=sentence(error)))


def dry_run(*, max_batches: int | None = None) -> Result:
    """Return what a run would do now, by the ledger and hot alone; changes nothing."""
    result = Result(Outcome.PLANNED)
    try:
        ledger.undisturbed(lambda: _plan(result, max_batches))
    except (AuditError, DatabaseError) as error:
        result.outcome, result.error = Outcome.FAILED, sentence(error)
        if isinstance(error, log.RolledBackError):
            result.outcome = Outcome.REFUSED
    return with_boundary(result)


def _plan(result: Result, max_batches: int | None) -> None:
    """Fill in what a run would do."""
    result.batches, result.notes, result.events = [], [], 0
    cutoff = selection.cutoff_at(datetime.now(UTC))
    head = log.current_state().head_seq
    at, unfinished = ledger.highest_archived_seq(), ledger.planned()
    result.notes += [f"{row} will be confirmed and purged" for row in ledger.stored()]
    last = selection.last_due(at, head, cutoff)
    while max_batches is None or len(result.batches) < max_batches:
        if unfinished is not None and not result.batches:
            result.notes.append(f"{unfinished} was begun and will be done again")
            found: selection.Range | None = selection.Range(
                unfinished.start_seq, unfinished.end_seq, unfinished.bytes_uncompressed
            )
        else:
            found = selection.next_range(at, last)
        if found is None:
            break
        at = found.end_seq
        result.batches.append(
            dict.fromkeys(BATCH_FIELDS)
            | {
                "start_seq": found.start_seq,
                "end_seq": found.end_seq,
                "event_count": found.event_count,
                "bytes_uncompressed": found.bytes_uncompressed,
            }
        )
        result.events += found.event_count
    result.kept = kept(at, max(at, last), head, cutoff)


class _Run:
    """One run, from lease to release."""

    def __init__(
        self,
        grip: Grip,
        trigger: ArchiveRun.Trigger,
        requested_by: str,
        override: bool,
        max_batches: int | None,
        watcher: Watcher | None,
    ) -> None:
        self.grip = grip
        self.max_batches = max_batches
        self.watcher = watcher or Watcher()
        self.batches: list[ArchiveBatch] = []
        self.clock = Clock()
        self.bounds: tuple[int, int] | None = None  # the newest seq that is due, and the head
        self.notes: list[str] = []
        self.shelf = adoption.Shelf([])
        self.error: str | None = None
        now = datetime.now(UTC)
        started = now.replace(microsecond=now.microsecond // 1000 * 1000)
        self.row = ArchiveRun.objects.create(
            trigger=trigger,
            requested_by=requested_by,
            override=override,
            token=grip.token,
            holder=guard.Process.current().label,
            started_at=started,
            cutoff=selection.cutoff_at(started),
        )

    # The nine steps ------------------------------------------------------------------------

    def execute(self) -> Result:
        """Run, and write down how it ended, whatever happens."""
        try:
            self.done(Step.LEASED)
            if not (self.row.override or conf.archive_enabled()):
                raise RefusedError("ARCHIVE_ENABLED is off: turn it on, or run archive_now.")
            with self.phase("past"):
                log.raise_fence(self.grip.token)  # 1
                self.done(Step.FENCED)
                self.finish_the_past()  # 2
            while self.may_go_on() and (row := self.plan()) is not None:  # 3
                self.archive(row)  # 4 to 7
                self.purge(row)  # 8
                self.adopt_what_continues()
            outcome = Outcome.ARCHIVED if self.batches else Outcome.NOTHING_DUE  # 9
        except InterruptedRunError as error:
            outcome, self.error = Outcome.INTERRUPTED, str(error)
        except KeyboardInterrupt:
            outcome = Outcome.INTERRUPTED
            self.error = (
                "Stopped at once, amid a step, on a second request. Nothing was lost; the next "
                "run goes on from there."
            )
        except (RefusedError, log.RolledBackError) as error:
            outcome, self.error = Outcome.REFUSED, str(error)
        except (AuditError, DatabaseError, OSError) as error:
            outcome, self.error = Outcome.FAILED, sentence(self.explained(error))
        except Exception as error:
            logger.exception("The archive run failed in a way that nobody foresaw.")
            outcome, self.error = Outcome.FAILED, sentence(error)
        return self.close(outcome)

    def explained(self, error: BaseException) -> BaseException:
        """Return why the run really failed.

        What a run finds after another one has overtaken it may look like tampering (rows that
        the other one has purged) and is none.
        """
        try:
            if self.grip.is_live() or isinstance(error, guard.LeaseLostError):
                return error
        except DatabaseError:
            return error
        return guard.LeaseLostError(f"{self.grip.lost()} Before that it met: {sentence(error)}")

    def finish_the_past(self) -> None:
        """Finish what earlier runs began: purge what is stored, adopt what the bucket holds.

        The ledger is continued only from a batch that the bucket holds, and no row goes whose
        batch was not confirmed by this run.
        """
        ledger.check_whole()
        if (newest := ledger.last_purged()) is not None:
            cold.check_presence(newest)
        self.delete_residue()
        for row in ledger.stored():
            self.confirm_again(row)
            self.purge(row)
            self.batches.append(row)
            self.notes.append(f"Stored by an earlier run, confirmed again and purged: {row}")
        self.shelf = adoption.Shelf.look(ledger.position().seq, log.current_state().head_seq)
        self.done(Step.LISTED)
        self.adopt_what_continues()
        self.delete_residue()
        purge.check_floor()

    def adopt_what_continues(self) -> None:
        """Adopt every batch in the bucket that continues the ledger."""
        while (candidate := self.shelf.next(ledger.position())) is not None:
            self.adopt(candidate)

    def delete_residue(self) -> None:
        """Delete what is in hot although its batch was purged, once that batch is confirmed."""
        while (row := purge.residue()) is not None:
            self.confirm_by_reading(row)
            purge.raise_floor_again(self.grip, row)
            self.delete_rows(row)
            self.notes.append(f"Purged before and in hot again, confirmed and deleted: {row}")
        if (last := ledger.last_purged()) is not None:
            purge.raise_floor_again(self.grip, last)

    def adopt(self, candidate: adoption.Candidate) -> None:
        """Record and purge a batch that is whole in the bucket and not in the ledger."""
        adoption.check(candidate)
        manifest = candidate.manifest
        row = adoption.row_for(candidate) or ledger.plan(
            self.grip,
            self.row,
            ledger.position(),
            manifest.end_seq,
            manifest.bytes_uncompressed,
            planned_at=parse_time(manifest.created_at),
        )
        ledger.record(
            self.grip,
            self.row,
            row,
            manifest,
            candidate.key,
            candidate.sha256,
            candidate.frontier,
        )
        self.batches.append(row)
        self.notes.append(f"Adopted from the bucket: {candidate.key}")
        self.done(Step.ADOPTED)
        self.purge(row)

    def plan(self) -> ArchiveBatch | None:
        """Fix the range of the next batch, or take up the one that was fixed before."""
        with self.phase("plan"):
            row = ledger.planned()
            at = ledger.position()
            if row is None:
                state = log.current_state()
                last = selection.last_due(at.seq, state.head_seq, self.row.cutoff)
                found = selection.next_range(at.seq, last)
                self.bounds = last, state.head_seq
                if found is None:
                    return None
                row = ledger.plan(self.grip, self.row, at, found.end_seq, found.bytes_uncompressed)
            self.done(Step.RANGE_FIXED)
        return row

    def archive(self, row: ArchiveBatch) -> None:
        """Encode, upload, confirm and record one planned batch."""
        at = ledger.position()
        if at.seq + 1 != row.start_seq:
            raise GapError(
                f"{row} does not follow seq {at.seq:,}, where the cold tier ends by the ledger: "
                "nothing was sent. Check the ledger against the bucket."
            )
        with tempfile.TemporaryFile(prefix="dezky-audit-") as file:
            encoded = self.encode(row, at, file)
            manifest = selection.manifest_of(row, at, encoded)
            data = manifest.to_bytes(conf.keyring())
            manifest_sha256 = sha256(data).hexdigest()
            name = ObjectName.of(Kind.MANIFEST, row.start_seq, row.end_seq, manifest_sha256)
            manifest_key = name.key(conf.cold_prefix())
            sent = self.upload(row, encoded, manifest.key, manifest_key, data)
        with self.phase("confirm"):
            for item in sent:
                cold.confirm(item)
            read_back, _ = cold.read_manifest(manifest_key, manifest_sha256)
            if read_back != manifest:
                raise cold.UnconfirmedError(f"{manifest_key} reads back as another manifest.")
            self.done(Step.CONFIRMED)
        with self.phase("record"):
            ledger.record(
                self.grip,
                self.row,
                row,
                manifest,
                manifest_key,
                manifest_sha256,
                encoded.frontier,
            )
            self.batches.append(row)
            self.done(Step.RECORDED)

    def encode(self, row: ArchiveBatch, at: ledger.Position, file: BinaryIO) -> selection.Encoded:
        """Write the batch's object to a temporary file, every link recomputed."""
        with self.phase("encode", row.event_count):
            encoded = selection.encode(at, row.end_seq, file, self.watcher.advances)
            self.done(Step.ENCODED)
        return encoded

    def upload(
        self,
        row: ArchiveBatch,
        encoded: selection.Encoded,
        jsonl_key: str,
        manifest_key: str,
        manifest: bytes,
    ) -> list[cold.Sent]:
        """PUT the object, then its manifest; the row learns each name before its PUT."""
        with self.phase("upload", row.event_count):
            ledger.name_objects(
                self.grip, row, jsonl_key=jsonl_key, jsonl_sha256=encoded.digests.sha256
            )
            self.done(Step.JSONL_NAMED)
            jsonl = cold.send(jsonl_key, encoded.file, encoded.digests, Kind.JSONL)
            self.done(Step.JSONL_SENT)
            ledger.name_objects(
                self.grip,
                row,
                manifest_key=manifest_key,
                manifest_sha256=sha256(manifest).hexdigest(),
            )
            self.done(Step.MANIFEST_NAMED)
            sent = cold.send_manifest(manifest_key, manifest)
            self.done(Step.MANIFEST_SENT)
        return [jsonl, sent]

    def confirm_by_reading(self, row: ArchiveBatch) -> None:
        """Read both objects of a batch that an earlier run stored, before its rows go."""
        manifest = cold.read_manifest_of(row)
        with cold.expected(row):
            cold.read_batch(row.manifest_key, manifest, adoption.comparing(manifest))
        self.done(Step.CONFIRMED)

    def confirm_again(self, row: ArchiveBatch) -> None:
        """Confirm a stored batch by reading; send what is gone from the bucket once more."""
        try:
            self.confirm_by_reading(row)
        except storage.MissingError:
            if log.current_state().floor_seq >= row.start_seq:
                raise  # part of it may have been purged
            self.send_again(row)
            self.confirm_by_reading(row)

    def send_again(self, row: ArchiveBatch) -> None:
        """Put the objects of a stored batch back, the same bytes under the same names."""
        at = ledger.position(before=row)
        with tempfile.TemporaryFile(prefix="dezky-audit-") as file:
            encoded = self.encode(row, at, file)
            data = selection.manifest_of(row, at, encoded).to_bytes(conf.keyring())
            if (encoded.digests.sha256, sha256(data).hexdigest()) != (
                row.jsonl_sha256,
                row.manifest_sha256,
            ):
                raise cold.UnconfirmedError(
                    f"{row} is no longer in the bucket, and hot would give other bytes than those "
                    "recorded: nothing was deleted. Restore its objects from a copy of the bucket."
                )
            cold.send(row.jsonl_key, encoded.file, encoded.digests, Kind.JSONL)
            cold.send_manifest(row.manifest_key, data)
        self.notes.append(f"Gone from the bucket and sent again from hot: {row}")

    def purge(self, row: ArchiveBatch) -> None:
        """Delete the rows of a stored batch."""
        with self.phase("purge", row.event_count):
            purge.raise_floor(self.grip, row)
            self.done(Step.FLOOR_RAISED)
            self.delete_rows(row)
            self.done(Step.ROWS_DELETED)
            ledger.mark_purged(self.grip, row)
            self.done(Step.PURGED)

    def delete_rows(self, row: ArchiveBatch) -> None:
        """Delete a batch's rows."""
        for gone in purge.delete_rows(row):
            self.watcher.advances(gone)
            self.done(Step.CHUNK_DELETED)

    # Bookkeeping -----------------------------------------------------------------------------

    def may_go_on(self) -> bool:
        """Say whether another batch may be begun."""
        return self.max_batches is None or len(self.batches) < self.max_batches

    def done(self, step: Step) -> None:
        """Tell the watcher that a step is done, and stop here if that is asked for."""
        self.watcher.done(step)
        if self.watcher.stopping():
            raise InterruptedRunError(
                f"Stopped on request after the step '{step}'. Nothing was lost; the next run "
                "goes on from there."
            )

    @contextmanager
    def phase(self, name: str, events: int = 0) -> Iterator[None]:
        """Time a phase, and show it on the run's row and to the watcher."""
        self.row.phase = name
        self.save("phase")
        self.watcher.begins(name, events)
        outer = self.clock.phase
        self.clock.switch(name)
        try:
            yield
        finally:
            self.clock.switch(outer)

    def save(self, *fields: str) -> None:
        """Write the run's counters down while it goes on, unless another run has closed it."""
        self.row.batches = len(self.batches)
        self.row.events = sum(row.event_count for row in self.batches)
        self.row.bytes_uncompressed = sum(row.bytes_uncompressed for row in self.batches)
        self.row.bytes_compressed = sum(row.bytes_compressed for row in self.batches)
        names = ["batches", "events", "bytes_uncompressed", "bytes_compressed", *fields]
        ArchiveRun.objects.filter(pk=self.row.pk, outcome=ArchiveRun.Outcome.RUNNING).update(
            **{name: getattr(self.row, name) for name in names}
        )

    def close(self, outcome: Outcome) -> Result:
        """Write down how the run ended."""
        self.row.outcome = outcome.value
        self.row.finished_at = datetime.now(UTC)
        self.row.seconds = {name: round(spent, 3) for name, spent in self.clock.seconds.items()}
        self.notes += self.shelf.notes
        self.row.notes = "\n".join(self.notes)
        self.row.error = self.error or ""
        try:
            if self.bounds:
                self.row.kept = kept(ledger.highest_archived_seq(), *self.bounds, self.row.cutoff)
            self.save("outcome", "finished_at", "seconds", "notes", "error", "kept")
        except DatabaseError as error:
            # The next run closes the row; what happened is still told to whoever asked.
            logger.exception("How the run ended could not be written down.")
            self.notes.append(f"The run's row could not be written: {sentence(error)}")
        return with_boundary(
            Result(
                outcome,
                run=self.row.pk,
                batches=[
                    {name: getattr(row, name) for name in BATCH_FIELDS} for row in self.batches
                ],
                events=self.row.events,
                seconds=self.clock.seconds,
                error=self.error,
                kept=self.row.kept,
                notes=self.notes,
            )
        )
