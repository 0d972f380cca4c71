"""The storage object: what django-storages makes of `STORAGES["cold"]`, with bounds."""

from __future__ import annotations

import time
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.response import StreamingBody
from storages.backends.s3 import S3Storage

from audit import conf

from . import answers

SPOOL_BYTES = 8 * 1024 * 1024
LARGEST_OBJECT = 5 * 1024**3  # that one PUT can store


class ColdStorage(S3Storage):  # type: ignore[misc]  # django-storages has no type hints
    """`STORAGES["cold"]`: path-style addresses, bounded waits and tries, reads spooled to disk."""

    def __init__(self, **settings: Any) -> None:
        """Take `STORAGES["cold"]["OPTIONS"]`."""
        self.patience = conf.cold_timeout_seconds()
        super().__init__(
            **settings,
            max_memory_size=SPOOL_BYTES,
            # An object is read by one GET. The transfer's own tries would multiply with those of
            # each request, and are left to `opened`, which counts them.
            transfer_config=TransferConfig(
                use_threads=False,
                multipart_threshold=LARGEST_OBJECT,
                multipart_chunksize=LARGEST_OBJECT,
                num_download_attempts=1,
            ),
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
