"""The walk over hot, from where cold ends to the head: every row, its columns, the log's state.

Beside ingest and a run: the state is read before the rows, and the walk ends at that head; a seq
counts as missing only where no batch in cold has it meanwhile; and where cold has got beyond the
head by then, a newer state is read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from . import log
from .canonical import read_many
from .format.chain import leaf_hash, next_link
from .format.errors import RecordError, UnreachableError
from .format.inspect import Anchor, differs
from .format.merkle import subtrees
from .format.record import format_time
from .format.report import Kind, Report
from .format.walk import Place
from .log import WholeRow
from .models import LogState

LEAVES = 8_192  # that are hashed into the tree at once
AGAIN = 20  # times that a newer state is read at most
KEEP = "Keep the database as it is, and compare with a backup."
More = Callable[[int], Place | None]
Newer = Callable[[], LogState | None]


class HotWalk:
    """Goes from a place in the log to the head.

    `more(seq)` returns where cold ends now, verified, if that is at a seq or beyond, None where
    cold does not have it; it raises UnreachableError where that cannot be known.
    """

    def __init__(
        self,
        report: Report,
        place: Place,
        anchors: Sequence[Anchor],
        more: More,
        progress: Callable[[int], None],
    ) -> None:
        """Begin at a place; take all checkpoints, in the order of their seqs."""
        self.report = report
        self.place = place
        self.anchors = anchors
        self.more = more
        self.progress = progress
        self._go_to(place)

    def _go_to(self, place: Place) -> None:
        self.place = place
        self.passed = 0  # good rows since this place
        self.seq, self.link, self.tree = place.seq, place.link, place.tree
        self.recorded_at = place.recorded_at
        self.leaves: list[bytes] = []
        self.next_anchor = bisect_left(self.anchors, place.seq + 1, key=lambda item: item.seq)

    def go(self, state: LogState, newer: Newer) -> None:
        """Walk to the state's head, and hold the state against what is found."""
        self._to(state.head_seq)
        for _ in range(AGAIN):
            if self.seq <= state.head_seq:
                break
            # Cold was looked at after the state was read, and has more: so has the log.
            found = newer()
            if found is None or found.head_seq <= state.head_seq:
                break
            state = found
            self._to(state.head_seq)
        self._check_head(state)

    def _to(self, head: int) -> None:
        while self.seq < head:
            for chunk in log.read_whole(self.seq + 1, head):
                if not self._rows(chunk):
                    break  # cold has more than it had: go on behind it
            else:
                if self.seq < head:
                    self._missing(head)

    def root(self) -> str | None:
        """Return the root of the whole log, as hex, where it is known."""
        self._flush()
        return self.tree.root().hex() if self.tree else None

    def _rows(self, rows: list[WholeRow]) -> bool:
        """Look at consecutive rows; says whether to go on with those that were read."""
        for row, members in zip(rows, read_many([row.record for row in rows]), strict=True):
            if type(row.seq) is not int:
                self._tell(
                    self.seq, f"a row after it has {row.seq}, no whole number: it was put there."
                )
                continue
            if row.seq != self.seq + 1 and self._missing(row.seq - 1):
                return False
            self._row(row, members)
        self.progress(len(rows))
        return True

    def _missing(self, last: int) -> bool:
        """Say that the seqs up to `last` are missing, unless cold has them: then return True."""
        first = self.seq + 1
        what = f"Seq {first:,} is" if first == last else f"Seq {first:,}–{last:,} are"
        try:
            place = self.more(first)
        except UnreachableError as error:
            self.report.tell(
                Kind.UNVERIFIABLE,
                f"{what} not in the hot database, and whether the cold tier has what is missing "
                f"is not known: {error}",
                first,
            )
        else:
            if place is not None and place.seq > self.seq:
                self.report.events -= self.passed  # they were read again, in cold
                self._go_to(place)
                return True
            self.report.tell(
                Kind.GAP,
                f"{what} missing from the hot database, and not in the cold tier. Restore what is "
                "missing from a backup, and find out who removed it.",
                first,
            )
        self.seq, self.link, self.tree, self.leaves = last, None, None, []
        return False

    def _row(self, row: WholeRow, members: dict[str, Any] | RecordError) -> None:
        known = sum(self.report.counts.values())
        leaf = leaf_hash(row.record)
        link = next_link(self.link, leaf) if self.link is not None else row.link
        if link != row.link:
            self._tell(
                row.seq,
                "its record does not lead from the link before it to its own: it, or the row "
                "before it, was changed.",
            )
            self.tree = None
        self.link = row.link or link
        if isinstance(members, RecordError):
            self._tell(row.seq, f"its bytes are no record ({members}): it was changed.")
        else:
            self._check_members(row, members)
        self.seq = row.seq
        self._hold(leaf)
        if known == sum(self.report.counts.values()):
            self.report.covers(row.seq, row.seq)
            self.passed += 1

    def _check_members(self, row: WholeRow, members: dict[str, Any]) -> None:
        """Hold a record's own place and time, and the row's columns, against it."""
        if members["seq"] != row.seq:
            self._tell(row.seq, f"its record says that it is seq {members['seq']:,}.")
        if members["recorded_at"] < self.recorded_at:
            self._tell(row.seq, "its time of recording goes back behind the one before it.")
        self.recorded_at = max(self.recorded_at, members["recorded_at"])
        if wrong := changed_columns(row, members):
            self._tell(
                row.seq,
                f"its column {', '.join(wrong)} does not say what its record says: the row was "
                "changed. The record is what counts.",
            )

    def _hold(self, leaf: bytes) -> None:
        """Add a leaf to the tree; hold link and root against the checkpoints of this seq."""
        if self.tree is not None:
            self.leaves.append(leaf)
            if len(self.leaves) == LEAVES:
                self._flush()
        while (
            self.next_anchor < len(self.anchors) and self.anchors[self.next_anchor].seq <= self.seq
        ):
            anchor = self.anchors[self.next_anchor]
            self.next_anchor += 1
            if anchor.seq < self.seq:
                continue  # its seq is missing, which was said
            self._flush()
            if self.link != anchor.link:
                self.report.add(differs(anchor, None))
            elif self.tree and self.tree.root() != anchor.root:
                self.report.add(differs(anchor, None, "root"))

    def _flush(self) -> None:
        if self.tree is not None and self.leaves:
            self.tree = self.tree.extend(len(self.leaves), subtrees(self.tree.size, self.leaves))
        self.leaves = []

    def _check_head(self, state: LogState) -> None:
        if self.seq > state.head_seq:
            self.report.tell(
                Kind.TAMPERED,
                f"The hot database ends at seq {state.head_seq:,}, but cold reaches seq "
                f"{self.seq:,}: hot was rolled back. Restore it from its newest backup.",
                state.head_seq + 1,
            )
        elif self.link is None:
            pass  # the head's own row is missing, which was said
        elif state.head_link != self.link.hex():
            self.report.tell(
                Kind.TAMPERED,
                f"The log's state has another link for its head, seq {state.head_seq:,}, than the "
                f"rows lead to: the state, or the newest rows, were changed. {KEEP}",
                state.head_seq,
            )
        elif self.recorded_at and not _is_time(state.head_recorded_at, self.recorded_at):
            self.report.tell(
                Kind.TAMPERED,
                "The log's state has another time for its head than its record: it was changed. "
                f"{KEEP}",
                state.head_seq,
            )
        for anchor in self.anchors[self.next_anchor :]:
            if anchor.seq > state.head_seq:
                self.report.tell(
                    Kind.TAMPERED,
                    f"Checkpoint {anchor.index:,} is signed for seq {anchor.seq:,}, but the log "
                    f"ends at seq {state.head_seq:,}: its end was cut off, or hot was rolled "
                    "back. Restore the hot database from its newest backup.",
                    anchor.seq,
                )

    def _tell(self, seq: int, what: str) -> None:
        self.report.tell(Kind.TAMPERED, f"Seq {seq:,} in the hot database: {what} {KEEP}", seq)


def changed_columns(row: WholeRow, members: dict[str, Any]) -> list[str]:
    """Return the columns of a row that do not say what its record says."""
    texts = zip(log.TEXT_COLUMNS, row.texts, log.project(members), strict=True)
    wrong = [name for name, column, text in texts if column != text]
    for name, column in (("recorded_at", row.recorded_at), ("occurred_at", row.occurred_at)):
        if not _is_time(column, members[name]):
            wrong.append(name)
    return sorted(wrong)


def _is_time(column: Any, text: str) -> bool:
    return (
        isinstance(column, datetime)
        and format_time(column) == text
        and (column.microsecond % 1000 == 0)
    )
