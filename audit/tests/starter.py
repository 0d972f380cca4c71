"""Starts our processes at a third of the price: each is a process of its own all the same.

    python -m audit.tests.starter FD

Django and the libraries are loaded once, and each process is a fork of that: it reads its own
environment, takes its settings from there, and ends with its own exit code. FD is a socket: JSON
objects go over it, each after its length, and the files that are a process's standard input,
output and error.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import django
from django.conf import settings
from django.core.files.storage import storages
from django.core.files.storage.handler import StorageHandler
from django.db import connections
from django.db.utils import ConnectionHandler
from django.utils.functional import empty

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
PATIENCE = 60
LENGTH_BYTES = 4
LOADED = """boto3.s3.inject boto3.resources.factory botocore.client botocore.parsers
    s3transfer.manager isal.igzip tqdm audit.tests.driver
    audit.management.commands.archive_now audit.management.commands.checkpoint_now
    audit.management.commands.ingest_events audit.management.commands.rebuild_ledger
    audit.management.commands.verify_audit
    cryptography.hazmat.primitives.asymmetric.ed25519
    requests rest_framework.serializers rest_framework.views"""
MANAGE = ["manage.py"]
SETTINGS = "dezky.settings"


class Starter:
    """The process that starts others, as seen from the tests."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def manage(
        self, env: dict[str, str], *args: str, data: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a management command to its end; `data` is its standard input."""
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(data)
            given.seek(0)
            pid = self._fork([*MANAGE, *args], env, [given, out, err])
            code = self.wait(pid, PATIENCE)
            if code is None:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(args), PATIENCE)
            said = [_text(out), _text(err)]
        return subprocess.CompletedProcess(args, code, *said)

    def start(self, env: dict[str, str], command: Sequence[str]) -> Started:
        """Start `manage.py …` or a module with a `main`, with pipes; see `Started`."""
        given, to_it = os.pipe()
        from_it, said = os.pipe()
        with os.fdopen(given) as stdin, os.fdopen(said, "w") as stdout:
            pid = self._fork(list(command), env, [stdin, stdout, stdout])
        return Started(
            self,
            pid,
            os.fdopen(to_it, "w", encoding="utf-8"),
            os.fdopen(from_it, encoding="utf-8"),
        )

    def wait(self, pid: int, seconds: float) -> int | None:
        """Return the exit code of a process, None where it has not ended in that time."""
        answer = self._ask({"wait": pid, "seconds": seconds})
        return int(answer) if answer is not None else None

    def _fork(self, command: list[str], env: dict[str, str], files: list[IO[Any]]) -> int:
        numbers = [file.fileno() for file in files]
        return int(self._ask({"command": command, "env": env}, numbers))

    def _ask(self, value: object, numbers: Sequence[int] = ()) -> Any:
        _send(self._connection, value, numbers)
        return _receive(self._connection)[0]


class Started:
    """A process that runs, in the ways of `subprocess.Popen` that the tests need."""

    def __init__(self, starter: Starter, pid: int, stdin: IO[str], stdout: IO[str]) -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self._starter = starter
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        if self._code is None:
            self._code = self._starter.wait(self.pid, 0)
        return self._code

    def wait(self, timeout: float) -> int:
        """Wait until it has ended; return its exit code."""
        if self._code is None:
            self._code = self._starter.wait(self.pid, timeout)
        if self._code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self._code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _send(connection: socket.socket, value: object, numbers: Sequence[int] = ()) -> None:
    data = json.dumps(value).encode()
    socket.send_fds(connection, [len(data).to_bytes(LENGTH_BYTES)], list(numbers))
    connection.sendall(data)


def _receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """Return the next object and the descriptors that came with it; EOFError at the end."""
    head, numbers, _, _ = socket.recv_fds(connection, LENGTH_BYTES, 3)
    if not head:
        raise EOFError
    missing, data = int.from_bytes(head), b""
    while len(data) < missing:
        data += connection.recv(missing - len(data))
    return json.loads(data), numbers


def _text(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@contextmanager
def starter() -> Iterator[Starter]:
    """Run it; it ends with its socket."""
    ours, its = socket.socketpair()
    with (
        ours,
        subprocess.Popen(
            [sys.executable, "-m", "audit.tests.starter", str(its.fileno())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
        ) as process,
    ):
        its.close()
        yield Starter(ours)
        ours.close()
        process.wait(PATIENCE)


def main() -> None:
    """Serve until nobody asks any more."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    django.setup()
    for name in LOADED.split():
        importlib.import_module(name)
    gc.freeze()  # else each process goes through all that, and copies it, when it collects
    while True:
        try:
            asked, numbers = _receive(connection)
        except EOFError:
            return
        if "wait" in asked:
            _send(connection, _wait(asked["wait"], asked["seconds"]))
            continue
        pid = os.fork()
        if pid == 0:
            connection.close()
            carry_out(asked["env"], asked["command"], numbers)
        for number in numbers:
            os.close(number)
        _send(connection, pid)


def _wait(pid: int, seconds: float) -> int | None:
    until = time.monotonic() + seconds
    pause = 0.001
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def carry_out(env: dict[str, str], command: list[str], numbers: list[int]) -> NoReturn:
    """Be the process; never returns."""
    code: object = 1
    try:
        for place, number in enumerate(numbers):
            os.dup2(number, place)
            os.close(number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # as long as the process lives
        tempfile.tempdir = None  # it was found out by another TMPDIR
        os.environ.clear()
        os.environ.update(env, DJANGO_SETTINGS_MODULE=SETTINGS)
        forget_settings()
        if command[:1] == MANAGE:
            from django.core.management import execute_from_command_line

            execute_from_command_line(command)
        else:
            sys.argv = command
            importlib.import_module(command[0]).main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def forget_settings() -> None:
    """Let Django read its settings anew, and forget what it has made of the ones before."""
    sys.modules.pop(SETTINGS)
    known: Any = settings
    known._wrapped = empty
    # As they are when they are made: both are the only ones of their kind.
    connections.__dict__.clear()
    ConnectionHandler.__init__(connections)
    storages.__dict__.clear()
    StorageHandler.__init__(storages)


if __name__ == "__main__":
    main()
