"""Fill the migrated, empty database with old events, by the software's own append.

Arguments: how many events. All are recorded longer ago than any is kept in hot. As often as an
hourly checkpoint comes in a busy log, one is made, and one of the head.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from itertools import islice

import django

from benchmarks.children.report import say
from benchmarks.lines import lines

CHUNK = 2_000  # as ingest_events takes them, so that the table's pages are as they are after it
CHECKPOINT_EVENTS = 25_000
BEGIN, SPAN = timedelta(days=400), timedelta(days=200)


def fill(count: int) -> None:
    """Append `count` events, recorded over `SPAN` from `BEGIN` ago on."""
    from audit import checkpoints, ingest, log  # noqa: PLC0415  # once Django is set up

    began = datetime.now(UTC) - BEGIN
    made = lines(count, seed=1)
    done = 0
    with ingest.line_reader("platform") as reader:
        while chunk := list(islice(made, CHUNK)):
            done += len(chunk)
            log.append([reader.draft(line) for line in chunk], now=began + SPAN * (done / count))
            if done % CHECKPOINT_EVENTS < len(chunk) or done == count:
                checkpoints.make()
    say(events=done)


if __name__ == "__main__":
    django.setup()
    fill(int(sys.argv[1]))
