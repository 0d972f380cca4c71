"""A request to run the archive, and the two events that it has in the log.

Both are made from what the run's row says, under ids of their own: whoever finds them missing
may write them, and they are there once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import ingest, log
from .format.record import format_time
from .log import Draft
from .models import ArchiveRun

SCOPE = "archive"
REQUESTED, ENDED, REBUILT = "archive_requested", "archive_ended", "ledger_rebuilt"
SUCCESSES = frozenset(["archived", "nothing_due"])
MAX_TEXT = 2_000


@dataclass(frozen=True)
class Request:
    """Who asks for a run, from where, by which door, and for how much.

    `override`: an operator asks, so `ARCHIVE_ENABLED` does not matter. `through_seq`: archive up
    to this seq whatever its age, and no further.
    """

    trigger: ArchiveRun.Trigger
    requested_by: str
    requested_from: str = ""
    override: bool = False
    max_batches: int | None = None
    through_seq: int | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @classmethod
    def of(cls, run: ArchiveRun) -> Request:
        """Return the request that a run carries out."""
        return cls(
            ArchiveRun.Trigger(run.trigger),
            run.requested_by,
            run.requested_from,
            run.override,
            run.max_batches,
            run.through_seq,
            run.request,
        )

    def asked_for(self, at: datetime) -> Draft:
        """Return the event that the run was asked for."""
        return self._draft(REQUESTED, at, "unknown", self._data())

    def ended(self, at: datetime, outcome: str, run: str = "", **more: Any) -> Draft:
        """Return the event of how it ended; `run` is its number, if it came to a run."""
        success = "success" if outcome in SUCCESSES else "failure"
        data = {**self._data(), "outcome": outcome, **more}
        return self._draft(ENDED, at, success, data, run)

    def _data(self) -> dict[str, Any]:
        return {
            "from": self.requested_from,
            "max_batches": self.max_batches,
            "override": self.override,
            "request": self.id,
            "through_seq": self.through_seq,
            "trigger": self.trigger.value,
        }

    def _draft(
        self, action: str, at: datetime, outcome: str, data: Mapping[str, Any], run: str = ""
    ) -> Draft:
        over_http = self.trigger in {ArchiveRun.Trigger.CONSOLE, ArchiveRun.Trigger.API}
        given = {
            "occurred_at": format_time(at),
            "external_id": f"{self.id}:{action}",
            "actor": {
                "name": _text(self.requested_by),
                "ip": _text(self.requested_from) if over_http else "",
            },
            "action": action,
            "target": {"type": "archive_run", "id": run, "name": f"run {run}" if run else ""},
            "outcome": outcome,
            "data": {name: _text(value) for name, value in data.items()},
        }
        return ingest.draft(ingest.generic_event(ingest.OWN_SOURCE, given), SCOPE)


def _text(value: Any) -> Any:
    """Return a text in a form that every record can hold; anything else as it is."""
    if not isinstance(value, str):
        return value
    return value[:MAX_TEXT].encode("utf-8", "replace").decode()


def chain(run: ArchiveRun) -> None:
    """Write the events of a run into the log, as far as they are not there.

    Raises what `log.append` raises; then the next run writes them.
    """
    if not run.request:  # a run from before runs had events
        return
    request = Request.of(run)
    drafts = [request.asked_for(run.started_at)]
    ended = run.outcome != ArchiveRun.Outcome.RUNNING
    if ended:
        drafts.append(
            request.ended(
                run.finished_at or run.started_at,
                run.outcome,
                str(run.pk),
                batches=run.batches,
                error=run.error,
                events=run.events,
            )
        )
    answers = log.append(drafts)
    run.request_seq = answers[0].seq
    run.outcome_seq = answers[1].seq if ended else None
    ArchiveRun.objects.filter(pk=run.pk).update(
        request_seq=run.request_seq, outcome_seq=run.outcome_seq
    )


def chain_what_is_missing() -> None:
    """Write the events of runs that have ended and could not write them themselves."""
    untold = ArchiveRun.objects.filter(outcome_seq=None).exclude(request="")
    for run in untold.exclude(outcome=ArchiveRun.Outcome.RUNNING).order_by("id"):
        chain(run)


def chain_without_run(request: Request, outcome: str, error: str) -> None:
    """Write the events of a request that came to no run: busy, or failed before it began."""
    now = datetime.now(UTC)
    log.append([request.asked_for(now), request.ended(now, outcome, error=error)])


def chain_rebuilt(requested_by: str, requested_from: str, **what: Any) -> None:
    """Write into the log that the ledger was made anew; raises what `log.append` raises."""
    given = {
        "occurred_at": format_time(datetime.now(UTC)),
        "external_id": f"{uuid.uuid4()}:{REBUILT}",
        "actor": _text(requested_by),
        "action": REBUILT,
        "target": {"type": "ledger", "id": "", "name": ""},
        "outcome": "success",
        "data": {"from": _text(requested_from), **what},
    }
    log.append([ingest.draft(ingest.generic_event(ingest.OWN_SOURCE, given), SCOPE)])
