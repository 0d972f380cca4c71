"""A batch's two objects: put once, confirm, read back.

Nothing counts as stored because a PUT said so. What this run has PUT itself is asked for by HEAD
and must have our length and our MD5 as its ETag (metadata that we set is only our own claim).
Whatever this run did not PUT, and any object whose ETag is not its MD5, is read and hashed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import md5, sha256
from typing import BinaryIO

from . import conf, storage
from .format.errors import AuditError, TamperedError, UnverifiableError
from .format.manifest import MAX_MANIFEST_BYTES, Manifest
from .format.names import Kind, ObjectName
from .format.record import parse_time
from .models import ArchiveBatch
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


def send_document(key: str, data: bytes) -> Sent:
    """PUT a signed document: a manifest or a checkpoint."""
    digests = Digests(
        len(data), md5(data, usedforsecurity=False).digest(), sha256(data).hexdigest()
    )
    return send(key, io.BytesIO(data), digests, Kind.MANIFEST)


def confirm(sent: Sent) -> None:
    """Make sure that an object is in the bucket as it was sent.

    Raises UnconfirmedError or TamperedError where it is not, GapError where it is missing,
    UnavailableError where that cannot be found out.
    """
    try:
        found = storage.head(sent.key)
    except storage.MissingError as error:
        raise storage.MissingError(
            f"{str(error).rstrip('.')}, though it was just taken: nothing was deleted; run again, "
            "and if this stays, find out what removes objects from the bucket."
        ) from None
    if found.length != sent.digests.length:
        raise UnconfirmedError(
            f"{sent.key} has {found.length:,} bytes in the bucket, {sent.digests.length:,} were "
            "sent: nothing was deleted; remove that object and run again."
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
            f"{sent.key} holds other bytes than its name says: nothing was deleted; keep that "
            "object as evidence under another name, remove it, and run again."
        )


def require_encryption(key: str, found: storage.Head) -> None:
    """Raise UnconfirmedError where encryption is asked for and the object is not encrypted."""
    if conf.cold_sse() and found.encryption != storage.ENCRYPTION:
        raise UnconfirmedError(
            f"{key} is stored without the encryption that AUDIT_COLD_SSE asks for: nothing was "
            "deleted; turn encryption on in the bucket and copy the object over itself, or turn "
            "AUDIT_COLD_SSE off, and run again."
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
        raise TamperedError(
            f"{key} holds other bytes than its name or the ledger says: keep it as evidence under "
            "another name, and restore it from a copy of the bucket."
        )
    try:
        manifest = Manifest.from_bytes(data, conf.keyring())
    except UnverifiableError as error:
        raise UnverifiableError(
            f"{key}: {error}. Set AUDIT_SIGNING_KEY to the key of that id; if nobody has it, find "
            "out who signed, and keep the manifest under another name."
        ) from None
    except TamperedError as error:
        raise TamperedError(f"{key}: {error}.") from None
    if manifest.origin != conf.origin():
        raise TamperedError(f"{key} is of another log, '{manifest.origin}'.")
    if (manifest.start_seq, manifest.end_seq) != (name.start_seq, name.end_seq):
        raise TamperedError(f"{key} describes another range than its name says.")
    return manifest, digest


def read_manifest_of(row: ArchiveBatch) -> Manifest:
    """Read the manifest of a ledger's row and hold the row against it.

    The ledger is believed only as far as what is signed says the same. Raises UnconfirmedError,
    and what `read_manifest` raises.
    """
    prefix, _, _ = row.manifest_key.rpartition("/")
    if prefix != conf.cold_prefix():
        raise UnconfirmedError(
            f"{row} is under the prefix '{prefix}', but AUDIT_COLD_PREFIX is "
            f"'{conf.cold_prefix()}': set it back."
        )
    with expected(row):
        manifest, _ = read_manifest(row.manifest_key, row.manifest_sha256)
    if name := changed_in(row, manifest):
        raise TamperedError(
            f"The ledger's row of {row} was changed: its {name} is not the signed one. "
            "Nothing was deleted. Run rebuild_ledger."
        )
    return manifest


def changed_in(row: ArchiveBatch, manifest: Manifest) -> str:
    """Return a column of a ledger's row that is not what is signed; empty where there is none."""
    signed = {
        "start_seq": manifest.start_seq,
        "end_seq": manifest.end_seq,
        "start_link": manifest.start_link.hex(),
        "end_link": manifest.end_link.hex(),
        "root": manifest.root.hex(),
        "jsonl_key": manifest.key,
        "jsonl_sha256": manifest.sha256,
        "last_recorded_at": parse_time(manifest.last_recorded_at),
    }
    return next((name for name, value in signed.items() if getattr(row, name) != value), "")


@contextmanager
def expected(row: ArchiveBatch) -> Iterator[None]:
    """Say of a missing object which batch it belongs to, and what to do."""
    try:
        yield
    except storage.MissingError as error:
        raise storage.MissingError(
            f"{row} should be in the bucket '{row.bucket}'. {error} Nothing more was deleted. See "
            "that AUDIT_COLD_BUCKET and AUDIT_COLD_ENDPOINT are right, or restore the object from "
            "a copy of the bucket."
        ) from None


def check_presence(row: ArchiveBatch) -> None:
    """Make sure that a batch of the ledger is in the bucket, the object only by its length."""
    manifest = read_manifest_of(row)
    with expected(row):
        found = storage.head(manifest.key)
    if found.length != manifest.bytes_compressed:
        raise TamperedError(
            f"{manifest.key} has {found.length:,} bytes, {manifest.bytes_compressed:,} were "
            "signed: nothing was deleted. Restore the object from a copy of the bucket."
        )


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
        frames = manifest.replay(stream)
        while True:
            try:
                frame = next(frames, None)
            except TamperedError as error:
                raise TamperedError(
                    f"{manifest.key} is not what its manifest says: {error}. Nothing was deleted. "
                    "Keep the object as evidence under another name and remove it; then restore "
                    "it from a copy of the bucket, or, while hot still has the whole batch, run "
                    "again and it is sent anew."
                ) from None
            if frame is None:
                return
            if visit:
                visit(*frame)


def links_in(manifest_key: str, manifest: Manifest, seqs: Collection[int]) -> dict[int, bytes]:
    """Return the links of seqs of a batch, whose whole object is read; raises as `read_batch`."""
    found: dict[int, bytes] = {}

    def visit(first: int, records: list[bytes], links: list[bytes]) -> None:
        found.update(
            (seq, links[seq - first]) for seq in seqs if first <= seq < first + len(links)
        )

    read_batch(manifest_key, manifest, visit)
    return found
