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
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.core import checks
from django.db import DEFAULT_DB_ALIAS, DatabaseError
from structlog.contextvars import bound_contextvars

from . import conf, evidence, log, verifications
from .asking import Asker
from .bucket import Bucket
from .coldwalk import ColdWalk, NoBatchError
from .format.keys import KeyringError
from .format.report import Kind, Report
from .format.signing import Keyring
from .hotwalk import HotWalk
from .ledgercheck import LedgerCheck
from .models import ArchiveRun, VerificationRun
from .pointcheck import PointCheck
from .request import OVER_HTTP
from .result import sentence
from .routers import hot_alias
from .statecheck import StateCheck

FULL, MANIFESTS = VerificationRun.Level.FULL, VerificationRun.Level.MANIFESTS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """Who asks for a verification, from where, by which door, and for how much of it.

    `batch_seq`: look at the one batch that holds this seq, and at nothing else. `request` is the
    id of the request that it carries out, where there is one.
    """

    trigger: str
    requested_by: str
    requested_from: str = ""
    level: str = FULL
    batch_seq: int | None = None
    processes: int | None = None
    request: str = ""


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
    HTTP or by the schedule, AlreadyVerifyingError, BusyError or DatabaseError where none may
    begin, or it cannot be written down that one does.
    """
    verification = _Verification(asked, progress, expects)
    row = _open_row(asked)
    with bound_contextvars(**({} if row is None else {"verification": row.pk})):
        return _carry_out(verification, row)


def _carry_out(verification: _Verification, row: VerificationRun | None) -> Verified:
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
        _close_row(row, verification.answer, how="stopped" if stopped else "broken")
        raise
    if row is not None:
        verification.answer.run = row.pk
    _close_row(row, verification.answer)
    return verification.answer


def _open_row(asked: Asked) -> VerificationRun | None:
    try:
        return verifications.open_row(
            asked.trigger,
            request=asked.request,
            requested_by=asked.requested_by,
            requested_from=asked.requested_from,
            level=asked.level,
            batch_seq=asked.batch_seq,
        )
    except (log.BusyError, DatabaseError) as error:
        # By schedule it is tried again; and its row says that somebody is at it.
        if asked.trigger in OVER_HTTP or asked.trigger == ArchiveRun.Trigger.BEAT:
            raise
        logger.warning("That a verification was asked for is not written down: %s", error)
        return None


def _close_row(
    row: VerificationRun | None, answer: Verified, error: str = "", *, how: str = ""
) -> None:
    if row is None:
        answer.report.note("This verification is written down nowhere but here.")
        return
    row.finished_at = datetime.now(UTC)
    row.outcome = Kind.UNVERIFIABLE.value if error else answer.report.outcome
    row.events = answer.report.events
    row.report = answer.to_json() | ({"error": error} if error else {})
    if how:
        row.report[how] = True  # what it has found stands, and it came to no end
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
        self.progress = progress
        self.expects = expects
        self.report = Report()
        self.answer = Verified(self.report, asked.level)
        self.store = Bucket(conf.cold_prefix())
        self.asker = Asker(self.report)
        self.ledger = LedgerCheck(self.report)
        self.points = PointCheck(self.report)

    def go(self) -> None:
        """Look at everything, in the order of safety."""
        self.answer.checks = _system_checks()
        self.cold = self._cold()
        whole = self.asked.batch_seq is None
        self.ledger.answers = self.asker.ask(DEFAULT_DB_ALIAS, self.ledger.take)
        listed = self.cold.listed()
        self.asker.ask(DEFAULT_DB_ALIAS, self.points.take)
        if whole:
            self.asker.ask(hot_alias(), self._count, say=False)
        if listed is not None:
            self.cold.go(listed, self.asked.batch_seq)
        if whole:
            self.asker.ask(hot_alias(), self._hot)
        self.asker.ask(hot_alias(), self._boundary, say=False)

    def _cold(self) -> ColdWalk:
        return ColdWalk(
            self.store,
            self._keyring(),
            self.report,
            self.asker,
            self.ledger,
            self.points,
            full=self.asked.level == FULL,
            processes=self.asked.processes,
            progress=self.progress,
        )

    def _keyring(self) -> Keyring:
        try:
            return conf.keyring()
        except KeyringError as error:
            self.report.tell(
                Kind.UNVERIFIABLE, f"{error} Nothing that is signed could be verified."
            )
            return Keyring([])

    def _count(self) -> None:
        ends = [row.end_seq for row in self.ledger.batches.values()]
        self.expects(max([evidence.head_seq(), *ends]))

    def _hot(self) -> None:
        """Walk over hot, and hold the log's state against both tiers."""
        check = StateCheck(self.report, self.cold)
        state = check.take()
        if state is None:
            return
        place, anchors = self.cold.place(), self.cold.anchors()
        hot = HotWalk(self.report, place, anchors, self.cold.more, self.progress)
        hot.go(state, evidence.state)
        self.report.root = hot.root()
        check.hold_newest()

    def _boundary(self) -> None:
        if self.ledger.answers:
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
