"""Signed links, against which a range of the log is held before it leaves hot.

Whoever can write to hot can recompute every link, but cannot sign: a range counts as what was
recorded only where its links agree with each checkpoint in it, and lead on to the first one after
it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any

from . import conf, log
from .format.chain import leaf_hash, next_link
from .format.checkpoint import Checkpoint
from .format.errors import EndedKeyError, GapError, TamperedError, UnverifiableError
from .format.frames import FRAME_EVENTS
from .format.names import CheckpointName
from .format.record import parse_time
from .log import as_bytes
from .models import Checkpoint as CheckpointRow


def signed(row: CheckpointRow) -> Checkpoint:
    """Return what a row's bytes say, which must be signed and what its columns say.

    Raises TamperedError or UnverifiableError.
    """
    data = as_bytes(row.document)
    try:
        checkpoint = Checkpoint.from_bytes(data, conf.keyring())
    except UnverifiableError as error:
        raise UnverifiableError(
            f"The {row} is {error}: set AUDIT_SIGNING_KEYS so that it has that key, too."
        ) from None
    except EndedKeyError as error:
        raise TamperedError(
            f"The {row} is {error}: that key's until in AUDIT_SIGNING_KEYS is too early (set it "
            "to the last day on which it signed), or somebody who has that key signs with it."
        ) from None
    except TamperedError as error:
        raise TamperedError(f"The row of {row} was changed: {error}. {RESTORE}") from None
    said = {
        "index": checkpoint.index,
        "seq": checkpoint.seq,
        "link": checkpoint.link.hex(),
        "root": checkpoint.root.hex(),
        "at": parse_time(checkpoint.at),
        "sha256": sha256(data).hexdigest(),
    }
    if any(getattr(row, name) != value for name, value in said.items()):
        raise TamperedError(
            f"The row of {row} was changed: its columns are not the signed ones. {RESTORE}"
        )
    if checkpoint.origin != conf.origin():
        raise TamperedError(f"The {row} is of another log, '{checkpoint.origin}'. {RESTORE}")
    return checkpoint


RESTORE = "Keep the database as it is, and compare with a backup and with the bucket."


def row_of(checkpoint: Checkpoint, data: bytes, **more: Any) -> CheckpointRow:
    """Return the row, not saved yet, that has a checkpoint's bytes and says what they say."""
    return CheckpointRow(
        index=checkpoint.index,
        seq=checkpoint.seq,
        link=checkpoint.link.hex(),
        root=checkpoint.root.hex(),
        at=parse_time(checkpoint.at),
        sha256=sha256(data).hexdigest(),
        document=data,
        **more,
    )


def key_of(row: CheckpointRow) -> str:
    """Return the key under which a row's bytes are in the bucket, or will be."""
    return CheckpointName.of(row.index, row.seq, row.sha256).key(conf.cold_prefix())


class Anchors:
    """The checkpoints from a seq on, and what was found to lead to them.

    May be used by several threads, each for a range of its own.
    """

    def __init__(self, checkpoints: Iterable[Checkpoint] = ()) -> None:
        """Take checkpoints whose signatures are good."""
        self._links: dict[int, tuple[bytes, str]] = {}
        for item in checkpoints:
            link, what = self._links.get(item.seq, (item.link, ""))
            if link != item.link:
                raise TamperedError(
                    f"Checkpoint {item.index:,} and {what} are both signed for seq {item.seq:,} "
                    "and have different links: nothing is archived. Find out who signed which."
                )
            self._links[item.seq] = item.link, f"checkpoint {item.index:,}"
        self._seqs = sorted(self._links)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, after: int, last: int) -> Anchors:
        """Return those after a seq, up to `last` and the first one at or beyond it.

        Raises TamperedError or UnverifiableError at the first row that is not to be believed.
        """
        rows = CheckpointRow.objects.filter(seq__gt=after).order_by("seq", "index")
        beyond = rows.filter(seq__gte=last).values_list("seq", flat=True).first()
        if beyond is not None:
            rows = rows.filter(seq__lte=beyond)
        return cls(map(signed, rows.iterator()))

    @property
    def last(self) -> int:
        """Return the seq of the newest one, 0 where there is none."""
        return self._seqs[-1] if self._seqs else 0

    def within(self, first: int, count: int) -> bool:
        """Say whether one of these seqs is signed."""
        at = bisect_left(self._seqs, first)
        return at < len(self._seqs) and self._seqs[at] < first + count

    def hold(self, first: int, links: Sequence[bytes]) -> None:
        """Hold the links of consecutive seqs against those that are signed.

        Raises TamperedError.
        """
        at = bisect_left(self._seqs, first)
        while at < len(self._seqs) and (seq := self._seqs[at]) < first + len(links):
            self._compare(seq, links[seq - first])
            at += 1

    def lead_on(self, seq: int, link: bytes) -> None:
        """See that the log leads from a seq and its link on to the next signed one.

        What was passed on the way is remembered, so that the next range need not pass it again.
        Raises TamperedError or GapError; GapError, too, where nothing is signed from there on.
        """
        with self._lock:
            at = bisect_left(self._seqs, seq)
            if at == len(self._seqs):
                raise GapError(f"No checkpoint is signed for seq {seq:,} or a later one.")
            end = self._seqs[at]
            passed: dict[int, bytes] = {}
            for place, its_link in leading(seq, link, end):
                link = its_link
                if place % FRAME_EVENTS == 0:
                    passed[place] = link
            self._compare(end, link)
            what = self._links[end][1]
            self._links |= {place: (its_link, what) for place, its_link in passed.items()}
            self._seqs = sorted(self._links)

    def _compare(self, seq: int, link: bytes) -> None:
        expected, what = self._links[seq]
        if link != expected:
            raise TamperedError(
                f"Seq {seq:,} in the hot database was changed, or one before it: its link is not "
                f"the one to which {what} is signed. The archive stops and deletes nothing. Keep "
                "the database as it is, and compare with a backup."
            )


def leading(
    seq: int, link: bytes, last: int, visit: Callable[[bytes], None] | None = None
) -> Iterable[tuple[int, bytes]]:
    """Yield (seq, link) of what follows in hot up to `last`, every link recomputed.

    `visit` is called with each leaf. Raises GapError where a seq is missing, TamperedError where
    a stored link is not the recomputed one.
    """
    for found, record, stored in log.read_range(seq + 1, last):
        if found != seq + 1:
            break
        leaf = leaf_hash(record)
        link = next_link(link, leaf)
        if link != stored:
            raise TamperedError(
                f"Seq {found:,} in the hot database was changed: its record does not lead from "
                "the link before it to its own. Keep the database as it is, and compare with a "
                "backup."
            )
        if visit:
            visit(leaf)
        seq = found
        yield seq, link
    if seq < last:
        raise GapError(
            f"Seq {seq + 1:,} is missing from the hot database. Restore it from a backup, and "
            "find out who removed it."
        )
