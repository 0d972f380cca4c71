"""The least work that makes the same objects: raw driver, no Django, no ledger, no lease.

Everything in sequence, in one process: read in order, check every link, compress the same frames,
hash, PUT and HEAD as `audit.storage` does, delete the range. The JSONL objects are the same bytes
as ours; there are no manifests.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterator
from hashlib import md5, sha256
from typing import Any, BinaryIO

import boto3
from botocore.config import Config
from isal import igzip

from audit.format.chain import genesis_link, leaf_hash, next_link
from audit.format.frames import FRAME_BYTES, FRAME_EVENTS, text_of
from audit.format.names import Kind, ObjectName
from benchmarks.children.report import BenchError, Stopwatch, open_database, peak_mb, say

GZIP_LEVEL = 2
# Found by measuring the range delete alone, one run each on 200,000 rows of the same kind, rows a
# second by page cache: with chunks of 102,400 rows 203,000 at 2 MiB, 247,000 at 16, 230,000 at 64
# and 261,000 at 128, which takes 117 MB more of memory; with chunks of 5,000 rows 133,000 to
# 151,000 at any of these. So the chunk decides, and hardly the cache.
CACHE_KIB = 16 * 1024
DELETE_CHUNK = 102_400


class Floor:
    """One run."""

    def __init__(self) -> None:
        """Open the database, and a client with the options of `audit.storage`."""
        self.watch = Stopwatch()
        self.database = open_database(CACHE_KIB)
        self.bucket = os.environ["AUDIT_COLD_BUCKET"]
        self.prefix = os.environ["AUDIT_COLD_PREFIX"]
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=os.environ["AUDIT_COLD_ENDPOINT"],
            region_name=os.environ["AUDIT_COLD_REGION"],
            aws_access_key_id=os.environ["AUDIT_COLD_ACCESS_KEY"],
            aws_secret_access_key=os.environ["AUDIT_COLD_SECRET_KEY"],
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self.link = genesis_link(os.environ["AUDIT_ORIGIN"])
        self.uncompressed = self.compressed = 0

    def archive(self) -> None:
        """Archive every row, and say what it took."""
        batch_events = int(os.environ["AUDIT_BATCH_MAX_EVENTS"])
        head = self.database.execute("SELECT MAX(seq) FROM audit_auditevent").fetchone()[0]
        for first in range(1, head + 1, batch_events):
            last = min(head, first + batch_events - 1)
            with tempfile.TemporaryFile() as file:
                self.send(first, last, file)
            with self.watch.phase("purge"):
                self.purge(first, last)
        self.database.close()
        say(
            events=head,
            seconds=self.watch.seconds,
            phases=self.watch.phases,
            peak_mb=peak_mb(),
            bytes_uncompressed=self.uncompressed,
            bytes_compressed=self.compressed,
        )

    def send(self, first: int, last: int, file: BinaryIO) -> None:
        """Encode a range into a file, PUT it, and see that it is there."""
        sha, md5_ = sha256(), md5(usedforsecurity=False)
        for rows in self.frames(first, last):
            with self.watch.phase("encode"):
                self.check(rows)
                text = text_of(row[1] for row in rows)
                data = igzip.compress(text, GZIP_LEVEL, mtime=0)
                file.write(data)
                sha.update(data)
                md5_.update(data)
            if len(text) > FRAME_BYTES:
                raise BenchError("A frame would be too large: give the floor smaller events.")
            self.uncompressed += len(text)
        length = file.tell()
        self.compressed += length
        key = ObjectName.of(Kind.JSONL, first, last, sha.hexdigest()).key(self.prefix)
        with self.watch.phase("upload"):
            file.seek(0)
            self.client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=file,
                ContentLength=length,
                ContentMD5=base64.b64encode(md5_.digest()).decode(),
                ChecksumSHA256=base64.b64encode(sha.digest()).decode(),
                ContentType="application/gzip",
                IfNoneMatch="*",
                Metadata={"sha256": sha.hexdigest()},
            )
        with self.watch.phase("confirm"):
            found = self.client.head_object(Bucket=self.bucket, Key=key)
            if (found["ContentLength"], found["ETag"].strip('"')) != (length, md5_.hexdigest()):
                raise BenchError(f"{key} is not in the bucket as it was sent.")

    def frames(self, first: int, last: int) -> Iterator[list[tuple[int, bytes, str]]]:
        """Read a range, frame by frame; rows are small here, so that only their count ends one."""
        cursor = self.database.execute(
            "SELECT seq, record, link FROM audit_auditevent "
            "WHERE seq BETWEEN ? AND ? ORDER BY seq",
            (first, last),
        )
        while True:
            with self.watch.phase("read"):
                rows = cursor.fetchmany(FRAME_EVENTS - (first - 1) % FRAME_EVENTS)
            if not rows:
                return
            yield rows
            first += len(rows)

    def check(self, rows: list[tuple[int, bytes, str]]) -> None:
        """Recompute every link."""
        link = self.link
        for seq, record, stored in rows:
            link = next_link(link, leaf_hash(record))
            if link.hex() != stored:
                raise BenchError(f"Seq {seq:,} does not fit.")
        self.link = link

    def purge(self, first: int, last: int) -> None:
        """Delete a range in chunks, each in a transaction of its own."""
        for at in range(first, last + 1, DELETE_CHUNK):
            self.database.execute(
                "DELETE FROM audit_auditevent WHERE seq BETWEEN ? AND ?",
                (at, min(last, at + DELETE_CHUNK - 1)),
            )


if __name__ == "__main__":
    Floor().archive()
