"""The walk from link 0 to where cold ends, over checkpoints, manifests and objects.

Pure: it reads from a `Store` and writes into a `Report`. The order is that of safety beside a
run: checkpoints first, then manifests from seq 1 on, each held against the one before it, then
every object by itself, which can be done in parallel. What is wrong is said with its place, and
the walk goes on behind it as far as what is signed there allows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from .chain import genesis_link
from .errors import AuditError, TamperedError, UnreachableError
from .inspect import Job, differs
from .manifest import MAX_MANIFEST_BYTES, Manifest
from .merkle import Frontier
from .names import CHECKPOINTS, CheckpointName, ObjectName
from .names import Kind as ObjectKind
from .points import Points, short, todo
from .report import EVIDENCE, RESTORE, Kind, Report
from .signing import Keyring
from .store import Store

MOST_FOREIGN = 100  # names that are noted one by one


@dataclass(frozen=True)
class Expected:
    """A batch that the ledger says is in cold; the manifest's digest is hex."""

    start_seq: int
    end_seq: int
    manifest_sha256: str


@dataclass(frozen=True)
class Found:
    """A manifest that is what was signed."""

    name: ObjectName
    manifest: Manifest
    sha256: str

    @property
    def object_name(self) -> ObjectName:
        """Return the name of its object."""
        signed = self.manifest
        return ObjectName.of(ObjectKind.JSONL, signed.start_seq, signed.end_seq, signed.sha256)


@dataclass(frozen=True)
class Place:
    """Where the walk is: after a seq. What is None is not known, since something before is wrong.

    `manifest` is the digest of the one before, "" where there is none before.
    """

    seq: int = 0
    link: bytes | None = None
    tree: Frontier | None = None
    manifest: str | None = ""
    recorded_at: str = ""


class Walk(Points):
    """One walk; `origin` is None where it is not known: then the first document gives it.

    `expected`: the ledger's batches by their first seq, where there is a ledger.
    """

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        report: Report,
        *,
        origin: str | None = None,
        expected: Mapping[int, Expected] | None = None,
        names: list[str] | None = None,
    ) -> None:
        """List what is there, unless `names` say it; raises UnverifiableError where it cannot."""
        super().__init__(store, keyring, report, origin)
        self.expected = expected or {}
        self.place = Place()
        self.unclaimed: list[ObjectName] = []  # objects beyond the last manifest
        self._prefix = store.prefix
        self._newest_is_good = False
        self._newest: ObjectName | None = None  # of the manifests that were passed
        self._named: set[ObjectName] = set()  # objects, by the manifests that were passed
        self._take(store.names() if names is None else names)

    def _take(self, names: list[str]) -> None:
        self.batch_names: list[ObjectName] = []
        foreign = []
        for text in names:
            folder, _, last = text.rpartition("/")
            if folder == CHECKPOINTS and (point := CheckpointName.parse(last)):
                self.point_names.append(point)
            elif not folder and (name := ObjectName.parse(last)):
                self.batch_names.append(name)
            else:
                foreign.append(text)
        for text in foreign[:MOST_FOREIGN]:
            self.report.note(f"Foreign, no part of the log: {text}")
        if len(foreign) > MOST_FOREIGN:
            self.report.note(f"Foreign, too: {len(foreign) - MOST_FOREIGN:,} more")

    def look_again(
        self, names: Sequence[ObjectName], expected: Mapping[int, Expected], after: Place
    ) -> None:
        """Go on after a place, with these objects and these batches of the ledger alone."""
        self.batch_names = [name for name in names if name.start_seq > after.seq]
        self.expected = {start: row for start, row in expected.items() if start > after.seq}
        self.place = after

    # Manifests -----------------------------------------------------------------------------

    def batches(self) -> Iterator[Job]:
        """Go through the manifests from seq 1 on; yields the object of each that is signed."""
        manifests: dict[int, list[ObjectName]] = {}
        for name in sorted(self.batch_names):
            if name.kind is ObjectKind.MANIFEST:
                manifests.setdefault(name.start_seq, []).append(name)
        self._manifests = manifests
        self._starts = sorted(manifests.keys() | self.expected.keys())
        self._objects = sorted(name for name in self.batch_names if name.kind is ObjectKind.JSONL)
        if self.origin is not None and self.place == Place():
            self.place = Place(0, genesis_link(self.origin), Frontier())
        for start in self._starts:
            if start <= self.place.seq:
                self._beside(start, manifests.get(start, []))
                continue
            if start > self.place.seq + 1:
                self._missing(self.place.seq + 1, start - 1)
                self.place = self._behind(start - 1)
            self.report.manifests.total += 1
            found = self._choose(start, manifests.get(start, []))
            if found is not None:
                yield self._go_on(found)

    def _go_on(self, found: Found) -> Job:
        """Hold a manifest against what comes before it, and go behind it."""
        manifest, at = found.manifest, self.place
        if at.seq == 0 and at.link is None and at.manifest is not None:
            at = Place(0, genesis_link(manifest.origin), Frontier())
        self._check_named(found, at)
        known = sum(self.report.counts.values())
        if at.manifest == "" and manifest.previous_manifest_sha256 is not None:
            self._bad(found, "names a manifest before it, though it is the first")
        tree = self._check_follows(found, at)
        after = self._extend(found, tree) if tree is not None else None
        self.place = Place(
            manifest.end_seq, manifest.end_link, after, found.sha256, manifest.last_recorded_at
        )
        self._newest = found.name
        self._newest_is_good = known == sum(self.report.counts.values())
        self._named.add(found.object_name)
        self._weigh(manifest.signed_by)
        self.report.manifests.good += self._newest_is_good
        self.report.objects.total += 1
        return Job(
            str(found.object_name),
            manifest,
            self.anchors(manifest.start_seq, manifest.end_seq),
            tree if after is not None else None,
        )

    def _behind(self, seq: int) -> Place:
        """Return the place after a seq of which nothing but the time before it is known."""
        return Place(seq, manifest=None, recorded_at=self.place.recorded_at)

    def _check_named(self, found: Found, at: Place) -> None:
        """See that the manifest before is the one that this one names."""
        named = found.manifest.previous_manifest_sha256
        if not at.manifest or named == at.manifest or self._newest is None:
            return
        self.report.manifests.good -= self._newest_is_good
        self.report.tell(
            Kind.TAMPERED,
            f"The manifest after it, {found.name}, names another one in its place: one of the two "
            f"was signed again, or replaced. {EVIDENCE}",
            self._newest.start_seq,
            str(self._newest),
        )

    def _extend(self, found: Found, tree: Frontier) -> Frontier | None:
        """Return the tree after a manifest's batch by its frames, and hold its root against it."""
        manifest = found.manifest
        try:
            for frame in manifest.frames:
                tree = tree.extend(frame.count, frame.subtrees)
        except ValueError as error:
            self._bad(found, f"has a frame whose subtrees are none: {error}")
            return None
        if tree.root() != manifest.root:
            self._bad(found, "has another root than its frames lead to")
        return tree

    def _check_follows(self, found: Found, at: Place) -> Frontier | None:
        """Say where a manifest does not continue the one before; return the tree before it."""
        manifest = found.manifest
        if at.link is not None and manifest.start_link != at.link:
            self._bad(found, f"does not continue the link of seq {at.seq:,}")
            return None
        if at.link is None:
            for anchor in self.anchors(at.seq, at.seq):
                if anchor.link != manifest.start_link:
                    self.report.add(differs(anchor, str(found.name)))
        if manifest.first_recorded_at < at.recorded_at:
            self._bad(found, f"goes back in time behind seq {at.seq:,}")
        return at.tree

    def _bad(self, found: Found, what: str) -> None:
        self.report.tell(
            Kind.TAMPERED,
            f"This manifest {what}. {EVIDENCE}",
            found.manifest.start_seq,
            str(found.name),
        )

    def look_at(self, job: Job) -> None:
        """See that an object is there with its length; hold frames' ends against checkpoints."""
        manifest, good = job.manifest, True
        try:
            size = self.store.size(job.name)
            if size != manifest.bytes_compressed:
                raise TamperedError(
                    f"has {size:,} bytes, {manifest.bytes_compressed:,} were signed"
                )
        except UnreachableError:
            raise
        except AuditError as error:
            good = False
            self.report.tell(
                Kind.of(error), f"{short(error)}. {RESTORE}", manifest.start_seq, job.name
            )
        ends = {frame.first_seq + frame.count - 1: frame for frame in manifest.frames}
        for anchor in job.anchors:
            if anchor.seq in ends and ends[anchor.seq].end_link != anchor.link:
                self.report.add(differs(anchor, job.name))
        if good:
            self.report.objects.good += 1
            self.report.covers(manifest.start_seq, manifest.end_seq)

    def _choose(self, start: int, names: Sequence[ObjectName]) -> Found | None:
        """Return the manifest of the batch from a seq on, or say why there is none."""
        row = self.expected.get(start)
        good: list[Found] = []
        wrong: list[tuple[ObjectName, AuditError]] = []
        for name in names:
            try:
                good.append(self._load(name))
            except UnreachableError:
                raise
            except AuditError as error:
                wrong.append((name, error))
        if row and not any(item.sha256 == row.manifest_sha256 for item in good):
            self._ledger_s_is_not_there(row, good, wrong)
        chosen = self._canonical(row, good)
        for item in good:
            if item is not chosen and chosen is not None:
                self._superseded(item, chosen)
        for name, why in wrong:
            if chosen is not None:
                self.report.note(f"Foreign, beside a valid one of its place: {name}: {short(why)}")
            elif not row:
                self._say_wrong(name, why)
        if chosen is None:
            self.place = self._behind(row.end_seq if row else self._end_of(start, names))
        return chosen

    def _end_of(self, start: int, names: Sequence[ObjectName]) -> int:
        """Return where a batch ends that no manifest is good for: before the next one begins."""
        end = max(name.end_seq for name in names)
        after = bisect_left(self._starts, start + 1)
        return min([end, *(other - 1 for other in self._starts[after : after + 1])])

    def _say_wrong(self, name: ObjectName, error: AuditError) -> None:
        self.report.tell(
            Kind.of(error),
            f"Manifest of {name.start_seq:,}–{name.end_seq:,}: {short(error)}. {todo(error)}",
            name.start_seq,
            str(name),
        )

    def _ledger_s_is_not_there(
        self, row: Expected, good: list[Found], wrong: list[tuple[ObjectName, AuditError]]
    ) -> None:
        """Say what has become of a manifest that the ledger knows."""
        batch = f"Batch {row.start_seq:,}–{row.end_seq:,}"
        name = ObjectName.of(ObjectKind.MANIFEST, row.start_seq, row.end_seq, row.manifest_sha256)
        its_own = [why for found, why in wrong if found == name]
        if its_own:
            self._say_wrong(name, its_own[0])
        elif good:
            self.report.tell(
                Kind.TAMPERED,
                f"{batch}: its manifest is another one than the ledger's: it was signed again or "
                f"replaced, or the ledger was changed. {EVIDENCE}",
                row.start_seq,
                str(good[0].name),
            )
        elif wrong:
            for found, why in wrong:
                self._say_wrong(found, why)
        else:
            self.report.tell(
                Kind.GAP, f"{batch}: its manifest is missing. {RESTORE}", row.start_seq, str(name)
            )

    def _canonical(self, row: Expected | None, good: list[Found]) -> Found | None:
        """Return the ledger's manifest, or the one that the next names, or the longest."""
        if not good:
            return None
        named = {row.manifest_sha256} if row else set()
        at = self.place
        if len(good) > 1 and not any(item.sha256 in named for item in good):
            named |= self._named_by_next({item.manifest.end_seq for item in good})
        return min(
            good,
            key=lambda item: (
                item.sha256 not in named,
                at.link is not None and item.manifest.start_link != at.link,
                at.manifest is not None
                and (item.manifest.previous_manifest_sha256 or "") != at.manifest,
                -item.manifest.end_seq,
                item.name,
            ),
        )

    def _named_by_next(self, ends: set[int]) -> set[str]:
        named = set()
        for end in ends:
            for name in self._manifests.get(end + 1, []):
                try:
                    named.add(self._load(name).manifest.previous_manifest_sha256 or "")
                except AuditError:
                    continue
        return named

    def _superseded(self, item: Found, chosen: Found) -> None:
        one, other = item.manifest, chosen.manifest
        if (one.start_seq, one.end_seq) == (other.start_seq, other.end_seq) and (
            one.end_link != other.end_link
        ):
            self._bad(item, f"and {chosen.name} are both signed, and lead to different links")
        else:
            self.report.note(f"Superseded, not needed: {item.name}")

    def _load(self, name: ObjectName) -> Found:
        """Return a manifest that is good by itself; raises as `Manifest.from_bytes` does."""
        data = self.store.read(str(name), MAX_MANIFEST_BYTES)
        digest = sha256(data).hexdigest()
        if not digest.startswith(name.digest):
            raise TamperedError("holds other bytes than its name says")
        manifest = Manifest.from_bytes(data, self.keyring)
        if (manifest.start_seq, manifest.end_seq) != (name.start_seq, name.end_seq):
            raise TamperedError("describes another range than its name says")
        self._check_origin(manifest.origin)
        folder = manifest.key.rpartition("/")[0]
        if self._prefix is None:
            self._prefix = folder
        if folder != self._prefix:
            raise TamperedError(f"names an object under another prefix, '{folder}'")
        return Found(name, manifest, digest)

    # What is missing, and what is too much -----------------------------------------------------

    def _missing(self, first: int, last: int) -> None:
        """Say of each batch in a stretch without manifests that it is missing."""
        at = first
        low = bisect_left(self._objects, first, key=lambda name: name.start_seq)
        high = bisect_left(self._objects, last + 1, key=lambda name: name.start_seq)
        for name in self._objects[low:high]:
            if at <= name.start_seq and name.end_seq <= last:
                self._gap(at, name.start_seq - 1)
                self.report.manifests.total += 1
                self.report.tell(
                    Kind.GAP,
                    f"The manifest of this batch, seq {name.start_seq:,}–{name.end_seq:,}, is "
                    f"missing. {RESTORE}",
                    name.start_seq,
                    str(name),
                )
                at = name.end_seq + 1
        self._gap(at, last)

    def _gap(self, first: int, last: int) -> None:
        if first <= last:
            self.report.tell(
                Kind.GAP,
                f"Seq {first:,}–{last:,}: neither manifest nor object is there. Restore the "
                "batch, or the batches, from a copy of the bucket.",
                first,
            )

    def _beside(self, start: int, names: Sequence[ObjectName]) -> None:
        """Say what a manifest is that starts within a batch that is there already."""
        if start in self.expected:
            row = self.expected[start]
            self.report.tell(
                Kind.TAMPERED,
                f"The ledger's batch {row.start_seq:,}–{row.end_seq:,} overlaps another one: the "
                "ledger was changed. Run rebuild_ledger.",
                start,
            )
        for name in names:
            try:
                item = self._load(name)
            except AuditError as error:
                self.report.note(f"Foreign, within another batch: {name}: {short(error)}")
            else:
                self.report.note(f"Superseded, not needed: {item.name}")

    def foreign_objects(self) -> None:
        """Note the objects that no manifest names."""
        for name in sorted(set(self.batch_names) - self._named):
            if name.kind is ObjectKind.JSONL:
                self.report.note(f"Superseded or foreign, no manifest names it: {name}")
                if name.start_seq > self.place.seq:
                    self.unclaimed.append(name)
