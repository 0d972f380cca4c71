"""What the bucket claims of the log: looked at once in each process that appends.

A database that was restored as a whole knows nothing of what it has lost; the bucket does. It is
looked at in a thread, so that ingest waits for a moment at the start of a process and never for a
bucket that does not answer: then the thread asks again until it does.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from django.db import connections

from . import cold, conf, storage
from .format.checkpoint import MAX_CHECKPOINT_BYTES, Checkpoint
from .format.errors import AuditError, GapError, TamperedError, UnverifiableError
from .format.names import CHECKPOINTS, CheckpointName, Kind, ObjectName
from .log import Claim

FIRST_WAIT_SECONDS = 3.0
AGAIN_SECONDS = 30.0

Name = TypeVar("Name", CheckpointName, ObjectName)

logger = logging.getLogger(__name__)


class Lookout:
    """Looks at the bucket in a thread of this process."""

    def __init__(self) -> None:
        """Begin without having looked."""
        self._lock = threading.Lock()
        self._pid = 0
        self._until = 0.0
        self._tried = threading.Event()
        self._known = threading.Event()
        self._claims: Sequence[Claim] = ()

    def begin(self) -> None:
        """Start the thread, the first time; wait a little until its first try has ended.

        Whoever comes meanwhile waits for what is left of that time: none appends unchecked only
        because another one came first.
        """
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()  # a forked process has none of the threads before
                self._tried, self._known = threading.Event(), threading.Event()
                self._until = time.monotonic() + FIRST_WAIT_SECONDS
                threading.Thread(target=self._work, name="lookout", daemon=True).start()
            tried, left = self._tried, self._until - time.monotonic()
        tried.wait(max(0.0, left))

    def claims(self) -> Sequence[Claim] | None:
        """Return the claims, None while they are not known."""
        return self._claims if self._known.is_set() else None

    def _work(self) -> None:
        try:
            while True:
                try:
                    self._claims = tuple(look())
                except storage.UnavailableError as error:
                    logger.warning("What the bucket holds of this log is not known yet: %s", error)
                    self._tried.set()
                    threading.Event().wait(AGAIN_SECONDS)
                except AuditError as error:
                    logger.error("What the bucket holds of this log cannot be known: %s", error)
                    return
                else:
                    self._known.set()
                    return
        finally:
            self._tried.set()
            connections.close_all()


def look(unknown: list[tuple[int, str]] | None = None) -> Iterator[Claim]:
    """Yield what the newest checkpoint and the newest manifest that are signed claim.

    Whoever can write to the bucket can put any names there: each is looked at, newest first,
    until one is to be believed. A manifest that is no newer than the checkpoint says nothing
    more. Into `unknown` go seq and key of those, newer than what is believed, of which it cannot
    be said whether to believe them. Raises UnavailableError.
    """
    prefix, wrong = conf.cold_prefix(), list[str]()
    unknown = [] if unknown is None else unknown
    points = filter(None, map(CheckpointName.parse, storage.names(f"{prefix}/{CHECKPOINTS}")))
    point = _first(sorted(points, reverse=True), _of_checkpoint, wrong, unknown)
    if point:
        yield point
    known = point.seq if point else 0
    names = filter(None, map(ObjectName.parse, storage.names(prefix)))
    manifests = [name for name in names if name.kind is Kind.MANIFEST and name.end_seq > known]
    manifests.sort(key=lambda name: name.end_seq, reverse=True)
    if manifest := _first(manifests, _of_manifest, wrong, unknown):
        yield manifest
    if wrong:
        logger.error(
            "In the bucket, %s checkpoints or manifests are not to be believed and claim nothing, "
            "such as %s. Verify the log, and find out who put them there.",
            f"{len(wrong):,}",
            wrong[0],
        )


def _first(
    names: Iterable[Name],
    claim_of: Callable[[Name], Claim | None],
    wrong: list[str],
    unknown: list[tuple[int, str]],
) -> Claim | None:
    """Return the first claim; the keys of what is not to be believed go into `wrong`."""
    for name in names:
        try:
            claim = claim_of(name)
        except (TamperedError, UnverifiableError, GapError) as error:
            wrong.append(name.key(conf.cold_prefix()))
            if isinstance(error, UnverifiableError):
                seq = name.seq if isinstance(name, CheckpointName) else name.end_seq
                unknown.append((seq, wrong[-1]))
            continue
        if claim:
            return claim
    return None


def _of_checkpoint(name: CheckpointName) -> Claim | None:
    """Return what a checkpoint claims, None where it is of another log."""
    key = name.key(conf.cold_prefix())
    data = storage.read(key, MAX_CHECKPOINT_BYTES)
    checkpoint = Checkpoint.from_object(name, data, conf.keyring())
    if checkpoint.origin != conf.origin():
        return None
    return Claim(checkpoint.seq, checkpoint.link.hex(), key)


def _of_manifest(name: ObjectName) -> Claim:
    """Return what a manifest claims."""
    key = name.key(conf.cold_prefix())
    manifest, _ = cold.read_manifest(key)
    return Claim(manifest.end_seq, manifest.end_link.hex(), key)
