"""The log's checkpoints: each held against the one before it, and what they say of the log.

The half of a walk that comes first. What is wrong is said with its place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from .checkpoint import MAX_CHECKPOINT_BYTES, Checkpoint
from .errors import AuditError, GapError, TamperedError, UnreachableError, UnverifiableError
from .inspect import Anchor
from .keys import ED25519
from .names import CHECKPOINTS, CheckpointName
from .report import EVIDENCE, RESTORE, Kind, Report
from .signing import Keyring
from .store import Store

KEY_NEEDED = "Give the key of that id, and verify again."
MOST_MISSING = 100  # checkpoints that are named one by one


@dataclass(frozen=True)
class Point:
    """A checkpoint whose signature is good, and the name of its object."""

    name: CheckpointName
    checkpoint: Checkpoint
    sha256: str


class Points:
    """The checkpoints in a store; `origin` is None until the first document gives it."""

    def __init__(
        self, store: Store, keyring: Keyring, report: Report, origin: str | None = None
    ) -> None:
        """Begin with none."""
        self.store = store
        self.keyring = keyring
        self.report = report
        self.origin = origin
        self.point_names: list[CheckpointName] = []
        self.points: list[Point] = []
        self.kept: Checkpoint | None = None  # elsewhere, by whoever asks
        self.by_hmac_alone = 0  # documents that no Ed25519 signature shows to be right
        self._anchors: list[Anchor] = []
        self._anchored = 0  # points that are among them

    def read_checkpoints(self, known: Mapping[str, bytes] | None = None) -> None:
        """Read all checkpoints and hold each against the one before it.

        `known` has the bytes of some, by their names, which then need not be read.
        """
        by_index: dict[int, list[CheckpointName]] = {}
        for name in self.point_names:
            by_index.setdefault(name.index, []).append(name)
        found = {
            index: self._points_of(by_index[index], known or {}) for index in sorted(by_index)
        }
        bad = {index for index, signed in found.items() if not signed}
        for index, signed in found.items():
            if len(signed) > 1:
                self._tell(
                    Kind.TAMPERED,
                    f"{len(signed)} checkpoints of index {index:,} are signed: somebody who has a "
                    "key made history anew. Find out who signed which, and keep all of them.",
                    signed[0],
                )
            if signed:
                named = {point.checkpoint.previous_sha256 for point in found.get(index + 1, [])}
                point = next((each for each in signed if each.sha256 in named), signed[0])
                self.report.checkpoints.good += self._chain(point, bad) and len(signed) == 1
        newest = self.points[-1].checkpoint.index if self.points else 0
        self.report.checkpoints.total += newest + sum(index > newest for index in bad)

    def _points_of(self, names: list[CheckpointName], known: Mapping[str, bytes]) -> list[Point]:
        """Return the signed checkpoints of one index; where there are none, say why."""
        points, wrong = [], []
        for name in sorted(names):
            try:
                points.append(self._point(name, known.get(str(name))))
            except UnreachableError:
                raise
            except AuditError as error:
                wrong.append((name, error))
        for name, why in wrong:
            if points:
                self.report.note(f"Foreign, beside a good one of its index: {name}: {short(why)}")
            else:
                self.report.tell(
                    Kind.of(why),
                    f"Checkpoint {name.index:,}: {short(why)}. {todo(why)}",
                    name.seq,
                    f"{CHECKPOINTS}/{name}",
                )
        return points

    def _point(self, name: CheckpointName, data: bytes | None) -> Point:
        if data is None:
            data = self.store.read(f"{CHECKPOINTS}/{name}", MAX_CHECKPOINT_BYTES)
        checkpoint = Checkpoint.from_object(name, data, self.keyring)
        self._check_origin(checkpoint.origin)
        self._weigh(checkpoint.signed_by)
        return Point(name, checkpoint, sha256(data).hexdigest())

    def _chain(self, point: Point, bad: set[int]) -> bool:
        """Hold a checkpoint against the one before it, and add it; says whether it follows."""
        before = self.points[-1] if self.points else None
        first = before.checkpoint.index + 1 if before else 1
        good = True
        try:
            if before:
                point.checkpoint.check_follows(before.checkpoint, before.sha256)
        except TamperedError as error:
            what = f"Checkpoint {point.checkpoint.index:,} {error}. {EVIDENCE}"
            self._tell(Kind.TAMPERED, what, point)
            good = False
            first = point.checkpoint.index  # none that it leaves out is missing
        except GapError:
            pass  # said below, one by one
        self._missing_points(range(first, point.checkpoint.index), bad, before, point)
        self.points.append(point)
        return good

    def _missing_points(
        self, indexes: range, bad: set[int], before: Point | None, after: Point
    ) -> None:
        """Say which checkpoints are missing between two; those that are `bad` were spoken of."""
        seq = before.checkpoint.seq if before else None
        told = 0
        for index in indexes:
            if index in bad:
                continue
            place = f"{CHECKPOINTS}/{index:012d}-…"
            if told == MOST_MISSING:
                more = len(indexes) - indexes.index(index)
                self.report.tell(
                    Kind.GAP, f"Up to {more:,} more are missing. {RESTORE}", seq, place
                )
                return
            told += 1
            self.report.tell(
                Kind.GAP,
                f"Checkpoint {index:,} is missing: checkpoint {after.checkpoint.index:,} comes "
                f"after it. {RESTORE}",
                seq,
                place,
            )

    def _tell(self, kind: Kind, message: str, point: Point) -> None:
        self.report.tell(kind, message, point.checkpoint.seq, f"{CHECKPOINTS}/{point.name}")

    def anchors(self, first: int, last: int) -> tuple[Anchor, ...]:
        """Return what checkpoints say of the seqs first … last."""
        if self._anchored != len(self.points):
            found = [_anchor(point.checkpoint) for point in self.points]
            self._anchors = _distinct(sorted(found, key=lambda each: (each.seq, each.index)))
            self._anchored = len(self.points)
        low = bisect_left(self._anchors, first, key=lambda anchor: anchor.seq)
        high = bisect_left(self._anchors, last + 1, key=lambda anchor: anchor.seq)
        found = self._anchors[low:high]
        if self.kept and first <= self.kept.seq <= last:
            found = _distinct([*found, _anchor(self.kept)])
        return tuple(found)

    def _check_origin(self, origin: str) -> None:
        if self.origin is None:
            self.origin = origin
        if origin != self.origin:
            raise TamperedError(f"is of another log, '{origin}'")

    def _weigh(self, signed_by: Sequence[str]) -> None:
        keys = (self.keyring.known.get(name.partition(":")[2]) for name in signed_by)
        self.by_hmac_alone += not any(key and key.algorithm == ED25519 for key in keys)


def _anchor(item: Checkpoint) -> Anchor:
    return Anchor(item.seq, item.link, item.root, item.index)


def _distinct(anchors: Iterable[Anchor]) -> list[Anchor]:
    """Leave the first of those that say the same."""
    found: dict[tuple[int, bytes, bytes], Anchor] = {}
    for anchor in anchors:
        found.setdefault((anchor.seq, anchor.link, anchor.root), anchor)
    return list(found.values())


def short(error: AuditError) -> str:
    """Return an error's text as a part of a sentence."""
    return str(error).rstrip(".")


def todo(error: AuditError) -> str:
    """Return what to do about a document that is not good."""
    if isinstance(error, GapError):
        return RESTORE
    return KEY_NEEDED if isinstance(error, UnverifiableError) else EVIDENCE
