"""The ledger: which range is where. Every write to it is made under a live lease.

A row only goes forward, planned → stored → purged, by an update that requires the state before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from django.db.models import Max, Min, Sum

from . import conf
from .format.chain import genesis_link
from .format.errors import GapError, TamperedError
from .format.manifest import Manifest
from .format.merkle import Frontier
from .format.record import format_time, parse_time
from .guard import Grip, LeaseLostError
from .models import ArchiveBatch, ArchiveRun

T = TypeVar("T")
State = ArchiveBatch.State
IN_COLD = (State.STORED, State.PURGED)


@dataclass(frozen=True)
class Position:
    """Where cold ends: what the next batch must continue."""

    seq: int
    link: bytes
    frontier: Frontier
    manifest_sha256: str | None
    recorded_at: str = ""  # of its newest event

    @classmethod
    def start(cls) -> Position:
        """Return the position before the first event."""
        return cls(0, genesis_link(conf.origin()), Frontier(), None)

    @classmethod
    def after(cls, row: ArchiveBatch) -> Position:
        """Return the position after a stored batch; raises TamperedError where it cannot be."""
        try:
            frontier = Frontier.from_hex(row.end_seq, row.frontier)
            link = bytes.fromhex(row.end_link)
        except (TypeError, ValueError) as error:
            raise TamperedError(
                f"The ledger's row of {row} was changed: {error}. Run rebuild_ledger."
            ) from None
        if frontier.root().hex() != row.root:
            raise TamperedError(
                f"The ledger's row of {row} was changed: its frontier does not make its root. "
                "Run rebuild_ledger."
            )
        recorded_at = format_time(row.last_recorded_at) if row.last_recorded_at else ""
        return cls(row.end_seq, link, frontier, row.manifest_sha256, recorded_at)


def position(before: ArchiveBatch | None = None) -> Position:
    """Return where cold ends by the ledger, or where it ended before a batch."""
    rows = ArchiveBatch.objects.filter(state__in=IN_COLD)
    if before is not None:
        rows = rows.filter(end_seq__lt=before.start_seq)
    row = rows.order_by("-end_seq").first()
    return Position.after(row) if row else Position.start()


def check_whole() -> None:
    """Raise GapError where batches in cold do not follow each other from the first seq on."""
    found = ArchiveBatch.objects.filter(state__in=IN_COLD).aggregate(
        events=Sum("event_count"), first=Min("start_seq"), last=Max("end_seq")
    )
    if found["last"] is not None and (found["first"], found["events"]) != (1, found["last"]):
        raise GapError(
            f"The ledger's batches hold {found['events']:,} events from seq {found['first']:,} to "
            f"{found['last']:,}: a row was removed or changed. Nothing was deleted. Run "
            "rebuild_ledger."
        )


def holding(seq: int) -> ArchiveBatch | None:
    """Return the batch in cold that holds a seq, None where there is none."""
    return ArchiveBatch.objects.filter(
        state__in=IN_COLD, start_seq__lte=seq, end_seq__gte=seq
    ).first()


def named(start_seq: int) -> set[str]:
    """Return the digest of the manifest that the ledger knows for the batch from a seq on."""
    rows = ArchiveBatch.objects.filter(start_seq=start_seq).exclude(manifest_sha256="")
    return set(rows.values_list("manifest_sha256", flat=True))


def highest_archived_seq() -> int:
    """Return the newest seq that is stored in cold, 0 if none is."""
    return (
        ArchiveBatch.objects.filter(state__in=IN_COLD)
        .order_by("-end_seq")
        .values_list("end_seq", flat=True)
        .first()
        or 0
    )


def undisturbed(look: Callable[[], T]) -> T:
    """Return what `look` finds; it looks again where it met a gap that another run has made.

    What it takes for missing may have been archived and purged while it looked.
    """
    while True:
        archived = highest_archived_seq()
        try:
            return look()
        except GapError:
            if highest_archived_seq() == archived:
                raise


def planned() -> ArchiveBatch | None:
    """Return the batch that was planned and not yet stored, if there is one."""
    return ArchiveBatch.objects.filter(state=State.PLANNED).order_by("start_seq").first()


def stored() -> list[ArchiveBatch]:
    """Return the batches that are stored and not yet purged, oldest first."""
    return list(ArchiveBatch.objects.filter(state=State.STORED).order_by("start_seq"))


def last_purged() -> ArchiveBatch | None:
    """Return the newest batch that is purged, if there is one."""
    return ArchiveBatch.objects.filter(state=State.PURGED).order_by("-end_seq").first()


def plan(
    grip: Grip,
    run: ArchiveRun,
    at: Position,
    end_seq: int,
    bytes_uncompressed: int,
    *,
    planned_at: datetime | None = None,
) -> ArchiveBatch:
    """Fix the range of the next batch; returns its row."""
    with grip.transaction():
        return ArchiveBatch.objects.create(
            start_seq=at.seq + 1,
            end_seq=end_seq,
            event_count=end_seq - at.seq,
            start_link=at.link.hex(),
            bytes_uncompressed=bytes_uncompressed,
            bucket=conf.cold_bucket(),
            planned_at=planned_at or datetime.now(UTC),
            run=run,
        )


def name_objects(grip: Grip, row: ArchiveBatch, **names: str) -> None:
    """Let a planned row learn the name and digest of an object before its PUT."""
    with grip.transaction():
        _advance(row, State.PLANNED, **names)


def record(
    grip: Grip,
    run: ArchiveRun,
    row: ArchiveBatch,
    manifest: Manifest,
    manifest_key: str,
    manifest_sha256: str,
    frontier: Frontier,
) -> None:
    """Mark a planned batch stored: both objects are confirmed and are what is signed."""
    with grip.transaction():
        _advance(
            row,
            State.PLANNED,
            state=State.STORED,
            end_seq=manifest.end_seq,
            event_count=manifest.event_count,
            start_link=manifest.start_link.hex(),
            end_link=manifest.end_link.hex(),
            root=manifest.root.hex(),
            frontier=frontier.to_hex(),
            last_recorded_at=parse_time(manifest.last_recorded_at),
            bucket=conf.cold_bucket(),
            jsonl_key=manifest.key,
            jsonl_sha256=manifest.sha256,
            manifest_key=manifest_key,
            manifest_sha256=manifest_sha256,
            bytes_uncompressed=manifest.bytes_uncompressed,
            bytes_compressed=manifest.bytes_compressed,
            archived_at=datetime.now(UTC),
            run=run,
        )


def mark_purged(grip: Grip, row: ArchiveBatch) -> None:
    """Mark a stored batch purged: its rows are gone from hot."""
    with grip.transaction():
        _advance(row, State.STORED, state=State.PURGED, purged_at=datetime.now(UTC))


@contextmanager
def replacing(grip: Grip, old: list[ArchiveBatch], new: list[ArchiveBatch]) -> Iterator[None]:
    """Put rows in the place of others, together with what is done inside."""
    with grip.transaction():
        yield
        ArchiveBatch.objects.filter(pk__in=[row.pk for row in old]).delete()
        ArchiveBatch.objects.bulk_create(new, batch_size=500)


@contextmanager
def still(grip: Grip, row: ArchiveBatch, state: State) -> Iterator[None]:
    """Hold the lease and the row's state while the floor is raised over it."""
    with grip.transaction():
        _advance(row, state)
        yield


def _advance(row: ArchiveBatch, before: str, **changes: Any) -> None:
    """Change a row that is in the state `before`; raises LeaseLostError where it is not."""
    changes = {"state": before, **changes}
    if ArchiveBatch.objects.filter(pk=row.pk, state=before).update(**changes) != 1:
        raise LeaseLostError(
            f"{row} is no longer {before}: another run went on with it, so this one stops. "
            "Nothing was lost; the next run goes on."
        )
    for name, value in changes.items():
        setattr(row, name, value)
