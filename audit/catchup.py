"""Checkpoints that the bucket has and the rows have not: adopted, verified.

The database may be an older copy, or the bucket was not to be asked when the newest row was
signed. What is adopted is signed, of this log, not beyond its head, and follows the row before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import DEFAULT_DB_ALIAS

from . import conf, log, storage
from .anchors import key_of, row_of, signed
from .format.checkpoint import MAX_CHECKPOINT_BYTES, Checkpoint
from .format.errors import AuditError, GapError, TamperedError, UnverifiableError
from .format.names import CHECKPOINTS, CheckpointName
from .models import Checkpoint as Row

MOST_OF_INDEX = 20  # objects that are fetched: whoever can write to the bucket can put any there
NOTES = 20


class OvertakenError(AuditError):
    """Another process has made a checkpoint meanwhile, or has purged what was being read."""


@dataclass(frozen=True)
class CaughtUp:
    """What was adopted, and what was not; `in_doubt`: one of that may be signed all the same."""

    notes: list[str]
    in_doubt: bool


def catch_up(*, to_sign: bool) -> CaughtUp:
    """Adopt what the bucket has and the rows have not; returns notes on what is not adopted.

    What is no checkpoint of this log's keys is a note. What may be one, newer than the rows, and
    cannot be adopted (its key is not known, it does not follow, there are two) is a note, too,
    but not where a checkpoint is to be signed on top of the rows: then that is an error.

    Raises RolledBackError where one is signed for a seq beyond the head, UnavailableError;
    `to_sign` also TamperedError, GapError, UnverifiableError.
    """
    look = _Look()
    for row in Row.objects.filter(state=Row.State.PENDING).order_by("index"):
        others = [name for name in look.names(row.index) if not row.sha256.startswith(name.digest)]
        before = Row.objects.filter(index__lt=row.index).first()
        if others and look.choose(others, before):
            # This one was signed while the bucket could not be asked, and never published.
            look.done.append(f"Dropped unpublished, the bucket has another of its index: {row}")
            Row.objects.filter(index__gte=row.index, state=Row.State.PENDING).delete()
            break
    before = Row.objects.first()
    for index in look.indexes(after=before.index if before else 0):
        if (adopted := look.choose(look.names(index), before)) is not None:
            before = _adopt(*adopted)
            look.done.append(f"Adopted from the bucket: {key_of(before)}")
    if look.doubts and to_sign:
        raise look.doubts[0]
    return CaughtUp(look.notes(), in_doubt=bool(look.doubts))


class _Look:
    """What is found in the bucket, and what is thought of it.

    `doubts`: of what may be a newer checkpoint. `refused`: of what is none.
    """

    def __init__(self) -> None:
        """List the bucket; raises UnavailableError."""
        self._found: dict[int, list[CheckpointName]] = {}
        for text in storage.names(f"{conf.cold_prefix()}/{CHECKPOINTS}"):
            if name := CheckpointName.parse(text):
                self._found.setdefault(name.index, []).append(name)
        self.done: list[str] = []
        self.doubts: list[AuditError] = []
        self.refused: list[str] = []

    def names(self, index: int) -> list[CheckpointName]:
        """Return the names of an index."""
        return self._found.get(index, [])

    def indexes(self, after: int) -> list[int]:
        """Return the indexes after one, in order."""
        return sorted(index for index in self._found if index > after)

    def notes(self) -> list[str]:
        """Return what was done, and a bounded number of what was not."""
        refused = list(dict.fromkeys([*map(str, self.doubts), *self.refused]))
        more = len(refused) - NOTES
        return [
            *self.done,
            *(f"Not adopted: {text}" for text in refused[:NOTES]),
            *([f"Not adopted: {more:,} more objects in the bucket."] if more > 0 else []),
        ]

    def choose(
        self, names: list[CheckpointName], before: Row | None
    ) -> tuple[Checkpoint, bytes] | None:
        """Return the one valid checkpoint of an index that follows a row; None if there is none.

        Raises RolledBackError or UnavailableError.
        """
        valid: list[tuple[Checkpoint, bytes]] = []
        for name in names[:MOST_OF_INDEX]:
            try:
                valid += self._read(name, before)
            except (UnverifiableError, TamperedError, GapError) as error:
                self.doubts.append(error)
        if len(valid) > 1:
            self.doubts.append(
                TamperedError(
                    f"Two checkpoints of index {valid[0][0].index:,} are signed and in the "
                    "bucket: find out who signed which, and keep the wrong one under another name."
                )
            )
        elif not valid and len(names) > MOST_OF_INDEX:
            # The right one may be among the others.
            self.doubts.append(
                UnverifiableError(
                    f"{len(names):,} objects of checkpoint {names[0].index:,} are in the bucket, "
                    f"and none of the first {MOST_OF_INDEX} is good: keep the wrong ones under "
                    "other names."
                )
            )
        return valid[0] if len(valid) == 1 else None

    def _read(self, name: CheckpointName, before: Row | None) -> list[tuple[Checkpoint, bytes]]:
        """Return a checkpoint that follows a row; none where it is no checkpoint of this log.

        Raises UnverifiableError, TamperedError or GapError where it may be one all the same.
        """
        key = name.key(conf.cold_prefix())
        try:
            data = storage.read(key, MAX_CHECKPOINT_BYTES)
        except (TamperedError, GapError) as error:
            self.refused.append(str(error))
            return []
        try:
            checkpoint = Checkpoint.from_object(name, data, conf.keyring())
        except UnverifiableError as error:
            raise UnverifiableError(
                f"{key} is {error}: set AUDIT_SIGNING_KEYS so that it has that key, too; if "
                "nobody has it, find out who signed, and keep the object under another name."
            ) from None
        except TamperedError as error:
            self.refused.append(f"{key} {error}")
            return []
        if checkpoint.origin != conf.origin():
            self.refused.append(f"{key} is of another log, '{checkpoint.origin}'")
            return []
        _check_place(key, checkpoint, before)
        return [(checkpoint, data)]


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
