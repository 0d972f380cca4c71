"""Finish what another run left in the bucket: a batch whose manifest is there, but not its row.

A valid manifest that continues the ledger is adopted: object and manifest are read and verified
as a whole, and hot rows of its range that are still there are compared byte by byte. Rows that
are gone are not needed, since what was verified is all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from . import cold, conf, ledger, log, storage
from .anchors import Anchors
from .format.errors import AuditError, GapError, TamperedError, UnverifiableError
from .format.manifest import Manifest
from .format.merkle import Frontier
from .format.names import Kind, ObjectName
from .ledger import Position
from .models import ArchiveBatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A valid manifest that continues the ledger."""

    manifest: Manifest
    key: str
    sha256: str
    frontier: Frontier


class Shelf:
    """The manifests in the bucket past a seq, as they were when the run looked.

    `notes` collects what was found and not adopted, for the run's page.
    """

    def __init__(self, names: list[ObjectName]) -> None:
        """Take the names of manifests."""
        self.names = names
        self.notes: list[str] = []
        self._refused: set[ObjectName] = set()

    @classmethod
    def look(cls, after: int, head: int) -> Shelf:
        """List the bucket.

        Raises RolledBackError where it holds a valid manifest beyond the head,
        UnverifiableError where it may be one, UnavailableError where it cannot be listed.
        """
        found = [ObjectName.parse(name) for name in storage.names(conf.cold_prefix())]
        shelf = cls(
            [
                name
                for name in found
                if name and name.kind is Kind.MANIFEST and name.end_seq > after
            ]
        )
        for name in shelf.names:
            if name.end_seq > head:
                shelf.refuse_beyond(name, head)
        return shelf

    def refuse_beyond(self, name: ObjectName, head: int) -> None:
        """Raise RolledBackError unless a manifest beyond the head is none of ours."""
        key = name.key(conf.cold_prefix())
        try:
            cold.read_manifest(key)
        except TamperedError as error:
            self.refuse(name, error)
            return
        raise log.RolledBackError(
            f"The bucket holds seq {name.end_seq:,} in {key}, but the hot database ends at seq "
            f"{head:,}: hot was rolled back. Restore it from its newest backup."
        )

    def refuse(self, name: ObjectName, error: AuditError) -> None:
        """Note why a manifest is not adopted, once."""
        self._refused.add(name)
        self.notes.append(f"Not adopted: {error}")

    def next(self, at: Position) -> Candidate | None:
        """Return the manifest to adopt after a position, None where there is none.

        Of several valid ones it is the one that the ledger knows, or that the next manifest
        names by its digest, or else the one that leads furthest; the others are superseded.
        Raises UnverifiableError where the only one that may be right is signed by no key that
        is known, unless it is our own try at the planned batch, which hot still has.
        """
        planned = ledger.planned()
        valid: list[Candidate] = []
        unknown: list[tuple[ObjectName, UnverifiableError]] = []
        for name in self.names:
            if name.start_seq != at.seq + 1 or name in self._refused:
                continue
            key = name.key(conf.cold_prefix())
            try:
                valid.append(_candidate(key, at))
            except UnverifiableError as error:
                if planned is None or planned.manifest_key != key:
                    unknown.append((name, error))
                else:
                    self.refuse(name, error)
            except (TamperedError, GapError) as error:
                self.refuse(name, error)
        if unknown and not valid:
            raise unknown[0][1]
        for name, unverifiable in unknown:
            self.refuse(name, unverifiable)
        if len({(item.manifest.end_seq, item.manifest.end_link) for item in valid}) > len(
            {item.manifest.end_seq for item in valid}
        ):
            raise TamperedError(
                f"{valid[0].key} and another manifest of its range are both signed and lead to "
                "different links: nothing is adopted. Find out who signed which, and keep the "
                "wrong one under another name."
            )
        if len(valid) > 1:
            named = ledger.named(at.seq + 1)
            named |= self._named_by_next({item.manifest.end_seq for item in valid})
            valid.sort(
                key=lambda item: (item.sha256 not in named, -item.manifest.end_seq, item.key)
            )
            self.notes += [f"Superseded: {item.key}" for item in valid[1:]]
        return valid[0] if valid else None

    def _named_by_next(self, ends: set[int]) -> set[str]:
        """Return the digests by which manifests that follow name the one before them."""
        named = set()
        for name in self.names:
            if name.start_seq - 1 in ends:
                try:
                    manifest, _ = cold.read_manifest(name.key(conf.cold_prefix()))
                except (TamperedError, UnverifiableError, GapError) as error:
                    logger.info("%s", error)
                else:
                    named.add(manifest.previous_manifest_sha256 or "")
        return named


def _candidate(key: str, at: Position) -> Candidate:
    """Read a manifest and hold it against the position that it should continue."""
    manifest, digest = cold.read_manifest(key)
    if manifest.start_link != at.link:
        raise TamperedError(f"{key} does not continue the link of seq {at.seq:,}.")
    if manifest.previous_manifest_sha256 != at.manifest_sha256:
        raise TamperedError(f"{key} follows another manifest than the ledger's.")
    if manifest.first_recorded_at < at.recorded_at:
        raise TamperedError(f"{key} goes back in time behind seq {at.seq:,}.")
    expected = ObjectName.of(Kind.JSONL, manifest.start_seq, manifest.end_seq, manifest.sha256)
    if manifest.key != expected.key(conf.cold_prefix()):
        raise TamperedError(f"{key} names an object that is elsewhere.")
    storage.head(manifest.key)  # without its object there is nothing to adopt
    return Candidate(manifest, key, digest, manifest.extend(at.frontier))


def position_after(candidate: Candidate) -> Position:
    """Return where cold ends once a candidate is in the ledger."""
    manifest = candidate.manifest
    return Position(
        manifest.end_seq,
        manifest.end_link,
        candidate.frontier,
        candidate.sha256,
        manifest.last_recorded_at,
    )


def check(candidate: Candidate) -> None:
    """Read the whole batch, and compare it with hot rows that are there and with checkpoints.

    Raises TamperedError where the two tiers differ, the object is not what is signed, or its
    links are not those of the checkpoints in its range.
    """
    manifest = candidate.manifest
    anchors = Anchors.load(manifest.start_seq - 1, manifest.end_seq)
    compare = comparing(manifest)

    def visit(first: int, records: list[bytes], links: list[bytes]) -> None:
        compare(first, records, links)
        try:
            anchors.hold(first, links)
        except TamperedError as error:
            raise TamperedError(f"{candidate.key} is not adopted. {error}") from None

    cold.read_batch(candidate.key, manifest, visit)


def comparing(manifest: Manifest) -> Callable[[int, list[bytes], list[bytes]], None]:
    """Return what compares each frame of a batch with the hot rows that are there.

    It raises TamperedError at the first that differs.
    """

    def compare(first: int, records: list[bytes], links: list[bytes]) -> None:
        for seq, record, link in log.read_range(first, first + len(records) - 1):
            if record != records[seq - first] or link != links[seq - first]:
                raise TamperedError(
                    f"Seq {seq:,} differs between the hot database and {manifest.key}: the "
                    "archive stops and deletes nothing. Keep both, and find out which was "
                    "changed."
                )

    return compare


def row_for(candidate: Candidate) -> ArchiveBatch | None:
    """Return the planned row that an adopted batch completes, None where there is none.

    Raises GapError where what is planned starts elsewhere: then the ledger has a hole.
    """
    row = ledger.planned()
    if row is not None and row.start_seq != candidate.manifest.start_seq:
        raise GapError(
            f"The ledger plans {row} though the bucket already holds {candidate.key}: run "
            "rebuild_ledger."
        )
    return row
