#!/usr/bin/env python3
"""How fast a file of events is taken in, alone and by several processes at once.

    .venv/bin/python benchmarks/ingest_file.py [--events N] [--json]

- one: `ingest_events FILE` in a process of its own; counted from after Django's start-up, and once
  more with the interpreter's start
- bare: the finished rows that it left in its two tables, inserted into another empty database by
  `executemany`, with the same pragmas and as many events a transaction
- four: four processes that take in four files of a quarter of the events each, together
- single: how long an append of one event takes while four such processes are at it (each with
  N events here, so that it lasts long enough)

After each of them the database must hold every event once, up to the head of its chain.
"""

from __future__ import annotations

import argparse
import math
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lines import write_file
from benchmarks.workbench import (
    BenchError,
    Child,
    Workbench,
    checkpoint,
    present,
    progress,
    remove_database,
)

WRITERS = 4
EVENTS_A_TRANSACTION = 2_000  # as ingest_events has them
LIMIT_SECONDS = 2.0  # what a single event may take at the 99th percentile

Measured = dict[str, Any]


def main() -> int:
    """Measure, print, return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=100_000, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.events < WRITERS:
        parser.error(f"--events: from {WRITERS} up")
    return present(lambda: measure(arguments.events), as_text, arguments.json)


def measure(events: int) -> Measured:
    """Run it all; return what `--json` prints."""
    with Workbench() as bench:
        bench.start_s3()  # each process that appends looks at the bucket first
        empty = bench.migrated("empty.sqlite3")
        progress(f"one process, {events:,} events")
        one, full = measure_one(bench, empty, events)
        progress("the same rows, bare")
        bare = measure_bare(bench, empty, full, events)
        remove_database(full)
        progress(f"{WRITERS} processes")
        quarter = events // WRITERS
        four = measure_four(bench, empty, quarter)
        progress("single events beside them")
        single = measure_single(bench, empty, events)
    return {
        "events": events,
        "one": one,
        "bare": bare,
        "four": four,
        "single": single,
        "ratio_to_bare": round(one["events_per_second"] / bare["events_per_second"], 3),
        "ratio_four_to_one": round(four["events_per_second"] / one["events_per_second"], 3),
    }


def measure_one(bench: Workbench, empty: Path, events: int) -> tuple[Measured, Path]:
    """Ingest one file by one process; return the measurement and the database."""
    file = bench.folder / "one.jsonl"
    write_file(file, events, seed=0)
    path = bench.copy(empty, "one.sqlite3")
    started = time.monotonic()
    [answer] = together(start_writers(bench, path, [file]))
    wall = time.monotonic() - started
    check(path, events)
    checkpoint(path)
    seconds = answer["ended"] - answer["began"]
    return {
        "events_per_second": round(events / seconds),
        "seconds": round(seconds, 3),
        "seconds_with_start": round(wall, 3),
        "events_per_second_with_start": round(events / wall),
        "peak_mb": round(answer["peak_mb"], 1),
    }, path


def measure_bare(bench: Workbench, empty: Path, full: Path, events: int) -> Measured:
    """Insert the rows of a full database into an empty one."""
    path = bench.copy(empty, "bare.sqlite3")
    answer = bench.child("bare", full, EVENTS_A_TRANSACTION, DATABASE_URL=f"sqlite:///{path}")
    check(path, events, state=False)
    remove_database(path)
    return {
        "events_per_second": round(events / answer["seconds"]),
        "seconds": round(answer["seconds"], 3),
    }


def measure_four(bench: Workbench, empty: Path, each: int) -> Measured:
    """Ingest four files by four processes, into one database."""
    path = bench.copy(empty, "four.sqlite3")
    writers = start_writers(bench, path, files(bench, each))
    answers = together(writers)
    check(path, WRITERS * each)
    remove_database(path)
    return throughput(answers, each)


def measure_single(bench: Workbench, empty: Path, each: int) -> Measured:
    """Append single events while four processes ingest; return their latencies."""
    path = bench.copy(empty, "single.sqlite3")
    single = bench.start("single", DATABASE_URL=f"sqlite:///{path}")
    writers = start_writers(bench, path, files(bench, each))
    single.wait_until_ready()
    answers = together(writers, beside=single)
    single.tell("stop")
    answer = single.finish()
    seconds = sorted(answer["seconds"])
    check(path, WRITERS * each + len(seconds) - answer["failed"])
    remove_database(path)
    return {
        "count": len(seconds),
        "failed": answer["failed"],
        "p50_seconds": round(percentile(seconds, 50), 4),
        "p99_seconds": round(percentile(seconds, 99), 4),
        "max_seconds": round(seconds[-1], 4),
        "writers": throughput(answers, each),
    }


def files(bench: Workbench, each: int) -> list[Path]:
    """Write four files without a common event."""
    paths = [bench.folder / f"{number}.jsonl" for number in range(1, WRITERS + 1)]
    for number, path in enumerate(paths, 1):
        write_file(path, each, seed=number)
    return paths


def start_writers(bench: Workbench, path: Path, sources: list[Path]) -> list[Child]:
    """Start a process for each file; all wait for a word."""
    return [bench.start("ingest", source, DATABASE_URL=f"sqlite:///{path}") for source in sources]


def together(writers: list[Child], beside: Child | None = None) -> list[Measured]:
    """Let them all begin at once; return their answers when all have ended."""
    for writer in writers:
        writer.wait_until_ready()
    for child in [*writers, *([beside] if beside else [])]:
        child.tell("go")
    return [writer.finish() for writer in writers]


def throughput(answers: list[Measured], each: int) -> Measured:
    """Return what processes did together, from the first one's begin to the last one's end."""
    seconds = max(answer["ended"] for answer in answers) - min(
        answer["began"] for answer in answers
    )
    return {
        "processes": len(answers),
        "events_each": each,
        "events_per_second": round(len(answers) * each / seconds),
        "seconds": round(seconds, 3),
    }


def percentile(ordered: list[float], percent: int) -> float:
    """Return the smallest value that so many percent are not above."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def check(path: Path, events: int, *, state: bool = True) -> None:
    """Raise BenchError where not every event is there once, up to the head."""
    with closing(sqlite3.connect(path)) as database:
        count, newest = database.execute(
            "SELECT COUNT(*), MAX(seq) FROM audit_auditevent"
        ).fetchone()
        keys = database.execute("SELECT COUNT(*) FROM audit_eventkey").fetchone()[0]
        found = [count, newest, keys]
        if state:
            head = database.execute(
                "SELECT head_seq FROM audit_logstate JOIN audit_auditevent "
                "ON seq = head_seq AND link = head_link"
            ).fetchone()
            found.append(head[0] if head else 0)
    if set(found) != {events}:
        raise BenchError(f"{path.name} should have {events:,} events: counts, keys, head {found}.")


def as_text(report: Measured) -> str:
    """Return what a person reads."""
    one, bare, four, single = (report[name] for name in ("one", "bare", "four", "single"))
    verdict = "under" if single["p99_seconds"] < LIMIT_SECONDS else "NOT under"
    rows = (
        (
            f"one process     {one['events_per_second']:>8,} events/s from after start-up "
            f"({one['events_per_second_with_start']:,} with it), {one['peak_mb']:,.0f} MB"
        ),
        (
            f"bare inserts    {bare['events_per_second']:>8,} events/s; ingest reaches "
            f"{report['ratio_to_bare']:.2f} of that"
        ),
        (
            f"four processes  {four['events_per_second']:>8,} events/s together, "
            f"{report['ratio_four_to_one']:.2f} of one"
        ),
        (
            f"single events   p50 {single['p50_seconds']:.3f} s, p99 "
            f"{single['p99_seconds']:.3f} s ({verdict} {LIMIT_SECONDS:.0f} s), max "
            f"{single['max_seconds']:.3f} s"
        ),
        (
            f"                of {single['count']:,} appends ({single['failed']} failed) beside "
            f"{WRITERS} processes with {single['writers']['events_per_second']:,} events/s"
        ),
    )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
