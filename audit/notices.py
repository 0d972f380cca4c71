"""Tell people of alarms: by e-mail, and by a webhook that is signed.

A message is queued in the transaction that opens or clears the alarm, and sent later: one that
cannot be sent is tried again, ever more rarely, for three days. Whoever sends it claims it first,
by a conditional update; where a sender dies in between it is sent once more, with the same id.

The webhook is that of Standard Webhooks (www.standardwebhooks.com): HMAC-SHA-256 over
`id.timestamp.body`, in the header `webhook-signature`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from smtplib import SMTPException
from typing import Any

import urllib3
from django.core.mail import EmailMessage, get_connection
from django.db.models import Q

from . import conf
from .format.errors import AuditError
from .format.record import format_time
from .models import Alarm, Notice

FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
GIVEN_UP = timedelta(days=3)
SECONDS = 10.0
SECRET_PREFIX = "whsec_"  # noqa: S105  # what such a secret may begin with

Channel, Event = Notice.Channel, Notice.Event

logger = logging.getLogger(__name__)


class UnsentError(AuditError):
    """A message could not be sent."""


def channels() -> list[Notice.Channel]:
    """Return the ways by which people hear of alarms."""
    found = []
    if conf.alarm_emails():
        found.append(Channel.EMAIL)
    if conf.alarm_webhook()[0]:
        found.append(Channel.WEBHOOK)
    return found


def queue(alarm: Alarm, event: str, now: datetime) -> None:
    """Queue a message by each way; inside the transaction that opens or clears the alarm."""
    # That it was goes first, unless somebody is sending that.
    failed = alarm.notices.filter(sent_at=None).exclude(tries__gt=0, error="")
    failed.update(next_try_at=now)
    for channel in channels():
        Notice.objects.create(alarm=alarm, event=event, channel=channel, next_try_at=now)


def send_due() -> int:
    """Send what is due; return how many were sent. Raises DatabaseError.

    A way by which one message did not go is not tried again now: whoever sends has other work.
    That an alarm is over is never told before that it was.
    """
    now, sent = datetime.now(UTC), 0
    closed: set[str] = set()
    since = now - GIVEN_UP
    unsent = Notice.objects.filter(
        Q(event=Event.OPENED, alarm__opened_at__gt=since)
        | Q(event=Event.CLEARED, alarm__cleared_at__gt=since),
        sent_at=None,
    )
    for notice in unsent.filter(next_try_at__lte=now).select_related("alarm"):
        if unsent.filter(alarm=notice.alarm, channel=notice.channel, pk__lt=notice.pk).exists():
            continue
        if notice.channel in closed:
            continue
        pause = min(FIRST_PAUSE * 2**notice.tries, LONGEST_PAUSE)
        mine = Notice.objects.filter(pk=notice.pk, sent_at=None, tries=notice.tries)
        again = datetime.now(UTC) + pause
        if not mine.update(tries=notice.tries + 1, next_try_at=again, error=""):
            continue
        try:
            send(notice.channel, notice.alarm, notice.event)
        except UnsentError as error:
            closed.add(notice.channel)
            logger.error("A message of %s was not sent: %s", notice.alarm, error)
            Notice.objects.filter(pk=notice.pk).update(error=str(error))
        else:
            Notice.objects.filter(pk=notice.pk).update(sent_at=datetime.now(UTC), error="")
            sent += 1
    return sent


def send(channel: str, alarm: Alarm, event: str) -> None:
    """Send a message of an alarm by one way; raises UnsentError."""
    if channel == Channel.EMAIL:
        _email(alarm, event)
    else:
        _webhook(alarm, event)


def _email(alarm: Alarm, event: str) -> None:
    what = alarm.get_kind_display()
    state = "Alarm" if event == Event.OPENED else "Over"
    grave = ", grave" * alarm.is_grave
    lines = [
        f"{conf.origin()}: {what} ({alarm.kind}){grave}",
        "",
        alarm.message,
        "",
        f"opened:    {_time(alarm.opened_at)}",
        f"last seen: {_time(alarm.last_seen_at)}",
        f"cleared:   {_time(alarm.cleared_at) if alarm.cleared_at else 'not yet'}",
        "",
        f"docs/operate.md says what {alarm.kind} means and what to do, under 'Kinds'.",
    ]
    message = EmailMessage(
        subject=f"[{conf.origin()}] {state}{grave}: {what}",
        body="\n".join(lines),
        to=conf.alarm_emails(),
        headers={"Auto-Submitted": "auto-generated"},
        connection=(connection := get_connection()),
    )
    try:
        connection.open()
        message.send()
    except (OSError, SMTPException, ValueError) as error:
        # Not its text: that may hold what was sent to log in.
        raise UnsentError(
            f"The mail server did not take it ({type(error).__name__}): see EMAIL_URL and "
            "EMAIL_FROM."
        ) from None
    finally:
        # Also where it let nobody in; and a mail that was taken is not sent again for a bad end.
        with suppress(OSError):
            connection.close()


def _webhook(alarm: Alarm, event: str) -> None:
    url, _ = conf.alarm_webhook()
    body = json.dumps(payload(alarm, event), ensure_ascii=False).encode()
    # Not by its number: where the database takes nothing, it has none yet. And without a full
    # stop, which ends it in what is signed.
    name = f"{alarm.kind}-{alarm.subject}-{alarm.opened_at.timestamp() * 1000:.0f}-{event}"
    if not webhook_key():
        raise UnsentError("AUDIT_ALARM_WEBHOOK_SECRET is missing, or is no base64: set it.")
    try:
        with urllib3.PoolManager(retries=False, timeout=SECONDS) as pool:
            answer: Any = pool.request(
                "POST",
                url,
                body=body,
                headers=headers(name, datetime.now(UTC), body),
                redirect=False,
                preload_content=False,
            )
            status = answer.status
            answer.close()  # unread: what it says may never end
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        # Not its text: that holds the whole address, which may be a secret.
        raise UnsentError(
            f"The webhook did not answer ({type(error).__name__}): see AUDIT_ALARM_WEBHOOK_URL."
        ) from None
    if not 200 <= status < 300:
        raise UnsentError(f"The webhook answered with {status}: see its log.")


def payload(alarm: Alarm, event: str) -> dict[str, Any]:
    """Return what the webhook is told."""
    return {
        "type": f"alarm.{event}",
        "timestamp": format_time(alarm.cleared_at or alarm.opened_at),
        "data": {
            "origin": conf.origin(),
            "alarm": alarm.pk,
            "kind": alarm.kind,
            "grave": alarm.is_grave,
            "subject": alarm.subject,
            "message": alarm.message,
            "opened_at": format_time(alarm.opened_at),
            "last_seen_at": format_time(alarm.last_seen_at),
            "cleared_at": format_time(alarm.cleared_at) if alarm.cleared_at else None,
        },
    }


def headers(name: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the headers that sign a body."""
    seconds = str(int(at.timestamp()))
    signed = b".".join([name.encode(), seconds.encode(), body])
    digest = hmac.new(webhook_key(), signed, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "dezky-audit",
        "webhook-id": name,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def webhook_key() -> bytes:
    """Return the secret that signs; empty where there is none, or it is no base64."""
    _, secret = conf.alarm_webhook()
    text = secret.strip().removeprefix(SECRET_PREFIX).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
