"""The tasks that workers do: entrances, as commands are. dezky/celery.py says when and where."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import shared_task
from celery.signals import worker_shutting_down
from django.db import DEFAULT_DB_ALIAS, DatabaseError

from . import (
    alarms,
    archive,
    conditions,
    conf,
    handover,
    lastresort,
    log,
    notices,
    request,
    safetynet,
    schedule,
    tally,
    verify,
)
from .format.errors import AuditError
from .guard import Process
from .handover import Answer
from .models import Alarm, Heartbeat, RunRequest
from .request import Request
from .result import Outcome, sentence
from .verifications import AlreadyVerifyingError
from .verify import Asked
from .watcher import Watcher

PAUSE = timedelta(minutes=5)  # after which heartbeats begin anew
# What must not wait is not held up by a mail server, or whoever else, that never comes to an end.
SHORT_SECONDS = 5 * 60
HOUR_SECONDS = 3600

logger = logging.getLogger(__name__)

# Made before the worker forks, so that its children see it set.
# A plain byte, and no event: the lock of one could be held by a child that was killed.
shutting_down = multiprocessing.RawValue("b", 0)


@worker_shutting_down.connect
def _begin_to_stop(**kwargs: Any) -> None:
    shutting_down.value = 1


class TaskWatcher(Watcher):
    """Stops a run where its worker is to stop, or when it has taken too long."""

    def __init__(self) -> None:
        """Begin to count the time."""
        self._until = time.monotonic() + conf.ASKED_TO_STOP.total_seconds()

    def stopping(self) -> bool:
        """Say whether the run is to stop after the step that it is at."""
        return bool(shutting_down.value) or time.monotonic() > self._until


# The schedule ------------------------------------------------------------------------------


@shared_task(name="audit.heartbeat", time_limit=SHORT_SECONDS)
def heartbeat() -> None:
    """Show that beat, broker, worker and database work; tell where the last one does not."""
    with _telling():
        _beat_on()
        lastresort.settle()


@shared_task(name="audit.watch", time_limit=SHORT_SECONDS)
def watch() -> None:
    """Look at what the databases say, and send what people are to be told."""
    with _telling():
        try:
            alarms.go(Alarm.WATCH, conditions.LOOKS)
        finally:
            notices.send_due()
    handover.close_dead()
    tally.count()


@shared_task(name="audit.safety_net")
def safety_net() -> None:
    """Look for what must not be, in the bucket as well."""
    with _telling():
        found = alarms.go(Alarm.SAFETY_NET, safetynet.LOOKS)
        _beat(Heartbeat.SAFETY_NET)
        if safetynet.is_in_order(found):
            _chain()


def _chain() -> None:
    """Write noted events into the log."""
    try:
        request.chain()
    except (AuditError, DatabaseError) as error:
        logger.warning("The noted events are not in the log yet: %s", sentence(error))


@contextmanager
def _telling() -> Iterator[None]:
    """Tell where the database that has the alarms' own rows takes nothing."""
    try:
        yield
    except (DatabaseError, log.BusyError) as error:
        lastresort.tell(error)


@shared_task(name="audit.archive_tick")
def archive_tick() -> None:
    """Do the day's archive run, if it is time."""
    did = schedule.archive_tick(conf.schedule_clock(), TaskWatcher())
    _say("archive", did)


@shared_task(name="audit.verify_tick")
def verify_tick() -> None:
    """Do the day's verification, if it is time."""
    _say("verification", schedule.verify_tick(conf.schedule_clock(), TaskWatcher()))


@shared_task(name="audit.checkpoint_tick", time_limit=HOUR_SECONDS)
def checkpoint_tick() -> None:
    """Make a checkpoint, if it is time."""
    try:
        _say("checkpoint", schedule.checkpoint_tick())
    except (AuditError, DatabaseError) as error:
        logger.error("No checkpoint was made: %s", sentence(error))


@shared_task(name="audit.prune", time_limit=HOUR_SECONDS)
def prune() -> None:
    """Forget what was kept for long enough."""
    _say("pruning", schedule.prune_tick())


def _say(what: str, did: str) -> None:
    logger.info("The schedule's %s: %s", what, did)


def _beat_on() -> None:
    """Write a heartbeat down; and that it is the first, where there was none for a while.

    A time that is to come is one that a clock had which has leapt: it says nothing.
    """
    now, at = datetime.now(UTC), dict(Heartbeat.objects.values_list("name", "at"))
    before, since = at.get(Heartbeat.SCHEDULE), at.get(Heartbeat.SINCE)
    if not before or not since or not now - PAUSE <= before <= now or since > now:
        _beat(Heartbeat.SINCE)
    _beat(Heartbeat.SCHEDULE)


def _beat(name: str) -> None:
    with log.write_transaction(DEFAULT_DB_ALIAS):
        Heartbeat.objects.update_or_create(
            name=name, defaults={"at": datetime.now(UTC), "holder": Process.current().label}
        )


# What is asked for over HTTP -----------------------------------------------------------------


@shared_task(name="audit.carry_out")
def carry_out(request_id: str) -> None:
    """Do the run or the verification that was asked for, if it still is."""
    row = handover.take(request_id)
    if row is not None:
        does = _archive if row.kind == RunRequest.Kind.ARCHIVE else _verify
        handover.end(row, does(row))


def _archive(row: RunRequest) -> Answer:
    # A person asks, or a program under a person's name: so ARCHIVE_ENABLED does not matter.
    asked = Request(
        row.trigger, row.requested_by, row.requested_from, override=True, id=str(row.pk)
    )
    try:
        result = archive.run(asked, TaskWatcher())
    except Exception as error:
        logger.exception("A run that was asked for failed in a way that nobody foresaw.")
        return Answer(None, "failed", f"This program failed: {sentence(error)}", refused="broken")
    refused = ""
    if result.run is None:
        refused = "busy" if result.outcome is Outcome.BUSY else "failed"
    return Answer(result.run, result.outcome.value, result.error, result.notes, refused)


def _verify(row: RunRequest) -> Answer:
    asked = Asked(
        row.trigger,
        row.requested_by,
        row.requested_from,
        level=row.level,
        processes=1,  # a worker's process can have no children
        request=str(row.pk),
    )
    try:
        found = verify.verify(asked, TaskWatcher().stop_where_asked)
    except KeyboardInterrupt:
        why = "Its worker was stopped: nothing can be said about the log by it. Ask again."
        return Answer(None, "failed", why, refused="failed")
    except AlreadyVerifyingError as error:
        return Answer(error.run, "busy", str(error), refused="busy")
    except (log.BusyError, DatabaseError) as error:
        return Answer(None, "failed", sentence(error), refused="failed")
    except Exception as error:
        why = f"This program failed ({sentence(error)}): that says nothing about the log."
        return Answer(None, "failed", why, refused="broken")
    return Answer(found.run, found.report.outcome)
