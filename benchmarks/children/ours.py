"""The software's own run: `archive_now --json`."""

from __future__ import annotations

import io
import json

import django
from django.core.management import call_command, load_command_class

from benchmarks.children.report import BenchError, Stopwatch, peak_mb, say


def archive() -> None:
    """Archive all that is due, and say what it took."""
    from django.db import connections  # noqa: PLC0415  # once Django is set up

    command = load_command_class("audit", "archive_now")  # imports are no part of a run
    buffer = io.StringIO()
    watch = Stopwatch()
    call_command(command, json=True, stdout=buffer)
    connections.close_all()
    seconds = watch.seconds
    answer = json.loads(buffer.getvalue())
    if answer["outcome"] != "archived" or answer["notes"]:
        raise BenchError(f"The archive did not simply archive: {buffer.getvalue()}")
    say(
        events=answer["events"],
        seconds=seconds,
        phases=answer["seconds"],
        peak_mb=peak_mb(),
        bytes_uncompressed=sum(batch["bytes_uncompressed"] for batch in answer["batches"]),
        bytes_compressed=sum(batch["bytes_compressed"] for batch in answer["batches"]),
    )


if __name__ == "__main__":
    django.setup()
    archive()
