r"""Leaf and link: the hash of one record, and of the whole log up to and including it.

leaf(n) = SHA-256(0x00 ‖ record(n)), as in RFC 6962, section 2.1
link(0) = SHA-256("dezky-audit/v1\n" ‖ origin)
link(n) = SHA-256(0x02 ‖ link(n-1) ‖ leaf(n))

All hashes are 32 raw bytes; hex only where something is stored as text.
"""

from __future__ import annotations

from hashlib import sha256

LEAF_PREFIX = b"\x00"
LINK_PREFIX = b"\x02"
GENESIS_PREFIX = b"dezky-audit/v1\n"


def genesis_link(origin: str) -> bytes:
    """Return link(0): what ties every hash of the log to the name of this deployment."""
    return sha256(GENESIS_PREFIX + origin.encode()).digest()


def leaf_hash(record: bytes) -> bytes:
    """Return the RFC 6962 leaf hash of one record (without its newline)."""
    return sha256(LEAF_PREFIX + record).digest()


def next_link(link: bytes, leaf: bytes) -> bytes:
    """Return link(n) from link(n-1) and leaf(n)."""
    return sha256(LINK_PREFIX + link + leaf).digest()
