"""What a benchmark runs on: a temporary folder, made-up settings, an S3 server, child processes.

This process only starts others and adds up what they say. It stays small, since Linux counts the
memory of the process that starts another one into the peak of the new one.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("django", "boto3", "storages", "isal", "orjson", "tqdm")
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV")


class BenchError(Exception):
    """The benchmark cannot go on; the message says why in a sentence."""


class Workbench:
    """A folder with everything in it, and the environment of all child processes.

    Nothing of a `.env`, of the settings or of the proxies of whoever runs this gets in; secrets
    are made up. Leaving it ends every child and removes the folder, on Ctrl-C and SIGTERM too.
    """

    def __init__(self, **settings: str) -> None:
        """Take further settings of the software."""
        self._settings = settings
        self._stack = ExitStack()
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise BenchError(
                f"{', '.join(missing)} cannot be imported by {sys.executable}: run "
                "./scripts/bootstrap.sh --no-serve, then use .venv/bin/python."
            )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self.folder = Path(tempfile.mkdtemp(prefix="dezky-audit-bench-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.env = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | {
            "TMPDIR": str(self.folder),
            "DJANGO_SETTINGS_MODULE": "dezky.settings",
            "DEZKY_ENV_FILE": "",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "ALLOWED_HOSTS": "127.0.0.1,localhost",
            "AUDIT_ORIGIN": "dezky-bench",
            "AUDIT_SIGNING_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "AUDIT_COLD_ENDPOINT": "http://127.0.0.1:9",  # nobody's, until a server is started
            "AUDIT_COLD_REGION": "us-east-1",
            "AUDIT_COLD_BUCKET": "dezky-audit",
            "AUDIT_COLD_ACCESS_KEY": "bench-access",
            "AUDIT_COLD_SECRET_KEY": secrets.token_urlsafe(24),
            "AUDIT_COLD_PREFIX": "audit/v1",
            **self._settings,
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A second Ctrl-C must not leave the folder behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for child in self._children:
            child.kill()
        self._stack.close()

    def start_s3(self) -> None:
        """Start the local S3 server on a free port; every later child knows it."""
        server = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "scripts/local_s3.py"),
                f"--dir={self.folder / 's3'}",
                f"--bucket={self.env['AUDIT_COLD_BUCKET']}",
                "--with-parent",
            ],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which then stops the server
        )
        self._stack.callback(_stop, server)
        assert server.stdout is not None  # noqa: S101  # for the type checker: it is a pipe
        line = server.stdout.readline()
        if not line.startswith("ready "):
            raise BenchError("The local S3 server did not start; it has said why above.")
        self.env["AUDIT_COLD_ENDPOINT"] = line.split()[1]

    def migrated(self, name: str) -> Path:
        """Make an empty database by `manage.py migrate`."""
        path = self.folder / name
        self._run(
            [sys.executable, "manage.py", "migrate", "-v0"], DATABASE_URL=f"sqlite:///{path}"
        )
        checkpoint(path)
        return path

    def copy(self, template: Path, name: str) -> Path:
        """Copy a database that was checkpointed; it is on the disk when a measurement begins."""
        path = self.folder / name
        shutil.copyfile(template, path)
        with path.open("rb") as file:
            # Else whoever is measured waits for this copy at its own first fsync.
            os.fsync(file.fileno())
        return path

    def child(self, module: str, *args: object, **env: str) -> dict[str, Any]:
        """Run `benchmarks.children.<module>` to its end; return the object that it prints."""
        return answer_of(self._run(_command(module, args), **env))

    def start(self, module: str, *args: object, **env: str) -> Child:
        """Start a child that says `ready` and waits to be told to go."""
        child = Child(_command(module, args), {**self.env, **env})
        self._children.append(child)
        return child

    def _run(self, command: list[str], **env: str) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which then ends it
            check=False,
        )
        if done.returncode:
            raise BenchError(f"{' '.join(command[1:])} ended with exit code {done.returncode}.")
        return done.stdout.decode()


class Child:
    """A child that waits for a word before it begins, so that several begin together."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        """Start it."""
        self._name = " ".join(command[1:])
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        """Wait until it has started up."""
        assert self._process.stdout is not None  # noqa: S101  # for the type checker: a pipe
        if self._process.stdout.readline() != "ready\n":
            raise BenchError(f"{self._name} did not start.")

    def tell(self, word: str) -> None:
        """Send it a word: `go`, or `stop`."""
        assert self._process.stdin is not None  # noqa: S101  # for the type checker: a pipe
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """Wait until it has ended; return the object that it printed."""
        out, _ = self._process.communicate()
        if self._process.returncode:
            raise BenchError(f"{self._name} ended with exit code {self._process.returncode}.")
        return answer_of(out)

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def present(
    measure: Callable[[], dict[str, Any]], as_table: Callable[[dict[str, Any]], str], as_json: bool
) -> int:
    """Measure, print the report, return the exit code: what every benchmark ends with."""
    try:
        report = measure()
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; everything temporary is gone.\n")
        return 130
    print(json.dumps(report) if as_json else as_table(report))
    return 0


def checkpoint(path: Path) -> None:
    """Bring everything from the WAL into the database's file, so that it can be copied alone."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def remove_database(path: Path) -> None:
    """Remove a copy and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def answer_of(out: str) -> dict[str, Any]:
    """Return the JSON object on the last line."""
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def progress(text: str) -> None:
    """Say on standard error what goes on."""
    sys.stderr.write(text + "\n")


def _command(module: str, args: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.children.{module}", *map(str, args)]


def _stop(server: subprocess.Popen[str]) -> None:
    server.terminate()
    server.wait()
