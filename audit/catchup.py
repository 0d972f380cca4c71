"""Checkpoints that the bucket has and the rows have not: adopted, verified.

The database may be an older copy, or the bucket was not to be asked when the newest row was
signed. What is adopted is signed, of this log, not beyond its head, and follows the row before it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import DEFAULT_DB_ALIAS

from . import conf, log, storage
from .anchors import key_of, row_of, signed
from .format.checkpoint import MAX_CHECKPOINT_BYTES, Checkpoint
from .format.errors import AuditError, GapError, TamperedError, UnverifiableError
from .format.names import CHECKPOINTS, CheckpointName
from .models import Checkpoint as Row


class OvertakenError(AuditError):
    """Another process has made a checkpoint meanwhile, or has purged what was being read."""


def catch_up() -> list[str]:
    """Adopt what the bucket has and the rows have not; returns notes on what is not adopted.

    Raises RolledBackError where it is signed for a seq beyond the head; TamperedError, GapError,
    UnverifiableError where it cannot be adopted; UnavailableError.
    """
    notes: list[str] = []
    prefix = f"{conf.cold_prefix()}/{CHECKPOINTS}"
    found: dict[int, list[CheckpointName]] = {}
    for text in storage.names(prefix):
        if name := CheckpointName.parse(text):
            found.setdefault(name.index, []).append(name)
    for row in Row.objects.filter(state=Row.State.PENDING).order_by("index"):
        others = [
            name for name in found.get(row.index, ()) if not row.sha256.startswith(name.digest)
        ]
        before = Row.objects.filter(index__lt=row.index).first()
        if others and _choose(others, before, notes):
            # This one was signed while the bucket could not be asked, and never published.
            notes.append(f"Dropped unpublished, the bucket has another of its index: {row}")
            Row.objects.filter(index__gte=row.index, state=Row.State.PENDING).delete()
            break
    before = Row.objects.first()
    for index in sorted(index for index in found if index > (before.index if before else 0)):
        if (adopted := _choose(found[index], before, notes)) is not None:
            before = _adopt(*adopted)
            notes.append(f"Adopted from the bucket: {key_of(before)}")
    return notes


def _choose(
    names: list[CheckpointName], before: Row | None, notes: list[str]
) -> tuple[Checkpoint, bytes] | None:
    """Return the one valid checkpoint of an index that follows a row, None where there is none."""
    valid: list[tuple[Checkpoint, bytes]] = []
    for name in names:
        key = name.key(conf.cold_prefix())
        data = storage.read(key, MAX_CHECKPOINT_BYTES)
        try:
            checkpoint = Checkpoint.from_object(name, data, conf.keyring())
        except UnverifiableError as error:
            raise UnverifiableError(
                f"{key} is {error}: set AUDIT_SIGNING_KEYS so that it has that key, too; if "
                "nobody has it, find out who signed, and keep the object under another name."
            ) from None
        except TamperedError as error:
            notes.append(f"Not adopted: {key} {error}")
            continue
        if checkpoint.origin != conf.origin():
            notes.append(f"Not adopted: {key} is of another log, '{checkpoint.origin}'")
            continue
        _check_place(key, checkpoint, before)
        valid.append((checkpoint, data))
    if len(valid) > 1:
        raise TamperedError(
            f"Two checkpoints of index {valid[0][0].index:,} are signed and in the bucket: find "
            "out who signed which, and keep the wrong one under another name."
        )
    return valid[0] if valid else None


def _check_place(key: str, checkpoint: Checkpoint, before: Row | None) -> None:
    head = log.current_state().head_seq
    if checkpoint.seq > head:
        raise log.RolledBackError(
            f"{key} in the bucket is signed for seq {checkpoint.seq:,}, but the hot database ends "
            f"at seq {head:,}: hot was rolled back. Restore it from its newest backup."
        )
    try:
        if before is not None:
            checkpoint.check_follows(signed(before), before.sha256)
        elif checkpoint.index != 1:
            raise GapError("is the first there, and not the first one")
    except (TamperedError, GapError) as error:
        raise type(error)(
            f"{key} {error}: nothing is signed on top of it. Put back what is missing from a copy "
            "of the bucket or a backup of the database, or keep the wrong one under another name."
        ) from None


def _adopt(checkpoint: Checkpoint, data: bytes) -> Row:
    """Keep a checkpoint of the bucket as a row, too."""
    now = datetime.now(UTC)
    row = row_of(checkpoint, data, state=Row.State.PUBLISHED, published_at=now)
    with log.write_transaction(DEFAULT_DB_ALIAS):
        kept, _ = Row.objects.get_or_create(
            index=row.index,
            defaults={
                field.attname: getattr(row, field.attname)
                for field in Row._meta.concrete_fields
                if not field.primary_key
            },
        )
    if kept.sha256 != row.sha256:
        raise OvertakenError(f"{kept} was made while another was adopted from the bucket.")
    return kept
