#!/usr/bin/env python3
"""How fast and how large the archive is, beside the obvious way and beside the least work.

    .venv/bin/python benchmarks/archive.py [--events N] [--rounds N] [--json]

A migrated database is filled once with events of about 530 bytes, all of them due, and copied for
each measurement. In each round each way archives a copy, in a process of its own, to the same
local S3 server; the order changes from round to round. Shown is the median of the rounds.

- ours: `archive_now --json`
- straightforward: what a good engineer writes in an afternoon (benchmarks/children)
- floor: the least work that makes the same objects, by the raw driver

Time is counted from after Django's start-up and all imports until the database is closed. After
each measurement hot must be empty and every line in the bucket; ours and the floor must have made
the same bytes.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.workbench import (
    BenchError,
    Workbench,
    checkpoint,
    present,
    progress,
    remove_database,
)

WAYS = ("ours", "straightforward", "floor")
MEGABYTE = 1_000_000
MAX_BATCH_BYTES = 4 * 1024**3

Measured = dict[str, Any]


def main() -> int:
    """Measure, print, return the exit code."""
    arguments = parse()
    return present(lambda: measure(arguments), as_table, arguments.json)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=200_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--batch-events", type=int, default=102_400, metavar="N")
    parser.add_argument(
        "--only", default=",".join(WAYS), metavar="WAY,…", help="some of: " + ", ".join(WAYS)
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    arguments.ways = arguments.only.split(",")
    if unknown := set(arguments.ways) - set(WAYS):
        parser.error(f"--only: no such way: {', '.join(sorted(unknown))}")
    if min(arguments.events, arguments.rounds, arguments.batch_events) < 1:
        parser.error("numbers are from 1 up")
    return arguments


def measure(arguments: argparse.Namespace) -> Measured:
    """Run all rounds; return what `--json` prints."""
    settings = {
        "AUDIT_BATCH_MAX_EVENTS": str(arguments.batch_events),
        "AUDIT_BATCH_MAX_BYTES": str(MAX_BATCH_BYTES),  # so that events alone end a batch
    }
    with Workbench(**settings) as bench:
        bench.start_s3()
        progress(f"filling a database with {arguments.events:,} events")
        template = bench.migrated("template.sqlite3")
        bench.child("fill", arguments.events, DATABASE_URL=f"sqlite:///{template}")
        checkpoint(template)
        mean = mean_record_bytes(template)
        baseline = bench.child("idle", DATABASE_URL=f"sqlite:///{template}")["peak_mb"]
        rounds: dict[str, list[Measured]] = {way: [] for way in arguments.ways}
        for number in range(arguments.rounds):
            digests: dict[str, list[str]] = {}
            turn = number % len(arguments.ways)
            for way in arguments.ways[turn:] + arguments.ways[:turn]:
                measured, digests[way] = once(bench, template, way, number, arguments.events)
                rounds[way].append(measured)
            if {"ours", "floor"} <= digests.keys() and digests["ours"] != digests["floor"]:
                raise BenchError("The floor made other objects than ours.")
    report: Measured = {way: summary(results) for way, results in rounds.items()}
    for other in ("straightforward", "floor"):
        if {"ours", other} <= report.keys():
            report[f"ratio_to_{other}"] = round(
                report["ours"]["events_per_second"] / report[other]["events_per_second"], 3
            )
    return report | {
        "events": arguments.events,
        "rounds": arguments.rounds,
        "batch_events": arguments.batch_events,
        "mean_record_bytes": round(mean, 1),
        "baseline_mb": round(baseline, 1),
    }


def mean_record_bytes(path: Path) -> float:
    """Return the mean size of a record, in bytes."""
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT AVG(LENGTH(record)) FROM audit_auditevent"
        return float(database.execute(query).fetchone()[0])


def once(
    bench: Workbench, template: Path, way: str, number: int, events: int
) -> tuple[Measured, list[str]]:
    """Measure one way once; return it and the digests of its objects."""
    copy = bench.copy(template, "copy.sqlite3")
    env = {"DATABASE_URL": f"sqlite:///{copy}", "AUDIT_COLD_PREFIX": f"{way}/{number}"}
    try:
        measured = bench.child(way, **env)
        left = bench.child("outcome", events, **env)
    finally:
        remove_database(copy)
    if (measured["events"], left["hot"], left["lines"]) != (events, 0, events):
        raise BenchError(
            f"{way} left {left['hot']:,} of {events:,} events in hot and brought "
            f"{left['lines']:,} lines to the bucket."
        )
    progress(
        f"round {number + 1}, {way}: {events / measured['seconds']:,.0f} events/s, "
        f"{measured['peak_mb']:,.0f} MB"
    )
    return measured, left["digests"]


def summary(results: list[Measured]) -> Measured:
    """Return the medians of a way's rounds."""
    seconds = [result["seconds"] for result in results]
    events = results[0]["events"]
    return {
        "events_per_second": round(events / median(seconds)),
        "events_per_second_rounds": [round(events / value) for value in seconds],
        "seconds": round(median(seconds), 3),
        "phases": {
            name: round(median(result["phases"].get(name, 0.0) for result in results), 3)
            for name in results[0]["phases"]
        },
        "peak_mb": round(median(result["peak_mb"] for result in results), 1),
        "mb_uncompressed": round(results[0]["bytes_uncompressed"] / MEGABYTE, 1),
        "mb_compressed": round(results[0]["bytes_compressed"] / MEGABYTE, 1),
    }


def as_table(report: Measured) -> str:
    """Return what a person reads. Phases of ours overlap: their sum may be more than the whole."""
    ways = [way for way in WAYS if way in report]
    phases = list(dict.fromkeys(name for way in ways for name in report[way]["phases"]))
    numbers = (
        ("events/s", "events_per_second", ",.0f"),
        ("peak MB", "peak_mb", ",.1f"),
        ("MB", "mb_uncompressed", ",.1f"),
        ("MB compressed", "mb_compressed", ",.1f"),
        ("seconds", "seconds", ",.3f"),
    )
    rows = [["", *ways]]
    rows += [
        [label, *(format(report[way][name], form) for way in ways)]
        for label, name, form in numbers
    ]
    rows += [
        [f"  {phase}", *(f"{report[way]['phases'].get(phase, 0):.3f}" for way in ways)]
        for phase in phases
    ]
    title = (
        f"{report['events']:,} events of {report['mean_record_bytes']:,.0f} bytes in batches of "
        f"{report['batch_events']:,}; median of {report['rounds']} rounds; a process that only "
        f"starts has {report['baseline_mb']:,.0f} MB"
    )
    lines = [title] + [
        "".join([f"{row[0]:<16}", *(f"{cell:>18}" for cell in row[1:])]) for row in rows
    ]
    lines += [
        f"ours is {report[f'ratio_to_{other}']:.2f} times as fast as {other}"
        for other in ("straightforward", "floor")
        if f"ratio_to_{other}" in report
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
