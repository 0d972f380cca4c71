"""The log's state, held against the cold tier and against the newest row of hot."""

from __future__ import annotations

from . import conf, evidence, ledger, log
from .coldwalk import ColdWalk
from .format.chain import genesis_link
from .format.merkle import EMPTY_ROOT
from .format.report import Kind, Report
from .hotwalk import KEEP
from .models import ArchiveBatch, LogState


class StateCheck:
    """Holds the state against cold, as far as that was walked."""

    def __init__(self, report: Report, cold: ColdWalk) -> None:
        """Take the cold tier once it was walked."""
        self.report = report
        self.cold = cold

    def take(self) -> LogState | None:
        """Return the log's state, and say what is wrong with it; None where there is none."""
        # Before the state: the floor is raised first, and only then is a batch called purged.
        answers = self.cold.ledger.answers
        purged = evidence.archived_seq(ArchiveBatch.State.PURGED) if answers else 0
        state = self._state()
        if state is not None:
            self._hold(state, purged)
        return state

    def hold_newest(self) -> None:
        """Say where hot has rows beyond the head."""
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
        if state is None and log.newest_seq() is None and self.cold.is_new():
            self.report.root = EMPTY_ROOT.hex()
        elif state is None:
            self.report.tell(
                Kind.GAP,
                "The log's state is missing though the log is not empty: restore the hot database "
                "from its newest backup. The rows of hot were not looked at.",
            )
        return state

    def _hold(self, state: LogState, purged: int) -> None:
        """Hold the log's state against the cold tier."""
        if state.origin != conf.origin():
            self.report.tell(
                Kind.TAMPERED,
                f"The log's state is of another log, '{state.origin}', AUDIT_ORIGIN is "
                f"'{conf.origin()}'. Set AUDIT_ORIGIN back, or point at the right database.",
            )
        if not self.cold.ledger.answers:
            return
        archived = evidence.archived_seq()
        if self.cold.walk is not None:
            archived = max(archived, self.cold.walk.place.seq)
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
        self._hold_floor(state)

    def _hold_floor(self, state: LogState) -> None:
        """Hold the floor and its link against the ends of batches."""
        if state.floor_seq == 0:
            links = {genesis_link(conf.origin()).hex()}
        else:
            rows = ArchiveBatch.objects.filter(end_seq=state.floor_seq)
            links = set(rows.values_list("end_link", flat=True))
        if links and state.floor_link not in links:
            self.report.tell(
                Kind.TAMPERED,
                f"The log's state has another link for its floor, seq {state.floor_seq:,}, than "
                f"the ledger: it was changed. {KEEP}",
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
                f"changed. {KEEP}",
                state.floor_seq,
            )
