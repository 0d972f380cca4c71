"""What is told when the database itself takes nothing: an alarm that no row can hold.

It is kept by the broker, which is another service, and told at once; when the database takes
something again, it becomes a row that is cleared, and that is told as well.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import redis
from django.db import DEFAULT_DB_ALIAS

from . import alarms, conf, log, notices
from .failures import kind_of
from .models import Alarm, Notice
from .result import sentence

KEY = "dezky-audit:database-alarm"
SUBJECT = "database"
SECONDS = 5.0

logger = logging.getLogger(__name__)


def tell(error: BaseException) -> None:
    """Tell that the database takes nothing, once until it does; never raises."""
    alarm = Alarm(
        kind=kind_of(error),
        subject=SUBJECT,
        message=sentence(error),
        opened_at=(now := datetime.now(UTC)),
        last_seen_at=now,
    )
    kept = {"kind": alarm.kind, "message": alarm.message, "at": now.timestamp(), "told": True}
    broker, key = _broker(), f"{KEY}:{conf.origin()}"
    logger.critical("Alarm (%s): %s", alarm.kind, alarm.message)
    try:
        if not broker.set(key, json.dumps(kept), nx=True):
            return
        for channel in notices.channels():
            try:
                notices.send(channel, alarm, Notice.Event.OPENED)
            except notices.UnsentError as failure:
                logger.critical("That could not be told yet: %s", failure)
                kept["told"] = False
        broker.set(key, json.dumps(kept))
    except redis.RedisError as failure:
        logger.critical("That could not be kept by the broker: %s", type(failure).__name__)


def settle() -> None:
    """Write down what was told, now that the database takes something, and that it is over.

    Raises DatabaseError or BusyError where it does not, and RedisError.
    """
    broker, key = _broker(), f"{KEY}:{conf.origin()}"
    raw = broker.get(key)
    if raw is None:
        return
    kept = json.loads(raw)
    with log.write_transaction(DEFAULT_DB_ALIAS):
        opened = datetime.fromtimestamp(kept["at"], UTC)
        row = alarms.open_alarm(Alarm.Kind(kept["kind"]), SUBJECT, kept["message"], opened)
        if kept["told"]:
            row.notices.update(sent_at=opened)
        alarms.clear(row, datetime.now(UTC))
    broker.delete(key)


def _broker() -> redis.Redis:
    return redis.Redis.from_url(
        conf.broker_url(), socket_timeout=SECONDS, socket_connect_timeout=SECONDS
    )
