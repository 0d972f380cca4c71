"""The ledger's rows, held against what is signed: each batch against its manifest."""

from __future__ import annotations

from typing import Any

from . import cold, conf, evidence, ledger
from .format.inspect import Job
from .format.manifest import Manifest
from .format.merkle import Frontier
from .format.names import Kind as ObjectKind
from .format.names import ObjectName
from .format.report import Kind, Report
from .format.walk import Expected
from .models import ArchiveBatch


class LedgerCheck:
    """What the ledger says is in cold, by first seq; and whether the ledger answers at all."""

    def __init__(self, report: Report) -> None:
        """Begin without having looked."""
        self.report = report
        self.batches: dict[int, Expected] = {}
        self.answers = True

    def take(self) -> None:
        """Take up what the ledger says now."""
        self.batches = self.read()

    def read(self) -> dict[int, Expected]:
        """Return what the ledger says is in cold; say which of its rows cannot be."""
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

    def hold(self, job: Job, tree: Frontier | None) -> None:
        """Hold a batch's row against its manifest; `tree` is the log's up to its end, if known.

        A batch without a row is no problem where the next run adopts it.
        """
        manifest = job.manifest
        batch = f"{manifest.start_seq:,}–{manifest.end_seq:,}"
        place = f"row of batch {batch}"
        try:
            row = evidence.batch(manifest.start_seq)
        except evidence.UnreadableRowError as error:
            self.report.tell(Kind.TAMPERED, str(error), manifest.start_seq, place)
            return
        if row is not None and row.state in ledger.IN_COLD:
            if name := _changed_in(row, manifest, tree):
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


def _is_range(start_seq: Any, end_seq: Any, digest: Any) -> bool:
    return (
        type(start_seq) is int
        and type(end_seq) is int
        and start_seq <= end_seq
        and isinstance(digest, str)
    )


def _changed_in(row: ArchiveBatch, manifest: Manifest, tree: Frontier | None) -> str:
    """Return a column of a ledger's row that is not what is signed; empty where there is none."""
    if name := cold.changed_in(row, manifest):
        return name
    for name in ("event_count", "bytes_compressed", "bytes_uncompressed"):
        if getattr(row, name) != getattr(manifest, name):
            return name
    its = ObjectName.of(ObjectKind.MANIFEST, row.start_seq, row.end_seq, row.manifest_sha256)
    if row.manifest_key != its.key(conf.cold_prefix()):
        return "manifest_key"
    return "frontier" if tree is not None and row.frontier != tree.to_hex() else ""
