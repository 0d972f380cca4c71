"""What of a file is ingested at once: some lines, and a place for those that cannot be taken."""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import BinaryIO

from audit.format.errors import RecordError
from audit.ingest import LineReader
from audit.log import Draft

CHUNK_LINES = 2_000
CHUNK_BYTES = 8 * 1024 * 1024
BOM = b"\xef\xbb\xbf"


class Chunk:
    """The lines that go in together, each with its number, as they are in the file.

    They can be parsed in a thread while the ones before them are committed: that is SQLite's
    work and the disk's, half of what an append takes, and needs no interpreter.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self.numbers: list[int] = []
        self.lines: list[bytes] = []
        self.size = 0
        self._parsed: Future[list[Draft | RecordError]] | None = None

    def add(self, number: int, line: bytes) -> None:
        """Add a line."""
        self.numbers.append(number)
        self.lines.append(line)
        self.size += len(line)

    def is_full(self) -> bool:
        """Say whether it is time to append."""
        return len(self.lines) >= CHUNK_LINES or self.size >= CHUNK_BYTES

    def begin(self, lane: Executor, reader: LineReader) -> None:
        """Begin to parse the lines in a thread."""
        self._parsed = lane.submit(reader.drafts, self.texts())

    def drafts(self, reader: LineReader) -> list[Draft | RecordError]:
        """Return the draft of each line, or why there is none."""
        return self._parsed.result() if self._parsed else reader.drafts(self.texts())

    def texts(self) -> list[bytes]:
        """Return the lines without their ends, and the file's first without its mark."""
        texts = [line.rstrip(b"\r\n") for line in self.lines]
        if self.numbers[:1] == [1]:
            texts[0] = texts[0].removeprefix(BOM)
        return texts


class RejectFile:
    """Where rejected lines go, byte for byte; made when the first one comes."""

    def __init__(self, path: Path) -> None:
        """Write to this path, which must not exist."""
        self.path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> RejectFile:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file, if there is one."""
        if self._file:
            os.fsync(self._file.fileno())
            self._file.close()

    def write(self, part: bytes) -> None:
        """Write a line, or a part of a long one; raises OSError."""
        if self._file is None:
            self._file = self.path.open("xb")
        self._file.write(part)
        self._file.flush()
