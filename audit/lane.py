"""A thread beside the run: one job at a time, with database connections of its own.

What overlaps does so between batches alone: while one is on its way to the bucket, the next is
encoded and the rows of the one before go. SQLite, compression and hashing let go of the
interpreter's lock, so two cores are used. The order of safety is the run's own and does not
depend on this.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from django.db import connections

T = TypeVar("T")


class Lane:
    """One thread with its own connections, which are closed when the lane is."""

    def __init__(self, name: str) -> None:
        """Start no thread before there is a job."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    def __enter__(self) -> Self:
        """Open for jobs."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the job that runs, and close."""
        self._executor.submit(connections.close_all)
        self._executor.shutdown()

    def begin(self, job: Callable[[], T]) -> Future[T]:
        """Do a job after those that were begun before; its error comes with its result."""
        return self._executor.submit(job)
