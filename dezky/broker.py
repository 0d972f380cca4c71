"""Redis as Celery's broker, mended where a lost connection would end a worker.

Where Redis goes while a task is at work, Celery closes the connection and lets go of it; the task
is acknowledged, or given back, through it all the same. kombu (5.7.0) finds no address in it then:
an AttributeError, which the worker takes for its end. Said to be what it is, a lost connection, it
is expected, and the worker connects again. The message comes again when its time is over in which
nobody else gets it, as after a SIGKILL.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError as LostError


class Channel(redis.Channel):
    """A channel that knows when its connection is no more."""

    def _connparams(self, asynchronous: bool = False) -> Any:
        if getattr(self.connection, "client", None) is None:
            raise LostError("The connection was lost and given up.")
        return super()._connparams(asynchronous)  # type: ignore[no-untyped-call]  # kombu's


class Transport(redis.Transport):
    """Makes such channels."""

    Channel = Channel
