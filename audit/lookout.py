"""What the bucket claims of the log: looked at once in each process that appends.

A database that was restored as a whole knows nothing of what it has lost; the bucket does. It is
looked at in a thread, so that ingest waits for a moment at the start of a process and never for a
bucket that does not answer: then the thread asks again until it does.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence

from django.db import connections

from . import cold, conf, storage
from .format.checkpoint import MAX_CHECKPOINT_BYTES, Checkpoint
from .format.errors import AuditError, GapError, TamperedError, UnverifiableError
from .format.names import CHECKPOINTS, CheckpointName, Kind, ObjectName
from .log import Claim

FIRST_WAIT_SECONDS = 3.0
AGAIN_SECONDS = 30.0
MOST_LOOKED_AT = 20  # of each kind: whoever can write to the bucket can put any names there

logger = logging.getLogger(__name__)


class Lookout:
    """Looks at the bucket in a thread of this process."""

    def __init__(self) -> None:
        """Begin without having looked."""
        self._lock = threading.Lock()
        self._pid = 0
        self._tried = threading.Event()
        self._known = threading.Event()
        self._claims: Sequence[Claim] = ()

    def begin(self) -> None:
        """Start the thread, the first time; then wait a little for what its first try finds."""
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()  # a forked process has none of the threads before
            self._tried, self._known = threading.Event(), threading.Event()
            threading.Thread(target=self._work, name="lookout", daemon=True).start()
        self._tried.wait(FIRST_WAIT_SECONDS)

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


def look() -> Iterator[Claim]:
    """Yield what the newest checkpoint and the newest manifest that are signed claim.

    A manifest that is no newer than the checkpoint says nothing more. Raises UnavailableError.
    """
    prefix, known = conf.cold_prefix(), 0
    points = map(CheckpointName.parse, storage.names(f"{prefix}/{CHECKPOINTS}"))
    for point in sorted((name for name in points if name), reverse=True)[:MOST_LOOKED_AT]:
        key = point.key(prefix)
        try:
            data = storage.read(key, MAX_CHECKPOINT_BYTES)
            checkpoint = Checkpoint.from_object(point, data, conf.keyring())
        except (TamperedError, UnverifiableError, GapError) as error:
            logger.warning("Not taken for a claim: %s: %s", key, error)
            continue
        if checkpoint.origin == conf.origin():
            known = checkpoint.seq
            yield Claim(checkpoint.seq, checkpoint.link.hex(), key)
            break
    names = [name for name in map(ObjectName.parse, storage.names(prefix)) if name]
    manifests = [name for name in names if name.kind is Kind.MANIFEST and name.end_seq > known]
    manifests.sort(key=lambda name: name.end_seq, reverse=True)
    for name in manifests[:MOST_LOOKED_AT]:
        key = name.key(prefix)
        try:
            manifest, _ = cold.read_manifest(key)
        except (TamperedError, UnverifiableError, GapError) as error:
            logger.warning("Not taken for a claim: %s", error)
            continue
        yield Claim(manifest.end_seq, manifest.end_link.hex(), key)
        break
