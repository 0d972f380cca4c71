"""Names of objects in the bucket.

`<prefix>/<start_seq, 20 digits>-<end_seq, 20 digits>-<16 hex of its SHA-256>.jsonl.gz`, and the
same with `.manifest.json`. A name carries the digest of what it names, so nothing can be
overwritten by something else. A checkpoint is
`<prefix>/checkpoints/<index, 12 digits>-<seq, 20 digits>-<16 hex of its SHA-256>.json`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

DIGEST_DIGITS = 16
MAX_SEQ = 2**53 - 1


class Kind(StrEnum):
    """What an object of a batch is; the value is the end of its name."""

    JSONL = ".jsonl.gz"
    MANIFEST = ".manifest.json"


PATTERN = re.compile(
    r"(?P<start>[0-9]{20})-(?P<end>[0-9]{20})-(?P<digest>[0-9a-f]{16})"
    r"(?P<kind>\.jsonl\.gz|\.manifest\.json)"
)


@dataclass(frozen=True, order=True)
class ObjectName:
    """One object of a batch, named by its range and the start of its digest."""

    start_seq: int
    end_seq: int
    digest: str
    kind: Kind

    @classmethod
    def of(cls, kind: Kind, start_seq: int, end_seq: int, sha256: str) -> ObjectName:
        """Return the name of an object with this SHA-256 (64 hex digits)."""
        return cls(start_seq, end_seq, sha256[:DIGEST_DIGITS], kind)

    @classmethod
    def parse(cls, name: str) -> ObjectName | None:
        """Return the parts of a name without its prefix, or None if it is none of ours."""
        match = PATTERN.fullmatch(name)
        if match is None:
            return None
        start, end = int(match["start"]), int(match["end"])
        if not 1 <= start <= end <= MAX_SEQ:
            return None
        return cls(start, end, match["digest"], Kind(match["kind"]))

    def key(self, prefix: str) -> str:
        """Return the object's whole key in the bucket."""
        return f"{prefix}/{self}"

    def __str__(self) -> str:
        """Return the name without the prefix."""
        return f"{self.start_seq:020d}-{self.end_seq:020d}-{self.digest}{self.kind.value}"


CHECKPOINTS = "checkpoints"
MAX_INDEX = 10**12 - 1
CHECKPOINT_PATTERN = re.compile(
    r"(?P<index>[0-9]{12})-(?P<seq>[0-9]{20})-(?P<digest>[0-9a-f]{16})\.json"
)


@dataclass(frozen=True, order=True)
class CheckpointName:
    """One checkpoint's object, named by its index, its seq and the start of its digest."""

    index: int
    seq: int
    digest: str

    @classmethod
    def of(cls, index: int, seq: int, sha256: str) -> CheckpointName:
        """Return the name of a checkpoint with this SHA-256 (64 hex digits)."""
        return cls(index, seq, sha256[:DIGEST_DIGITS])

    @classmethod
    def parse(cls, name: str) -> CheckpointName | None:
        """Return the parts of a name right under `checkpoints/`, or None if it is none of ours."""
        match = CHECKPOINT_PATTERN.fullmatch(name)
        if match is None:
            return None
        index, seq = int(match["index"]), int(match["seq"])
        return cls(index, seq, match["digest"]) if index >= 1 and seq <= MAX_SEQ else None

    def key(self, prefix: str) -> str:
        """Return the object's whole key in the bucket."""
        return f"{prefix}/{CHECKPOINTS}/{self}"

    def __str__(self) -> str:
        """Return the name without what is before it."""
        return f"{self.index:012d}-{self.seq:020d}-{self.digest}.json"
