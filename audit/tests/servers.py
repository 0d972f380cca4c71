"""The real S3 servers that tests run against, each for one session, on a free port of loopback.

SeaweedFS keeps a name that is taken and can encrypt. The JuiceFS gateway, which is MinIO's code,
ignores `If-None-Match` and cannot encrypt: it stands for the services that are like it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE = 30
POLL = 0.2
HEARTBEAT = 1  # seconds after which JuiceFS hears of a new quota
# The kernel kills the program when the process that starts it ends, in whatever way.
WITH_PARENT = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)


@dataclass(frozen=True)
class Server(ABC):
    """A server that runs, with the bucket and the keys of the test session."""

    name: str
    endpoint: str
    folder: Path

    @property
    def client(self) -> Any:
        """Return a client of its own."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=os.environ["AUDIT_COLD_ACCESS_KEY"],
            aws_secret_access_key=os.environ["AUDIT_COLD_SECRET_KEY"],
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=PATIENCE,
                read_timeout=PATIENCE,
                retries={"mode": "standard", "total_max_attempts": 1},
            ),
        )

    @abstractmethod
    def full(self, bucket: str, folder: str) -> AbstractContextManager[None]:
        """Let a folder of the bucket have no more room, really."""


class SeaweedFS(Server):
    """SeaweedFS on all its ports."""

    @contextmanager
    def full(self, bucket: str, folder: str) -> Iterator[None]:
        """Close it for writing: this is what SeaweedFS does with a bucket above its quota."""
        change = f"fs.configure -locationPrefix=/buckets/{bucket}/{folder}/ -readOnly"
        self._shell(f"{change} -apply")
        try:
            yield
        finally:
            self._shell(f"{change} -delete -apply")

    def _shell(self, command: str) -> None:
        ports = json.loads((self.folder / "ports.json").read_text())
        addresses = [
            f"-{name}=127.0.0.1:{ports[f'{name}.port']}.{ports[f'{name}.port.grpc']}"
            for name in ("master", "filer")
        ]
        run(BIN / "weed", "shell", *addresses, data=f"{command}\nexit\n")


class JuiceFS(Server):
    """The JuiceFS gateway over a folder of this machine."""

    @contextmanager
    def full(self, bucket: str, folder: str) -> Iterator[None]:
        """Give it a quota that is used up."""
        client = self.client
        taken: list[str] = []
        self._quota("set", bucket, folder, "--create", "--inodes=1")
        try:
            with suppress(ClientError):  # it hears of the quota, and refuses
                while len(taken) < PATIENCE / POLL:
                    key = f"{folder}/taken/{len(taken)}"
                    client.put_object(Bucket=bucket, Key=key, Body=b"")
                    taken.append(key)
                    time.sleep(POLL)
            yield
        finally:
            self._quota("delete", bucket, folder)
            time.sleep(2 * HEARTBEAT)
            for key in taken:
                client.delete_object(Bucket=bucket, Key=key)

    def _quota(self, what: str, bucket: str, folder: str, *args: str) -> None:
        meta = f"sqlite3://{self.folder}/meta.db"
        run(BIN / "juicefs", "quota", what, meta, f"--path=/{bucket}/{folder}", *args)


def run(*command: str | Path, data: str = "") -> str:
    """Run a program to its end; return what it says."""
    done = subprocess.run(
        list(map(str, command)),
        input=data,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def seaweedfs(folder: Path, bucket: str) -> Iterator[Server]:
    """Run SeaweedFS."""
    command = [
        sys.executable,
        str(ROOT / "scripts/local_s3.py"),
        f"--dir={folder}",
        "--port=0",
        f"--bucket={bucket}",
        "--with-parent",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready "), f"SeaweedFS did not start: {line!r}"
        try:
            yield SeaweedFS("seaweedfs", line.split()[1], folder)
        finally:
            process.terminate()


@contextmanager
def juicefs(folder: Path, bucket: str) -> Iterator[Server]:
    """Run the JuiceFS gateway."""
    program, meta = BIN / "juicefs", f"sqlite3://{folder}/meta.db"
    run(
        program,
        "format",
        "--storage=file",
        f"--bucket={folder}/data/",
        "--trash-days=0",
        meta,
        "tests",
    )
    with socket.socket() as reserved, (folder / "out.log").open("wb") as log:
        # Bound and not listened to until the gateway does, so that nobody else takes the port.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        command = [
            *(sys.executable, "-c", WITH_PARENT, str(os.getpid()), str(program)),
            *("gateway", "--multi-buckets", "--keep-etag", "--object-tag", "--object-meta"),
            *("--no-usage-report", "--no-banner", "--backup-meta=0", f"--heartbeat={HEARTBEAT}s"),
            *(f"--log={folder}/gateway.log", f"--cache-dir={folder}/cache", meta, address),
        ]
        keys = {
            "MINIO_ROOT_USER": os.environ["AUDIT_COLD_ACCESS_KEY"],
            "MINIO_ROOT_PASSWORD": os.environ["AUDIT_COLD_SECRET_KEY"],
            "HOME": str(folder),  # configuration in the person's own home is for others
        }
        with subprocess.Popen(
            command, env={**os.environ, **keys}, stdout=log, stderr=log
        ) as process:
            try:
                server = JuiceFS("juicefs", f"http://{address}", folder)
                make_bucket(server, bucket, process)
                reserved.close()
                yield server
            finally:
                process.terminate()


def make_bucket(server: Server, bucket: str, process: subprocess.Popen[bytes]) -> None:
    """Make the bucket as soon as the server answers."""
    deadline, client = time.monotonic() + PATIENCE, server.client
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(BotoCoreError, ClientError):
            client.create_bucket(Bucket=bucket)
            return
        time.sleep(POLL)
    raise AssertionError((server.folder / "out.log").read_text(errors="replace"))
