"""Prove that the log is whole: `manage.py verify_audit`."""

from __future__ import annotations

import json
import sys
import traceback
from argparse import RawDescriptionHelpFormatter
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from audit import verify
from audit.coldwalk import NoBatchError
from audit.format.report import EXIT_CODES, Kind
from audit.management.entrance import here, interrupt_on_sigterm, positive, who
from audit.models import ArchiveRun, VerificationRun
from audit.verify import Asked, Verified
from audit.wording import tiers_line

USAGE = 2


class Command(BaseCommand):
    """One walk from event 1 to now; it changes nothing but the row that says that it was done."""

    help = "Verify the log over both tiers, from event 1 to the newest, against every checkpoint."
    # What is misconfigured must not keep anybody from looking; the report has it.
    requires_system_checks: list[str] = []  # noqa: RUF012  # as Django has it

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Keep the lines of the epilogue."""
        return super().create_parser(
            prog_name,
            subcommand,
            epilog="exit codes: 0 ok; 1 tampered; 2 unverifiable, wrong usage, or a failure of "
            "this program; 3 gap",
            formatter_class=RawDescriptionHelpFormatter,
            **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the documented options."""
        parser.add_argument(
            "--level",
            choices=VerificationRun.Level.values,
            default=VerificationRun.Level.FULL.value,
            help="manifests: signatures, continuity, sizes, and all of hot; full (the default): "
            "every byte of every object, too",
        )
        parser.add_argument(
            "--batch",
            type=positive,
            metavar="SEQ",
            help="look at the one batch that holds this seq, and at the checkpoints",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--processes",
            type=positive,
            metavar="N",
            help="read so many objects at once; by default as many as there are cores, in a large "
            "log",
        )

    def run_from_argv(self, argv: list[str]) -> None:
        """Let nothing that goes wrong, not even at the print, end with what says tampered."""
        try:
            for stream in (sys.stdout, sys.stderr):  # which may know fewer characters than we use
                if isinstance(stream, TextIOWrapper):
                    with suppress(OSError):
                        stream.reconfigure(errors="backslashreplace")
            super().run_from_argv(argv)
        except SystemExit:
            raise
        except BaseException:
            traceback.print_exc()
            sys.exit(USAGE)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Let wrong usage end with its own code."""
        try:
            return super().execute(*args, **options)
        except CommandError as error:
            error.returncode = USAGE
            raise

    def handle(
        self,
        *args: Any,
        level: str,
        batch: int | None,
        json: bool,
        processes: int | None,
        **options: Any,
    ) -> None:
        """Verify, print the report, exit with its code."""
        asked = Asked(
            ArchiveRun.Trigger.COMMAND,
            who(),
            here(),
            level=level,
            batch_seq=batch,
            processes=processes,
        )
        bar: tqdm[Any] = tqdm(
            unit=" events", unit_scale=True, leave=False, disable=True if json else None
        )

        def advance(events: int) -> None:
            bar.update(events)

        try:
            with interrupt_on_sigterm(), bar:
                found = verify.verify(
                    asked,
                    progress=advance,
                    expects=lambda events: bar.reset(total=events or None),
                )
        except NoBatchError as error:
            self._fail(str(error), json)
        except KeyboardInterrupt:
            self._fail("Stopped: nothing can be said about the log.", json)
        except Exception as error:
            # Never exit code 1, which says that the log was tampered with.
            self._fail(f"This program failed ({error}): that says nothing about the log.", json)
        else:
            self._print(found, json)
            sys.exit(found.report.exit_code)

    def _print(self, found: Verified, as_json: bool) -> None:
        if as_json:
            self.stdout.write(dumps(found.to_json()))
            return
        for message in found.checks:
            self.stdout.write(f"system check: {message}")
        for line in found.report.lines():
            self.stdout.write(line)
        run = f" (verification {found.run})" if found.run else ""
        self.stdout.write(tiers_line(found.highest_archived_seq, found.oldest_hot_seq))
        self.stdout.write(f"{found.report.outcome}{run}")

    def _fail(self, sentence: str, as_json: bool) -> None:
        if as_json:
            self.stdout.write(dumps({"outcome": Kind.UNVERIFIABLE.value, "error": sentence}))
        else:
            self.stderr.write(self.style.ERROR(sentence))
        sys.exit(EXIT_CODES[Kind.UNVERIFIABLE])


def dumps(value: dict[str, Any]) -> str:
    """Return the documented JSON object."""
    return json.dumps(value, ensure_ascii=False)
