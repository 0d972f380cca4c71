"""The RFC 6962 Merkle tree over the leaves of the whole log, kept as a frontier.

A frontier is the list of the roots of the perfect subtrees that make up a tree of n leaves,
largest first: one for each bit that is set in n, so never more than 64. It is all that is
needed to go on, and the tree's root folds out of it.

Leaves are counted from 0 here: the leaf of seq n has index n - 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

NODE_PREFIX = b"\x01"
EMPTY_ROOT = sha256(b"").digest()
HASH_BYTES = 32


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 6962, section 2.1)."""
    return sha256(NODE_PREFIX + left + right).digest()


def heights(first: int, count: int) -> list[int]:
    """Return the heights of the largest aligned perfect subtrees covering leaves, left to right.

    The leaves are `first` … `first + count - 1`. A subtree of height h holds 2**h leaves and
    starts at a multiple of 2**h.
    """
    found = []
    while count:
        height = count.bit_length() - 1
        if first:
            height = min(height, (first & -first).bit_length() - 1)
        found.append(height)
        first += 1 << height
        count -= 1 << height
    return found


def perfect_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a perfect tree; the number of leaves is a power of two."""
    level = list(leaves)
    while len(level) > 1:
        pairs = b"".join(level)
        level = [
            sha256(NODE_PREFIX + pairs[at : at + 64]).digest() for at in range(0, len(pairs), 64)
        ]
    return level[0]


def subtrees(first: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Return the roots of the largest aligned perfect subtrees over consecutive leaves."""
    roots = []
    at = 0
    for height in heights(first, len(leaves)):
        roots.append(perfect_root(leaves[at : at + (1 << height)]))
        at += 1 << height
    return roots


@dataclass(frozen=True)
class Frontier:
    """A tree of `size` leaves as the roots of its perfect subtrees, largest first.

    Raises ValueError where the number of hashes does not fit the size, or one is no hash: of two
    that are joined, a byte could else move from one to the other, and the root stay the same.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is not a frontier."""
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise ValueError(f"{len(self.hashes)} hashes are no frontier of {self.size} leaves")
        if any(len(item) != HASH_BYTES for item in self.hashes):
            raise ValueError(f"a frontier's hashes have {HASH_BYTES} bytes each")

    def extend(self, count: int, roots: Iterable[bytes]) -> Frontier:
        """Return the tree with `count` more leaves, given as `subtrees` gives them."""
        size, hashes = self.size, list(self.hashes)
        spans = heights(size, count)
        given = list(roots)
        if len(given) != len(spans):
            raise ValueError(f"{len(given)} subtrees do not cover {count} leaves from {size}")
        for height, root in zip(spans, given, strict=True):
            merged, carry = root, height
            while size >> carry & 1:
                merged = node_hash(hashes.pop(), merged)
                carry += 1
            hashes.append(merged)
            size += 1 << height
        return Frontier(size, tuple(hashes))

    def root(self) -> bytes:
        """Return the RFC 6962 tree hash."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def to_hex(self) -> list[str]:
        """Return the hashes as hex, the form in which the ledger keeps them."""
        return [item.hex() for item in self.hashes]

    @classmethod
    def from_hex(cls, size: int, hashes: Sequence[str]) -> Frontier:
        """Return the frontier that `to_hex` wrote."""
        return cls(size, tuple(bytes.fromhex(item) for item in hashes))
