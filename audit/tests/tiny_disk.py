"""A real filesystem of a few KiB, which can be full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MOUNT = 'mount -t tmpfs -o "size=$1k,mode=1777" tmpfs "$2" && echo ready && exec cat'


@contextmanager
def tiny_disk(folder: Path, kib: int) -> Iterator[Path]:
    """Mount one over a folder, for root and others alike; yields where it can be seen.

    It is mounted in a namespace of a process of its own, which ends it: no other process sees it
    but by the path that is yielded. Where the kernel lets nobody do that, the test is skipped
    and says so.
    """
    folder.mkdir()
    with subprocess.Popen(
        [
            *("unshare", "--user", "--map-root-user", "--mount"),
            *("sh", "-c", MOUNT, "sh", str(kib), str(folder)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        line = holder.stdout.readline()
        if line != "ready\n":
            pytest.skip(f"no filesystem can be mounted here: {line.strip()}")
        yield Path(f"/proc/{holder.pid}/root{folder}")
        holder.stdin.close()


def fill(disk: Path) -> Path:
    """Take what room there is; return the file that does."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return path
