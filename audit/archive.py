"""Move old events to object storage.

Why no event can be lost:

- A batch's rows are deleted only after both of its objects were confirmed in the bucket: by
  length and MD5 where this run sent them, by reading every byte where it did not.
- Its range is fixed before anything is sent, its bytes are what was chained (every link is
  recomputed), and names carry digests, so no object can replace another.
- The ledger and the floor only move forward, under a lease and a fence that a newer run takes
  away. Dying on any line leaves each event whole in hot, or in a confirmed object, or in both;
  the next run begins by finishing what it finds.

The nine steps of docs/architecture.md are the methods of `_Run`, in their order. Two lanes run
beside it: one encodes the next batch ahead, which touches nothing but a temporary file, and one
purges the batch before, which is recorded by then. A batch's manifest is sent, and the floor
raised over it, only when that is done for the batch before.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from django.db import DatabaseError

from . import adoption, cold, conf, guard, ledger, log, purge, selection, storage
from .format.errors import AuditError, GapError
from .format.names import Kind, ObjectName
from .format.record import parse_time
from .guard import Grip
from .lane import Lane
from .models import ArchiveBatch, ArchiveRun
from .request import Request, chain, chain_what_is_missing, chain_without_run
from .result import BATCH_FIELDS, Outcome, Result, kept, sentence, with_boundary
from .watcher import Clock, Step, Watcher

READ_CACHE_KIB = 2 * 1024  # each page is read once
PURGE_CACHE_KIB = 32 * 1024

logger = logging.getLogger(__name__)


class InterruptedRunError(AuditError):
    """The run was asked to stop."""


class RefusedError(AuditError):
    """The run is not allowed."""


def run(request: Request, watcher: Watcher | None = None) -> Result:
    """Archive everything that is due; return what became of it. Never raises an AuditError.

    That it was asked for, and how it ended, are events in the log.
    """
    try:
        with guard.lease() as grip:
            return _Run(grip, request, watcher).execute()
    except guard.LeaseHeldError as error:
        result = Result(Outcome.BUSY, error=str(error))
    except (AuditError, DatabaseError) as error:
        result = Result(Outcome.FAILED, error=sentence(error))
    try:
        chain_without_run(request, result.outcome.value, result.error or "")
    except (AuditError, DatabaseError) as error:
        logger.warning("The request %s could not be written into the log: %s", request, error)
        result.notes.append(f"The request could not be written into the log: {sentence(error)}")
    return with_boundary(result)


@dataclass(frozen=True)
class Prepared:
    """A batch that is encoded, and the place that it continues."""

    at: ledger.Position
    range: selection.Range
    encoded: selection.Encoded

    def fits(self, at: ledger.Position) -> bool:
        """Say whether it continues this place."""
        return (self.at.seq, self.at.link) == (at.seq, at.link)


class _Run:
    """One run, from lease to release."""

    def __init__(self, grip: Grip, request: Request, watcher: Watcher | None) -> None:
        self.grip = grip
        self.request = request
        self.watcher = watcher or Watcher()
        self.batches: list[ArchiveBatch] = []
        self.clock = Clock()
        self.bounds: tuple[int, int] | None = None  # the newest seq that is due, and the head
        self.notes: list[str] = []
        self.shelf = adoption.Shelf([])
        self.error: str | None = None
        self.ahead: Future[Prepared | None] | None = None
        self.behind: Future[None] | None = None
        self.over = threading.Event()  # stops encoding ahead
        self.halted = threading.Event()  # stops the purge as well
        now = datetime.now(UTC)
        started = now.replace(microsecond=now.microsecond // 1000 * 1000)
        self.row = ArchiveRun.objects.create(
            trigger=request.trigger,
            request=request.id,
            requested_by=request.requested_by,
            requested_from=request.requested_from,
            override=request.override,
            max_batches=request.max_batches,
            through_seq=request.through_seq,
            token=grip.token,
            holder=guard.Process.current().label,
            started_at=started,
            cutoff=selection.cutoff_at(started),
        )

    # The nine steps ------------------------------------------------------------------------

    def execute(self) -> Result:
        """Run, and write down how it ended, whatever happens."""
        may_chain = True
        try:
            with Lane("encode") as self.encoder, Lane("purge") as self.purger:
                try:
                    self.go_through_the_steps()
                except KeyboardInterrupt:
                    self.halted.set()
                    raise
                finally:
                    self.drop_ahead()
            outcome = Outcome.ARCHIVED if self.batches else Outcome.NOTHING_DUE
        except InterruptedRunError as error:
            outcome, self.error = Outcome.INTERRUPTED, str(error)
        except KeyboardInterrupt:
            outcome = Outcome.INTERRUPTED
            self.error = (
                "Stopped at once, amid a step, on a second request. Nothing was lost; the next "
                "run goes on from there."
            )
        except log.RolledBackError as error:
            # What would be appended now would take the seqs of other events.
            outcome, self.error, may_chain = Outcome.REFUSED, str(error), False
        except RefusedError as error:
            outcome, self.error = Outcome.REFUSED, str(error)
        except (AuditError, DatabaseError, OSError) as error:
            outcome, self.error = Outcome.FAILED, sentence(self.explained(error))
        except Exception as error:
            logger.exception("The archive run failed in a way that nobody foresaw.")
            outcome, self.error = Outcome.FAILED, sentence(error)
        return self.close(outcome, may_chain)

    def go_through_the_steps(self) -> None:
        """Do the nine steps."""
        self.done(Step.LEASED)
        if not (self.request.override or conf.archive_enabled()):
            raise RefusedError("ARCHIVE_ENABLED is off: turn it on, or run archive_now.")
        with self.phase("past"):
            log.raise_fence(self.grip.token)  # 1
            self.done(Step.FENCED)
            self.finish_the_past()  # 2
        if self.may_go_on() and ledger.planned() is None:
            self.begin_ahead(ledger.position())
        while self.may_go_on() and (row := self.plan()) is not None:  # 3
            self.archive(row)  # 4 to 7
            self.purge_behind(row)  # 8
            self.adopt_what_continues()
        self.wait_for_purge()  # 9

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
        head = log.current_state().head_seq
        selection.last_wanted(0, 0, head, self.request.through_seq)
        self.shelf = adoption.Shelf.look(ledger.highest_archived_seq(), head)
        self.done(Step.LISTED)
        self.chain_request()
        self.delete_residue()
        for row in ledger.stored():
            self.confirm_again(row)
            self.purge(row)
            self.batches.append(row)
            self.notes.append(f"Stored by an earlier run, confirmed again and purged: {row}")
        self.adopt_what_continues()
        self.delete_residue()
        purge.check_floor()

    def adopt_what_continues(self) -> None:
        """Adopt every batch in the bucket that continues the ledger."""
        while (candidate := self.shelf.next(ledger.position())) is not None:
            self.wait_for_purge()
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

    def last_due(self, at: int, head: int) -> int:
        """Return the newest seq that this run archives, `at` where there is none."""
        due = selection.last_due(at, head, self.row.cutoff)
        last = selection.last_wanted(at, due, head, self.request.through_seq)
        if self.bounds is None:
            self.watcher.expects(last - at)
        self.bounds = due, head
        return last

    def plan(self) -> ArchiveBatch | None:
        """Fix the range of the next batch, or take up the one that was fixed before."""
        at = ledger.position()
        if self.ahead is not None:
            self.show("encode")
        prepared = self.prepared(at)
        with self.phase("plan"):
            row = ledger.planned()
            if row is None:
                found = prepared.range if prepared else self.next_range(at.seq)
                if found is None:
                    return None
                row = ledger.plan(self.grip, self.row, at, found.end_seq, found.bytes_uncompressed)
            self.done(Step.RANGE_FIXED)
        return row

    def next_range(self, at: int) -> selection.Range | None:
        """Cut the next batch off what is due."""
        return selection.next_range(at, self.last_due(at, log.current_state().head_seq))

    def archive(self, row: ArchiveBatch) -> None:
        """Encode, upload, confirm and record one planned batch."""
        at = ledger.position()
        if at.seq + 1 != row.start_seq:
            raise GapError(
                f"{row} does not follow seq {at.seq:,}, where the cold tier ends by the ledger: "
                "nothing was sent. Check the ledger against the bucket."
            )
        with self.encoded(row, at) as encoded:
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

    @contextmanager
    def encoded(self, row: ArchiveBatch, at: ledger.Position) -> Iterator[selection.Encoded]:
        """Encode a batch, unless that was done ahead; meanwhile begin with the one after it."""
        prepared = self.prepared(at)
        self.ahead = None
        if prepared and prepared.range.end_seq != row.end_seq:
            prepared.encoded.file.close()
            prepared = None
        with self.phase("encode"):
            encoded = prepared.encoded if prepared else self.encode(at, row.end_seq)
            self.done(Step.ENCODED)
        with encoded.file:
            if self.may_go_on(beyond=1):
                after = ledger.Position(
                    row.end_seq, encoded.end_link, encoded.frontier, None, encoded.last_recorded_at
                )
                self.begin_ahead(after)
            yield encoded

    def begin_ahead(self, at: ledger.Position) -> None:
        """Encode the batch that continues a place in its lane."""
        self.ahead = self.encoder.begin(lambda: self.encode_ahead(at))

    def prepared(self, at: ledger.Position) -> Prepared | None:
        """Return what was encoded ahead, once it is, if it continues this place."""
        prepared = self.finished_ahead()
        if prepared and not prepared.fits(at):
            prepared.encoded.file.close()
            self.ahead = prepared = None
        return prepared

    def finished_ahead(self) -> Prepared | None:
        """Wait for what is encoded ahead, and return it.

        What went wrong ahead goes wrong again in its turn, where it stops the run; or it does
        not: two batches had no room side by side, or another run was in between.
        """
        if self.ahead is None:
            return None
        try:
            return self.ahead.result()
        except (AuditError, DatabaseError, OSError) as error:
            logger.info("Encoding ahead failed and is done again in its turn: %s", error)
            return None

    def encode_ahead(self, at: ledger.Position) -> Prepared | None:
        """Encode the next batch before its turn; it gets its row in the ledger then."""
        log.bound_page_cache(READ_CACHE_KIB)
        with self.clock.phase("plan"):
            found = self.next_range(at.seq)
        if found is None:
            return None
        with self.clock.phase("encode"):
            return Prepared(at, found, self.encode(at, found.end_seq))

    def drop_ahead(self) -> None:
        """Forget what was encoded ahead: the run has ended."""
        self.over.set()
        if prepared := self.finished_ahead():
            prepared.encoded.file.close()

    def encode(self, at: ledger.Position, end_seq: int) -> selection.Encoded:
        """Write a batch's object to a temporary file, every link recomputed."""
        file = tempfile.TemporaryFile(prefix="dezky-audit-")  # noqa: SIM115  # closed once sent
        try:
            return selection.encode(at, end_seq, file, self.encoding)
        except BaseException:
            file.close()
            raise

    def encoding(self, events: int) -> None:
        """Tell how far encoding got; stop there where the run is over."""
        self.watcher.advances(events)
        if self.over.is_set():
            raise InterruptedRunError("Encoding stopped with its run.")

    def upload(
        self,
        row: ArchiveBatch,
        encoded: selection.Encoded,
        jsonl_key: str,
        manifest_key: str,
        manifest: bytes,
    ) -> list[cold.Sent]:
        """PUT the object, then its manifest; the row learns each name before its PUT."""
        with self.phase("upload"):
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
        with self.phase("encode"):
            encoded = self.encode(at, row.end_seq)
        with encoded.file:
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

    def purge_behind(self, row: ArchiveBatch) -> None:
        """Purge a batch in its lane, after the one before, while the run goes on."""
        self.wait_for_purge()
        self.behind = self.purger.begin(lambda: self.purge(row))

    def wait_for_purge(self) -> None:
        """Wait until what is being purged is; raises what stopped it."""
        if self.behind is not None:
            behind, self.behind = self.behind, None
            if not behind.done():
                self.show("purge")
            behind.result()

    def purge(self, row: ArchiveBatch) -> None:
        """Delete the rows of a stored batch."""
        log.bound_page_cache(PURGE_CACHE_KIB)
        with self.clock.phase("purge"):
            purge.raise_floor(self.grip, row)
            self.done(Step.FLOOR_RAISED)
            self.delete_rows(row)
            self.done(Step.ROWS_DELETED)
            ledger.mark_purged(self.grip, row)
            self.done(Step.PURGED)

    def delete_rows(self, row: ArchiveBatch) -> None:
        """Delete a batch's rows."""
        for _ in purge.delete_rows(row):
            self.done(Step.CHUNK_DELETED)

    # Bookkeeping -----------------------------------------------------------------------------

    def chain_request(self) -> None:
        """Write into the log that this run was asked for, and what dead runs could not write."""
        try:
            chain_what_is_missing()
            chain(self.row)
        except log.RolledBackError:
            raise
        except (AuditError, DatabaseError) as error:
            self.not_chained(error)

    def chain_outcome(self) -> None:
        """Write into the log how the run ended, by its row: another run may have closed it."""
        try:
            self.row.refresh_from_db()
            chain(self.row)
        except (AuditError, DatabaseError) as error:
            self.not_chained(error)

    def not_chained(self, error: BaseException) -> None:
        """Say that the run's own events are not in the log yet."""
        logger.warning("The events of %s could not be written into the log: %s", self.row, error)
        self.notes.append(
            f"Its own events could not be written into the log; the next run writes them: "
            f"{sentence(error)}"
        )

    def may_go_on(self, beyond: int = 0) -> bool:
        """Say whether another batch may be begun, or one more after `beyond` others."""
        most = self.request.max_batches
        return most is None or len(self.batches) + beyond < most

    def done(self, step: Step) -> None:
        """Tell the watcher that a step is done, and stop here if that is asked for."""
        self.watcher.done(step)
        if self.watcher.stopping():
            raise InterruptedRunError(
                f"Stopped on request after the step '{step}'. Nothing was lost; the next run "
                "goes on from there."
            )
        if self.halted.is_set():
            raise InterruptedRunError(f"Stopped with its run after the step '{step}'.")

    def show(self, phase: str) -> None:
        """Show on the run's row and to the watcher what the run is at."""
        self.row.phase = phase
        self.save("phase")
        self.watcher.begins(phase)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase, and show it."""
        self.show(name)
        with self.clock.phase(name):
            yield

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

    def close(self, outcome: Outcome, may_chain: bool) -> Result:
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
        else:
            if may_chain:
                self.chain_outcome()
        return with_boundary(
            Result(
                outcome,
                run=self.row.pk,
                batches=[
                    {name: getattr(row, name) for name in BATCH_FIELDS} for row in self.batches
                ],
                events=self.row.events,
                seconds=self.clock.seconds,
                elapsed=self.clock.elapsed(),
                error=self.error,
                kept=self.row.kept,
                notes=self.notes,
            )
        )
