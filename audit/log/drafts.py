"""Events on their way into the log: what is appended, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from audit.format.chain import leaf_hash
from audit.format.errors import RecordError
from audit.format.record import MAX_BYTES
from audit.models import PROJECTION_CHARACTERS

KEY_BYTES = 16
SEQ_DIGITS = 16  # of 2**53 - 1, the largest seq that JSON can carry exactly
UNASSIGNED = {"id": "0" * 36, "recorded_at": "0" * 24, "seq": 10**SEQ_DIGITS - 1}
ROOM = len(orjson.dumps(UNASSIGNED)) - 1  # bytes that what append assigns adds, at most
TEXT_COLUMNS = "source tenant actor actor_id action target outcome external_id".split()


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An event that is ready to be appended: checked, bounded and keyed.

    `event` has every member of a record but `id`, `recorded_at` and `seq`, and `text` is its
    canonical bytes. `key` says which event it is and `digest` what it says; both are 16 bytes.
    """

    event: Mapping[str, Any]
    text: bytes
    key: bytes
    digest: bytes

    @classmethod
    def of(cls, event: Mapping[str, Any], key: bytes) -> Draft:
        """Return the draft; raises RecordError where its record could be too large."""
        text = encode(event)
        if len(text) + ROOM > MAX_BYTES:
            raise RecordError(
                f"its record would have {len(text) + ROOM:,} bytes, {MAX_BYTES:,} are allowed"
            )
        return cls(event, text, key, short_digest(text))

    def record(self, id: str, recorded_at: str, seq: int) -> bytes:  # noqa: A002  # as it is named in the record
        """Return the record: what `encode` would give, with what is assigned put in its places.

        Behind `data` there are no other members with these names, and no text can hold the
        quotes around them.
        """
        text = self.text
        before_time = text.rfind(b',"occurred_at":')
        before_source = text.rfind(b',"source":')
        return b"".join(
            (
                text[:before_time],
                f',"id":"{id}"'.encode(),
                text[before_time:before_source],
                f',"recorded_at":"{recorded_at}","seq":{seq}'.encode(),
                text[before_source:],
            )
        )


class Appended(msgspec.Struct, frozen=True, gc=False):
    """What became of one draft.

    `duplicate`: it was there already, under this seq. `conflict`: another event has the same
    key and says something else; this one was kept under a key of its own.
    """

    seq: int
    duplicate: bool = False
    conflict: bool = False


def encode(event: Mapping[str, Any], **assigned: Any) -> bytes:
    """Return the record: the canonical bytes, written once and never again."""
    try:
        return orjson.dumps(
            {**event, **assigned} if assigned else event, option=orjson.OPT_SORT_KEYS
        )
    except TypeError as error:
        raise RecordError(f"cannot be a record: {error}") from None


def project(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the text projections of a record, in the order of `TEXT_COLUMNS`.

    Total: NUL is removed and each is cut at 200 characters, so none can fail an insert.
    """
    actor, target = event["actor"], event["target"]
    texts = (
        event["source"],
        event["tenant"],
        actor["name"] or actor["id"],
        actor["id"],
        event["action"],
        target["name"] or target["id"],
        event["outcome"],
        event["external_id"],
    )
    if max(map(len, texts)) <= PROJECTION_CHARACTERS and "\x00" not in "".join(texts):
        return texts
    return tuple(text.replace("\x00", "")[:PROJECTION_CHARACTERS] for text in texts)


def short_digest(data: bytes) -> bytes:
    """Return the 16 bytes of a digest that keys and digests of events have."""
    return leaf_hash(data)[:KEY_BYTES]


def conflict_key(draft: Draft) -> bytes:
    """Return the key of an event whose own key is taken by one that says something else."""
    return short_digest(draft.key + draft.digest)
