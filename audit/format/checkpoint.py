"""The checkpoint: a signed statement of where the log ended at a time, and of all that it held.

Checkpoints are chained: by their index, 1, 2, 3 …, and by the digest of the one before. None goes
back, neither in seq nor in time. One may repeat the seq of the one before: then it says that
nothing happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from .chain import genesis_link
from .errors import GapError, TamperedError
from .merkle import EMPTY_ROOT
from .names import MAX_INDEX, MAX_SEQ, CheckpointName
from .shape import Shape
from .signing import Document, Keyring, canonical

MAX_CHECKPOINT_BYTES = 64 * 1024
CHECKPOINT = Document("checkpoint", ("at",), MAX_CHECKPOINT_BYTES)
SHAPE = Shape(CHECKPOINT.name)


@dataclass(frozen=True)
class Checkpoint:
    """A log's link and root at a seq; owns its wire form.

    `link` and `root` are raw bytes, `previous_sha256` is hex. `at` is a text in a record's form.
    """

    origin: str
    index: int
    seq: int
    link: bytes
    root: bytes
    at: str
    previous_sha256: str | None
    signed_by: tuple[str, ...]

    def body(self) -> bytes:
        """Return the RFC 8785 bytes of the inner object: what is signed."""
        return canonical(self._to_json())

    def to_bytes(self, keyring: Keyring) -> bytes:
        """Return the file; raises KeyringError where no key can sign it."""
        return CHECKPOINT.seal(self._to_json(), keyring)

    def _to_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "format": CHECKPOINT.format,
            "index": self.index,
            "link": self.link.hex(),
            "origin": self.origin,
            "previous_sha256": self.previous_sha256,
            "root": self.root.hex(),
            "seq": self.seq,
            "signed_by": list(self.signed_by),
        }

    @classmethod
    def from_bytes(cls, data: bytes, keyring: Keyring) -> Checkpoint:
        """Return the checkpoint in a file whose signatures are good and whose parts agree.

        Raises TamperedError or UnverifiableError, as `Manifest.from_bytes` does.
        """
        inner = CHECKPOINT.unseal(data, keyring)
        checkpoint = cls(
            origin=SHAPE.string(inner.get("origin"), "origin"),
            index=SHAPE.number(inner.get("index"), "index"),
            seq=SHAPE.number(inner.get("seq"), "seq"),
            link=SHAPE.hash(inner.get("link"), "link"),
            root=SHAPE.hash(inner.get("root"), "root"),
            at=SHAPE.time(inner.get("at"), "at"),
            previous_sha256=SHAPE.hash_or_null(inner.get("previous_sha256"), "previous_sha256"),
            signed_by=tuple(SHAPE.strings(inner.get("signed_by"), "signed_by")),
        )
        SHAPE.require(checkpoint.body() == canonical(inner), "the document")
        checkpoint._check()
        return checkpoint

    def _check(self) -> None:
        SHAPE.agree(1 <= self.index <= MAX_INDEX and self.seq <= MAX_SEQ, "its place")
        SHAPE.agree((self.previous_sha256 is None) == (self.index == 1), "the one before it")
        if self.seq == 0:
            nothing = (genesis_link(self.origin), EMPTY_ROOT)
            SHAPE.agree((self.link, self.root) == nothing, "the link of an empty log")

    @classmethod
    def from_object(cls, name: CheckpointName, data: bytes, keyring: Keyring) -> Checkpoint:
        """Return the checkpoint of an object, held against its name; raises as `from_bytes`."""
        if not sha256(data).hexdigest().startswith(name.digest):
            raise TamperedError("holds other bytes than its name says")
        checkpoint = cls.from_bytes(data, keyring)
        if (checkpoint.index, checkpoint.seq) != (name.index, name.seq):
            raise TamperedError("is of another place than its name says")
        return checkpoint

    def check_follows(self, before: Checkpoint, before_sha256: str) -> None:
        """Hold this one against one before it, the next or not.

        Raises GapError where one between them is missing, TamperedError where they contradict
        each other.
        """
        if self.origin != before.origin:
            raise TamperedError(f"is of another log, '{self.origin}'")
        if self.seq < before.seq or self.at < before.at:
            raise TamperedError(f"goes back behind checkpoint {before.index}")
        if self.seq == before.seq and (self.link, self.root) != (before.link, before.root):
            raise TamperedError(
                f"and checkpoint {before.index} are both signed for seq {self.seq:,} and have "
                "different links"
            )
        if self.index <= before.index:
            raise TamperedError(
                f"is of index {self.index}, though checkpoint {before.index} is before it"
            )
        follows = self.previous_sha256 == before_sha256
        if self.index == before.index + 1 and not follows:
            raise TamperedError(f"follows another one than checkpoint {before.index}")
        if self.index != before.index + 1:
            if follows:
                raise TamperedError(f"leaves out an index after checkpoint {before.index}")
            raise GapError(f"comes after checkpoint {before.index}: those between are missing")
