"""The storage object: what django-storages makes of `STORAGES["cold"]`, with bounds."""

from __future__ import annotations

import time
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.response import StreamingBody
from storages.backends.s3 import S3Storage

from audit import conf

from . import asking

SPOOL_BYTES = 8 * 1024 * 1024


class ColdStorage(S3Storage):  # type: ignore[misc]  # django-storages has no type hints
    """`STORAGES["cold"]`: path-style addresses, bounded waits and tries, reads spooled to disk."""

    def __init__(self, **settings: Any) -> None:
        """Take `STORAGES["cold"]["OPTIONS"]`."""
        self.patience = conf.cold_timeout_seconds()
        super().__init__(
            **settings,
            max_memory_size=SPOOL_BYTES,
            # Its own tries of a GET would multiply with those of each request: `opened` counts.
            transfer_config=TransferConfig(use_threads=False, num_download_attempts=1),
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
        session.events.register("before-call.s3", asking.begin)
        session.events.register("before-send.s3", asking.count_try)
        session.events.register("after-call.s3.GetObject", self._pace)
        return session

    def _pace(self, http_response: Any, parsed: dict[str, Any], **kwargs: Any) -> None:
        if "Body" in parsed:
            paced = _Paced(http_response.raw, self.patience)
            parsed["Body"] = StreamingBody(paced, parsed.get("ContentLength"))


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
        while amount and (part := self._raw.read1(amount)):
            parts.append(part)
            amount -= len(part)
            if amount and time.monotonic() > limit:
                raise TimeoutError
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the connection."""
        self._raw.close()
