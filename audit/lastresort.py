"""What is told when the database itself takes nothing: an alarm that no row can hold.

It is kept by the broker, which is another service, and told from there, once by each way; when the
database takes something again, it becomes a row that is cleared, and that is told as well. Where
the broker is gone, too (one full disk is enough), beat keeps it for itself: no worker hears of it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
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
TOLD = b"told"

logger = logging.getLogger(__name__)


@dataclass
class _Here:
    """What this process keeps, where it is beat."""

    alarm: dict[str, Any] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


_here = _Here()


def tell(error: BaseException, *, here: bool = False) -> None:
    """Tell that the database takes nothing, once by each way until it does; never raises.

    `here`: this process keeps what the broker cannot keep, and asks `settle_here` often.
    """
    now = datetime.now(UTC)
    logger.critical("Alarm (%s): %s", kind_of(error), sentence(error))
    fresh = {"kind": kind_of(error).value, "message": sentence(error), "at": now.timestamp()}
    try:
        with _broker() as broker:
            _hand_over(broker)
            broker.set(_key(), json.dumps(fresh), nx=True)
            kept = json.loads(broker.get(_key()) or json.dumps(fresh))
            for channel in notices.channels():
                mark = _mark(channel, kept)
                # Unless somebody has, or is at it.
                if broker.set(mark, "", nx=True, ex=SENDING) and _tell(channel, kept):
                    broker.set(mark, TOLD, ex=KEPT)
    except (redis.RedisError, ValueError) as failure:  # the latter where REDIS_URL is none
        # Not its text: that may hold the address.
        logger.critical("That could not be kept by the broker: %s", type(failure).__name__)
        if here:
            _tell_here(fresh)


def _tell_here(fresh: dict[str, Any]) -> None:
    _here.alarm = _here.alarm or fresh
    for channel in notices.channels():
        if channel not in _here.told and _tell(channel, _here.alarm):
            _here.told.add(channel)


def _tell(channel: str, kept: dict[str, Any]) -> bool:
    """Tell it by one way; say whether that went well. What did not, the next call tries again."""
    alarm = Alarm(
        kind=Alarm.Kind(kept["kind"]),
        subject=SUBJECT,
        message=kept["message"],
        opened_at=_opened(kept),
        last_seen_at=datetime.now(UTC),
    )
    try:
        notices.send(channel, alarm, Notice.Event.OPENED)
    except notices.UnsentError as failure:
        logger.critical("That could not be told yet: %s", failure)
        return False
    return True


def _hand_over(broker: Any) -> None:
    """Let the broker keep what this process has kept, now that it answers.

    Where it keeps another one already, a worker was quicker: both are written down.
    """
    if _here.alarm and broker.set(_key(), json.dumps(_here.alarm), nx=True):
        for channel in _here.told:
            broker.set(_mark(channel, _here.alarm), TOLD, ex=KEPT)
        _forget()


def _forget() -> None:
    _here.alarm, _here.told = {}, set()


def settle() -> None:
    """Write down what was told, now that the database takes something, and that it is over.

    Raises DatabaseError or BusyError where it does not.
    """
    try:
        with _broker() as broker:
            if (raw := broker.get(_key())) is None:
                return
            kept = json.loads(raw)
            ways = Notice.Channel.values
            _write_down(kept, {way for way in ways if broker.get(_mark(way, kept)) == TOLD})
            broker.delete(_key())
    except (redis.RedisError, ValueError) as failure:
        logger.error("The broker was not asked for alarms: %s", type(failure).__name__)


def settle_here() -> None:
    """Write down what this process has kept, as `settle` does."""
    if _here.alarm:
        _write_down(_here.alarm, _here.told)
        _forget()


def _write_down(kept: dict[str, Any], told: set[str]) -> None:
    opened = _opened(kept)
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


def _mark(channel: str, kept: dict[str, Any]) -> str:
    return f"{_key()}:{kept['at']:.6f}:{channel}"


def _opened(kept: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(kept["at"], UTC)
