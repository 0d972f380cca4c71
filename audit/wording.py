"""A result in words: the same for the command and the console."""

from __future__ import annotations

from .models import ArchiveRun
from .result import Outcome, Result

MEGABYTE = 1_000_000


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


def boundary_line(result: Result) -> str:
    """Return where the tiers meet, in one line."""
    if not result.boundary_known:
        return "tier boundary: not known"
    oldest = f"{result.oldest_hot_seq:,}" if result.oldest_hot_seq else "none"
    highest = f"{result.highest_archived_seq:,}" if result.highest_archived_seq else "none"
    return f"tier boundary: highest archived seq {highest}, oldest hot seq {oldest}"


def count(number: int, one: str, more: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"
