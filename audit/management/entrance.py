"""What the commands share: stopping on a signal, a progress bar on a terminal."""

from __future__ import annotations

import gc
import getpass
import io
import os
import select
import signal
import socket
import threading
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, BinaryIO

from audit.format.record import MAX_INTEGER

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and Ctrl-C set, in place of what they do otherwise.

    A second one of them does what it did before.
    """
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        restore()

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()


@contextmanager
def interrupt_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM take effect only when what is begun here has been done."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def woken_by_signals(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Yield a reader of the same file in whose waiting no signal is lost.

    read(2) goes to sleep over a signal that came just after the interpreter has last looked for
    one, or that another thread was given: Ctrl-C then does nothing until the pipe has more.
    """
    asleep, waker = socket.socketpair()
    with asleep, waker:
        asleep.setblocking(False)
        waker.setblocking(False)
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            yield io.BufferedReader(_Woken(stream.fileno(), asleep))
        finally:
            signal.set_wakeup_fd(before)


class _Woken(io.RawIOBase):
    """Waits for a file and for signals at once."""

    def __init__(self, file: int, signals: socket.socket) -> None:
        self._file, self._signals = file, signals
        self._poll = select.poll()
        self._poll.register(file, select.POLLIN)
        self._poll.register(signals, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while self._file not in dict(self._poll.poll()):
            with suppress(BlockingIOError):
                self._signals.recv(64)  # its handler has run by now, and has not raised
        return os.readv(self._file, [buffer])


@contextmanager
def settled_heap() -> Iterator[None]:
    """Spare the garbage collector what is there already, all of Django, while many objects pass.

    Else it looks all of that through again with every few ten thousand of them.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def who() -> str:
    """Return the name of the system's user who typed the command."""
    try:
        return printable(getpass.getuser())
    except (KeyError, OSError):
        return "unknown"


def here() -> str:
    """Return from where the command was typed: the machine, and the terminal's far end by SSH."""
    client = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
    return printable(f"{socket.gethostname()}{f', by SSH from {client}' if client else ''}")


def printable(text: str) -> str:
    """Return a name from the system in a form that a database column can hold."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")[:200]


def positive(text: str) -> int:
    """Return a whole number from 1 to the largest that a record can hold."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_INTEGER:
        raise ArgumentTypeError(f"{text} is not a whole number from 1 up to 2^53-1")
    return int(text)
