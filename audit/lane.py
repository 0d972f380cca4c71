"""A thread beside the run: one job at a time, with database connections of its own.

What overlaps does so between batches alone: while one is on its way to the bucket, the next is
encoded and the rows of the one before go. SQLite, compression and hashing let go of the
interpreter's lock, so two cores are used. The order of safety is the run's own and does not
depend on this.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from django.db import connections

T = TypeVar("T")


class Lane:
    """One thread with its own connections, which are closed when the lane is."""

    def __init__(self, name: str, halted: threading.Event) -> None:
        """Take what makes its jobs stop at the next step. No thread starts before there is one."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._halted = halted

    def __enter__(self) -> Self:
        """Open for jobs."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the job that runs, and close: a run is over when its lanes are.

        Ctrl-C meanwhile makes the job stop, and takes effect then.
        """
        self._executor.submit(connections.close_all)
        interrupted = False
        while True:
            try:
                self._executor.shutdown()
                break
            except KeyboardInterrupt:
                interrupted = True
                self._halted.set()
        if interrupted:
            raise KeyboardInterrupt

    def begin(self, job: Callable[[], T]) -> Future[T]:
        """Do a job after those that were begun before; its error comes with its result.

        Its lines in the log have the ids of whoever began it.
        """
        return self._executor.submit(contextvars.copy_context().run, job)
