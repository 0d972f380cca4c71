"""Make the ledger anew from the bucket: `manage.py rebuild_ledger`."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from audit import rebuild
from audit.management.entrance import here, who
from audit.rebuild import Outcome, Rebuilt
from audit.wording import count

EXIT_CODES = {Outcome.REBUILT: 0, Outcome.UNCHANGED: 0, Outcome.PLANNED: 0, Outcome.BUSY: 3}
SAID = {
    Outcome.REBUILT: "rebuilt: run archive_now next; it reads each batch whose rows hot still has",
    Outcome.UNCHANGED: "unchanged: the ledger says what the bucket's manifests say",
    Outcome.PLANNED: "planned: nothing was changed",
    Outcome.BUSY: "busy",
    Outcome.REFUSED: "refused: the ledger is left as it is",
    Outcome.FAILED: "failed: the ledger is left as it is",
}


class Command(BaseCommand):
    """For a ledger that was lost, restored from before, or edited."""

    help = (
        "Verify every manifest in the bucket from seq 1 on and make the ledger's rows what they "
        "say. No event and no object is touched. Exit codes: 0 rebuilt, unchanged or planned; 3 "
        "a run is busy; 1 refused or failed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the documented options."""
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done and change nothing"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, dry_run: bool, json: bool, **options: Any) -> None:
        """Rebuild, print what was done, exit with its code."""
        answer = rebuild.rebuild(requested_by=who(), requested_from=here(), dry_run=dry_run)
        if json:
            self.stdout.write(as_json(answer))
        else:
            for line in as_lines(answer):
                self.stdout.write(line)
            if answer.error:
                self.stderr.write(self.style.ERROR(answer.error))
        if code := EXIT_CODES.get(answer.outcome, 1):
            sys.exit(code)


def as_json(answer: Rebuilt) -> str:
    """Return the documented JSON object."""
    return json.dumps(answer.to_json(), ensure_ascii=False)


def as_lines(answer: Rebuilt) -> list[str]:
    """Return what a person reads."""
    lines = []
    for verb, places in (
        ("added", answer.added),
        ("replaced", answer.replaced),
        ("removed", answer.removed),
    ):
        lines += [f"{verb}: batch {start:,}–{end:,}" for start, end in places]
    lines += [f"note: {note}" for note in answer.notes]
    if answer.error is None:
        same = answer.verified - len(answer.added) - len(answer.replaced)
        lines.append(
            f"{count(answer.verified, 'manifest')} verified, up to seq "
            f"{answer.highest_archived_seq:,}: "
            f"{len(answer.added):,} rows added, {len(answer.replaced):,} replaced, "
            f"{len(answer.removed):,} removed, {same:,} as they were"
        )
    return [*lines, SAID[answer.outcome]]
