"""Make the bucket, once: `manage.py make_bucket`."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit import conf, storage

TRY_SECONDS = 5  # in which the service may be silent
PAUSE_SECONDS = 1.0


class Command(BaseCommand):
    """What a new installation needs of its object store; needs more rights than a run does."""

    help = (
        "Make the bucket AUDIT_COLD_BUCKET, unless it is there. Exit codes: 0 it is there; 1 the "
        "service does not answer or refuses, for as long as --wait says."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the documented option."""
        parser.add_argument(
            "--wait",
            type=int,
            default=0,
            metavar="SECONDS",
            help="ask again for so long where the service does not answer or refuses",
        )

    def handle(self, *args: Any, wait: int, **options: Any) -> None:
        """Make it and say so; a service that has just been started may refuse keys at first."""
        give_up = time.monotonic() + wait
        while True:
            try:
                made = storage.make_bucket(TRY_SECONDS)
            except storage.UnavailableError as error:
                if time.monotonic() + PAUSE_SECONDS > give_up:
                    raise CommandError(str(error)) from None
                time.sleep(PAUSE_SECONDS)
            else:
                break
        done = "was made" if made else "is there"
        self.stdout.write(f"The bucket '{conf.cold_bucket()}' {done}.")
