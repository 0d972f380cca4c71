"""Ingest a file by the real command, once told to go.

Arguments: the file. Says `ready` when Django is set up and the command's checks have passed; the
time counted is from `go` to the database being closed.
"""

from __future__ import annotations

import io
import sys
import time

import django
from django.core.management import call_command, load_command_class

from benchmarks.children.report import peak_mb, say, wait_for_go


def ingest(file: str) -> None:
    """Ingest, and say when that began and ended, by the machine's monotonic clock."""
    from django.db import connections  # noqa: PLC0415  # once Django is set up

    command = load_command_class("audit", "ingest_events")
    command.check()
    out = io.StringIO()
    wait_for_go()
    began = time.monotonic()
    call_command(command, file, stdout=out)
    connections.close_all()
    say(began=began, ended=time.monotonic(), peak_mb=peak_mb(), said=out.getvalue().strip())


if __name__ == "__main__":
    django.setup()
    ingest(sys.argv[1])
