"""Archive now: `manage.py archive_now`."""

from __future__ import annotations

import json
import sys
import threading
from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from tqdm import tqdm

from audit import archive, plan
from audit.management.entrance import here, positive, stop_on_signal, who
from audit.models import ArchiveRun
from audit.request import Request
from audit.result import Outcome, Result
from audit.watcher import Watcher
from audit.wording import as_lines

EXIT_CODES = {
    Outcome.ARCHIVED: 0,
    Outcome.NOTHING_DUE: 0,
    Outcome.PLANNED: 0,
    Outcome.BUSY: 3,
}


class Command(BaseCommand):
    """An operator's own run: it does not ask for ARCHIVE_ENABLED."""

    help = (
        "Move every event older than AUDIT_HOT_RETENTION_DAYS to the cold store, confirm it "
        "there, and delete it from hot."
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Keep the lines of the epilogue."""
        return super().create_parser(
            prog_name,
            subcommand,
            epilog="exit codes: 0 archived, nothing due or planned; 3 another run is busy; "
            "1 interrupted, refused or failed; 2 wrong usage",
            formatter_class=RawDescriptionHelpFormatter,
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the documented options."""
        parser.add_argument(
            "--dry-run", action="store_true", help="print the plan and change nothing"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--max-batches",
            type=positive,
            metavar="N",
            help="stop after N batches; what earlier runs left is finished first",
        )
        parser.add_argument(
            "--through-seq",
            type=positive,
            metavar="N",
            help="archive up to seq N whatever its age, and no further (for a log whose clock "
            "once leapt ahead)",
        )

    def handle(
        self,
        *args: Any,
        dry_run: bool,
        json: bool,
        max_batches: int | None,
        through_seq: int | None,
        **options: Any,
    ) -> None:
        """Run, print the outcome, exit with its code."""
        if dry_run:
            result = plan.dry_run(max_batches=max_batches, through_seq=through_seq)
        else:
            request = Request(
                ArchiveRun.Trigger.COMMAND,
                requested_by=who(),
                requested_from=here(),
                override=True,
                max_batches=max_batches,
                through_seq=through_seq,
            )
            with stop_on_signal() as stop, Terminal(stop, show=not json) as watcher:
                result = archive.run(request, watcher)
        if json:
            self.stdout.write(as_json(result))
        else:
            for line in as_lines(result):
                self.stdout.write(line)
            if result.error:
                self.stderr.write(self.style.ERROR(result.error))
        if code := EXIT_CODES.get(result.outcome, 1):
            sys.exit(code)


class Terminal(Watcher):
    """Shows a run's progress on a terminal, and stops it on a signal."""

    def __init__(self, stop: threading.Event, show: bool) -> None:
        """Take the event that stops the run; `show`: draw a bar, if there is a terminal."""
        self.stop = stop
        self.bar: tqdm[Any] = tqdm(
            unit=" events", unit_scale=True, leave=False, disable=None if show else True
        )

    def __enter__(self) -> Terminal:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Clear the bar."""
        self.bar.close()

    def expects(self, events: int) -> None:
        """Learn how long the bar is."""
        self.bar.reset(total=events or None)

    def begins(self, phase: str) -> None:
        """Name the phase."""
        self.bar.set_description(phase)

    def advances(self, events: int) -> None:
        """Move the bar."""
        self.bar.update(events)

    def stopping(self) -> bool:
        """Say whether a signal came."""
        return self.stop.is_set()


def as_json(result: Result) -> str:
    """Return the documented JSON object."""
    return json.dumps(result.to_json(), ensure_ascii=False)
