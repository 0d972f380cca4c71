"""Finish what another run left in the bucket: a batch whose manifest is there, but not its row.

A valid manifest that continues the ledger is adopted: object and manifest are read and verified
as a whole, and hot rows of its range that are still there are compared byte by byte. Rows that
are gone are not needed, since what was verified is all of them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from . import cold, conf, ledger, log, storage
from .format.errors import AuditError, GapError, TamperedError
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


@dataclass
class Shelf:
    """The manifests in the bucket past a seq, as they were when the run looked.

    `notes` collects what was found and not adopted, for the run's page.
    """

    names: list[ObjectName]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def look(cls, after: int) -> Shelf:
        """List the bucket; raises UnavailableError."""
        found = [ObjectName.parse(name) for name in storage.names(conf.cold_prefix())]
        return cls(
            [
                name
                for name in found
                if name and name.kind is Kind.MANIFEST and name.end_seq > after
            ]
        )

    def next(self, at: Position) -> Candidate | None:
        """Return the manifest to adopt after a position, None where there is none.

        Of several valid ones it is the one that the ledger planned, or that the next manifest
        names by its digest, or else the first by name; the others are superseded.
        """
        valid = []
        for name in self.names:
            if name.start_seq != at.seq + 1:
                continue
            key = name.key(conf.cold_prefix())
            try:
                valid.append(_candidate(key, at))
            except storage.UnavailableError:
                raise
            except AuditError as error:
                self.notes.append(f"Not adopted: {error}")
        if len(valid) > 1:
            named = {row.manifest_sha256 for row in [ledger.planned()] if row}
            named |= self._named_by_next({item.manifest.end_seq for item in valid})
            valid.sort(key=lambda item: (item.sha256 not in named, item.key))
            self.notes += [f"Superseded: {item.key}" for item in valid[1:]]
        return valid[0] if valid else None

    def _named_by_next(self, ends: set[int]) -> set[str]:
        """Return the digests by which manifests that follow name the one before them."""
        named = set()
        for name in self.names:
            if name.start_seq - 1 in ends:
                try:
                    manifest, _ = cold.read_manifest(name.key(conf.cold_prefix()))
                except storage.UnavailableError:
                    raise
                except AuditError as error:
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
    expected = ObjectName.of(Kind.JSONL, manifest.start_seq, manifest.end_seq, manifest.sha256)
    if manifest.key != expected.key(conf.cold_prefix()):
        raise TamperedError(f"{key} names an object that is elsewhere.")
    storage.head(manifest.key)  # without its object there is nothing to adopt
    return Candidate(manifest, key, digest, manifest.extend(at.frontier))


def check(candidate: Candidate, head: int) -> None:
    """Read the whole batch, and compare it with the hot rows of its range that are there.

    Raises RolledBackError where the batch ends beyond the head, TamperedError where the two
    tiers differ or the object is not what is signed.
    """
    manifest = candidate.manifest
    if manifest.end_seq > head:
        raise log.RolledBackError(
            f"The bucket holds seq {manifest.end_seq:,} in {candidate.key}, but the hot database "
            f"ends at seq {head:,}: hot was rolled back. Restore it from its newest backup."
        )

    def compare(first: int, records: list[bytes], links: list[bytes]) -> None:
        for seq, record, link in log.read_range(first, first + len(records) - 1):
            if record != records[seq - first] or link != links[seq - first]:
                raise TamperedError(
                    f"Seq {seq:,} differs between the hot database and {manifest.key}: the "
                    "archive stops and deletes nothing. Keep both, and find out which was "
                    "changed."
                )

    cold.read_batch(candidate.key, manifest, compare)


def row_for(candidate: Candidate) -> ArchiveBatch | None:
    """Return the planned row that an adopted batch completes, None where there is none.

    Raises GapError where what is planned starts elsewhere: then the ledger has a hole.
    """
    row = ledger.planned()
    if row is not None and row.start_seq != candidate.manifest.start_seq:
        raise GapError(
            f"The ledger plans {row} though the bucket already holds {candidate.key}: restore "
            "the ledger from a backup."
        )
    return row
