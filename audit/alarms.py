"""Alarms: what is wrong, from when it was found until it was looked at again and found right.

A look finds what is wrong of one thing. What it finds is opened, once, and told; while it is found
again nothing more is told; what it does not find any more is cleared, and that is told, too. A
look that could not look, or not to its end, clears nothing. Row, messages to people and the event
for the log are one transaction. Nothing here deletes or mends anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import DEFAULT_DB_ALIAS, DatabaseError, IntegrityError
from django.db.models import QuerySet

from . import conf, log, notices, request
from .failures import kind_of
from .format.errors import AuditError
from .models import Alarm
from .result import sentence

Kind = Alarm.Kind
OPENED, CLEARED = "alarm_opened", "alarm_cleared"
MAX_MESSAGE = 2_000
# What ends looks that look for something else.
COMMON = {
    Kind.APPEND_REFUSED,
    Kind.BUCKET,
    Kind.CLOCK,
    Kind.DATABASE,
    Kind.FULL,
    Kind.KEY_MISSING,
}

logger = logging.getLogger(__name__)


class NotNowError(AuditError):
    """It cannot be looked now, and nothing is wrong with that: what is open stays open."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a sentence with what to do next."""

    kind: Kind
    message: str


@dataclass(frozen=True)
class Look:
    """Looks at one thing; `name` is the subject of its alarms, which it alone clears."""

    name: str
    finds: Callable[[], Iterable[Finding]]


def go(subject: str, looks: Sequence[Look]) -> list[Finding]:
    """Look at everything; open and clear alarms by what is found, and return that.

    What ends a look early is found by it as well. What may end any of them (a bucket that does not
    answer) is found by all together: it is of `subject`, and told once, whichever meets it first.
    Raises DatabaseError or BusyError where the alarms themselves cannot be written down.
    """
    findings: list[Finding] = []
    common: dict[Kind, Finding] = {}
    all_whole = True
    for look in looks:
        found: list[Finding] = []
        whole = False
        try:
            found.extend(look.finds())  # keeps what was found before an error
            whole = True
        except NotNowError:
            pass
        except (AuditError, DatabaseError, OSError) as error:
            finding = Finding(kind_of(error), sentence(error))
            if finding.kind in COMMON:
                common.setdefault(finding.kind, finding)
            else:
                found.append(finding)
            all_whole = all_whole and finding.kind not in COMMON
        except Exception as error:
            logger.exception("The look '%s' failed in a way that nobody foresaw.", look.name)
            found.append(Finding(Kind.BROKEN, f"The look '{look.name}' failed: {sentence(error)}"))
            all_whole = False
        settle(look.name, found, whole=whole)
        findings += found
    settle(subject, common.values(), whole=all_whole)
    return findings + list(common.values())


def settle(subject: str, found: Iterable[Finding], *, whole: bool = True) -> None:
    """Let the open alarms of a subject be those that were found.

    `whole`: all of it was looked at, so what was not found is over.
    """
    wanted: dict[Kind, str] = {}
    for finding in found:
        before = f"{wanted[finding.kind]} " if finding.kind in wanted else ""
        wanted[finding.kind] = f"{before}{finding.message}"[:MAX_MESSAGE]
    if not wanted and not open_alarms().filter(subject=subject).exists():
        return  # most of the time: nothing to write, and no turn at the database to wait for
    try:
        _settle(subject, wanted, whole=whole)
    except IntegrityError as error:
        # Where writers do not queue, somebody else has just opened or cleared the same; else the
        # next look finds it again.
        logger.warning("The alarms of '%s' were not written down now: %s", subject, error)


def _settle(subject: str, wanted: Mapping[Kind, str], *, whole: bool) -> None:
    now = datetime.now(UTC)
    with log.write_transaction(DEFAULT_DB_ALIAS):
        alarms = {row.kind: row for row in open_alarms().filter(subject=subject)}
        for kind, message in wanted.items():
            if row := alarms.pop(kind, None):
                row.message, row.last_seen_at = message, now
                row.save(update_fields=["message", "last_seen_at"])
            else:
                open_alarm(kind, subject, message, now)
        for row in alarms.values() if whole else ():
            clear(row, now)


def open_alarm(kind: Kind, subject: str, message: str, now: datetime) -> Alarm:
    """Open an alarm, inside a transaction."""
    row = Alarm.objects.create(
        kind=kind, subject=subject, message=message, opened_at=now, last_seen_at=now
    )
    logger.error("Alarm (%s): %s", row.kind, message)
    _tell(row, OPENED, now)
    return row


def clear(row: Alarm, now: datetime) -> None:
    """Clear an alarm, inside a transaction."""
    row.cleared_at = now
    row.save(update_fields=["cleared_at"])
    logger.warning("Alarm cleared (%s): %s", row.kind, row.message)
    _tell(row, CLEARED, now)


def _tell(row: Alarm, action: str, now: datetime) -> None:
    notices.queue(row, action.removeprefix("alarm_"), now)
    request.note(
        f"{row.pk}-{int(row.opened_at.timestamp())}:{action}",
        now,
        action=action,
        actor={"name": "watch"},
        target={"type": "log", "name": conf.origin()},
        outcome="failure" if action == OPENED else "success",
        data={
            "alarm": row.pk,
            "kind": str(row.kind),
            "subject": row.subject,
            "message": row.message,
        },
    )


def open_alarms() -> QuerySet[Alarm]:
    """Return those that are open, newest first."""
    return Alarm.objects.filter(cleared_at=None)
