"""Go through what a walk finds: objects one after another, or several at once by processes."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

from .errors import AuditError, UnreachableError
from .inspect import Inspected, Job, inspect
from .report import Report
from .store import Store
from .walk import Walk

AHEAD = 2  # jobs that wait for each process
CAN_HOLD = hasattr(signal, "pthread_sigmask")

Inspect = Callable[[Store, Job], Inspected]


class WorkerError(AuditError):
    """A process that looked at objects has died: what it would have found is not known."""


def examine(
    walk: Walk,
    jobs: Iterable[Job],
    *,
    processes: int = 1,
    inspect: Inspect = inspect,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
    progress: Callable[[int], None] = lambda events: None,
) -> None:
    """Read every object of `jobs` as a whole, and add what is found to the walk's report.

    With several processes, `inspect` and the walk's store are sent to each, which `initializer`
    sets up first. `progress` is called with the number of events of each object. Raises
    UnreachableError where nothing more can be looked at, WorkerError where a process has died.
    """
    if processes == 1:
        for job in jobs:
            _add(walk.report, job, inspect(walk.store, job), progress)
        return
    waiting: deque[tuple[Job, Future[Inspected]]] = deque()
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin, (initializer, initargs))
    try:
        for job in jobs:
            with _holding_ctrl_c():  # the first one starts the processes
                waiting.append((job, pool.submit(inspect, walk.store, job)))
            if len(waiting) > processes * AHEAD:
                _take(walk.report, waiting, progress)
        while waiting:
            _take(walk.report, waiting, progress)
    except BrokenProcessPool:
        raise WorkerError(
            "A process that looked at objects has died, killed or for want of memory: nothing can "
            "be said about the log. Verify again, with one process."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _holding_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back in processes that are started meanwhile, until they have set themselves up.

    Else it would hit them amid their imports, and they would say so at length.
    """
    if not CAN_HOLD:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    """Set up a process: it ends without a word at Ctrl-C, and never outlives who started it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if CAN_HOLD:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _take(
    report: Report,
    waiting: deque[tuple[Job, Future[Inspected]]],
    progress: Callable[[int], None],
) -> None:
    job, future = waiting.popleft()
    _add(report, job, future.result(), progress)


def _add(report: Report, job: Job, found: Inspected, progress: Callable[[int], None]) -> None:
    for problem in found.problems:
        report.add(problem)
    if found.good:
        report.objects.good += 1
        report.covers(job.manifest.start_seq, job.manifest.end_seq)
    if found.lost:
        raise UnreachableError(found.lost)
    progress(job.manifest.event_count)
