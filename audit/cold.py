"""A batch's two objects: put once, confirm, read back.

Nothing counts as stored because a PUT said so. What this run has PUT itself is asked for by HEAD
and must have our length and our MD5 as its ETag (metadata that we set is only our own claim).
Whatever this run did not PUT, and any object whose ETag is not its MD5, is read and hashed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5, sha256
from typing import BinaryIO

from . import conf, storage
from .format.errors import AuditError, TamperedError
from .format.manifest import MAX_MANIFEST_BYTES, Manifest
from .format.names import Kind, ObjectName
from .storage import Digests

CONTENT_TYPES = {Kind.JSONL: "application/gzip", Kind.MANIFEST: "application/json"}
READ_BYTES = 1024 * 1024


class UnconfirmedError(AuditError):
    """The bucket answered, but does not hold what was sent in the way that was asked for."""


@dataclass(frozen=True)
class Sent:
    """An object that should be in the bucket now; `ours`: this run stored it itself."""

    key: str
    digests: Digests
    ours: bool


def send(key: str, body: BinaryIO, digests: Digests, kind: Kind) -> Sent:
    """PUT an object under its name; one that is there already is left alone, to be compared."""
    return Sent(key, digests, storage.put_once(key, body, digests, CONTENT_TYPES[kind]))


def send_manifest(key: str, data: bytes) -> Sent:
    """PUT a manifest."""
    digests = Digests(
        len(data), md5(data, usedforsecurity=False).digest(), sha256(data).hexdigest()
    )
    return send(key, io.BytesIO(data), digests, Kind.MANIFEST)


def confirm(sent: Sent) -> None:
    """Make sure that an object is in the bucket as it was sent.

    Raises UnconfirmedError or TamperedError where it is not, GapError where it is missing,
    UnavailableError where that cannot be found out.
    """
    found = storage.head(sent.key)
    if found.length != sent.digests.length:
        raise UnconfirmedError(
            f"{sent.key} has {found.length:,} bytes in the bucket, {sent.digests.length:,} were "
            "sent: nothing was deleted. Remove that object and run again."
        )
    require_encryption(sent.key, found)
    if sent.ours and found.etag == sent.digests.md5.hex() and not conf.confirm_reads_everything():
        return
    with storage.opened(sent.key, sent.digests.length) as stream:
        digest = sha256()
        while chunk := stream.read(READ_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != sent.digests.sha256:
        raise TamperedError(
            f"{sent.key} holds other bytes than its name says: nothing was deleted. Keep that "
            "object as evidence under another name, remove it, and run again."
        )


def require_encryption(key: str, found: storage.Head) -> None:
    """Raise UnconfirmedError where encryption is asked for and the object is not encrypted."""
    if conf.cold_sse() and found.encryption != storage.ENCRYPTION:
        raise UnconfirmedError(
            f"{key} is stored without the encryption that AUDIT_COLD_SSE asks for: nothing was "
            "deleted. Turn encryption on in the bucket and copy the object over itself, or turn "
            "AUDIT_COLD_SSE off."
        )


def read_manifest(key: str, manifest_sha256: str | None = None) -> tuple[Manifest, str]:
    """Read, verify and return a manifest, and its SHA-256 as hex.

    Its bytes must be those of its name (and of the digest given), its signatures good, its
    origin ours. Raises TamperedError, UnverifiableError, GapError or UnavailableError.
    """
    data = storage.read(key, MAX_MANIFEST_BYTES)
    digest = sha256(data).hexdigest()
    name = ObjectName.parse(key.rpartition("/")[2])
    if name is None or not digest.startswith(name.digest) or manifest_sha256 not in {None, digest}:
        raise TamperedError(f"{key} holds other bytes than its name or the ledger says.")
    try:
        manifest = Manifest.from_bytes(data, conf.keyring())
    except AuditError as error:
        raise type(error)(f"{key}: {error}.") from None
    if manifest.origin != conf.origin():
        raise TamperedError(f"{key} is of another log, '{manifest.origin}'.")
    if (manifest.start_seq, manifest.end_seq) != (name.start_seq, name.end_seq):
        raise TamperedError(f"{key} describes another range than its name says.")
    return manifest, digest


def read_batch(
    manifest_key: str,
    manifest: Manifest,
    visit: Callable[[int, list[bytes], list[bytes]], None] | None = None,
) -> None:
    """Read a batch's whole object and recompute all that its manifest says of it.

    Both objects must be encrypted where that is asked for.

    `visit` is called with the first seq, the records and the links of each frame. Raises
    TamperedError, GapError or UnavailableError.
    """
    for key in (manifest_key, manifest.key):
        require_encryption(key, storage.head(key))
    with storage.opened(manifest.key, manifest.bytes_compressed) as stream:
        for first, records, links in manifest.replay(stream):
            if visit:
                visit(first, records, links)
