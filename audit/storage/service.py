"""The storage object: what django-storages makes of `STORAGES["cold"]`, with bounds."""

from __future__ import annotations

import shutil
import time
from tempfile import SpooledTemporaryFile
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from s3transfer.exceptions import RetriesExceededError
from s3transfer.utils import S3_RETRYABLE_DOWNLOAD_ERRORS
from storages.backends.s3 import S3File, S3Storage

from audit import conf

from . import answers

SPOOL_BYTES = 8 * 1024 * 1024
PIECE_BYTES = 256 * 1024


class ColdFile(S3File):  # type: ignore[misc]  # django-storages has no type hints
    """An object, read by one GET; tries are left to `opened`, which counts them.

    Not by the SDK's own transfer: that takes Ctrl-C within a download for its end, and what has
    come until then for the whole object.
    """

    _file: Any

    def _get_file(self) -> Any:
        if self._file is None:
            file = SpooledTemporaryFile(max_size=self._storage.max_memory_size)  # noqa: SIM115  # whoever opened it closes it
            try:
                shutil.copyfileobj(self.obj.get()["Body"], file, PIECE_BYTES)
                file.seek(0)
            except BaseException as error:
                file.close()
                if isinstance(error, S3_RETRYABLE_DOWNLOAD_ERRORS):
                    raise RetriesExceededError(error) from error
                raise
            self._file = file
        self._closed = False
        return self._file

    file = property(_get_file, S3File._set_file)


class ColdStorage(S3Storage):  # type: ignore[misc]  # django-storages has no type hints
    """`STORAGES["cold"]`: path-style addresses, bounded waits and tries, reads spooled to disk."""

    def __init__(self, **settings: Any) -> None:
        """Take `STORAGES["cold"]["OPTIONS"]`."""
        self.patience = conf.cold_timeout_seconds()
        super().__init__(
            **settings,
            max_memory_size=SPOOL_BYTES,
            # Once there is a configuration of its own, nothing else of it is defaulted. Newer
            # default checksums break on several Ceph services: only where an operation needs one.
            client_config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                # While a body is sent, too, it is the time to connect that holds.
                connect_timeout=self.patience,
                read_timeout=self.patience,
                retries={"mode": "standard", "total_max_attempts": conf.cold_attempts()},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def _open(self, name: str, mode: str = "rb") -> ColdFile:
        """Open an object for reading."""
        try:
            return ColdFile(self._normalize_name(name), mode, self)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                raise FileNotFoundError(name) from None
            raise

    def _create_session(self) -> Any:
        """Listen to what is asked, and bound how slowly an object may come."""
        session = super()._create_session()
        session.events.register("before-call.s3", answers.begin)
        session.events.register("before-send.s3", answers.count_try)
        session.events.register("before-parse.s3", answers.measure)
        session.events.register("after-call.s3.GetObject", self._pace)
        return session

    def _pace(self, http_response: Any, parsed: dict[str, Any], **kwargs: Any) -> None:
        if "Body" in parsed:
            paced: Any = _Paced(http_response.raw, self.patience)
            length: Any = parsed.get("ContentLength")  # may be unknown
            parsed["Body"] = StreamingBody(paced, length)


class _Paced:
    """An object on its way: each piece that is asked for comes whole in time, or not at all.

    The SDK's own limit holds for each packet: one byte a minute would keep a run for years.
    """

    def __init__(self, raw: Any, seconds: int) -> None:
        self._raw, self._seconds = raw, seconds

    def read(self, amount: int) -> bytes:
        """Return so many bytes, fewer at the end alone; raises TimeoutError."""
        limit = time.monotonic() + self._seconds
        parts = []
        try:
            while amount and (part := self._raw.read1(amount)):
                parts.append(part)
                amount -= len(part)
                if amount and time.monotonic() > limit:
                    raise TimeoutError
        except BaseException:
            self.close()  # whoever asks again does so by another connection
            raise
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the connection."""
        self._raw.close()
