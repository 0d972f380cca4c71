"""What the commands share: signals, and who typed."""

from __future__ import annotations

import gc
import getpass
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest

from audit.management.entrance import (
    SIGNALS,
    interrupt_on_sigterm,
    interrupts_held,
    settled_heap,
    stop_on_signal,
    who,
    woken_by_signals,
)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[Any]]:
    """Give every test signals that would be noticed, and see that it leaves them as they were."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    came: list[Any] = []
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: came.append(number))
    mine = [signal.getsignal(number) for number in SIGNALS]
    try:
        yield came
        assert [signal.getsignal(number) for number in SIGNALS] == mine
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    """Send this process a signal; Python runs the handler before this returns."""
    signal.raise_signal(number)


both = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


# stop_on_signal ----------------------------------------------------------------------------


@both
def test_the_first_signal_asks_to_stop(number: signal.Signals, handlers: list[Any]) -> None:
    with stop_on_signal() as stop:
        assert not stop.is_set()
        send(number)
        assert stop.is_set()
    assert handlers == []


@both
def test_a_second_signal_does_what_it_did_before(
    number: signal.Signals, handlers: list[Any]
) -> None:
    with stop_on_signal():
        send(number)
        send(number)
    assert handlers == [number]


@both
def test_after_it_signals_do_what_they_did_before(
    number: signal.Signals, handlers: list[Any]
) -> None:
    with pytest.raises(ZeroDivisionError), stop_on_signal() as stop:
        raise ZeroDivisionError
    send(number)
    assert not stop.is_set()
    assert handlers == [number]


# interrupt_on_sigterm ----------------------------------------------------------------------


def test_sigterm_interrupts_as_ctrl_c_does(handlers: list[Any]) -> None:
    with pytest.raises(KeyboardInterrupt), interrupt_on_sigterm():
        send(signal.SIGTERM)
    send(signal.SIGTERM)
    assert handlers == [signal.SIGTERM]


# interrupts_held ---------------------------------------------------------------------------


@both
def test_what_is_begun_is_finished_before_it_is_interrupted(number: signal.Signals) -> None:
    done: list[str] = []

    def work() -> None:
        with interrupts_held():
            send(number)
            send(number)
            done.append("this")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["this"]


def test_without_a_signal_nothing_is_interrupted() -> None:
    with interrupts_held():
        pass


@both
def test_an_error_inside_comes_before_the_interruption(number: signal.Signals) -> None:
    def work() -> None:
        with interrupts_held():
            send(number)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


# who ---------------------------------------------------------------------------------------


def test_who_typed_is_the_system_s_user() -> None:
    assert who() == getpass.getuser()


def test_a_process_without_a_user_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no entry in /etc/passwd."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert who() == "unknown"


# settled_heap ------------------------------------------------------------------------------


def test_what_is_there_already_is_spared_by_the_collector_meanwhile() -> None:
    before = gc.get_freeze_count()
    with settled_heap():
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == 0


# woken_by_signals ----------------------------------------------------------------------------


def test_a_signal_ends_waiting_also_where_it_does_not_interrupt_the_read() -> None:
    """The signal is given to another thread, as if it had come just before this one sleeps."""
    reading, writing = os.pipe()
    thread = threading.Timer(0.05, send_here)

    def wait(file: BinaryIO) -> None:
        thread.start()
        file.readline()

    with (
        os.fdopen(reading, "rb") as file,
        os.fdopen(writing, "wb"),
        interrupt_on_sigterm(),
        woken_by_signals(file) as woken,
        pytest.raises(KeyboardInterrupt),
    ):
        wait(woken)
    thread.join()
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_stops_nothing_loses_no_line(handlers: list[Any]) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb") as other:

        def go_on() -> None:
            send_here()
            other.write(b"one\ntwo")
            other.close()

        thread = threading.Timer(0.05, go_on)
        with woken_by_signals(file) as woken:
            thread.start()
            assert woken.readlines() == [b"one\n", b"two"]
        thread.join()
    assert handlers == [signal.SIGTERM]


def send_here() -> None:
    """Send SIGTERM to the thread that calls this."""
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
