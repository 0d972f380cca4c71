"""The bucket's prefix as a verification reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from django.core.exceptions import ImproperlyConfigured

from . import storage
from .format.errors import GapError, UnreachableError
from .format.names import CHECKPOINTS

LARGEST_OBJECT = 5 * 1024**3  # that one PUT can store


@dataclass(frozen=True)
class Bucket:
    """A `Store` over `audit.storage`: the objects of one log."""

    prefix: str

    def names(self) -> list[str]:
        """Return the names of all objects right under the prefix, and of the checkpoints."""
        with _looking():
            points = [f"{CHECKPOINTS}/{name}" for name in self.points()]
            return points + storage.names(self.prefix)

    def points(self) -> list[str]:
        """Return the names of the checkpoints."""
        return storage.names(f"{self.prefix}/{CHECKPOINTS}")

    def size(self, name: str) -> int:
        """Return an object's length in bytes."""
        with _looking():
            return storage.head(f"{self.prefix}/{name}").length

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a whole small object."""
        with _looking():
            return storage.read(f"{self.prefix}/{name}", max_bytes)

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open an object for reading; it is on this machine's disk by then."""
        with _looking():
            held = storage.opened(f"{self.prefix}/{name}", LARGEST_OBJECT)
            stream = held.__enter__()
        try:
            yield stream
        finally:
            held.__exit__(None, None, None)


@contextmanager
def _looking() -> Iterator[None]:
    try:
        yield
    except storage.MissingError:
        raise GapError("is missing") from None
    except storage.UnavailableError as error:
        raise UnreachableError(str(error)) from None
    except (ValueError, ImproperlyConfigured) as error:
        # The libraries refuse an address or a name before anything is asked.
        raise UnreachableError(
            f"The bucket cannot be asked ({str(error).rstrip('.')}): correct AUDIT_COLD_ENDPOINT "
            "and AUDIT_COLD_BUCKET."
        ) from None
