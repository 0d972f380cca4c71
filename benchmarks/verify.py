#!/usr/bin/env python3
"""How fast and how large the offline verifier is: the real command, over a folder of its own.

    .venv/bin/python benchmarks/verify.py [--events N] [--rounds N] [--json]

A signed log with records of about 530 bytes and an hourly checkpoint is written into a folder by
the format alone. In each round `python -S -m audit.offline` verifies it with one process and with
two, from its start to its end, with every signature, byte, link and root. Shown is the median of
the rounds.

Beside the clock's time stands the processors' own, which other work on the machine changes less.
The memory of several processes is the sum of what each had at most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.workbench import ROOT, BenchError, Workbench, present, progress

MEGABYTE = 1_000_000
LOOK_SECONDS = 0.1
PROCESSES = (1, 2)
TARGETS = {"events_per_second": 200_000, "peak_mb": 200, "ratio": 1.7}

Measured = dict[str, Any]


def main() -> int:
    """Measure, print, return the exit code."""
    arguments = parse()
    return present(lambda: measure(arguments), as_table, arguments.json)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--batch-events", type=int, default=102_400, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if min(arguments.events, arguments.rounds, arguments.batch_events) < 1:
        parser.error("numbers are from 1 up")
    return arguments


def measure(arguments: argparse.Namespace) -> Measured:
    """Run all rounds; return what `--json` prints."""
    with Workbench() as bench:
        folder = bench.folder / "log"
        progress(f"writing a log of {arguments.events:,} events")
        written = bench.child("signed", folder, arguments.events, arguments.batch_events)
        rounds: dict[int, list[Measured]] = {number: [] for number in PROCESSES}
        for number in range(arguments.rounds):
            for processes in PROCESSES if number % 2 else PROCESSES[::-1]:
                measured = once(bench, folder, processes, arguments.events)
                rounds[processes].append(measured)
                progress(
                    f"round {number + 1}, {processes} process{'es' * (processes > 1)}: "
                    f"{arguments.events / measured['seconds']:,.0f} events/s, "
                    f"{measured['peak_mb']:,.0f} MB"
                )
    report: Measured = {
        f"processes_{number}": summary(results, arguments.events)
        for number, results in rounds.items()
    }
    one, two = (report[f"processes_{number}"]["events_per_second"] for number in PROCESSES)
    return report | {
        "ratio": round(two / one, 2),
        "events": arguments.events,
        "rounds": arguments.rounds,
        "batch_events": arguments.batch_events,
        "mean_record_bytes": round(written["bytes_uncompressed"] / arguments.events - 1, 1),
        "mb_uncompressed": round(written["bytes_uncompressed"] / MEGABYTE, 1),
        "mb_compressed": round(written["bytes_compressed"] / MEGABYTE, 1),
        "targets": TARGETS,
    }


def once(bench: Workbench, folder: Path, processes: int, events: int) -> Measured:
    """Verify the folder once; raises BenchError where the verdict is another one than ok."""
    command = [sys.executable, "-S", "-m", "audit.offline", str(folder), "--json"]
    options = ["--key", str(folder.with_suffix(".keys")), "--processes", str(processes)]
    before = os.times()
    began = time.monotonic()
    with subprocess.Popen(
        [*command, *options], cwd=ROOT, env=bench.env, stdout=subprocess.PIPE
    ) as process:
        peaks: dict[str, int] = {}
        while process.poll() is None:
            peaks |= memory(process.pid)
            time.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - began
        out, _ = process.communicate()
    after = os.times()
    answer = json.loads(out)
    if (process.returncode, answer["outcome"], answer.get("events")) != (0, "ok", events):
        raise BenchError(f"The verdict was {answer}.")
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return {
        "seconds": seconds,
        "processor_seconds": used,
        "peak_mb": sum(peaks.values()) * 1024 / MEGABYTE,
    }


def memory(pid: int) -> dict[str, int]:
    """Return the most memory, in KiB, that a process and each that it started has had so far."""
    found = {}
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                found[str(pid)] = int(line.split()[1])
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found |= memory(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended meanwhile
    return found


def summary(results: list[Measured], events: int) -> Measured:
    """Return the medians of the rounds."""
    seconds = median(result["seconds"] for result in results)
    used = median(result["processor_seconds"] for result in results)
    return {
        "events_per_second": round(events / seconds),
        "events_per_second_rounds": [round(events / result["seconds"]) for result in results],
        "events_per_processor_second": round(events / used),
        "seconds": round(seconds, 3),
        "processor_seconds": round(used, 3),
        "peak_mb": round(max(result["peak_mb"] for result in results), 1),
    }


def as_table(report: Measured) -> str:
    """Return what a person reads."""
    ways = [report[f"processes_{number}"] for number in PROCESSES]
    numbers = (
        ("events/s", "events_per_second", ",.0f"),
        ("events/s of a processor", "events_per_processor_second", ",.0f"),
        ("seconds", "seconds", ",.3f"),
        ("processor seconds", "processor_seconds", ",.3f"),
        ("peak MB, all together", "peak_mb", ",.1f"),
    )
    rows = [["", "one process", "two processes"]]
    rows += [[label, *(format(way[name], form) for way in ways)] for label, name, form in numbers]
    title = (
        f"{report['events']:,} events of {report['mean_record_bytes']:,.0f} bytes in batches of "
        f"{report['batch_events']:,}, {report['mb_compressed']:,.0f} MB compressed; median of "
        f"{report['rounds']} rounds"
    )
    lines = [
        title,
        *("".join([f"{row[0]:<26}", *(f"{cell:>16}" for cell in row[1:])]) for row in rows),
    ]
    lines.append(
        f"two processes are {report['ratio']:.2f} times as fast as one; wanted: "
        f"{TARGETS['events_per_second']:,} events/s by one, under {TARGETS['peak_mb']} MB, "
        f"{TARGETS['ratio']} times by two"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
