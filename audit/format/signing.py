"""Keys and signatures.

A signature is over a domain line (`dezky-audit/manifest/v1` and a newline) followed by the
RFC 8785 bytes of what is signed. What is signed lists its signatures itself (`signed_by`), so
none can be stripped unseen. The algorithm always comes from the keyring, never from the file.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from .errors import AuditError, TamperedError, UnverifiableError

HMAC_SHA256 = "hmac-sha256"
MIN_KEY_BYTES = 32


class KeyringError(AuditError):
    """A signing key cannot be used."""


def canonical(value: object) -> bytes:
    """Return the RFC 8785 bytes of a value made of objects, arrays, strings, integers and null.

    Our own documents hold nothing else and have ASCII keys, for which sorting by code point and
    by UTF-16 unit are one. Raises ValueError on a float.
    """
    _refuse_floats(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise ValueError("signed documents hold no floats")
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _refuse_floats(item)


@dataclass(frozen=True)
class Signature:
    """One signature, in the form in which a file carries it."""

    key_id: str
    algorithm: str
    signature: bytes

    def to_json(self) -> dict[str, str]:
        """Return the wire form."""
        return {
            "algorithm": self.algorithm,
            "key_id": self.key_id,
            "signature": base64.b64encode(self.signature).decode(),
        }

    @classmethod
    def from_json(cls, value: object) -> Signature:
        """Return the signature in a parsed file; raises TamperedError where there is none."""
        if not isinstance(value, dict) or set(value) != {"algorithm", "key_id", "signature"}:
            raise TamperedError("a signature does not have the form that was signed")
        if not all(isinstance(item, str) for item in value.values()):
            raise TamperedError("a signature does not have the form that was signed")
        try:
            raw = base64.b64decode(value["signature"], validate=True)
        except (binascii.Error, ValueError):
            raise TamperedError(f"the signature by {value['key_id'][:50]} is not base64") from None
        signature = cls(value["key_id"], value["algorithm"], raw)
        if signature.to_json() != value:
            # The same bytes can be written in several ways; a file has one.
            raise TamperedError(f"the signature by {value['key_id'][:50]} is not base64")
        return signature


@dataclass(frozen=True)
class HmacKey:
    """An HMAC-SHA-256 key: whoever can verify with it can also sign with it."""

    key_id: str
    secret: bytes
    algorithm: str = HMAC_SHA256

    @classmethod
    def from_base64(cls, text: str) -> HmacKey:
        """Return the key in `AUDIT_SIGNING_KEY`; its id is made of its own digest.

        Raises KeyringError where it is not base64 of at least 32 bytes.
        """
        try:
            secret = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            raise KeyringError("AUDIT_SIGNING_KEY is not base64.") from None
        if len(secret) < MIN_KEY_BYTES:
            raise KeyringError(
                f"AUDIT_SIGNING_KEY has {len(secret)} bytes, at least {MIN_KEY_BYTES} are needed."
            )
        return cls(f"k-{sha256(secret).hexdigest()[:8]}", secret)

    def __repr__(self) -> str:
        """Return the key's name; its secret is never shown."""
        return f"<HmacKey {self.key_id}>"

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        return hmac.digest(self.secret, message, "sha256")

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether a signature is this key's, in constant time."""
        return hmac.compare_digest(self.sign(message), signature)


class Keyring:
    """The keys that are known, and the ones among them that sign."""

    def __init__(self, signers: Iterable[HmacKey], others: Iterable[HmacKey] = ()) -> None:
        """Take the signing keys, and further keys that only verify."""
        self.signers = tuple(signers)
        self.known = {key.key_id: key for key in (*self.signers, *others)}

    @property
    def signed_by(self) -> list[str]:
        """Return what a document signed by this keyring lists, first signer first."""
        return [f"{key.algorithm}:{key.key_id}" for key in self.signers]

    def sign(self, domain: str, body: bytes) -> list[Signature]:
        """Return a signature by each signing key; raises KeyringError where there is no key."""
        if not self.signers:
            raise KeyringError("No signing key is set: set AUDIT_SIGNING_KEY.")
        message = domain.encode() + b"\n" + body
        return [Signature(key.key_id, key.algorithm, key.sign(message)) for key in self.signers]

    def verify(
        self, domain: str, body: bytes, signed_by: Sequence[str], signatures: Sequence[Signature]
    ) -> None:
        """Hold signatures against what the document says it is signed by.

        Every listed signature must be there, no other may be, each by a known key must verify,
        and at least one key must be known. Raises TamperedError or UnverifiableError.
        """
        given = [f"{item.algorithm}:{item.key_id}" for item in signatures]
        if not signed_by or len(set(signed_by)) != len(signed_by) or given != list(signed_by):
            raise TamperedError(
                f"signed by {', '.join(signed_by)[:200] or 'nobody'}, "
                f"but carries signatures by {', '.join(given)[:200] or 'nobody'}"
            )
        message = domain.encode() + b"\n" + body
        checked = 0
        for item in signatures:
            key = self.known.get(item.key_id)
            if key is None:
                continue
            if key.algorithm != item.algorithm or not key.verify(message, item.signature):
                raise TamperedError(f"the signature by {item.key_id[:50]} is not good")
            checked += 1
        if not checked:
            raise UnverifiableError(
                f"signed by {', '.join(signed_by)[:200]}, of which no key is known"
            )
