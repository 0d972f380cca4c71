"""The Celery app: two queues, and what is done when.

`short` is for what tells whether all is well and must not wait, not even for a bucket that does
not answer; `long` for everything else. A task is acknowledged when it has ended, so one whose
worker dies comes again: each can be done twice. What must happen once a day is guarded by a row
in the database (`audit.daily`), not here: a second beat, or a message that comes twice, changes
nothing. The tasks are in `audit.tasks`, which the app `audit` loads.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ssl import CERT_REQUIRED
from typing import Any

import celery.beat
from billiard.process import current_process  # type: ignore[import-untyped]  # it has no hints
from celery import Celery
from celery.schedules import crontab
from celery.signals import beat_init, setup_logging, task_postrun, task_prerun, worker_init
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, close_old_connections
from kombu.entity import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES
from structlog.contextvars import bind_contextvars, clear_contextvars

from audit.conf import ARCHIVE_MINUTE, LONGEST_TASK, VERIFY_MINUTE

from .startup import prepare

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dezky.settings")

BEAT, WORKERS = "beat", "workers"  # the subjects of the alarms that it raises
HOUR = 3600
LONGEST = int(LONGEST_TASK.total_seconds())
ANSWERED_WITHIN = timedelta(minutes=5)  # what is sent every minute

logger = logging.getLogger(__name__)

# By the same names, so that URLs and what is logged of them are as everywhere.
TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "dezky.broker:Transport"))
app = Celery("dezky")
on_sigterm: list[Any] = []  # the handler before a task


def every(seconds: float, schedule: Any, task: str) -> dict[str, Any]:
    """Return an entry whose message is void when the next one comes."""
    return {"task": task, "schedule": schedule, "options": {"expires": seconds * 0.9}}


SCHEDULE = {
    "heartbeat": every(60, crontab(), "audit.heartbeat"),
    "watch": every(60, crontab(), "audit.watch"),
    "checkpoint": every(300, crontab(minute="*/5"), "audit.checkpoint_tick"),
    "safety net": every(900, crontab(minute="5,20,35,50"), "audit.safety_net"),
    "archive": every(HOUR, crontab(minute=ARCHIVE_MINUTE), "audit.archive_tick"),
    "verify": every(HOUR, crontab(minute=VERIFY_MINUTE), "audit.verify_tick"),
    "prune": every(12 * HOUR, crontab(hour=1, minute=40), "audit.prune"),
}


def configuration() -> dict[str, Any]:
    """Return the app's configuration: asked for when it is first needed, not on import."""
    origin = sha256(str(settings.AUDIT_ORIGIN).encode("utf-8", "replace")).hexdigest()
    url = settings.REDIS_URL or "redis://redis-url-is-not-set.invalid:6379/0"
    return dict(  # noqa: C408  # these are names
        broker_url=url,
        # Nobody else's certificate will do, unless the URL says otherwise.
        broker_use_ssl=url.startswith("rediss:") and {"ssl_cert_reqs": CERT_REQUIRED},
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_time_limit=LONGEST,
        # What nobody has acknowledged goes to another worker only when none can be at it.
        broker_transport_options={
            "visibility_timeout": LONGEST + HOUR,
            "socket_connect_timeout": 3,
            "socket_timeout": 30,
            "socket_keepalive": True,
            # Two logs may share a Redis, and neither gets messages of the other.
            "global_keyprefix": f"dezky-audit:{origin[:16]}:",
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.2, "interval_max": 0.5},
        task_queues=[
            Queue(name, Exchange(name), routing_key=name)  # type: ignore[no-untyped-call]  # kombu's
            for name in ("short", "long")
        ],
        task_default_queue="short",
        task_routes={
            name: {"queue": "long"}
            for name in (
                "audit.archive_tick",
                "audit.verify_tick",
                "audit.carry_out",
                "audit.safety_net",
                "audit.checkpoint_tick",
                "audit.prune",
            )
        },
        worker_max_tasks_per_child=500,
        beat_scheduler="dezky.celery:Scheduler",
        enable_utc=True,
        timezone="UTC",
        beat_schedule=SCHEDULE,
    )


app.add_defaults(configuration)


class Scheduler(celery.beat.Scheduler):  # type: ignore[misc]  # celery has no type hints
    """Beat's own scheduler, which keeps no file, and raises an alarm where the broker is gone.

    No file is needed: each task asks the database whether there is anything to do.
    """

    misses = 0  # in a row
    well_since: float | None = None  # from when on all was sent and the database answered
    seen_at: datetime | None = None  # the time by the clock when that was last seen

    def setup_schedule(self) -> None:
        """Set it up so that nobody waits for the first minute to see whether all is well."""
        super().setup_schedule()
        for name in {"heartbeat", "watch"} & self.schedule.keys():
            self.schedule[name].last_run_at -= timedelta(minutes=1)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send an entry's message; where the broker does not take it, its next time comes."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except celery.beat.SchedulingError as error:
            logger.error("Not sent: %s", error)  # without the stack that beat would write
            self.misses += 1
            if self.misses > 1:  # once is no more than a restart
                self.tell(gone=True)
        else:
            self.misses = 0
            self.tell(gone=False)

    def _ensure_connected(self) -> Any:
        """Connect, and tell where that does not succeed."""

        def gone(error: Exception, interval: float) -> None:
            logger.error("The broker does not answer; trying again in %s s.", interval)
            self.tell(gone=True)

        return self.connection.ensure_connection(gone, self.app.conf.broker_connection_max_retries)

    def tell(self, *, gone: bool) -> None:
        """Open or clear the alarms of the broker and of workers that do nothing; never raises."""
        from audit import alarms, lastresort, log, notices  # noqa: PLC0415  # models need Django

        try:
            # Beat lives long, and a database may have been restarted meanwhile.
            close_old_connections()
            found = []
            if gone:
                found.append(
                    alarms.Finding(
                        alarms.Kind.BROKER,
                        "The broker does not answer: nothing is done by schedule, and no run can "
                        "be asked for over HTTP. See that Redis is up and REDIS_URL is right.",
                    )
                )
            alarms.settle(BEAT, found)
            if gone:
                self.well_since = None
            else:
                found += self.see_workers()
            lastresort.settle_here()
            if found:
                notices.send_due()  # no worker hears of it
        except (DatabaseError, log.BusyError) as error:
            self.well_since = None
            lastresort.tell(error, here=True)
        except Exception:  # whatever it is, beat must go on
            logger.exception("Beat's alarm could not be told, in a way that nobody foresaw.")

    def see_workers(self) -> list[Any]:
        """Open or clear the alarm of workers that do not answer; return what was found.

        While beat or the database was gone none could: so it is bad news only a while after.
        """
        from audit import alarms, conditions  # noqa: PLC0415  # models need Django

        now, at = time.monotonic(), datetime.now(UTC)
        if self.seen_at and not timedelta() <= at - self.seen_at <= ANSWERED_WITHIN:
            self.well_since = None  # this machine slept, or its clock has leapt
        self.seen_at = at
        self.well_since = self.well_since or now
        found = list(conditions.unanswered(at - ANSWERED_WITHIN))
        if found and now - self.well_since <= ANSWERED_WITHIN.total_seconds():
            return []
        alarms.settle(WORKERS, found)
        return found


@setup_logging.connect
def keep_our_logging(**kwargs: Any) -> None:
    """Let Django's LOGGING be the logging of workers and beat."""


@task_prerun.connect
def name_the_task(task_id: str, task: Any, **kwargs: Any) -> None:
    """Let each line that is logged meanwhile say which task it is of."""
    if not task.request.is_eager:
        bind_contextvars(task_id=task_id, task=task.name)


@task_prerun.connect
def stop_on_sigterm(task: Any, **kwargs: Any) -> None:
    """Let SIGTERM stop a task in a worker's child as Ctrl-C does, and be written down as that.

    It comes where all processes of a group get it, or a worker ends its children by force.
    """
    if not task.request.is_eager and current_process().daemon:
        on_sigterm.append(signal.signal(signal.SIGTERM, signal.default_int_handler))


@task_postrun.connect
def forget_the_task(task: Any, **kwargs: Any) -> None:
    """Let no later line say so, and SIGTERM do what it did before."""
    if not task.request.is_eager:
        clear_contextvars()
        while on_sigterm:
            signal.signal(signal.SIGTERM, on_sigterm.pop())


@worker_init.connect
def prepare_worker(**kwargs: Any) -> None:
    """Refuse to work while the configuration is wrong, before anything is forked."""
    prepare_or_exit("worker")


@beat_init.connect
def prepare_beat(**kwargs: Any) -> None:
    """Refuse to send anything while the configuration is wrong."""
    prepare_or_exit(BEAT)


def prepare_or_exit(server: str) -> None:
    """Prepare; end the process where it may not serve: of other errors Celery would go on."""
    try:
        prepare(server)
    except ImproperlyConfigured as error:
        raise SystemExit(str(error)) from None
