"""A result in words: the same for commands and console."""

from __future__ import annotations

from .models import Alarm, ArchiveRun, Notice, VerificationRun
from .result import Outcome, Result
from .verifications import problem_count
from .verify import Verified

MEGABYTE = 1_000_000
SIGNS = {"ok": "✓", "tampered": "✗", "gap": "✗", "unverifiable": "?", "": "…"}
SIGNS |= {"archived": "✓", "nothing_due": "✓", "interrupted": "…", "failed": "✗", "refused": "✗"}


def as_lines(result: Result) -> list[str]:
    """Return what a person reads of a run, or of a look at the plan."""
    lines = []
    for batch in result.batches:
        size = f"{batch['bytes_uncompressed'] / MEGABYTE:,.1f} MB"
        if batch["bytes_compressed"]:
            size += f", {batch['bytes_compressed'] / MEGABYTE:,.1f} MB compressed"
        lines.append(
            f"batch {batch['start_seq']:,}–{batch['end_seq']:,}: "
            f"{count(batch['event_count'], 'event')}, {size}"
        )
        if batch["manifest_key"]:
            lines.append(f"  {batch['manifest_key']}")
    lines += [f"note: {note}" for note in result.notes]
    if result.kept:
        lines.append(f"kept in hot: {result.kept}")
    if result.seconds and result.batches:
        lines += phase_table(result)
    return [*lines, result_line(result), boundary_line(result)]


def phase_table(result: Result) -> list[str]:
    """Return a table of the phases: seconds, events a second, megabytes a second."""
    size = sum(batch["bytes_uncompressed"] for batch in result.batches)
    rows = [*result.seconds.items(), ("elapsed", result.elapsed)]
    lines = [f"{'phase':<10}{'seconds':>10}{'events/s':>14}{'MB/s':>10}"]
    for phase, seconds in rows:
        spent = max(seconds, 0.001)
        lines.append(
            f"{phase:<10}{seconds:>10.3f}{result.events / spent:>14,.0f}"
            f"{size / MEGABYTE / spent:>10,.1f}"
        )
    return lines


def result_line(result: Result) -> str:
    """Return how a run ended and how much it moved, in one line."""
    return _result_line(result.outcome, result.run, result.events, len(result.batches))


def result_line_of(run: ArchiveRun) -> str:
    """Return the same line from a run's row."""
    return _result_line(run.outcome or "running", run.pk, run.events, run.batches)


def _result_line(outcome: Outcome | str, run: int | None, events: int, batches: int) -> str:
    name = outcome.replace("_", " ")
    number = f" (run {run})" if run else ""
    return f"{name}{number}: {count(events, 'event')} in {count(batches, 'batch', 'batches')}"


def verdict(run: VerificationRun | ArchiveRun) -> str:
    """Return how it ended, with a sign that tells good news without its colour."""
    return f"{SIGNS.get(run.outcome, '?')} {(run.outcome or 'running').replace('_', ' ')}"


def state_of(alarm: Alarm) -> str:
    """Return whether an alarm is open, with a sign that tells it without its colour."""
    return "✗ open" if alarm.is_open else "✓ cleared"


def told(alarm: Alarm) -> str:
    """Return by which ways people were told that an alarm was opened, and when."""
    notices = [row for row in alarm.notices.all() if row.event == Notice.Event.OPENED]
    return ", ".join(map(_told, notices)) or "nobody was told"


def _told(row: Notice) -> str:
    way = row.get_channel_display().lower()
    if row.sent_at:
        return f"told by {way} at {row.sent_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"not yet told by {way} ({count(row.tries, 'try', 'tries')})"


def verified_line_of(run: VerificationRun) -> str:
    """Return what a verification found and how much it looked at, in one line."""
    outcome = run.outcome or "running"
    return _verified_line(outcome, run.pk, run.level, run.events, problem_count(run))


def verified_line(found: Verified) -> str:
    """Return the same line from what a verification answers."""
    report = found.report
    problems = len(report.problems) + report.untold
    return _verified_line(report.outcome, found.run, found.level, report.events, problems)


def _verified_line(outcome: str, run: int | None, level: str, events: int, problems: int) -> str:
    number = f"verification {run}, " if run else ""
    return (
        f"{outcome} ({number}{level}): {count(events, 'event')} verified, "
        f"{count(problems, 'problem')}"
    )


def boundary_line(result: Result) -> str:
    """Return where the tiers meet, in one line."""
    if not result.boundary_known:
        return "tier boundary: not known"
    return tiers_line(result.highest_archived_seq, result.oldest_hot_seq)


def tiers_line(highest_archived: int | None, oldest_hot: int | None) -> str:
    """Return the same line from the two seqs."""
    oldest = f"{oldest_hot:,}" if oldest_hot else "none"
    highest = f"{highest_archived:,}" if highest_archived else "none"
    return f"tier boundary: highest archived seq {highest}, oldest hot seq {oldest}"


def count(number: int, one: str, more: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"
