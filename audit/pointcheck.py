"""The checkpoints' rows, held against their signatures and against the objects in the bucket."""

from __future__ import annotations

from . import evidence, log
from .anchors import RESTORE, signed
from .format.checkpoint import MAX_CHECKPOINT_BYTES, Checkpoint
from .format.errors import AuditError, UnreachableError
from .format.keys import KeyringError
from .format.merkle import Frontier
from .format.names import CHECKPOINTS, CheckpointName
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
                self._check_frontier(row)

    def _check_frontier(self, row: CheckpointRow) -> None:
        """Hold a frontier, which is not signed, against the root; an adopted row has none."""
        try:
            good = not row.frontier or (
                Frontier.from_hex(row.seq, row.frontier).root().hex() == row.root
            )
        except (TypeError, ValueError):
            good = False
        if not good:
            self.report.tell(
                Kind.TAMPERED,
                f"The row of {row} was changed: its frontier does not make its signed root. "
                f"{RESTORE}",
                row.seq,
            )

    def hold(self, walk: Walk, *, full: bool) -> None:
        """Hold rows and objects of checkpoints against each other, and all against each other.

        `full`: read the objects of those that have a good row as well. Raises UnreachableError.
        """
        listed = set(walk.point_names)
        known: dict[str, bytes] = {}
        published = self._published(listed)
        for row in self.rows:
            name = CheckpointName.of(row.index, row.seq, row.sha256)
            if name not in listed and self._is_overtaken(walk, row):
                continue
            there = name in listed or self._is_there(walk, row, name, published)
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

    def _published(self, listed: set[CheckpointName]) -> int:
        """Return the newest index of which bucket or row say that it was published."""
        return max(
            (
                row.index
                for row in self.rows
                if row.state == CheckpointRow.State.PUBLISHED
                or CheckpointName.of(row.index, row.seq, row.sha256) in listed
            ),
            default=0,
        )

    def _is_overtaken(self, walk: Walk, row: CheckpointRow) -> bool:
        """Say whether the bucket has another good one in the place of a row that waits.

        It was signed while the bucket could not be asked, by a database that was restored from an
        older copy; the next checkpoint drops it.
        """
        if row.state != CheckpointRow.State.PENDING:
            return False
        for name in walk.point_names:
            if name.index == row.index and self._is_good(walk, name):
                self.report.note(
                    f"Not published, the bucket has another of its index: the {row}. The next "
                    "checkpoint_now drops it."
                )
                return True
        return False

    def _is_good(self, walk: Walk, name: CheckpointName) -> bool:
        try:
            data = walk.store.read(f"{CHECKPOINTS}/{name}", MAX_CHECKPOINT_BYTES)
            return Checkpoint.from_object(name, data, walk.keyring).origin == walk.origin
        except UnreachableError:
            raise
        except AuditError:
            return False

    def _is_there(
        self, walk: Walk, row: CheckpointRow, name: CheckpointName, published: int
    ) -> bool:
        """Say whether a row's object is in the bucket; a published one must be.

        So must one before it: they are published in their order, whatever the row says.
        """
        try:
            walk.store.size(f"checkpoints/{name}")
        except UnreachableError:
            raise
        except AuditError:
            if row.state == CheckpointRow.State.PUBLISHED or row.index < published:
                self.report.tell(
                    Kind.GAP,
                    f"The object of {row} is missing from the bucket: put it back from a copy of "
                    "the bucket, or from the row, which has its bytes.",
                    row.seq,
                    f"checkpoints/{name}",
                )
            return False
        return True
