"""Keys that sign what leaves hot, and the text in which an operator or an auditor gives them.

`AUDIT_SIGNING_KEY` is one HMAC key in base64. `AUDIT_SIGNING_KEYS`, and an auditor's key file,
have one key after another, separated by commas or newlines:

    [+]ALGORITHM:KEY_ID:BASE64[:until=YYYY-MM-DD]

ALGORITHM is `hmac-sha256` (at least 32 random bytes), `ed25519` (the seed of 32 bytes, RFC 8032)
or `ed25519-public` (its public key). The first signs, and so does each that is marked `+`; the
others only verify. A key with an `until` verifies nothing that was made after that day.

Ed25519 needs the package `cryptography`, which is asked for only where there is such a key.

No error shows a key: where a text cannot be read, its parts may stand in each other's places, so
it is named by its place and never by what stands where its id should be.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Any, Protocol

from .errors import AuditError

HMAC_SHA256 = "hmac-sha256"
ED25519 = "ed25519"
ED25519_PUBLIC = "ed25519-public"
MIN_KEY_BYTES = 32
ED25519_BYTES = 32
MIN_DIFFERENT_BYTES = 5
KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")
FORM = "[+]ALGORITHM:KEY_ID:BASE64[:until=YYYY-MM-DD]"


class KeyringError(AuditError):
    """A signing key cannot be used."""


class Key(Protocol):
    """A key: `until` is the last day of what it verifies."""

    @property
    def key_id(self) -> str:
        """Return its name."""

    @property
    def algorithm(self) -> str:
        """Return the algorithm as documents name it."""

    @property
    def until(self) -> date | None:
        """Return the last day of what it verifies, None where there is none."""

    @property
    def can_sign(self) -> bool:
        """Say whether its secret is known."""

    @property
    def weak(self) -> bool:
        """Say whether its secret hardly varies."""

    @property
    def public(self) -> str | None:
        """Return what verifies and cannot sign, in the form of a key file; None where nothing."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether a signature is this key's, in constant time."""


@dataclass(frozen=True)
class HmacKey:
    """An HMAC-SHA-256 key: whoever can verify with it can also sign with it."""

    key_id: str
    secret: bytes
    until: date | None = None
    algorithm: str = HMAC_SHA256
    can_sign: bool = True

    @classmethod
    def from_base64(cls, text: str, place: str = "AUDIT_SIGNING_KEY") -> HmacKey:
        """Return the key in `AUDIT_SIGNING_KEY`; its id is made of its own digest.

        Raises KeyringError, which names the place, where it is not base64 of at least 32 bytes.
        """
        secret = _hmac_secret(text.strip(), place)
        return cls(hmac_key_id(secret), secret)

    def __repr__(self) -> str:
        """Return the key's name; its secret is never shown."""
        return f"<HmacKey {self.key_id}>"

    @property
    def weak(self) -> bool:
        """Say whether its secret hardly varies."""
        return _weak(self.secret)

    @property
    def public(self) -> None:
        """Return nothing: whoever can verify with this key can also sign with it."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        return hmac.digest(self.secret, message, "sha256")

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether a signature is this key's, in constant time."""
        return hmac.compare_digest(self.sign(message), signature)


@dataclass(frozen=True)
class Ed25519Key:
    """An Ed25519 key: its public half verifies, only its seed signs."""

    key_id: str
    public_bytes: bytes
    seed: bytes | None = None
    until: date | None = None
    algorithm: str = ED25519

    @classmethod
    def from_seed(cls, key_id: str, seed: bytes, until: date | None = None) -> Ed25519Key:
        """Return the key of a seed of 32 bytes."""
        private = _ed25519().Ed25519PrivateKey.from_private_bytes(seed)
        return cls(key_id, private.public_key().public_bytes_raw(), seed, until)

    @classmethod
    def from_public(cls, key_id: str, public: bytes, until: date | None = None) -> Ed25519Key:
        """Return the key of a public key of 32 bytes; it cannot sign."""
        _ed25519()  # whoever cannot verify with it hears so at once
        return cls(key_id, public, until=until)

    def __repr__(self) -> str:
        """Return the key's name; its secret is never shown."""
        return f"<Ed25519Key {self.key_id}>"

    @property
    def can_sign(self) -> bool:
        """Say whether its seed is known."""
        return self.seed is not None

    @property
    def weak(self) -> bool:
        """Say whether its seed hardly varies."""
        return self.seed is not None and _weak(self.seed)

    @property
    def public(self) -> str:
        """Return its public half."""
        return f"{ED25519_PUBLIC}:{self.key_id}:{_text(self.public_bytes)}{_until(self.until)}"

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message; raises KeyringError without the seed."""
        if self.seed is None:
            raise KeyringError(f"{self.key_id} is a public key, which cannot sign.")
        signature: bytes = _ed25519().Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)
        return signature

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether a signature is this key's."""
        ed25519 = _ed25519()
        from cryptography.exceptions import InvalidSignature

        try:
            public = ed25519.Ed25519PublicKey.from_public_bytes(self.public_bytes)
            public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # one that is broken may raise whatever it likes
        raise KeyringError(
            "An Ed25519 key needs the Python package 'cryptography', which is not there or does "
            "not load: install it (pip install cryptography), or leave that key away."
        ) from None
    return ed25519


def hmac_key_id(secret: bytes) -> str:
    """Return the id of a key that was given without one."""
    return f"k-{sha256(secret).hexdigest()[:8]}"


def ed25519_key_id(public: bytes) -> str:
    """Return the id that a generated Ed25519 key gets."""
    return f"e-{sha256(public).hexdigest()[:8]}"


def generate(algorithm: str, key_id: str = "") -> tuple[Key, str]:
    """Return a new key that signs, and its secret text for `AUDIT_SIGNING_KEYS`.

    Without an id it gets one of its digest. Raises KeyringError without `cryptography`.
    """
    secret = secrets.token_bytes(ED25519_BYTES)
    key: Key
    if algorithm == ED25519:
        public = Ed25519Key.from_seed("", secret).public_bytes
        key = Ed25519Key.from_seed(key_id or ed25519_key_id(public), secret)
    else:
        key = HmacKey(key_id or hmac_key_id(secret), secret)
    return key, f"{key.algorithm}:{key.key_id}:{_text(secret)}"


def lines_of(text: str) -> list[str]:
    """Return the lines of a text that are neither empty nor a remark, which begins with `#`."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def parse(text: str, where: str = "AUDIT_SIGNING_KEYS") -> list[tuple[Key, bool]]:
    """Return the keys in a text, each with whether it is marked `+`; lines with `#` are remarks.

    Raises KeyringError, which names the place and never the key.
    """
    parts = [part.strip() for line in lines_of(text) for part in line.split(",") if part.strip()]
    found: list[tuple[Key, bool]] = []
    for number, part in enumerate(parts, 1):
        key = _key(part.removeprefix("+"), f"Key {number} of {len(parts)} in {where}")
        if any(key.key_id == other.key_id for other, _ in found):
            raise KeyringError(f"Two keys are called {key.key_id}: give each an id of its own.")
        found.append((key, part.startswith("+")))
    return found


def _key(part: str, place: str) -> Key:
    algorithm, *fields = part.split(":")
    if len(fields) not in {2, 3}:
        raise KeyringError(f"{place} does not have the form {FORM}.")
    key_id, secret, *more = fields
    if not KEY_ID.fullmatch(key_id):
        raise KeyringError(
            f"{place} has no good id: 1 to 50 letters, digits, dots, underscores and hyphens."
        )
    until = _day(more[0], place) if more else None
    if algorithm == HMAC_SHA256:
        return HmacKey(key_id, _hmac_secret(secret, place), until)
    if algorithm == ED25519:
        return Ed25519Key.from_seed(key_id, _exactly(secret, place), until)
    if algorithm == ED25519_PUBLIC:
        return Ed25519Key.from_public(key_id, _exactly(secret, place), until)
    raise KeyringError(
        f"{place} has an unknown algorithm: use {HMAC_SHA256}, {ED25519} or {ED25519_PUBLIC}."
    )


def _day(text: str, place: str) -> date:
    name, _, day = text.partition("=")
    try:
        found = date.fromisoformat(day)
        if name != "until" or found.isoformat() != day:  # 2026-W01-1 is a day to Python, too
            raise ValueError
    except ValueError:
        raise KeyringError(
            f"{place} does not end in until=YYYY-MM-DD, a day that exists."
        ) from None
    return found


def _decoded(text: str, place: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise KeyringError(f"{place} is not base64.") from None


def _hmac_secret(text: str, place: str) -> bytes:
    secret = _decoded(text, place)
    if len(secret) < MIN_KEY_BYTES:
        raise KeyringError(
            f"{place} has {len(secret)} bytes, at least {MIN_KEY_BYTES} are needed."
        )
    return secret


def _exactly(text: str, place: str) -> bytes:
    raw = _decoded(text, place)
    if len(raw) != ED25519_BYTES:
        raise KeyringError(f"{place} has {len(raw)} bytes, Ed25519 has {ED25519_BYTES}.")
    return raw


def _weak(secret: bytes) -> bool:
    return len(set(secret)) < MIN_DIFFERENT_BYTES


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _until(day: date | None) -> str:
    return f":until={day.isoformat()}" if day else ""
