"""What a good engineer writes in an afternoon: no chain, no ledger, no lease, no flat memory.

It does what the task says and no more: model instances in a list, `json.dumps` of each event's
fields, gzip at its usual level, one PUT, HEAD, `queryset.delete()`. Done in batches as large as
ours, since a list of a million instances is absurd.
"""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import django
from botocore.config import Config
from django.conf import settings

from benchmarks.children.report import BenchError, Stopwatch, peak_mb, say

if TYPE_CHECKING:
    from audit.models import AuditEvent

GZIP_LEVEL = 6


def as_dict(event: AuditEvent) -> dict[str, Any]:
    """Return an event's fields as JSON can have them."""
    return {
        "seq": event.seq,
        "record": bytes(event.record).decode(),
        "link": event.link,
        "recorded_at": event.recorded_at.isoformat(),
        "occurred_at": event.occurred_at.isoformat(),
        "source": event.source,
        "tenant": event.tenant,
        "actor": event.actor,
        "actor_id": event.actor_id,
        "action": event.action,
        "target": event.target,
        "outcome": event.outcome,
        "external_id": event.external_id,
    }


def archive() -> None:
    """Archive all that is due, and say what it took."""
    from django.db import connections  # noqa: PLC0415  # Django is set up by now  # once Django is set up

    from audit.models import AuditEvent  # noqa: PLC0415  # Django is set up by now

    batch_events = int(os.environ["AUDIT_BATCH_MAX_EVENTS"])
    watch = Stopwatch()
    cutoff = datetime.now(UTC) - timedelta(days=settings.AUDIT_HOT_RETENTION_DAYS)
    client = boto3.client(
        "s3",
        endpoint_url=settings.AUDIT_COLD_ENDPOINT,
        region_name=settings.AUDIT_COLD_REGION,
        aws_access_key_id=settings.AUDIT_COLD_ACCESS_KEY,
        aws_secret_access_key=settings.AUDIT_COLD_SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )
    done = uncompressed = compressed = 0
    while True:
        with watch.phase("read"):
            due = AuditEvent.objects.filter(recorded_at__lt=cutoff).order_by("seq")
            events = list(due[:batch_events])
        if not events:
            break
        with watch.phase("encode"):
            lines = [json.dumps(as_dict(event)) for event in events]
            text = ("\n".join(lines) + "\n").encode()
            data = gzip.compress(text, GZIP_LEVEL)
        first, last = events[0].seq, events[-1].seq
        bucket = settings.AUDIT_COLD_BUCKET
        key = f"{settings.AUDIT_COLD_PREFIX}/{first:020d}-{last:020d}.jsonl.gz"
        with watch.phase("upload"):
            client.put_object(Bucket=bucket, Key=key, Body=data, ContentType="application/gzip")
        with watch.phase("confirm"):
            if client.head_object(Bucket=bucket, Key=key)["ContentLength"] != len(data):
                raise BenchError(f"{key} is not as long in the bucket as it was sent.")
        with watch.phase("purge"):
            AuditEvent.objects.filter(seq__gte=first, seq__lte=last).delete()
        done += len(events)
        uncompressed += len(text)
        compressed += len(data)
    connections.close_all()
    say(
        events=done,
        seconds=watch.seconds,
        phases=watch.phases,
        peak_mb=peak_mb(),
        bytes_uncompressed=uncompressed,
        bytes_compressed=compressed,
    )


if __name__ == "__main__":
    django.setup()
    archive()
