"""Take in a file of generic events: `manage.py ingest_events FILE|-`."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from tqdm import tqdm

from audit import ingest, log
from audit.format.errors import AuditError, RecordError
from audit.ingest import LineReader
from audit.log import Draft
from audit.management.chunks import BOM, Chunk, RejectFile
from audit.management.entrance import (
    interrupt_on_sigterm,
    interrupts_held,
    settled_heap,
    woken_by_signals,
)

CACHE_KIB = 32 * 1024  # of the database's pages; twice as many take memory and gain nothing
COPY_BYTES = 1024 * 1024
SOURCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}", re.ASCII)
SHOWN_REJECTS = 20
SHOWN_TENANTS = 20
SHOWN_CHARACTERS = 63
EXIT_REJECTS = 3
EXIT_INTERRUPTED = 130


class Command(BaseCommand):
    """Bulk ingest from a file or standard input."""

    help = (
        "Append the events of a JSON Lines file (members: occurred_at, external_id, tenant, "
        "actor, action, target, outcome, data). A line that cannot be taken is reported and goes "
        "unchanged to a reject file. Run it again at will: what is there already is recognised. "
        "Exit codes: 0 all lines are in, 3 some were rejected, 1 stopped by an error, 130 by "
        "Ctrl-C or SIGTERM."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the documented arguments."""
        parser.add_argument("file", metavar="FILE", help="a file, or - for standard input")
        parser.add_argument(
            "--source", default="platform", help="who reports the events (default: platform)"
        )
        parser.add_argument(
            "--rejects",
            metavar="PATH",
            help="the reject file; it must not exist (default: beside FILE, with the time)",
        )

    def handle(
        self, *args: Any, file: str, source: str, rejects: str | None, **options: Any
    ) -> None:
        """Ingest, print the tally, exit with its code."""
        if source == ingest.OWN_SOURCE or not SOURCE.fullmatch(source):
            raise CommandError(
                f"{source!a} cannot be a source here: give at most 50 lower-case letters, "
                f"digits, dots and dashes, other than '{ingest.OWN_SOURCE}', which is this "
                "software's own.",
                returncode=2,
            )
        if rejects and Path(rejects).exists():
            raise CommandError(f"{rejects} exists already: name another reject file.")
        tally = Tally()
        with interrupt_on_sigterm(), settled_heap():
            try:
                self.ingest(file, source, rejects, tally)
            except KeyboardInterrupt:
                at = f"at line {tally.stopped_at:,}" if tally.stopped_at else "before any line"
                self.stderr.write(
                    f"Stopped on request {at}: run the same command again to go on; what is in "
                    "already is recognised."
                )
                sys.exit(EXIT_INTERRUPTED)
        if tally.rejected:
            sys.exit(EXIT_REJECTS)

    def ingest(self, file: str, source: str, rejects: str | None, tally: Tally) -> None:
        """Append the file's lines; what became of them is counted in `tally`."""
        with contextlib.ExitStack() as stack:
            try:
                stream: BinaryIO = (
                    sys.stdin.buffer if file == "-" else stack.enter_context(Path(file).open("rb"))
                )
            except OSError as error:
                raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
            reject_file = stack.enter_context(RejectFile(_reject_path(file, rejects)))
            reader = stack.enter_context(ingest.line_reader(source))
            size = Path(file).stat().st_size if file != "-" else None
            bar: tqdm[Any] = stack.enter_context(
                tqdm(total=size, unit="B", unit_scale=True, leave=False, disable=None)
            )
            lane = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="parse"))
            # What may have to be waited for is read only when the lines before it are in.
            look_ahead = file != "-" and Path(file).is_file()
            if not look_ahead:
                stream = stack.enter_context(woken_by_signals(stream))
            try:
                log.bound_page_cache(CACHE_KIB)
                chunks = _chunks(stream, reject_file, tally, self.stderr)
                chunk = next(chunks, None)
                while chunk:
                    drafts = self.sort_out(chunk, reader, reject_file, tally)
                    following = next(chunks, None) if look_ahead else None
                    begin = partial(following.begin, lane, reader) if following else None
                    # A signal comes before they are appended and counted, or after it.
                    with interrupts_held():
                        tally.add(log.append(drafts, before_commit=begin), drafts)
                        tally.waiting_line = chunk.numbers[-1] + 1
                    bar.update(chunk.size)
                    chunk = following or next(chunks, None)
            except KeyboardInterrupt:
                self.report(tally, reject_file)
                raise
            except (AuditError, DatabaseError, OSError) as error:
                self.report(tally, reject_file)
                reason = log.explain(error) if isinstance(error, DatabaseError) else str(error)
                raise CommandError(
                    f"Stopped at line {tally.stopped_at:,}; the lines before it are in, it and "
                    f"those after it are not: {reason} Then run the same command again: what is "
                    "in already is recognised."
                ) from None
        if tally.lines:
            self.report(tally, reject_file)
        else:
            self.stdout.write(f"{file} holds no lines: nothing to ingest.")

    def sort_out(
        self, chunk: Chunk, reader: LineReader, reject_file: RejectFile, tally: Tally
    ) -> list[Draft]:
        """Return the drafts of a chunk's lines; give back the lines that cannot be taken."""
        tally.lines += len(chunk.lines)
        drafts = []
        for number, line, found in zip(
            chunk.numbers, chunk.lines, chunk.drafts(reader), strict=True
        ):
            if isinstance(found, RecordError):
                reject_file.write(line)
                tally.reject(number, str(found), self.stderr)
            else:
                drafts.append(found)
        return drafts

    def report(self, tally: Tally, reject_file: RejectFile) -> None:
        """Print what became of the lines."""
        noun = "line" if tally.lines == 1 else "lines"
        seqs = f" (seq {tally.first_seq:,}–{tally.last_seq:,})" if tally.appended else ""
        self.stdout.write(
            f"{tally.lines:,} {noun}: {tally.appended:,} appended{seqs}, {tally.duplicates:,} "
            f"duplicates, {tally.rejected:,} rejected"
        )
        if tally.conflicts:
            self.stdout.write(
                f"flagged: {tally.conflicts:,} say something else than an event with the same "
                "external id; all are kept"
            )
        unknown = ingest.unknown_tenants(tally.tenants)
        if unknown:
            count = sum(tally.tenants[slug] for slug in unknown)
            names = ", ".join(slug[:SHOWN_CHARACTERS] for slug in sorted(unknown)[:SHOWN_TENANTS])
            more = " …" if len(unknown) > SHOWN_TENANTS else ""
            self.stdout.write(
                f"flagged: {count:,} events of {len(unknown):,} unknown tenants are kept: "
                f"{_printable(names)}{more}"
            )
        if tally.rejected:
            self.stdout.write(f"rejected lines, unchanged: {reject_file.path}")


class Tally:
    """What became of the lines of one file."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.lines = self.appended = self.duplicates = self.conflicts = self.rejected = 0
        self.first_seq = self.last_seq = self.last_line = self.waiting_line = 0
        self.tenants: Counter[str] = Counter()

    @property
    def stopped_at(self) -> int:
        """Return the first line that is not in if ingesting stops now, 0 before any line."""
        return self.waiting_line or self.last_line

    def reject(self, number: int, reason: str, stderr: Any) -> None:
        """Count a rejected line, and name it."""
        self.rejected += 1
        if self.rejected <= SHOWN_REJECTS:
            stderr.write(f"line {number:,} rejected: {_printable(reason)}")
        elif self.rejected == SHOWN_REJECTS + 1:
            stderr.write("more lines rejected; the last line counts them")

    def add(self, answers: list[log.Appended], drafts: list[Draft]) -> None:
        """Count what append answered."""
        seqs = [answer.seq for answer in answers if not answer.duplicate]
        if seqs:
            self.first_seq = self.first_seq or seqs[0]
            self.last_seq = seqs[-1]
        self.appended += len(seqs)
        self.duplicates += len(answers) - len(seqs)
        self.conflicts += sum([answer.conflict for answer in answers])
        self.tenants.update(
            draft.event["tenant"]
            for answer, draft in zip(answers, drafts, strict=True)
            if not answer.duplicate
        )


def _reject_path(file: str, given: str | None) -> Path:
    if given:
        return Path(given)
    name = "stdin" if file == "-" else file
    return Path(f"{name}.rejects-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z.jsonl")


def _chunks(
    stream: BinaryIO, reject_file: RejectFile, tally: Tally, stderr: Any | TextIO
) -> Iterator[Chunk]:
    """Yield the lines that are not blank and not too long, some at a time.

    A line that is too long goes to the reject file in parts and is never held as a whole.
    """
    chunk, number = Chunk(), 0
    while line := stream.readline(ingest.MAX_LINE_BYTES + 1):
        number += 1
        tally.last_line = number
        if len(line) > ingest.MAX_LINE_BYTES and not line.endswith(b"\n"):
            if chunk.lines:  # they come first in the reject file, too
                yield chunk
                chunk = Chunk()
            tally.lines += 1
            reject_file.write(line)
            while part := stream.readline(COPY_BYTES):
                reject_file.write(part)
                if part.endswith(b"\n"):
                    break
            tally.reject(number, f"longer than {ingest.MAX_LINE_BYTES:,} bytes", stderr)
        elif (line if number > 1 else line.removeprefix(BOM)).strip():
            tally.waiting_line = tally.waiting_line or number
            chunk.add(number, line)
            if chunk.is_full():
                yield chunk
                chunk = Chunk()
    if chunk.lines:
        yield chunk


def _printable(text: str) -> str:
    """Return a text that can be shown on any terminal."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
