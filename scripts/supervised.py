#!/usr/bin/env python3
"""Run one process of the stack under honcho, and leave nothing of it behind.

    supervised.py NAME [--last] -- COMMAND…

honcho prefixes what the processes say, and stops them all when it is told to or when one of them
ends. What it does not do is done here, of Linux alone:

- Where honcho itself is killed, the command is stopped: the kernel tells it by a pidfd.
- The kernel kills the command when this process is killed.
- Whatever the command leaves in its process group is killed once it has ended.
- The first that ends by itself is named in the file `ended`.
- What was started with --last (Redis, S3) is stopped when the others are gone: a worker can still
  hand back its task, and a run end its step.

The environment: DEZKY_SUPERVISOR is honcho's pid, DEZKY_STACK a folder of this one start.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

from local_server import die_with

Steps = tuple[tuple[signal.Signals, float], ...]  # and for how many seconds it is waited for
# honcho kills what is left 5 s after the first has ended. Celery ends its tasks before it stops at
# SIGTERM, however long they take, and hands them back at SIGQUIT.
STEPS = ((signal.SIGTERM, 2.0), (signal.SIGQUIT, 1.5))
LAST_STEPS = ((signal.SIGTERM, 10.0),)
OTHERS_SECONDS = 4.0
POLL_SECONDS = 0.05


def main() -> int:
    """Run the command; return its exit code, 0 where it was told to stop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--last", action="store_true", help="stop it when the others are gone")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    folder = Path(os.environ["DEZKY_STACK"])
    bell = ring_at_signals()
    supervisor = pidfd(int(os.environ["DEZKY_SUPERVISOR"]))
    with (folder / "running").open("a") as running:
        if not arguments.last:
            fcntl.flock(running, fcntl.LOCK_SH)
        command = subprocess.Popen(
            arguments.command,
            process_group=0,
            preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 (there are no threads here)
        )
        try:
            told = wait_for(command, bell, supervisor)
            if told and arguments.last:
                wait_for_others(running)
            if told:
                stop(command, LAST_STEPS if arguments.last else STEPS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
            code = command.wait()
    if told:
        return 0
    report(folder, arguments.name, code)
    return code if code > 0 else 1


def ring_at_signals() -> socket.socket:
    """Return what can be read from once SIGTERM, SIGINT or SIGHUP has come."""
    bell, clapper = socket.socketpair()
    clapper.setblocking(False)
    signal.set_wakeup_fd(clapper.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, note)
    return bell


def note(_number: int, _frame: FrameType | None) -> None:
    """Be a signal handler: the bell rings without it."""


def pidfd(pid: int) -> int | None:
    """Return what can be read from once that process has ended, None where it has already."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def wait_for(
    command: subprocess.Popen[bytes], bell: socket.socket, supervisor: int | None
) -> bool:
    """Wait for whichever comes first; tell whether it is to be stopped and has not ended."""
    end = pidfd(command.pid)
    if supervisor is None or end is None:
        return command.poll() is None
    ready, _, _ = select.select([bell.fileno(), supervisor, end], [], [])
    return end not in ready or command.poll() is None


def wait_for_others(running: IO[str]) -> None:
    """Wait until all that was not started with --last is gone, or for long enough."""
    give_up = time.monotonic() + OTHERS_SECONDS
    while time.monotonic() < give_up:
        with suppress(BlockingIOError):
            fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(running, fcntl.LOCK_UN)
            return
        time.sleep(POLL_SECONDS)


def stop(
    command: subprocess.Popen[bytes], steps: tuple[tuple[signal.Signals, float], ...]
) -> None:
    """Ask it to end, ever less kindly; the caller kills what is left."""
    for number, seconds in steps:
        command.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            command.wait(seconds)
            return


def report(folder: Path, name: str, code: int) -> None:
    """Name the first that ended by itself."""
    how = f"exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    with suppress(FileExistsError), (folder / "ended").open("x") as file:
        file.write(f"{name} ended by itself ({how})\n")


if __name__ == "__main__":
    sys.exit(main())
