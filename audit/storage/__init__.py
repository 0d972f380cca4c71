"""The bucket. The one place that knows boto3 and django-storages.

Reading and listing go through the storage object; only what it cannot do goes to its client:
a PUT that never overwrites and carries its digests, and a HEAD. (`save()` of
django-storages uploads in parts and checks for an existing object before it writes, so two
writers can both win; a single PUT with `If-None-Match` is atomic.)

Every request is bounded: so many tries, and in each of them the service may be silent for so
long.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import IO, Any, BinaryIO, cast

from botocore.config import Config
from django.core.files.storage import storages
from s3transfer.exceptions import RetriesExceededError

from audit import conf
from audit.format.errors import TamperedError

from .answers import (
    ClockError,
    ExistsError,
    FullError,
    MissingError,
    UnavailableError,
    asking,
)
from .service import SPOOL_BYTES, ColdStorage

__all__ = [
    "ENCRYPTION",
    "SPOOL_BYTES",
    "ClockError",
    "ColdStorage",
    "Digests",
    "FullError",
    "Head",
    "MissingError",
    "UnavailableError",
    "clock_ahead",
    "head",
    "make_bucket",
    "names",
    "opened",
    "probe",
    "put_once",
    "read",
]

ENCRYPTION = "AES256"


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
        with asking("PUT", key):
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
    with asking("HEAD", key):
        answer = _client().head_object(Bucket=conf.cold_bucket(), Key=key)
    etag = answer.get("ETag", "").strip('"')  # where there is none, the object is read
    return Head(answer["ContentLength"], etag, answer.get("ServerSideEncryption"))


@contextmanager
def opened(key: str, max_bytes: int) -> Iterator[IO[bytes]]:
    """Open an object for reading from its start; small ones in memory, others spooled to disk.

    Raises TamperedError where it is larger than `max_bytes`, MissingError where it is not there,
    UnavailableError where the service does not answer.
    """
    file = _download(key, max_bytes)
    try:
        yield file.file
    finally:
        file.close()


def _download(key: str, max_bytes: int) -> Any:
    """Return the object as a file that is read whole; asks again where an answer breaks off."""
    with asking("GET", key) as asked:
        while True:
            file = _storage().open(key, "rb")
            try:
                if file.size > max_bytes:
                    raise TamperedError(
                        f"{key} has {file.size:,} bytes, {max_bytes:,} were expected."
                    )
                file.open()
            except RetriesExceededError:
                file.close()  # or what has come of it would be taken for the whole
                if asked.times >= conf.cold_attempts():
                    raise
            except BaseException:
                file.close()
                raise
            else:
                return file


def read(key: str, max_bytes: int) -> bytes:
    """Return a whole small object; raises as `opened` does."""
    with opened(key, max_bytes) as stream:
        return stream.read()


def names(prefix: str) -> list[str]:
    """Return the names, without the prefix, of the objects right under a prefix, in order."""
    with asking("LIST", prefix):
        _, files = _storage().listdir(prefix)
    return sorted(files)


def clock_ahead() -> timedelta | None:
    """Return by how much this machine's clock is ahead of the service's, by its `Date`.

    To the second that the header has. None where the service says no time; raises
    UnavailableError.
    """
    try:
        with asking("HEAD", ""):
            began = datetime.now(UTC)
            answer = _client().head_bucket(Bucket=conf.cold_bucket())
            ended = datetime.now(UTC)
    except MissingError as error:  # no object of the log's
        raise UnavailableError(
            f"{error} The bucket does not exist: create it, or correct AUDIT_COLD_BUCKET."
        ) from None
    try:
        its = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, ValueError):
        return None
    if its.tzinfo is None:  # "-0000"
        its = its.replace(tzinfo=UTC)
    # It is within a second of `its`, at some moment between the two of ours.
    if began <= its + timedelta(seconds=1) and its <= ended:
        return timedelta()
    return began - its


def probe(seconds: int) -> None:
    """List one name under the prefix, in one try in which the service may be silent for so long.

    Raises UnavailableError where it does not answer, or refuses.
    """
    prefix = f"{conf.cold_prefix()}/"
    with asking("LIST", prefix, attempts=1, seconds=seconds):
        client = _impatient(_storage(), seconds)
        client.list_objects(Bucket=conf.cold_bucket(), Prefix=prefix, MaxKeys=1)


def make_bucket(seconds: int) -> bool:
    """Make the bucket if it is not there; return whether this call made it.

    In one try each, in which the service may be silent for so long. Raises UnavailableError where
    it does not answer or refuses, and where the name is somebody else's.
    """
    name = conf.cold_bucket()
    client = _impatient(_storage(), seconds)

    def is_there() -> bool:
        try:
            with asking("HEAD", "/", attempts=1, seconds=seconds):
                client.head_bucket(Bucket=name)
        except MissingError:
            return False
        return True

    if is_there():
        return False
    region = client.meta.region_name
    # Where it is not the service's first region, it is to be said again.
    extra = (
        {}
        if region == "us-east-1"
        else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    )
    try:
        with asking("PUT", "/", attempts=1, seconds=seconds):
            client.create_bucket(Bucket=name, **extra)
    except ExistsError:
        if is_there():  # made by another since we asked
            return False
        raise UnavailableError(
            f"A bucket named '{name}' is somebody else's at {conf.cold_endpoint()}: choose "
            "another AUDIT_COLD_BUCKET."
        ) from None
    return True


@lru_cache(maxsize=1)  # making one takes longer than what it is made for
def _impatient(like: ColdStorage, seconds: int) -> Any:
    """Return a client of the service of `like` that waits for less; threads may share it."""
    backend: Any = storages.backends["cold"]  # its parameters, which the stubs take for a storage
    own = cast(ColdStorage, storages.create_storage(backend))
    bounds = Config(
        connect_timeout=seconds,
        read_timeout=seconds,
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    own.client_config = own.client_config.merge(bounds)
    return own.connection.meta.client
