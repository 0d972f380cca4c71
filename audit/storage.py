"""The bucket. The one place that knows boto3 and django-storages.

Reading and listing go through the storage object; only what it cannot do goes to its client:
a PUT that never overwrites and carries its digests, and a HEAD. (`save()` of
django-storages uploads in parts and checks for an existing object before it writes, so two
writers can both win; a single PUT with `If-None-Match` is atomic.)
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from django.core.files.storage import storages
from s3transfer.exceptions import RetriesExceededError
from storages.backends.s3 import S3Storage

from . import conf
from .format.errors import AuditError, GapError, TamperedError

CONNECT_SECONDS = 5
READ_SECONDS = 60
ATTEMPTS = 4
SPOOL_BYTES = 8 * 1024 * 1024
ENCRYPTION = "AES256"


class UnavailableError(AuditError):
    """The object store did not answer, or refused: nothing can be said about what it holds."""


class MissingError(GapError):
    """There is no such object in the bucket."""


class ColdStorage(S3Storage):  # type: ignore[misc]  # django-storages has no type hints
    """`STORAGES["cold"]`: path-style addresses, bounded waits and tries, reads spooled to disk."""

    def __init__(self, **settings: Any) -> None:
        """Take `STORAGES["cold"]["OPTIONS"]`."""
        super().__init__(
            **settings,
            max_memory_size=SPOOL_BYTES,
            transfer_config=TransferConfig(use_threads=False),
            # Once there is a configuration of its own, nothing else of it is defaulted. Newer
            # default checksums break on several Ceph services: only where an operation needs one.
            client_config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


@dataclass(frozen=True)
class Digests:
    """What is known of an object's bytes: length in bytes, MD5 raw, SHA-256 as hex."""

    length: int
    md5: bytes
    sha256: str


@dataclass(frozen=True)
class Head:
    """What the service says about an object."""

    length: int
    etag: str
    encryption: str | None


def _storage() -> ColdStorage:
    return cast(ColdStorage, storages["cold"])


def _client() -> Any:
    return _storage().connection.meta.client


def put_once(key: str, body: BinaryIO, digests: Digests, content_type: str) -> bool:
    """PUT an object in one request, never over another one.

    Returns whether this call stored it: False where the name was taken already, which may be
    by an earlier try of this same call; what is there must then be read and compared. Raises
    UnavailableError.
    """
    extra = {"ServerSideEncryption": ENCRYPTION} if conf.cold_sse() else {}
    body.seek(0)
    try:
        with _asking("PUT", key):
            _client().put_object(
                Bucket=conf.cold_bucket(),
                Key=key,
                Body=body,
                ContentLength=digests.length,
                ContentMD5=base64.b64encode(digests.md5).decode(),
                ChecksumSHA256=base64.b64encode(bytes.fromhex(digests.sha256)).decode(),
                ContentType=content_type,
                IfNoneMatch="*",
                Metadata={"sha256": digests.sha256},
                **extra,
            )
    except ExistsError:
        return False
    return True


def head(key: str) -> Head:
    """Return what the service says about an object; raises MissingError or UnavailableError."""
    with _asking("HEAD", key):
        answer = _client().head_object(Bucket=conf.cold_bucket(), Key=key)
    return Head(
        answer["ContentLength"], answer["ETag"].strip('"'), answer.get("ServerSideEncryption")
    )


@contextmanager
def opened(key: str, max_bytes: int) -> Iterator[IO[bytes]]:
    """Open an object for reading from its start; small ones in memory, others spooled to disk.

    Raises TamperedError where it is larger than `max_bytes`, MissingError where it is not there,
    UnavailableError where the service does not answer.
    """
    with _asking("GET", key):
        file = _storage().open(key, "rb")
    try:
        if file.size > max_bytes:
            raise TamperedError(f"{key} has {file.size:,} bytes, {max_bytes:,} were expected.")
        with _asking("GET", key):
            stream = file.file
        yield stream
    finally:
        file.close()


def read(key: str, max_bytes: int) -> bytes:
    """Return a whole small object; raises as `opened` does."""
    with opened(key, max_bytes) as stream:
        return stream.read()


def names(prefix: str) -> list[str]:
    """Return the names, without the prefix, of the objects right under a prefix, in order."""
    with _asking("LIST", prefix):
        _, files = _storage().listdir(prefix)
    return sorted(files)


class ExistsError(AuditError):
    """The name of an object is taken."""


HINTS = {
    "NoSuchBucket": "the bucket does not exist: create it, or correct AUDIT_COLD_BUCKET",
    "InvalidAccessKeyId": "the access key is not known: correct AUDIT_COLD_ACCESS_KEY",
    "SignatureDoesNotMatch": "the secret key is wrong: correct AUDIT_COLD_SECRET_KEY",
    # An answer to a HEAD has no words.
    "403": (
        "the keys are wrong or may not do this: correct AUDIT_COLD_ACCESS_KEY and "
        "AUDIT_COLD_SECRET_KEY, or their rights on the bucket"
    ),
    "AccessDenied": "the key may not do this: give it read, write and list on the bucket",
    "RequestTimeTooSkewed": "this machine's clock is off: set it by NTP",
    "QuotaExceeded": "the bucket is full: raise its quota",
    "NotImplemented": (
        "the service cannot do this; if AUDIT_COLD_SSE is on and it has no key management, turn "
        "AUDIT_COLD_SSE off"
    ),
}


@contextmanager
def _asking(verb: str, key: str) -> Iterator[None]:
    """Turn what the SDK raises into our errors, with what was asked and what to do."""
    what = f"{verb} {key} at {conf.cold_endpoint()}, bucket '{conf.cold_bucket()}'"
    try:
        yield
    except FileNotFoundError:
        raise MissingError(f"{what}: there is no such object.") from None
    except ClientError as error:
        detail = error.response.get("Error", {})
        code = str(detail.get("Code", "unknown"))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        tries = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
        if verb == "PUT" and status in {409, 412}:
            raise ExistsError(f"{what}: the name is taken.") from None
        if verb in {"HEAD", "GET"} and status == 404 and code != "NoSuchBucket":
            raise MissingError(f"{what}: there is no such object.") from None
        named = str(status) if code == str(status) else f"{status} {code}"
        hint = HINTS.get(code, str(detail.get("Message", "")) or "see the service's own log")
        raise UnavailableError(
            f"{what}: refused with {named} after {tries} tries; {hint}."
        ) from None
    except (BotoCoreError, HTTPClientError, RetriesExceededError) as error:
        raise UnavailableError(
            f"{what}: no answer after {ATTEMPTS} tries ({error}); see that AUDIT_COLD_ENDPOINT "
            "is right and the service is up."
        ) from None
