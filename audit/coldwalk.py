"""The walk over cold: checkpoints, manifests and objects, each against its row in the databases.

Beside ingest and a run: a listing in which something seems to be missing is made once more; and
where cold has got further while hot was walked, the walk goes on behind what it had.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from django.db import DEFAULT_DB_ALIAS

from . import conf, evidence, ledger, log
from .anchors import signed
from .asking import Asker
from .bothtiers import inspect_both
from .format.chain import genesis_link
from .format.errors import AuditError, UnreachableError
from .format.examine import examine
from .format.inspect import Anchor, Job, inspect
from .format.manifest import MAX_MANIFEST_BYTES, Manifest
from .format.merkle import Frontier
from .format.names import CHECKPOINTS, MAX_SEQ, CheckpointName, ObjectName
from .format.names import Kind as ObjectKind
from .format.report import Kind, Report
from .format.signing import Keyring
from .format.store import Store
from .format.walk import Expected, Place, Walk
from .ledgercheck import LedgerCheck
from .models import ArchiveBatch
from .pointcheck import PointCheck
from .routers import hot_alias
from .set_up import set_up

MANY_EVENTS = 500_000  # in cold, from which on several processes are worth their start


class NoBatchError(AuditError):
    """A seq was asked for that no batch holds."""


class ColdWalk:
    """Goes from seq 1 to where cold ends; `whole` says that everything in it was looked at.

    `full`: read every byte, not only manifests. `processes`: so many; where it is None, as many
    as are worth it. `progress` hears how many more events were looked at.
    """

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        report: Report,
        asker: Asker,
        ledger: LedgerCheck,
        points: PointCheck,
        *,
        full: bool,
        processes: int | None,
        progress: Callable[[int], None],
    ) -> None:
        """Begin without having looked."""
        self.store = store
        self.keyring = keyring
        self.report = report
        self.asker = asker
        self.ledger = ledger
        self.points = points
        self.full = full
        self.processes = processes
        self.progress = progress
        self.walk: Walk | None = None
        self.whole = False
        self.waiting: deque[int] = deque()  # the first seqs of batches that are being read

    def listed(self) -> list[str] | None:
        """Return the names of all objects; None, and say why, where they cannot be known."""
        try:
            return self._names(self.ledger.batches)
        except UnreachableError as error:
            self._lost(error, "Nothing in the bucket was looked at.")
            return None

    def _names(self, expected: dict[int, Expected]) -> list[str]:
        """List what is in the bucket.

        A listing of many objects takes a while: it may pass the place of one that is put there
        just then, and have the next. Where something seems to be missing, the next listing has it.
        """
        names = self.store.names()
        if _has_holes(names, expected):
            names = sorted({*names, *self.store.names()})
        return names

    def _lost(self, error: AuditError, what: str) -> None:
        self.report.tell(Kind.UNVERIFIABLE, f"{error} {what}")

    def go(self, listed: list[str], batch_seq: int | None = None) -> None:
        """Walk over what was listed, or over checkpoints and the one batch that holds a seq.

        Raises NoBatchError where no batch holds it.
        """
        walk = self.walk = Walk(
            self.store,
            self.keyring,
            self.report,
            origin=conf.origin(),
            expected=self.ledger.batches,
            names=listed,
        )
        try:
            self.points.hold(walk, full=self.full)
            if self.ledger.answers:
                self.asker.ask(DEFAULT_DB_ALIAS, partial(self.points.lacking, walk))
            if batch_seq is not None:
                self._one_batch(walk, batch_seq)
            self._batches(walk)
            if batch_seq is None:
                walk.foreign_objects()
            self.whole = True
        except UnreachableError as error:
            first = self.waiting[0] if self.waiting else walk.place.seq + 1
            self._lost(error, f"From seq {first:,} on, cold was not looked at.")

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
            processes=self.processes or several,
            inspect=inspect_both if self._hot_answers() else inspect,
            initializer=set_up,
            progress=self._passed,
        )

    def _hot_answers(self) -> bool:
        """Say whether hot can be read; where it cannot, that is said when its turn comes."""
        return self.asker.ask(hot_alias(), log.oldest_seq, say=False)

    def _passed(self, events: int) -> None:
        """Note that the next batch was looked at: they come in their order."""
        self.waiting.popleft()
        self.progress(events)

    def _jobs(self, walk: Walk) -> Iterator[Job]:
        """Yield what the walk finds, each held against its row of the ledger."""
        for job in walk.batches():
            self.waiting.append(job.manifest.start_seq)
            if self.ledger.answers:
                hold = partial(self.ledger.hold, job, walk.place.tree)
                self.asker.ask(DEFAULT_DB_ALIAS, hold)
            yield job

    # For the walk over hot -----------------------------------------------------------------

    def place(self) -> Place:
        """Return where cold ends: by the walk; by the ledger where that is not known."""
        place = self.walk.place if self.walk else Place()
        if place == Place():
            place = Place(0, genesis_link(conf.origin()), Frontier())
        if self.whole or not self.ledger.answers:
            return place
        row = ArchiveBatch.objects.filter(
            state__in=ledger.IN_COLD, end_seq__gt=place.seq, end_seq__lte=MAX_SEQ
        )
        found = row.order_by("-end_seq").values_list("end_seq", "end_link").first()
        return Place(found[0], log.as_hash(found[1]) or None, None) if found else place

    def anchors(self) -> list[Anchor]:
        """Return what all good checkpoints say; by their rows where cold was not walked."""
        if self.walk is not None:
            return list(self.walk.anchors(0, MAX_SEQ))
        checkpoints = map(signed, self.points.rows)
        return [Anchor(item.seq, item.link, item.root, item.index) for item in checkpoints]

    def is_new(self) -> bool:
        """Say whether nothing that is signed, or in cold by the ledger, is of any event."""
        return (
            not any(row.seq for row in self.points.rows)
            and not (self.ledger.answers and evidence.archived_seq())
            and not (self.walk and (self.walk.place.seq or any(self.walk.anchors(1, MAX_SEQ))))
        )

    def more(self, seq: int) -> Place | None:
        """Return where cold ends, verified, if it has a seq by now.

        Raises UnreachableError where that cannot be known.
        """
        walk = self.walk
        if not self.ledger.answers:
            raise UnreachableError("the ledger does not answer. Verify again when it does.")
        if evidence.archived_seq() < seq or (walk and self.whole and walk.place.seq >= seq):
            return None
        if walk is None or not self.whole:
            raise UnreachableError("it was not read. Verify again when the bucket answers.")
        try:
            expected = self.ledger.read()
            names = map(ObjectName.parse, self._names(expected))
            walk.look_again([name for name in names if name], expected, walk.place)
            self._batches(walk)
        except UnreachableError:
            self.whole = False
            raise
        return walk.place if walk.place.seq >= seq else None


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


def _holds(row: Expected | ObjectName, seq: int) -> bool:
    return row.start_seq <= seq <= row.end_seq
