"""What the servers share that run on loopback, in the foreground, until they are told to stop.

- Their folder has a lock, which the server inherits: it holds until the server is gone, too.
- The kernel kills the server when the process that started it dies, in whatever way.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

import holders

HOST = "127.0.0.1"
EXIT_FAILED, EXIT_USAGE, EXIT_PORT_IN_USE, EXIT_DIR_IN_USE = 1, 2, 3, 4

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
LOCK_SECONDS = 2.0
POLL_SECONDS = 0.02
LOG_LINES = 10


class LocalServerError(Exception):
    """The server cannot run. The message is for the person, the code for the shell."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code = code


class Stop(BaseException):
    """SIGTERM or SIGINT came. Not an Exception, so that nothing on the way takes it for one."""


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser, to which the server adds --port and whatever else it takes."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, required=True, help="where its data and log go")
    return parser


def serve(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], None], lowest_port: int
) -> int:
    """Run the server until told to stop; return the exit code."""
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when the starting process ends, too"
    )
    arguments = parser.parse_args()
    if not lowest_port <= arguments.port <= 65_535:
        parser.error(f"--port {arguments.port}: a port is a number from {lowest_port} to 65535")
    arguments.dir = arguments.dir.resolve()  # the server has another working directory
    try:
        listen_to_signals()
        if arguments.with_parent:
            signal_on_parent_death(signal.SIGTERM)
        run(arguments)
    except LocalServerError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    except Stop:
        pass
    return 0


def lock_folder(folder: Path, what: str) -> IO[str]:
    """Make the folder and return its lock, held.

    Raises LocalServerError if it cannot be made, or if a running server has it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalServerError(f"{folder} cannot be made: {error.strerror}.", EXIT_USAGE) from None
    lock = (folder / "lock").open("a+")
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # A server whose starter was killed is still on its way out for a moment.
            if time.monotonic() > give_up:
                lock.seek(0)
                holder = lock.read().strip()
                by = f" of {holders.describe(int(holder))}" if holder.isdigit() else ""
                raise LocalServerError(
                    f"{folder} is in use by another {what}{by}: stop that one first.",
                    EXIT_DIR_IN_USE,
                ) from None
            time.sleep(POLL_SECONDS)
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def start(
    command: list[str], log: Path, lock: IO[str], env: dict[str, str], stdin: int
) -> subprocess.Popen[bytes]:
    """Start the process in the log's folder; the log of the run before is kept as ….log.1."""
    with suppress(FileNotFoundError):
        log.replace(log.with_suffix(".log.1"))
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={"PATH": os.environ.get("PATH", os.defpath), **env},
            pass_fds=(lock.fileno(),),
            # Ctrl-C is for this process, which then stops the server.
            start_new_session=True,
            preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 (there are no threads here)
        )


def say_ready(address: str) -> None:
    """Tell who waits for it."""
    sys.stdout.write(f"ready {address}\n")
    sys.stdout.flush()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the process, by force if it takes too long; from here on no signal disturbs that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def failure(who: str, what: str, log: Path) -> LocalServerError:
    """Return an error that shows how the log ends."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    begin = f"The {who} {what}. {log} ends:"
    return LocalServerError("\n".join([begin, *(f"    {line}" for line in lines)]))


def listen_to_signals() -> None:
    """Let SIGTERM and SIGINT raise Stop; SIGINT only if the starter did not ignore it."""
    signal.signal(signal.SIGTERM, raise_stop)
    if not INTERRUPT_IGNORED:
        signal.signal(signal.SIGINT, raise_stop)


def raise_stop(_number: int, _frame: FrameType | None) -> None:
    """Be a signal handler."""
    raise Stop


def die_with(parent: int) -> Callable[[], None]:
    """Return what makes a new child die with its parent, for it to call before its exec."""

    def prepare() -> None:
        signal_on_parent_death(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(EXIT_FAILED)

    return prepare


def signal_on_parent_death(number: signal.Signals) -> None:
    """Have the kernel send this signal when the parent ends: Linux's prctl(PR_SET_PDEATHSIG)."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


# A shell starts its background jobs with SIGINT ignored, and stops them itself.
INTERRUPT_IGNORED = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1
