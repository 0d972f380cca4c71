"""Verify the log: one walk from link 0 to the head, over both tiers, against every checkpoint.

It changes nothing but `VerificationRun` rows, its own and those of dead ones, and needs nothing to
be in order: what a database, the bucket or a key does not say is a problem in the report, and the
rest is looked at.

Beside ingest and a run it must never cry wolf. So what is made last is listed first: the ledger's
rows before the bucket's names, and these before the rows of checkpoints, whose objects come after
them. Then cold is walked, and hot last, up to a head that is read before its rows. What seems to
be missing or too much is looked for once more before it is said.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.core import checks
from django.db import DEFAULT_DB_ALIAS, DatabaseError

from . import cold, conf, evidence, ledger, log, verifications
from .anchors import signed
from .bucket import Bucket
from .canonical import read_many
from .format.chain import genesis_link
from .format.errors import AuditError, RecordError, UnreachableError
from .format.examine import examine
from .format.inspect import Anchor, Inspected, Job, inspect
from .format.keys import KeyringError
from .format.manifest import MAX_MANIFEST_BYTES, Manifest
from .format.merkle import EMPTY_ROOT
from .format.names import CHECKPOINTS, MAX_SEQ, CheckpointName, ObjectName
from .format.names import Kind as ObjectKind
from .format.report import Kind, Problem, Report
from .format.signing import Keyring
from .format.store import Store
from .format.walk import Expected, Place, Walk
from .hotwalk import HotWalk, changed_columns, start
from .models import ArchiveBatch, LogState, VerificationRun
from .models import Checkpoint as CheckpointRow
from .request import OVER_HTTP
from .result import sentence
from .routers import hot_alias
from .set_up import set_up

FULL, MANIFESTS = VerificationRun.Level.FULL, VerificationRun.Level.MANIFESTS
MANY_EVENTS = 500_000  # in cold, from which on several processes are worth their start

logger = logging.getLogger(__name__)


class NoBatchError(AuditError):
    """A seq was asked for that no batch holds."""


@dataclass(frozen=True)
class Asked:
    """Who asks for a verification, from where, by which door, and for how much of it.

    `batch_seq`: look at the one batch that holds this seq, and at nothing else.
    """

    trigger: str
    requested_by: str
    requested_from: str = ""
    level: str = FULL
    batch_seq: int | None = None
    processes: int | None = None


@dataclass
class Verified:
    """What a verification answers."""

    report: Report
    level: str
    run: int | None = None
    oldest_hot_seq: int | None = None
    highest_archived_seq: int | None = None
    checks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the documented form."""
        return {
            **self.report.to_json(),
            "level": self.level,
            "run": self.run,
            "oldest_hot_seq": self.oldest_hot_seq,
            "highest_archived_seq": self.highest_archived_seq,
            "checks": self.checks,
        }


def verify(
    asked: Asked,
    progress: Callable[[int], None] = lambda events: None,
    expects: Callable[[int], None] = lambda events: None,
) -> Verified:
    """Verify the log; never raises an AuditError or a DatabaseError for what it finds.

    `expects` hears how many events there are, `progress` how many more were looked at. Raises
    NoBatchError where no batch holds the seq that was asked for; and, where it was asked for over
    HTTP, AlreadyVerifyingError, BusyError or DatabaseError where none may begin, or it cannot be
    written down that one does.
    """
    verification = _Verification(asked, progress, expects)
    row = _open_row(asked)
    try:
        verification.go()
    except NoBatchError as error:
        _close_row(row, verification.answer, str(error))
        raise
    except BaseException as error:
        # A fault of this program, or Ctrl-C, must never look like a verdict.
        stopped = isinstance(error, KeyboardInterrupt)
        if not stopped:
            logger.exception("A verification failed in a way that nobody foresaw.")
        why = "Stopped on request" if stopped else f"It failed ({sentence(error).rstrip('.')})"
        verification.report.tell(
            Kind.UNVERIFIABLE, f"{why}: what is not said above was not looked at. Verify again."
        )
        _close_row(row, verification.answer)
        raise
    if row is not None:
        verification.answer.run = row.pk
    _close_row(row, verification.answer)
    return verification.answer


def _open_row(asked: Asked) -> VerificationRun | None:
    try:
        return verifications.open_row(
            asked.trigger,
            requested_by=asked.requested_by,
            requested_from=asked.requested_from,
            level=asked.level,
            batch_seq=asked.batch_seq,
        )
    except (log.BusyError, DatabaseError) as error:
        if asked.trigger in OVER_HTTP:
            raise
        logger.warning("That a verification was asked for is not written down: %s", error)
        return None


def _close_row(row: VerificationRun | None, answer: Verified, error: str = "") -> None:
    if row is None:
        answer.report.note("This verification is written down nowhere but here.")
        return
    row.finished_at = datetime.now(UTC)
    row.outcome = Kind.UNVERIFIABLE.value if error else answer.report.outcome
    row.events = answer.report.events
    row.report = answer.to_json() | ({"error": error} if error else {})
    try:
        row.save()
    except DatabaseError as failure:
        logger.warning("How a verification ended is not written down: %s", failure)
        answer.report.note(
            f"This verification is written down nowhere but here: {sentence(failure)}"
        )


class _Verification:
    """One verification."""

    def __init__(
        self, asked: Asked, progress: Callable[[int], None], expects: Callable[[int], None]
    ) -> None:
        self.asked = asked
        self.full = asked.level == FULL
        self.progress = progress
        self.expects = expects
        self.report = Report()
        self.answer = Verified(self.report, asked.level)
        self.store = Bucket(conf.cold_prefix())
        self.expected: dict[int, Expected] = {}
        self.rows: list[CheckpointRow] = []
        self.walk: Walk | None = None
        self.ledger_answers = True
        self.locked: dict[str, DatabaseError] = {}  # databases that stayed so
        self.cold_is_whole = False  # everything in it was looked at
        self.waiting: deque[int] = deque()  # the first seqs of batches that are being read

    def go(self) -> None:
        """Look at everything, in the order of safety."""
        self.answer.checks = _system_checks()
        self.keyring = self._keyring()
        whole = self.asked.batch_seq is None
        self.ledger_answers = self._ask(DEFAULT_DB_ALIAS, self._take_ledger)
        listed = self._listed(self.expected)
        self._ask(DEFAULT_DB_ALIAS, self._take_rows)
        if whole:
            self._ask(hot_alias(), self._count, say=False)
        if listed is not None:
            self._cold(listed, self.expected)
        if whole:
            self._ask(hot_alias(), self._hot)
        self._ask(hot_alias(), self._boundary, say=False)

    def _ask(self, alias: str, look: Callable[[], object], *, say: bool = True) -> bool:
        """Look at what a database holds; where it does not answer, say so, and return False.

        One that stayed locked for as long as we wait is not asked again. What it says, it says
        once.
        """
        try:
            if alias in self.locked:
                raise self.locked[alias]
            look()
        except DatabaseError as error:
            if log.is_lock_timeout(error):
                self.locked[alias] = error
            if say:
                self._tell_once(
                    f"{sentence(error)} What it holds was not looked at, or not all of it."
                )
            return False
        return True

    def _count(self) -> None:
        ends = [row.end_seq for row in self.expected.values()]
        self.expects(max([evidence.head_seq(), *ends]))

    def _take_ledger(self) -> None:
        self.expected = self._expected()

    def _tell_once(self, message: str) -> None:
        if all(problem.message != message for problem in self.report.problems):
            self.report.tell(Kind.UNVERIFIABLE, message)

    def _keyring(self) -> Keyring:
        try:
            return conf.keyring()
        except KeyringError as error:
            self._tell_once(f"{error} Nothing that is signed could be verified.")
            return Keyring([])

    def _listed(self, expected: dict[int, Expected]) -> list[str] | None:
        """Return the names of all objects; None, and say why, where they cannot be known.

        A listing of many objects takes a while: it may pass the place of one that is put there
        just then, and have the next. Where something seems to be missing, the next listing has it.
        """
        try:
            names = self.store.names()
            if _has_holes(names, expected):
                names = sorted({*names, *self.store.names()})
        except UnreachableError as error:
            self._lost(error, "Nothing in the bucket was looked at.")
            return None
        return names

    def _lost(self, error: AuditError, what: str) -> None:
        self.report.tell(Kind.UNVERIFIABLE, f"{error} {what}")

    def _expected(self) -> dict[int, Expected]:
        """Return what the ledger says is in cold."""
        rows = ArchiveBatch.objects.filter(state__in=ledger.IN_COLD).order_by("start_seq")
        found = {}
        for row in rows.values_list("start_seq", "end_seq", "manifest_sha256"):
            if _is_range(*row):
                found[row[0]] = Expected(*row)
            else:
                self.report.tell(
                    Kind.TAMPERED,
                    f"The ledger's row of the batch {row[0]}–{row[1]} was changed: these are no "
                    "seqs, or its digest is none. Run rebuild_ledger.",
                    None,
                    f"row of batch {row[0]}–{row[1]}",
                )
        return found

    def _take_rows(self) -> None:
        """Take up the rows of checkpoints whose signatures are good; say which are not."""
        for row in evidence.checkpoints():
            try:
                if isinstance(row, AuditError):
                    raise row
                signed(row)
            except KeyringError:
                continue  # it was said of all that is signed
            except AuditError as error:
                seq, place = (None, "row of a checkpoint")
                if isinstance(row, CheckpointRow):
                    seq, place = row.seq, f"row of {row}"
                self.report.tell(Kind.of(error), str(error), seq, place)
            else:
                self.rows.append(row)

    # Cold ----------------------------------------------------------------------------------

    def _cold(self, listed: list[str], expected: dict[int, Expected]) -> None:
        """Walk over checkpoints, manifests and objects."""
        walk = self.walk = Walk(
            self.store,
            self.keyring,
            self.report,
            origin=conf.origin(),
            expected=expected,
            names=listed,
        )
        try:
            self._checkpoints(walk)
            if self.asked.batch_seq is not None:
                self._one_batch(walk, self.asked.batch_seq)
            self._batches(walk)
            if self.asked.batch_seq is None:
                walk.foreign_objects()
            self.cold_is_whole = True
        except UnreachableError as error:
            first = self.waiting[0] if self.waiting else walk.place.seq + 1
            self._lost(error, f"From seq {first:,} on, cold was not looked at.")

    def _checkpoints(self, walk: Walk) -> None:
        """Hold rows and objects of checkpoints against each other, and all against each other."""
        listed = set(walk.point_names)
        known: dict[str, bytes] = {}
        for row in self.rows:
            name = CheckpointName.of(row.index, row.seq, row.sha256)
            there = name in listed or self._is_there(row, name)
            if not there or not self.full:
                known[str(name)] = log.as_bytes(row.document)
            if name not in listed:
                walk.point_names.append(name)
        walk.read_checkpoints(known)
        if self.ledger_answers:
            self._ask(DEFAULT_DB_ALIAS, partial(self._lacking, walk))

    def _lacking(self, walk: Walk) -> None:
        """Say which checkpoints have no row."""
        indexes = {row.index for row in self.rows}
        for point in walk.points:
            index = point.checkpoint.index
            if index not in indexes and not CheckpointRow.objects.filter(index=index).exists():
                self.report.tell(
                    Kind.GAP,
                    f"Checkpoint {index:,} is in the bucket, and its row is missing: the database "
                    "was restored from an older copy, or the row removed. Run checkpoint_now, "
                    "which adopts it if it is newer than all rows; else restore the row from a "
                    "backup.",
                    point.checkpoint.seq,
                    f"row of checkpoint {index:,}",
                )

    def _is_there(self, row: CheckpointRow, name: CheckpointName) -> bool:
        """Say whether a row's object is in the bucket; a published one must be."""
        try:
            self.store.size(f"checkpoints/{name}")
        except UnreachableError:
            raise
        except AuditError:
            if row.state == CheckpointRow.State.PUBLISHED:
                self.report.tell(
                    Kind.GAP,
                    f"The object of {row} is missing from the bucket: put it back from a copy of "
                    "the bucket, or from the row, which has its bytes.",
                    row.seq,
                    f"checkpoints/{name}",
                )
            return False
        return True

    def _one_batch(self, walk: Walk, seq: int) -> None:
        """Leave only the batch that holds a seq; raises NoBatchError."""
        starts = [row.start_seq for row in walk.expected.values() if _holds(row, seq)]
        if not starts:  # it may be on its way; and anybody can put a name there
            names = [name for name in walk.batch_names if _holds(name, seq)]
            names.sort(key=lambda name: (self._is_signed(name), name.start_seq))
            starts = [name.start_seq for name in names[-1:]]
        if not starts:
            raise NoBatchError(
                f"No batch holds seq {seq:,}: it is in hot, or not in the log. Verify the log as "
                "a whole."
            )
        start = starts[0]
        names = [name for name in walk.batch_names if name.start_seq == start]
        expected = {start: walk.expected[start]} if start in walk.expected else {}
        walk.look_again(names, expected, Place(start - 1, manifest=None))

    def _is_signed(self, name: ObjectName) -> bool:
        """Say whether a name is that of a manifest that is good by itself."""
        try:
            data = self.store.read(str(name), MAX_MANIFEST_BYTES)
            manifest = Manifest.from_bytes(data, self.keyring)
        except UnreachableError:
            raise
        except AuditError:
            return False
        return (manifest.start_seq, manifest.end_seq) == (name.start_seq, name.end_seq)

    def _batches(self, walk: Walk) -> None:
        """Go through the batches from the walk's place on."""
        jobs = self._jobs(walk)
        if not self.full:
            for job in jobs:
                walk.look_at(job)
                self._passed(job.manifest.event_count)
            return
        events = sum(row.end_seq - row.start_seq + 1 for row in walk.expected.values())
        several = min(os.cpu_count() or 1, len(walk.expected)) if events >= MANY_EVENTS else 1
        examine(
            walk,
            jobs,
            processes=self.asked.processes or several,
            inspect=_inspect if self._hot_answers() else inspect,
            initializer=set_up,
            progress=self._passed,
        )

    def _hot_answers(self) -> bool:
        """Say whether hot can be read; where it cannot, that is said when its turn comes."""
        return self._ask(hot_alias(), log.oldest_seq, say=False)

    def _passed(self, events: int) -> None:
        """Note that the next batch was looked at: they come in their order."""
        self.waiting.popleft()
        self.progress(events)

    def _jobs(self, walk: Walk) -> Iterator[Job]:
        """Yield what the walk finds, each held against its row of the ledger."""
        for job in walk.batches():
            self.waiting.append(job.manifest.start_seq)
            if self.ledger_answers:
                self._ask(DEFAULT_DB_ALIAS, partial(self._check_row, walk, job))
            yield job

    def _check_row(self, walk: Walk, job: Job) -> None:
        manifest = job.manifest
        batch = f"{manifest.start_seq:,}–{manifest.end_seq:,}"
        place = f"row of batch {batch}"
        try:
            row = evidence.batch(manifest.start_seq)
        except evidence.UnreadableRowError as error:
            self.report.tell(Kind.TAMPERED, str(error), manifest.start_seq, place)
            return
        if row is not None and row.state in ledger.IN_COLD:
            if name := _changed_in(row, manifest, walk):
                self.report.tell(
                    Kind.TAMPERED,
                    f"The ledger's row of {row} was changed: its {name} is not the signed one. "
                    "Run rebuild_ledger.",
                    manifest.start_seq,
                    place,
                )
            return
        purged = manifest.start_seq <= evidence.floor_seq()
        if not purged and manifest.start_seq >= evidence.archived_seq():
            self.report.note(
                f"In the bucket, and not in the ledger yet; the next run adopts it: {job.name}"
            )
            return
        rows = ArchiveBatch.objects.filter(start_seq=manifest.start_seq, state__in=ledger.IN_COLD)
        if not rows.exists():  # by now
            self.report.tell(
                Kind.GAP,
                f"Batch {batch} is in the bucket and {'gone from hot' if purged else 'not last'}, "
                "and its row is missing in the ledger. Run rebuild_ledger.",
                manifest.start_seq,
                place,
            )

    def _more(self, seq: int) -> Place | None:
        """Return where cold ends, verified, if it has a seq by now.

        Raises UnreachableError where that cannot be known.
        """
        walk = self.walk
        if not self.ledger_answers:
            raise UnreachableError("the ledger does not answer. Verify again when it does.")
        if evidence.archived_seq() < seq or (
            walk and self.cold_is_whole and walk.place.seq >= seq
        ):
            return None
        if walk is None or not self.cold_is_whole:
            raise UnreachableError("it was not read. Verify again when the bucket answers.")
        try:
            expected = self._expected()
            walk.look_again(self._names_again(expected), expected, walk.place)
            self._batches(walk)
        except UnreachableError:
            self.cold_is_whole = False
            raise
        return walk.place if walk.place.seq >= seq else None

    def _names_again(self, expected: dict[int, Expected]) -> list[ObjectName]:
        names = self.store.names()
        if _has_holes(names, expected):
            names = sorted({*names, *self.store.names()})
        return [name for text in names if (name := ObjectName.parse(text))]

    # Hot -----------------------------------------------------------------------------------

    def _hot(self) -> None:
        """Walk over hot, and hold the log's state against both tiers."""
        # Before the state: the floor is raised first, and only then is a batch called purged.
        purged = evidence.archived_seq(ArchiveBatch.State.PURGED) if self.ledger_answers else 0
        state = self._state()
        if state is None:
            return
        self._check_state(state, purged)
        hot = HotWalk(self.report, self._place(), self._anchors(), self._more, self.progress)
        hot.go(state, evidence.state)
        self.report.root = hot.root()
        newest = log.newest_seq()
        end = max(evidence.head_seq(), evidence.floor_seq())
        if newest is not None and (type(newest) is not int or newest > end):
            self.report.tell(
                Kind.TAMPERED,
                f"Seq {newest} is in the hot database beyond the log's head, seq {end:,}: a row "
                "was put there, or the state was changed. Keep the database as it is, and compare "
                "with a backup.",
                newest if type(newest) is int else None,
            )

    def _state(self) -> LogState | None:
        """Return the log's state; say what is wrong where there is none, or none to go by."""
        try:
            state = evidence.state()
        except evidence.UnreadableRowError as error:
            self.report.tell(Kind.TAMPERED, f"{error} The rows of hot were not looked at.")
            return None
        if state is None and self._is_new():
            self.report.root = EMPTY_ROOT.hex()
        elif state is None:
            self.report.tell(
                Kind.GAP,
                "The log's state is missing though the log is not empty: restore the hot database "
                "from its newest backup. The rows of hot were not looked at.",
            )
        return state

    def _is_new(self) -> bool:
        """Say whether nothing was ever in the log."""
        return (
            log.newest_seq() is None
            and not any(row.seq for row in self.rows)
            and not (self.ledger_answers and evidence.archived_seq())
            and not (self.walk and (self.walk.place.seq or any(self.walk.anchors(1, MAX_SEQ))))
        )

    def _place(self) -> Place:
        """Return where cold ends: by the walk; by the ledger where that is not known."""
        place = self.walk.place if self.walk else Place()
        if place == Place():
            place = start()
        if self.cold_is_whole or not self.ledger_answers:
            return place
        row = ArchiveBatch.objects.filter(
            state__in=ledger.IN_COLD, end_seq__gt=place.seq, end_seq__lte=MAX_SEQ
        )
        found = row.order_by("-end_seq").values_list("end_seq", "end_link").first()
        return Place(found[0], log.as_hash(found[1]) or None, None) if found else place

    def _anchors(self) -> list[Anchor]:
        if self.walk is not None:
            return list(self.walk.anchors(0, MAX_SEQ))
        checkpoints = map(signed, self.rows)
        return [Anchor(item.seq, item.link, item.root, item.index) for item in checkpoints]

    def _check_state(self, state: LogState, purged: int) -> None:
        """Hold the log's state against the cold tier."""
        keep = "Keep the database as it is, and compare with a backup."
        if state.origin != conf.origin():
            self.report.tell(
                Kind.TAMPERED,
                f"The log's state is of another log, '{state.origin}', AUDIT_ORIGIN is "
                f"'{conf.origin()}'. Set AUDIT_ORIGIN back, or point at the right database.",
            )
        if not self.ledger_answers:
            return
        archived = evidence.archived_seq()
        if self.walk is not None:
            archived = max(archived, self.walk.place.seq)
        if state.floor_seq > archived:
            self.report.tell(
                Kind.GAP,
                f"Hot was purged up to seq {state.floor_seq:,}, but cold reaches only seq "
                f"{archived:,}: batches and their rows are missing, or the state was changed. "
                "Restore them from a copy of the bucket, then run rebuild_ledger.",
                archived + 1,
            )
            return
        if state.floor_seq < purged:
            self.report.tell(
                Kind.TAMPERED,
                f"The log's floor is seq {state.floor_seq:,}, but batches were purged up to seq "
                f"{purged:,}: the state was changed, or hot restored from an older copy. Run "
                "archive_now, which raises it again when it has read those batches.",
                state.floor_seq + 1,
            )
        if state.floor_seq == 0:
            links = {genesis_link(conf.origin()).hex()}
        else:
            rows = ArchiveBatch.objects.filter(end_seq=state.floor_seq)
            links = set(rows.values_list("end_link", flat=True))
        if links and state.floor_link not in links:
            self.report.tell(
                Kind.TAMPERED,
                f"The log's state has another link for its floor, seq {state.floor_seq:,}, than "
                f"the ledger: it was changed. {keep}",
                state.floor_seq,
            )
        amid = ArchiveBatch.objects.filter(
            state__in=ledger.IN_COLD,
            start_seq__lte=state.floor_seq,
            end_seq__gt=state.floor_seq,
        )
        if not links and amid.exists():
            self.report.tell(
                Kind.TAMPERED,
                f"The log's floor, seq {state.floor_seq:,}, is amid a batch: the state was "
                f"changed. {keep}",
                state.floor_seq,
            )

    def _boundary(self) -> None:
        if self.ledger_answers:
            self.answer.highest_archived_seq = evidence.archived_seq()
        self.answer.oldest_hot_seq = log.oldest_seq(above=evidence.floor_seq())


def _system_checks() -> list[str]:
    """Return what Django's checks say, in one line each."""
    try:
        found = checks.run_checks()
    except Exception as error:  # whatever keeps them from running must not keep us
        return [f"The system checks failed: {sentence(error)}"]
    return [
        f"{message.id}: {message.msg} {message.hint or ''}".strip()
        for message in found
        if not message.is_silenced()
    ]


def _has_holes(names: list[str], expected: dict[int, Expected]) -> bool:
    """Say whether a listing lacks what should be there: a batch, or one between others."""
    batches = [name for text in names if (name := ObjectName.parse(text))]
    manifests = sorted(name for name in batches if name.kind is ObjectKind.MANIFEST)
    starts, objects = {name.start_seq for name in manifests}, set(batches)
    end = 0
    for name in manifests:
        if name.start_seq > end + 1:
            return True
        end = max(end, name.end_seq)
    ranges = {(name.start_seq, name.end_seq) for name in objects if name.kind is ObjectKind.JSONL}
    if any((name.start_seq, name.end_seq) not in ranges for name in manifests):
        return True
    points = {
        point.index
        for text in names
        if (point := CheckpointName.parse(text.removeprefix(f"{CHECKPOINTS}/")))
    }
    return bool(expected.keys() - starts) or len(points) < max(points, default=0)


def _is_range(start_seq: Any, end_seq: Any, digest: Any) -> bool:
    return (
        type(start_seq) is int
        and type(end_seq) is int
        and start_seq <= end_seq
        and isinstance(digest, str)
    )


def _holds(row: Expected | ObjectName, seq: int) -> bool:
    return row.start_seq <= seq <= row.end_seq


def _changed_in(row: ArchiveBatch, manifest: Manifest, walk: Walk) -> str:
    """Return a column of a ledger's row that is not what is signed; empty where there is none."""
    if name := cold.changed_in(row, manifest):
        return name
    for name in ("event_count", "bytes_compressed", "bytes_uncompressed"):
        if getattr(row, name) != getattr(manifest, name):
            return name
    its = ObjectName.of(ObjectKind.MANIFEST, row.start_seq, row.end_seq, row.manifest_sha256)
    if row.manifest_key != its.key(conf.cold_prefix()):
        return "manifest_key"
    tree = walk.place.tree
    return "frontier" if tree is not None and row.frontier != tree.to_hex() else ""


def _inspect(store: Store, job: Job) -> Inspected:
    """Read an object as a whole, and hold the hot rows of its range that are there against it."""
    manifest = job.manifest
    try:
        oldest = log.oldest_seq(above=manifest.start_seq - 1)
        if oldest is None or oldest > manifest.end_seq:
            return inspect(store, job)
        return inspect(store, job, partial(_differences, job.name))
    except DatabaseError as error:
        found = inspect(store, job)
        why = f"{sentence(error)} It was not compared with the rows that hot may have of it."
        problem = Problem(Kind.UNVERIFIABLE, why, manifest.start_seq, job.name)
        return Inspected(found.good, (*found.problems, problem), found.lost)


def _differences(name: str, first: int, records: list[bytes], links: list[bytes]) -> list[Problem]:
    """Return where hot rows differ from what cold has; the columns, too."""
    found = []
    for chunk in log.read_whole(first, first + len(records) - 1):
        for row, members in zip(chunk, read_many([row.record for row in chunk]), strict=True):
            nth, what = row.seq - first, ""
            if type(row.seq) is not int or (row.record, row.link) != (records[nth], links[nth]):
                what = "differs between the hot database and the object"
            elif not isinstance(members, RecordError) and (wrong := changed_columns(row, members)):
                what = f"has a column in hot that its record does not say: {', '.join(wrong)}"
            if what:
                text = f"Seq {row.seq:,} {what}. Keep both, and find out which was changed."
                found.append(Problem(Kind.TAMPERED, text, int(row.seq), name))
    return found
