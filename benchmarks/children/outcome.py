"""See what an archive left: none of the due events in hot, every one of them in the bucket.

Argument: how many events were due. (A run adds events of its own, which are younger.) Prints how
many of the due ones are in hot, and of all JSONL objects together the lines and, in order, each
one's SHA-256.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import zlib
from contextlib import closing
from hashlib import sha256
from typing import Any

import boto3
from botocore.config import Config

from benchmarks.children.report import database_path, say

READ_BYTES = 1024 * 1024
GZIP_WINDOW = 31  # zlib: the largest window, with gzip's header and trailer


def look(due: int) -> None:
    """Count and hash."""
    with closing(sqlite3.connect(database_path())) as database:
        hot = database.execute(
            "SELECT COUNT(*) FROM audit_auditevent WHERE seq <= ?", (due,)
        ).fetchone()[0]
    bucket: Any = boto3.resource(
        "s3",
        endpoint_url=os.environ["AUDIT_COLD_ENDPOINT"],
        region_name=os.environ["AUDIT_COLD_REGION"],
        aws_access_key_id=os.environ["AUDIT_COLD_ACCESS_KEY"],
        aws_secret_access_key=os.environ["AUDIT_COLD_SECRET_KEY"],
        config=Config(s3={"addressing_style": "path"}),
    ).Bucket(os.environ["AUDIT_COLD_BUCKET"])
    digests, lines = [], 0
    for item in bucket.objects.filter(Prefix=os.environ["AUDIT_COLD_PREFIX"] + "/"):
        if item.key.endswith(".jsonl.gz"):
            digest, found = read(item.get()["Body"])
            digests.append(digest)
            lines += found
    say(hot=hot, lines=lines, digests=digests)


def read(stream: Any) -> tuple[str, int]:
    """Return the SHA-256 and the lines of a gzip object of any number of members."""
    digest, lines = sha256(), 0
    inflater = zlib.decompressobj(GZIP_WINDOW)
    while data := stream.read(READ_BYTES):
        digest.update(data)
        while data:
            lines += inflater.decompress(data).count(b"\n")
            data = inflater.unused_data
            if inflater.eof:
                inflater = zlib.decompressobj(GZIP_WINDOW)
    return digest.hexdigest(), lines


if __name__ == "__main__":
    look(int(sys.argv[1]))
