"""What a verification reads from: a bucket's prefix, or a folder that is a copy of one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import IO, Protocol


class Store(Protocol):
    """The objects of one log. Can be sent to another process.

    Names are relative to the prefix, such as `checkpoints/…`. Every method but `names` raises
    GapError where the object is not there and UnverifiableError where it cannot be looked at;
    `names` raises UnverifiableError.
    """

    @property
    def prefix(self) -> str | None:
        """Return what stands before every name in the bucket, None where it is not known."""

    def names(self) -> list[str]:
        """Return the names of all objects under the prefix."""

    def size(self, name: str) -> int:
        """Return an object's length in bytes."""

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a whole small object; raises TamperedError where it is larger than that."""

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open an object for reading from its start."""
