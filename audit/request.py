"""A request to run the archive, and the events that the archive itself has in the log.

An event is noted first, in the same transaction as what it tells of, and written into the log
later (`chain`), when the bucket has been looked at: in a log that was rolled back it would take
the seq of another event. It has an id of its own, so however often it is written, it is there
once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS, transaction

from . import ingest, log
from .format.record import check, format_time
from .log import Draft
from .models import ArchiveRun, OwnEvent

SCOPE = "archive"
REQUESTED, ENDED, REBUILT = "archive_requested", "archive_ended", "ledger_rebuilt"
SEQS = {REQUESTED: "request_seq", ENDED: "outcome_seq"}
SUCCESSES = frozenset(["archived", "nothing_due"])
OVER_HTTP = frozenset([ArchiveRun.Trigger.CONSOLE.value, ArchiveRun.Trigger.API.value])
MAX_TEXT = 2_000
EVENTS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Request:
    """Who asks for a run, from where, by which door, and for how much.

    `override`: an operator asks, so `ARCHIVE_ENABLED` does not matter. `through_seq`: archive up
    to this seq whatever its age, and no further.
    """

    trigger: str
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
            run.trigger,
            run.requested_by,
            run.requested_from,
            run.override,
            run.max_batches,
            run.through_seq,
            run.request,
        )

    def note(self, at: datetime) -> None:
        """Note that the run was asked for."""
        self._note(REQUESTED, at, "unknown", {})

    def note_end(self, at: datetime, outcome: str, run: str = "", **more: Any) -> None:
        """Note how it ended; `run` is its number, if it came to a run."""
        success = "success" if outcome in SUCCESSES else "failure"
        self._note(ENDED, at, success, {"outcome": outcome, **more}, run)

    def _note(
        self, action: str, at: datetime, outcome: str, more: Mapping[str, Any], run: str = ""
    ) -> None:
        over_http = self.trigger in OVER_HTTP
        data = {
            "from": self.requested_from,
            "max_batches": self.max_batches,
            "override": self.override,
            "request": self.id,
            "through_seq": self.through_seq,
            "trigger": str(self.trigger),
            **more,
        }
        note(
            f"{self.id}:{action}",
            at,
            action=action,
            actor={
                "name": self.requested_by,
                "ip": self.requested_from if over_http else "",
            },
            target={"type": "archive_run", "id": run, "name": f"run {run}" if run else ""},
            outcome=outcome,
            data=data,
        )


def note_end_of(run: ArchiveRun) -> None:
    """Note how a run ended, by its row."""
    if run.request:  # none: a run from before runs had events
        Request.of(run).note_end(
            run.finished_at or run.started_at,
            run.outcome,
            str(run.pk),
            batches=run.batches,
            error=run.error,
            events=run.events,
        )


def note_without_run(request: Request, outcome: str, error: str) -> None:
    """Note a request that came to no run: busy, or failed before it began."""
    now = datetime.now(UTC)
    with transaction.atomic(using=DEFAULT_DB_ALIAS):
        request.note(now)
        request.note_end(now, outcome, error=error)


def note_rebuilt(requested_by: str, requested_from: str, **what: Any) -> None:
    """Note that the ledger was made anew; inside the transaction that does it."""
    note(
        f"{uuid.uuid4()}:{REBUILT}",
        datetime.now(UTC),
        action=REBUILT,
        actor={"name": requested_by},
        target={"type": "ledger"},
        outcome="success",
        data={"from": requested_from, **what},
    )


def note(external_id: str, at: datetime, **members: Any) -> None:
    """Note an event, in a form that every record can hold."""
    event = {
        "external_id": external_id,
        "occurred_at": format_time(at),
        **{name: _clean(value) for name, value in members.items()},
    }
    check(_draft(event).event)
    OwnEvent.objects.get_or_create(external_id=external_id, defaults={"event": event})


def note_once(external_id: str, at: datetime, **members: Any) -> None:
    """Note an event unless the log has one of this id, of whatever time."""
    if not log.has(ingest.event_key(ingest.OWN_SOURCE, SCOPE, external_id)):
        note(external_id, at, **members)


def chain() -> None:
    """Write the noted events into the log, oldest first; raises what `log.append` raises.

    Only where the bucket has been looked at and the log was not rolled back.
    """
    while noted := list(OwnEvent.objects.all()[:EVENTS_AT_ONCE]):
        answers = log.append([_draft(row.event) for row in noted])
        with log.write_transaction(DEFAULT_DB_ALIAS):
            for row, answer in zip(noted, answers, strict=True):
                request, _, action = row.external_id.partition(":")
                if column := SEQS.get(action):
                    ArchiveRun.objects.filter(request=request).update(**{column: answer.seq})
            OwnEvent.objects.filter(pk__in=[row.pk for row in noted]).delete()


def _draft(event: Mapping[str, Any]) -> Draft:
    return ingest.draft(ingest.generic_event(ingest.OWN_SOURCE, event), SCOPE)


def _clean(value: Any) -> Any:
    """Return a value with every text in it bounded, and without what is no Unicode."""
    if isinstance(value, str):
        return value[:MAX_TEXT].encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {name: _clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
