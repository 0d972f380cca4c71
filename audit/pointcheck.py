"""The checkpoints' rows, held against their signatures and against the objects in the bucket."""

from __future__ import annotations

from . import evidence, log
from .anchors import signed
from .format.errors import AuditError, UnreachableError
from .format.keys import KeyringError
from .format.names import CheckpointName
from .format.report import Kind, Report
from .format.walk import Walk
from .models import Checkpoint as CheckpointRow


class PointCheck:
    """The rows of checkpoints whose signatures are good, in their order."""

    def __init__(self, report: Report) -> None:
        """Begin without having looked."""
        self.report = report
        self.rows: list[CheckpointRow] = []

    def take(self) -> None:
        """Take up the rows of checkpoints whose signatures are good; say which are not."""
        for row in evidence.checkpoints():
            try:
                if isinstance(row, AuditError):
                    raise row
                signed(row)
            except KeyringError:
                continue  # it was said of all that is signed
            except AuditError as error:
                seq = row.seq if isinstance(row, CheckpointRow) else None
                self.report.tell(Kind.of(error), str(error), seq)  # which names the row itself
            else:
                self.rows.append(row)

    def hold(self, walk: Walk, *, full: bool) -> None:
        """Hold rows and objects of checkpoints against each other, and all against each other.

        `full`: read the objects of those that have a good row as well. Raises UnreachableError.
        """
        listed = set(walk.point_names)
        known: dict[str, bytes] = {}
        for row in self.rows:
            name = CheckpointName.of(row.index, row.seq, row.sha256)
            there = name in listed or self._is_there(walk, row, name)
            if not there or not full:
                known[str(name)] = log.as_bytes(row.document)
            if name not in listed:
                walk.point_names.append(name)
        walk.read_checkpoints(known)

    def lacking(self, walk: Walk) -> None:
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

    def _is_there(self, walk: Walk, row: CheckpointRow, name: CheckpointName) -> bool:
        """Say whether a row's object is in the bucket; a published one must be."""
        try:
            walk.store.size(f"checkpoints/{name}")
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
