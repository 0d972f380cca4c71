"""What the members of a signed document must look like."""

from __future__ import annotations

from typing import Any

from .errors import RecordError, TamperedError
from .record import format_time, parse_time

HASH_DIGITS = 64


class Shape:
    """Reads members of one kind of document; every method raises TamperedError."""

    def __init__(self, name: str) -> None:
        """Take the name of that kind."""
        self.name = name

    def require(self, good: bool, what: str) -> None:
        """Require that a member has the form that is signed."""
        if not good:
            raise TamperedError(
                f"no {self.name} of this version: {what} does not have the signed form"
            )

    def agree(self, good: bool, what: str) -> None:
        """Require that the members say the same."""
        if not good:
            raise TamperedError(f"the {self.name} contradicts itself: {what}")

    def array(self, value: object, what: str) -> list[Any]:
        """Return an array."""
        self.require(isinstance(value, list), what)
        assert isinstance(value, list)
        return value

    def strings(self, value: object, what: str) -> list[str]:
        """Return an array of strings."""
        items = self.array(value, what)
        self.require(all(isinstance(item, str) for item in items), what)
        return items

    def string(self, value: object, what: str) -> str:
        """Return a string."""
        self.require(isinstance(value, str), what)
        assert isinstance(value, str)
        return value

    def number(self, value: object, what: str) -> int:
        """Return an integer from 0 up."""
        self.require(type(value) is int and value >= 0, what)
        assert isinstance(value, int)
        return value

    def hash(self, value: object, what: str) -> bytes:
        """Return the bytes of a hash in hex."""
        self.require(isinstance(value, str) and len(value) == HASH_DIGITS, what)
        assert isinstance(value, str)
        try:
            raw = bytes.fromhex(value)
        except ValueError:
            raw = b""
        self.require(raw.hex() == value, what)
        return raw

    def hash_or_null(self, value: object, what: str) -> str | None:
        """Return a hash as hex, or None."""
        return None if value is None else self.hash(value, what).hex()

    def time(self, value: object, what: str) -> str:
        """Return a time in a record's form."""
        text = self.string(value, what)
        try:
            good = format_time(parse_time(text)) == text
        except RecordError:
            good = False
        self.require(good, what)
        return text
