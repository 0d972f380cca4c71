"""Signatures, and the documents that carry them.

A signature is over a domain line (`dezky-audit/manifest/v1` and a newline) followed by the
RFC 8785 bytes of what is signed. What is signed lists its signatures itself (`signed_by`), so
none can be stripped unseen. The algorithm always comes from the keyring, never from the file.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from . import keys as keys_
from .errors import EndedKeyError, RecordError, TamperedError, UnverifiableError
from .keys import HmacKey, Key, KeyringError
from .record import parse
from .shape import Shape


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


class Keyring:
    """The keys that are known, and the ones among them that sign."""

    def __init__(
        self, signers: Iterable[Key], others: Iterable[Key] = (), require: str | None = None
    ) -> None:
        """Take the signing keys, and further keys that only verify.

        `require` is the algorithm of which every document must have a good signature. Raises
        KeyringError where one that is to sign cannot, or where two have one id.
        """
        self.signers = tuple(signers)
        self.require = require
        keys = (*self.signers, *others)
        self.known = {key.key_id: key for key in keys}
        if len(self.known) < len(keys):
            raise KeyringError("Two keys have the same id: give each an id of its own.")
        for key in self.signers:
            if not key.can_sign:
                raise KeyringError(
                    f"{key.key_id} is a public key, which cannot sign: put one that can first, "
                    "and take the + away from it."
                )

    @classmethod
    def of(cls, key: str, keys: str = "") -> Keyring:
        """Return the keyring of `AUDIT_SIGNING_KEY`, or of `AUDIT_SIGNING_KEYS` in its place.

        Raises KeyringError where a key is none, or where both are given.
        """
        if not keys.strip():
            return cls([HmacKey.from_base64(key)] if key else [])
        if key:
            moved = HmacKey.from_base64(key).key_id
            raise KeyringError(
                "AUDIT_SIGNING_KEY and AUDIT_SIGNING_KEYS are both set: move the first into the "
                f"second, as hmac-sha256:{moved}:…, and unset it."
            )
        found = keys_.parse(keys)
        signs = [number == 0 or marked for number, (_, marked) in enumerate(found)]
        return cls(
            [item for (item, _), does in zip(found, signs, strict=True) if does],
            [item for (item, _), does in zip(found, signs, strict=True) if not does],
        )

    @classmethod
    def to_verify(cls, text: str, require: str | None = None) -> Keyring:
        """Return the keyring of an auditor's key file: nothing in it signs.

        It has a key a line in the form of `AUDIT_SIGNING_KEYS`, or the bare base64 of
        `AUDIT_SIGNING_KEY`. Raises KeyringError.
        """
        lines = keys_.lines_of(text)
        if not lines:
            raise KeyringError("There is no key in the key file: it has a key a line.")
        if len(lines) == 1 and ":" not in lines[0]:
            return cls([], [HmacKey.from_base64(lines[0], "The key in the key file")], require)
        return cls([], [key for key, _ in keys_.parse(text, "the key file")], require)

    def describe(self) -> list[dict[str, str | None]]:
        """Return each key's id, algorithm, role and last day; never a secret."""
        roles = {key.key_id: "signs too" for key in self.signers}
        roles |= {key.key_id: "signs first" for key in self.signers[:1]}
        return [
            {
                "id": key.key_id,
                "algorithm": key.algorithm if key.can_sign else keys_.ED25519_PUBLIC,
                "role": roles.get(key.key_id, "verifies only"),
                "until": key.until.isoformat() if key.until else None,
            }
            for key in self.known.values()
        ]

    @property
    def signed_by(self) -> list[str]:
        """Return what a document signed by this keyring lists, first signer first."""
        return [f"{key.algorithm}:{key.key_id}" for key in self.signers]

    def sign(self, domain: str, body: bytes, day: date | None = None) -> list[Signature]:
        """Return a signature by each signing key of what was made on a day.

        Raises KeyringError where there is no key, or where one has come to its end.
        """
        if not self.signers:
            raise KeyringError(
                "No signing key is set: set AUDIT_SIGNING_KEY, or AUDIT_SIGNING_KEYS."
            )
        for key in self.signers:
            if day and key.until and day > key.until:
                raise KeyringError(
                    f"The signing key {key.key_id} has come to its end, {key.until}: put a new "
                    "one before it in AUDIT_SIGNING_KEYS, and take its + away. Nothing was signed."
                )
        message = domain.encode() + b"\n" + body
        return [Signature(key.key_id, key.algorithm, key.sign(message)) for key in self.signers]

    def verify(
        self,
        domain: str,
        body: bytes,
        signed_by: Sequence[str],
        signatures: Sequence[Signature],
        day: date | None = None,
    ) -> None:
        """Hold signatures against what the document says it is signed by, and when.

        Every listed signature must be there, no other may be, each by a known key must verify,
        and at least one key must be known; none may be of a day after its key's end. Raises
        TamperedError or UnverifiableError.
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
            if day and key.until and day > key.until:
                raise EndedKeyError(
                    f"signed by {item.key_id} on {day}, though that key came to its end on "
                    f"{key.until}"
                )
            checked += self.require in {None, key.algorithm}
        if not checked:
            of_kind = f" of {self.require}" if self.require else ""
            raise UnverifiableError(
                f"signed by {', '.join(signed_by)[:200]}, of which no key{of_kind} is known"
            )


@dataclass(frozen=True)
class Document:
    """A kind of signed file: an inner object under its own name, and its signatures.

    `times` are the inner object's members that say when it was made: a signature is of the latest
    of these days, since one alone could be dated back.
    """

    name: str
    times: tuple[str, ...]
    max_bytes: int

    @property
    def format(self) -> str:
        """Return what the inner object calls its format."""
        return f"dezky-audit-{self.name}/v1"

    @property
    def domain(self) -> str:
        """Return the line before what is signed."""
        return f"dezky-audit/{self.name}/v1"

    def seal(self, inner: dict[str, Any], keyring: Keyring) -> bytes:
        """Return the file: the inner object and a signature by each signing key."""
        day = date.fromisoformat(max(inner[time] for time in self.times)[:10])
        signatures = keyring.sign(self.domain, canonical(inner), day)
        return canonical({self.name: inner, "signatures": [item.to_json() for item in signatures]})

    def unseal(self, data: bytes, keyring: Keyring) -> dict[str, Any]:
        """Return the inner object of a file whose signatures are good, in its only form.

        Raises TamperedError where it is not what was signed, UnverifiableError where it may be
        right but no key of its signatures is known.
        """
        shape = Shape(self.name)
        if len(data) > self.max_bytes:
            raise TamperedError(f"larger than {self.max_bytes} bytes, no {self.name} is")
        try:
            document = parse(data)
        except RecordError as error:
            raise TamperedError(f"no {self.name}: {error}") from None
        shape.require(set(document) == {self.name, "signatures"}, "the document")
        inner, given = document[self.name], document["signatures"]
        shape.require(isinstance(inner, dict) and isinstance(given, list), "the document")
        shape.require(inner.get("format") == self.format, "format")
        signed_by = shape.strings(inner.get("signed_by"), "signed_by")
        try:
            body = canonical(inner)
        except ValueError:
            raise TamperedError(f"no {self.name}: it holds a float") from None
        signatures = [Signature.from_json(item) for item in given]
        times = [shape.time(inner.get(time), time) for time in self.times]
        day = date.fromisoformat(max(times)[:10])
        keyring.verify(self.domain, body, signed_by, signatures, day)
        shape.require(canonical(document) == data, "the document")
        signed: dict[str, Any] = inner
        return signed
