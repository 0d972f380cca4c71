"""Append events one at a time, as a request to a server would, until told to stop.

Prints the seconds that each append took, from the call to the acknowledgement.
"""

from __future__ import annotations

import select
import sys
import time

import django

from benchmarks.children.report import say, wait_for_go
from benchmarks.lines import lines

THINK_SECONDS = 0.02
MOST, SEED = 1_000_000, 1_000


def append() -> None:
    """Append, think, again."""
    from audit import ingest, log  # noqa: PLC0415  # once Django is set up

    made = lines(MOST, SEED)
    taken, failed = [], 0
    with ingest.line_reader("platform") as reader:
        wait_for_go()
        while not select.select([sys.stdin], [], [], THINK_SECONDS)[0]:
            draft = reader.draft(next(made))
            began = time.monotonic()
            try:
                log.append([draft])
            except log.BusyError:
                failed += 1
            taken.append(time.monotonic() - began)
    say(seconds=taken, failed=failed)


if __name__ == "__main__":
    django.setup()
    append()
