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
import threading
from concurrent.futures import Future
from hashlib import sha256

from django.db import DatabaseError
from structlog.contextvars import bound_contextvars

from . import (
    adoption,
    catchup,
    checkpoints,
    cold,
    conf,
    guard,
    ledger,
    log,
    purge,
    selection,
    sightings,
    storage,
)
from .ahead import Ahead, encode
from .anchors import Anchors
from .failures import kind_of
from .format.errors import AuditError, GapError
from .format.names import Kind, ObjectName
from .format.record import parse_time
from .guard import Grip
from .journal import Journal
from .lane import Lane
from .models import ArchiveBatch
from .request import Request, note_without_run
from .result import Outcome, Result, sentence, with_boundary
from .watcher import Step, Watcher

PURGE_CACHE_KIB = 32 * 1024

logger = logging.getLogger(__name__)


class InterruptedRunError(AuditError):
    """The run was asked to stop."""


class RefusedError(AuditError):
    """The run is not allowed."""


def run(request: Request, watcher: Watcher | None = None) -> Result:
    """Archive everything that is due; return what became of it. Never raises an AuditError.

    That it was asked for, and how it ended, become events in the log.
    """
    try:
        with guard.lease() as grip:
            sightings.notice(f"archive, by {request.trigger}")
            this = _Run(grip, request, watcher or Watcher())
            with bound_contextvars(run=this.journal.row.pk):
                return this.execute()
    except guard.LeaseHeldError as error:
        result = Result(Outcome.BUSY, error=str(error))
    except (AuditError, DatabaseError) as error:
        result = Result(Outcome.FAILED, error=sentence(error))
    try:
        note_without_run(request, result.outcome.value, result.error or "")
    except (AuditError, DatabaseError) as error:
        logger.warning("The request %s could not be noted: %s", request, error)
        result.notes.append(f"The request could not be noted for the log: {sentence(error)}")
    return with_boundary(result)


def alarm_of(error: BaseException) -> str:
    """Return the kind of the alarm that a failed run is; empty where it is none.

    What was asked for and cannot be is told to whoever asked; a run that was overtaken leaves its
    work to the other one.
    """
    unalarming = (selection.BeyondHeadError, selection.BegunError, guard.LeaseLostError)
    return "" if isinstance(error, unalarming) else str(kind_of(error))


class _Run:
    """One run, from lease to release."""

    def __init__(self, grip: Grip, request: Request, watcher: Watcher) -> None:
        self.grip = grip
        self.request = request
        self.watcher = watcher
        self.journal = Journal(grip, request, watcher)
        self.batches = self.journal.batches
        self.notes = self.journal.notes
        self.phase = self.journal.phase
        self.shelf = adoption.Shelf([])
        self.halted = threading.Event()  # stops the lanes at their next step
        self.anchors = Anchors()
        self.ahead: Ahead
        self.purger: Lane
        self.behind: Future[None] | None = None

    # The nine steps ------------------------------------------------------------------------

    def execute(self) -> Result:
        """Run, and write down how it ended, whatever happens."""
        error: str | None = None
        failure: BaseException | None = None
        alarm = ""
        try:
            with Lane("encode", self.halted) as encoder, Lane("purge", self.halted) as self.purger:
                self.ahead = Ahead(
                    encoder, self.journal.clock, self.next_range, self.watcher.advances
                )
                try:
                    self.go_through_the_steps()
                except KeyboardInterrupt:
                    self.halted.set()
                    raise
                finally:
                    self.ahead.drop()
                    self.tell_of_purge()
            outcome = Outcome.ARCHIVED if self.batches else Outcome.NOTHING_DUE
        except InterruptedRunError as reason:
            outcome, error, failure = Outcome.INTERRUPTED, str(reason), reason
        except KeyboardInterrupt as reason:
            outcome, failure = Outcome.INTERRUPTED, reason
            error = (
                "Stopped at once, amid a step, on a second request. Nothing was lost; the next "
                "run goes on from there."
            )
        except log.RolledBackError as reason:
            # What would be appended now would take the seqs of other events.
            self.journal.looked = False
            failure = reason
            why = self.explained(reason)
            outcome = Outcome.REFUSED if why is reason else Outcome.FAILED
            error, alarm = str(why), alarm_of(why)
        except RefusedError as reason:
            outcome, error = Outcome.REFUSED, str(reason)
        except (AuditError, DatabaseError, OSError) as reason:
            why, failure = self.explained(reason), reason
            outcome, error, alarm = Outcome.FAILED, sentence(why), alarm_of(why)
        except Exception as reason:
            logger.exception("The archive run failed in a way that nobody foresaw.")
            outcome, error, alarm = Outcome.FAILED, sentence(reason), alarm_of(reason)
        self.notes += self.shelf.notes
        result = self.journal.close(outcome, error, alarm)
        if not isinstance(failure, log.RolledBackError):  # nothing is signed for such a log
            self.make_checkpoint(result, failure)
        return result

    def go_through_the_steps(self) -> None:
        """Do the nine steps."""
        self.done(Step.LEASED)
        if not (self.request.override or conf.archive_enabled()):
            raise RefusedError("ARCHIVE_ENABLED is off: turn it on, or run archive_now.")
        with self.phase("past"):
            log.raise_fence(self.grip.token)  # 1
            self.done(Step.FENCED)
            self.finish_the_past()  # 2
        if self.may_go_on():
            self.look_at_checkpoints()
            if ledger.planned() is None:
                self.ahead.begin(ledger.position(), self.anchors)
        while self.may_go_on() and (planned := self.plan()) is not None:  # 3
            row, encoded = planned
            self.archive(row, encoded)  # 4 to 7
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
        caught_up = catchup.catch_up(to_sign=False)
        self.notes += caught_up.notes
        self.journal.looked = not caught_up.in_doubt
        self.done(Step.LISTED)
        if self.journal.looked:
            self.journal.chain()
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
            self.journal.row,
            ledger.position(),
            manifest.end_seq,
            manifest.bytes_uncompressed,
            planned_at=parse_time(manifest.created_at),
        )
        ledger.record(
            self.grip,
            self.journal.row,
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

    def plan(self) -> tuple[ArchiveBatch, selection.Encoded | None] | None:
        """Fix the range of the next batch, or take up the one that was fixed before.

        Returns its row, and the batch as it was encoded ahead, if it was.
        """
        if self.ahead.is_at_work():
            self.journal.show("encode")
        at = ledger.position()
        prepared = self.ahead.take(at)
        with self.phase("plan"):
            row = ledger.planned()
            if row is None:
                found = prepared.range if prepared else self.next_range(at.seq)
                if found is None:
                    return None
                row = ledger.plan(
                    self.grip, self.journal.row, at, found.end_seq, found.bytes_uncompressed
                )
            selection.check_begun(row, self.request.through_seq)
            self.done(Step.RANGE_FIXED)
        if prepared and prepared.range.end_seq != row.end_seq:
            prepared.encoded.file.close()
            prepared = None
        return row, prepared.encoded if prepared else None

    def look_at_checkpoints(self) -> None:
        """Take up the checkpoints of what is to be archived; make one where none comes after it.

        Whoever can write to hot can recompute links, but cannot sign.
        """
        at, planned = ledger.highest_archived_seq(), ledger.planned()
        with self.phase("plan"):
            last = max(self.last_wanted(at), planned.end_seq if planned else 0)
            if last > at:
                checkpoints.ensure_from(last)
                self.anchors = Anchors.load(at, last)

    def last_wanted(self, at: int) -> int:
        """Return the newest seq to archive; what is due is fixed when it is first asked for."""
        if self.journal.bounds is None:
            head = log.current_state().head_seq
            due = selection.last_due(at, head, self.journal.row.cutoff)
            last = selection.last_wanted(at, due, head, self.request.through_seq)
            self.watcher.expects(last - at)
            self.journal.bounds = due, head
        return selection.last_wanted(at, *self.journal.bounds, self.request.through_seq)

    def next_range(self, at: int) -> selection.Range | None:
        """Cut the next batch off what is wanted."""
        return selection.next_range(at, self.last_wanted(at))

    def archive(self, row: ArchiveBatch, encoded: selection.Encoded | None) -> None:
        """Encode, upload, confirm and record one planned batch; meanwhile encode the next."""
        at = ledger.position()
        if at.seq + 1 != row.start_seq:
            raise GapError(
                f"{row} does not follow seq {at.seq:,}, where the cold tier ends by the ledger: "
                "nothing was sent. Check the ledger against the bucket."
            )
        if encoded is None:
            with self.phase("encode"):
                encoded = encode(at, row.end_seq, self.watcher.advances, self.anchors)
        with encoded.file:
            self.done(Step.ENCODED)
            if self.may_go_on(beyond=1):
                self.ahead.begin(
                    ledger.Position(
                        row.end_seq,
                        encoded.end_link,
                        encoded.frontier,
                        None,  # not needed to encode
                        encoded.last_recorded_at,
                    ),
                    self.anchors,
                )
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
                self.journal.row,
                row,
                manifest,
                manifest_key,
                manifest_sha256,
                encoded.frontier,
            )
            self.batches.append(row)
            self.done(Step.RECORDED)

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
            sent = cold.send_document(manifest_key, manifest)
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
        checkpoints.ensure_from(row.end_seq)
        anchors = Anchors.load(at.seq, row.end_seq)
        with self.phase("encode"):
            encoded = encode(at, row.end_seq, self.watcher.advances, anchors)
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
            cold.send_document(row.manifest_key, data)
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
                self.journal.show("purge")
            behind.result()

    def tell_of_purge(self) -> None:
        """Note what stopped the purge where something else has stopped the run."""
        if self.behind is not None:
            error = self.behind.exception()
            if error is not None and not isinstance(error, InterruptedRunError):
                logger.error("The purge failed, too: %s", error)
                self.notes.append(f"The purge failed, too: {sentence(error)}")

    def purge(self, row: ArchiveBatch) -> None:
        """Delete the rows of a stored batch."""
        log.bound_page_cache(PURGE_CACHE_KIB)
        with self.journal.clock.phase("purge"):
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

    def make_checkpoint(self, result: Result, failure: BaseException | None) -> None:
        """Sign where the log ends now, after this run's own events.

        A bucket that has just stopped the run is not waited for once more, nor is it by whoever
        is to stop. What was found in it while it answered is held against the log again.
        """
        unasked = (storage.UnavailableError, InterruptedRunError, KeyboardInterrupt)
        try:
            notes = checkpoints.make(ask_bucket=not isinstance(failure, unasked)).notes
        except (AuditError, DatabaseError) as error:
            notes = [f"No checkpoint was made: {sentence(error)}"]
        if notes != [f"No checkpoint was made: {result.error}"]:
            self.journal.add(result, notes)

    def may_go_on(self, beyond: int = 0) -> bool:
        """Say whether another batch may be begun, or one more after `beyond` others."""
        most = self.request.max_batches
        return most is None or len(self.batches) + beyond < most

    def done(self, step: Step) -> None:
        """Tell the watcher that a step is done, and stop here if that is asked for."""
        self.watcher.done(step)
        if self.watcher.stopping() or self.halted.is_set():
            raise InterruptedRunError(
                f"Stopped on request after the step '{step}'. Nothing was lost; the next run "
                "goes on from there."
            )
