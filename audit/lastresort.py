"""What is told when the database itself takes nothing: an alarm that no row can hold.

It is kept by the broker, which is another service, and told from there, once by each way; when the
database takes something again, it becomes a row that is cleared, and that is told as well.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from django.db import DEFAULT_DB_ALIAS

from . import alarms, conf, log, notices
from .failures import kind_of
from .models import Alarm, Notice
from .result import sentence

KEY = "dezky-audit:database-alarm"
SUBJECT = "database"
SECONDS = 5.0
SENDING = timedelta(seconds=50)  # for so long nobody else sends it; less than a heartbeat
KEPT = timedelta(days=30)

logger = logging.getLogger(__name__)


def tell(error: BaseException) -> None:
    """Tell that the database takes nothing, once by each way until it does; never raises."""
    now = datetime.now(UTC)
    logger.critical("Alarm (%s): %s", kind_of(error), sentence(error))
    fresh = {"kind": kind_of(error).value, "message": sentence(error), "at": now.timestamp()}
    try:
        with _broker() as broker:
            broker.set(_key(), json.dumps(fresh), nx=True)
            kept = json.loads(broker.get(_key()) or json.dumps(fresh))
            alarm = Alarm(
                kind=Alarm.Kind(kept["kind"]),
                subject=SUBJECT,
                message=kept["message"],
                opened_at=datetime.fromtimestamp(kept["at"], UTC),
                last_seen_at=now,
            )
            for channel in notices.channels():
                _tell(broker, channel, alarm)
    except (redis.RedisError, ValueError) as failure:  # the latter where REDIS_URL is none
        # Not its text: that may hold the address.
        logger.critical("That could not be kept by the broker: %s", type(failure).__name__)


def _tell(broker: Any, channel: str, alarm: Alarm) -> None:
    """Tell it by one way, unless somebody has or is at it; what fails the next call tries."""
    mark = _mark(channel, alarm.opened_at)
    if not broker.set(mark, "", nx=True, ex=SENDING):
        return
    try:
        notices.send(channel, alarm, Notice.Event.OPENED)
    except notices.UnsentError as failure:
        logger.critical("That could not be told yet: %s", failure)
    else:
        broker.set(mark, "told", ex=KEPT)


def settle() -> None:
    """Write down what was told, now that the database takes something, and that it is over.

    Raises DatabaseError or BusyError where it does not.
    """
    try:
        with _broker() as broker:
            if (raw := broker.get(_key())) is None:
                return
            _write_down(broker, json.loads(raw))
            broker.delete(_key())
    except (redis.RedisError, ValueError) as failure:
        logger.error("The broker was not asked for alarms: %s", type(failure).__name__)


def _write_down(broker: Any, kept: dict[str, Any]) -> None:
    opened = datetime.fromtimestamp(kept["at"], UTC)
    told = [way for way in Notice.Channel.values if broker.get(_mark(way, opened)) == b"told"]
    with log.write_transaction(DEFAULT_DB_ALIAS):
        if Alarm.objects.filter(subject=SUBJECT, opened_at=opened).exists():
            return  # by somebody else, or by one who died before the broker forgot it
        row = alarms.open_alarm(Alarm.Kind(kept["kind"]), SUBJECT, kept["message"], opened)
        row.notices.filter(channel__in=told).update(sent_at=opened)
        alarms.clear(row, datetime.now(UTC))


def _broker() -> redis.Redis:
    return redis.Redis.from_url(
        conf.broker_url(), socket_timeout=SECONDS, socket_connect_timeout=SECONDS
    )


def _key() -> str:
    return f"{KEY}:{conf.origin()}"


def _mark(channel: str, opened: datetime) -> str:
    return f"{_key()}:{opened.timestamp():.6f}:{channel}"
