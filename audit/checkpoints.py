"""Make checkpoints: signed statements of where the log ends, kept as rows and as objects.

Why none is ever signed for a log that is not the one of the checkpoints before it:

- It is made from the newest one, of rows and bucket: what the bucket has and the rows have not is
  adopted first, verified.
- Every link from there to the head is recomputed, and must lead to the head's.
- A head that is behind an earlier checkpoint, or a link that is not its own, is an error that is
  logged, noted for the log, and shown; nothing is signed then.

The row keeps the signed bytes; it is `pending` until exactly those are confirmed in the bucket.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, IntegrityError

from . import cold, conf, ledger, log, request, storage
from .anchors import key_of, leading, row_of, signed
from .catchup import OvertakenError, catch_up
from .failures import kind_of
from .format.chain import genesis_link
from .format.checkpoint import MAX_CHECKPOINT_BYTES, Checkpoint
from .format.errors import AuditError, GapError, TamperedError
from .format.merkle import Frontier, subtrees
from .format.record import format_time
from .ledger import Position
from .log import as_bytes
from .models import ArchiveBatch, CheckpointRefusal, LogState
from .models import Checkpoint as Row

TRIES = 5
LEAVES = 8_192  # that are hashed into the tree at once
REFUSED = "checkpoint_refused"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A checkpoint that was made, and whether its object is confirmed in the bucket."""

    index: int
    seq: int
    sha256: str
    key: str
    at: str
    published: bool
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the documented form."""
        return {
            "index": self.index,
            "seq": self.seq,
            "sha256": self.sha256,
            "key": self.key,
            "at": self.at,
            "published": self.published,
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Tree:
    """The log up to a seq: its link, and the tree of its leaves."""

    seq: int
    link: bytes
    frontier: Frontier


def make(*, ask_bucket: bool = True) -> Made:
    """Make a checkpoint of the log as it is now, and publish it and what waits to be.

    Where the bucket does not answer (or is not to be asked), it is made from the rows, and waits;
    but not where the bucket never was readable. Raises RolledBackError, TamperedError or GapError
    where the log is not the one that was signed before, UnverifiableError, UnavailableError,
    KeyringError.
    """
    notes: list[str] = []
    try:
        for _ in range(TRIES):
            try:
                reached = ask_bucket and _reach(notes)
                if not reached and not _was_readable():
                    raise storage.UnavailableError(
                        "It was never known what the bucket holds, so no checkpoint is made yet. "
                        + (f"{notes[-1]} " if notes else "")
                        + "Run archive_now or checkpoint_now when it can be read."
                    )
                if reached:
                    _chain(notes)
                row = _sign(looked=reached)
            except OvertakenError:
                continue
            published = reached and _publish_new(row, notes)
            return Made(
                row.index,
                row.seq,
                row.sha256,
                key_of(row),
                format_time(row.at),
                published,
                notes,
            )
        raise OvertakenError(
            "Each time that the log was looked at it changed meanwhile, by another checkpoint or "
            "by a run that purges: nothing was signed, try again."
        )
    except (log.RolledBackError, TamperedError, GapError) as error:
        _alarm(error)
        raise


def _chain(notes: list[str]) -> None:
    """Write noted events into the log; where it takes none now, it is signed as it is."""
    try:
        request.chain()
    except log.RolledBackError:
        raise
    except (AuditError, DatabaseError) as error:
        why = log.explain(error) if isinstance(error, DatabaseError) else str(error)
        notes.append(f"Noted events are not in the log yet: {why}")


def ensure_from(seq: int) -> None:
    """Make a checkpoint unless one is signed for a seq or a later one; raises as `make` does."""
    newest = log.newest_checkpoint()
    if newest is None or newest[1] < seq:
        make()


def publish() -> bool:
    """Publish what waits to be; say whether the bucket answered. Raises as `make` does."""
    try:
        return _reach([])
    except (log.RolledBackError, TamperedError, GapError) as error:
        _alarm(error)
        raise


def _reach(notes: list[str]) -> bool:
    """Catch up with the bucket and publish what waits; say whether it answered."""
    try:
        notes += catch_up(to_sign=True).notes
        for row in Row.objects.filter(state=Row.State.PENDING).order_by("index"):
            if not _publish(row, notes):
                return False
    except storage.UnavailableError as error:
        notes.append(f"Not published yet: {error}")
        return False
    return True


def _was_readable() -> bool:
    """Say whether this log ever knew what the bucket holds: else it would have none of these."""
    return Row.objects.exists() or ArchiveBatch.objects.filter(state__in=ledger.IN_COLD).exists()


def _publish_new(row: Row, notes: list[str]) -> bool:
    """Publish a row that was just signed: it waits where that fails, in whatever way."""
    try:
        return _publish(row, notes)
    except AuditError as error:
        notes.append(f"Not published yet: {error}")
        return False


def _publish(row: Row, notes: list[str]) -> bool:
    """PUT a row's bytes under their name and confirm them by reading; say whether they are there.

    Raises what `cold.confirm` raises, but for UnavailableError, which is a note.
    """
    data, key = as_bytes(row.document), key_of(row)
    try:
        cold.confirm(cold.send_document(key, data))
        if storage.read(key, MAX_CHECKPOINT_BYTES) != data:
            raise TamperedError(
                f"{key} holds other bytes than its name says: keep that object as evidence under "
                "another name, remove it, and run checkpoint_now."
            )
    except storage.UnavailableError as error:
        notes.append(f"Not published yet: {error}")
        return False
    Row.objects.filter(index=row.index, state=Row.State.PENDING).update(
        state=Row.State.PUBLISHED, published_at=datetime.now(UTC)
    )
    return True


def _sign(*, looked: bool) -> Row:
    """Sign the head on top of the newest row; returns the new row, which is pending.

    What was refused before is over then, but not where the bucket, which may have been the
    reason, was not `looked` at.

    Raises OvertakenError where another process did so first, or a run has purged meanwhile what
    was looked at.
    """
    before = Row.objects.first()
    state = log.current_state()
    log.check_file()
    try:
        tree = _tree(before, state)
    except (GapError, log.RolledBackError):
        newest = log.newest_checkpoint()
        if (newest[0] if newest else 0) != (before.index if before else 0):
            raise OvertakenError("Another checkpoint was made meanwhile.") from None
        if log.current_state().floor_seq != state.floor_seq:
            raise OvertakenError("What was looked at was purged meanwhile.") from None
        raise
    now = datetime.now(UTC)
    keyring = conf.keyring()
    checkpoint = Checkpoint(
        origin=conf.origin(),
        index=before.index + 1 if before else 1,
        seq=tree.seq,
        link=tree.link,
        root=tree.frontier.root(),
        at=format_time(max(now, before.at) if before else now),
        previous_sha256=before.sha256 if before else None,
        signed_by=tuple(keyring.signed_by),
    )
    row = row_of(checkpoint, checkpoint.to_bytes(keyring), frontier=tree.frontier.to_hex())
    try:
        with log.write_transaction(DEFAULT_DB_ALIAS):
            row.save(force_insert=True)
            if looked:
                CheckpointRefusal.objects.all().delete()
    except IntegrityError:
        raise OvertakenError("Another checkpoint was made meanwhile.") from None
    return row


def _tree(before: Row | None, state: LogState) -> Tree:
    """Return the tree of the whole log, from what is signed and from hot.

    Raises TamperedError or GapError where hot does not lead through every checkpoint after what
    it begins with to its own head.
    """
    tree = _base(before, state)
    after = Row.objects.filter(seq__gt=tree.seq, seq__lte=state.head_seq).order_by("index")
    for row in after:
        checkpoint = signed(row)
        tree = _extend(tree, checkpoint.seq)
        if (tree.link, tree.frontier.root()) != (checkpoint.link, checkpoint.root):
            raise TamperedError(
                f"The log up to seq {checkpoint.seq:,} is not the one for which {row} is signed: "
                "nothing is signed on top of it. Keep the database as it is, and restore it from "
                "its newest backup."
            )
    tree = _extend(tree, state.head_seq)
    if tree.link.hex() != state.head_link:
        raise TamperedError(
            f"The log's state has another link for seq {state.head_seq:,} than its rows lead to: "
            "nothing is signed. Keep the database as it is, and compare with a backup."
        )
    return tree


def _base(before: Row | None, state: LogState) -> Tree:
    """Return the longest tree that is signed, or is empty, and from which hot goes on."""
    if before is not None:
        checkpoint = signed(before)
        if checkpoint.seq >= state.floor_seq and (frontier := _frontier(before)):
            if log.link_at(state, checkpoint.seq) not in {None, checkpoint.link.hex()}:
                raise log.RolledBackError(
                    f"Seq {checkpoint.seq:,} in the hot database is not the one for which "
                    f"{before} is signed: the log was rolled back and continued, or changed. "
                    "Nothing is signed; keep the database as it is, and restore it from its "
                    "newest backup."
                )
            return Tree(checkpoint.seq, checkpoint.link, frontier)
    batch = (
        ArchiveBatch.objects.filter(state__in=ledger.IN_COLD, end_seq__lte=state.head_seq)
        .order_by("-end_seq")
        .first()
    )
    if batch is None:
        tree = Tree(0, genesis_link(conf.origin()), Frontier())
    else:
        cold.read_manifest_of(batch)
        at = Position.after(batch)
        tree = Tree(at.seq, at.link, at.frontier)
    if tree.seq < state.floor_seq:
        raise GapError(
            f"Hot was purged up to seq {state.floor_seq:,}, but the ledger reaches only seq "
            f"{tree.seq:,}: nothing is signed. Run rebuild_ledger."
        )
    _check_in_cold(tree.seq)
    return tree


def _frontier(row: Row) -> Frontier | None:
    """Return a row's frontier where it folds to the signed root."""
    try:
        frontier = Frontier.from_hex(row.seq, row.frontier)
    except (TypeError, ValueError):
        return None
    return frontier if frontier.root().hex() == row.root else None


def _check_in_cold(last: int) -> None:
    """Hold the adopted checkpoints up to a seq against the batches that have theirs."""
    rows = list(Row.objects.filter(seq__gt=0, seq__lte=last, frontier=[]).order_by("seq"))
    while rows:
        batch = ledger.holding(rows[0].seq)
        if batch is None:
            raise GapError(f"No batch of the ledger has seq {rows[0].seq:,}: run rebuild_ledger.")
        here = {row.seq for row in rows if row.seq <= batch.end_seq}
        manifest = cold.read_manifest_of(batch)
        links = {frame.first_seq + frame.count - 1: frame.end_link for frame in manifest.frames}
        if here - links.keys():
            links |= cold.links_in(batch.manifest_key, manifest, here)
        while rows and rows[0].seq <= batch.end_seq:
            row = rows.pop(0)
            if links.get(row.seq) != signed(row).link:
                raise TamperedError(
                    f"Seq {row.seq:,} in {manifest.key} is not the one for which {row} is signed: "
                    "nothing is signed on top of it. Find out which of the two was changed."
                )


def _extend(tree: Tree, last: int) -> Tree:
    """Return the tree with what hot has after it, up to `last`; raises as `leading` does."""
    leaves: list[bytes] = []
    link, frontier = tree.link, tree.frontier
    for seq, its_link in leading(tree.seq, tree.link, last, leaves.append):
        link = its_link
        if len(leaves) == LEAVES or seq == last:
            frontier = frontier.extend(len(leaves), subtrees(frontier.size, leaves))
            leaves.clear()
    return Tree(frontier.size, link, frontier)


def _alarm(error: AuditError) -> None:
    """Say loudly that the log is not the one that was signed, and note it for console and log."""
    logger.critical("No checkpoint was made: %s", error)
    now = datetime.now(UTC)
    text = str(error).encode("utf-8", "replace").decode()[: request.MAX_TEXT]
    try:
        with log.write_transaction(DEFAULT_DB_ALIAS):
            CheckpointRefusal.objects.update_or_create(
                pk=1,
                defaults=(found := {"error": text, "failure": kind_of(error), "last": now}),
                create_defaults={**found, "since": now},
            )
    except DatabaseError as failure:
        logger.warning("That could not be noted for the console: %s", failure)
    digest = sha256(str(error).encode()).hexdigest()[:16]
    try:
        with log.write_transaction(DEFAULT_DB_ALIAS):
            request.note_once(
                f"{digest}:{REFUSED}",
                now,
                action=REFUSED,
                actor={"name": "checkpoint"},
                target={"type": "log", "name": conf.origin()},
                outcome="failure",
                data={"error": str(error)},
            )
    except (AuditError, DatabaseError) as failure:
        logger.warning("That could not be noted for the log: %s", failure)
