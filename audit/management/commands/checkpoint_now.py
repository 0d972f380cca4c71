"""Sign where the log ends now: `manage.py checkpoint_now`."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError

from audit import checkpoints
from audit.format.errors import AuditError
from audit.log import RolledBackError
from audit.result import sentence


class Command(BaseCommand):
    """A checkpoint that nobody waits an hour for, and the publishing of those that wait."""

    help = (
        "Sign a checkpoint of the log as it is now, keep it as a row, and publish it in the "
        "bucket. Exit codes: 0 made and published; 3 made, and waits for the bucket; 1 refused "
        "or failed: nothing was signed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the documented option."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, json: bool, **options: Any) -> None:
        """Make it, print what it is, exit with its code."""
        answer: dict[str, Any]
        try:
            made = checkpoints.make()
            answer = {"outcome": "published" if made.published else "pending", "error": None}
            answer |= made.to_json()
        except (AuditError, DatabaseError) as error:
            outcome = "refused" if isinstance(error, RolledBackError) else "failed"
            answer = {"outcome": outcome, "error": sentence(error)}
        if json:
            self.stdout.write(as_json(answer))
        else:
            for note in answer.get("notes", []):
                self.stdout.write(f"note: {note}")
            if answer["error"]:
                self.stderr.write(self.style.ERROR(answer["error"]))
            self.stdout.write(as_line(answer))
        if code := {"published": 0, "pending": 3}.get(answer["outcome"], 1):
            sys.exit(code)


def as_json(answer: dict[str, Any]) -> str:
    """Return the documented JSON object."""
    return json.dumps(answer, ensure_ascii=False)


def as_line(answer: dict[str, Any]) -> str:
    """Return what a person reads last."""
    if answer["error"]:
        return f"{answer['outcome']}: nothing was signed"
    return (
        f"{answer['outcome']}: checkpoint {answer['index']:,} of seq {answer['seq']:,}, "
        f"SHA-256 {answer['sha256']}"
    )
