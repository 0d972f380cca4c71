#!/usr/bin/env python3
"""Name the process that holds a port of this machine or a file below a folder.

    holders.py port 8000      exit 3 and one sentence where a process listens there
    holders.py files var      exit 3 and one sentence where a process has a file open there

Both exit 0 and print nothing where nobody does. Linux's /proc is read where there is one;
without it, or for the processes of other users, the sentence goes without a name.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
LISTEN = "0A"
HELD = 3
COMMAND_WIDTH = 80


def main() -> int:
    """Answer one question from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("port").add_argument("port", type=int)
    commands.add_parser("files").add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "port":
        if port_is_free(arguments.port):
            return 0
        sys.stderr.write(f"{port_sentence(arguments.port)}\n")
        return HELD
    pids = sorted(pids_with_files_below(arguments.folder))
    if not pids:
        return 0
    names = "; ".join(describe(pid) for pid in pids)
    sys.stderr.write(f"Files in {arguments.folder} are in use by {names}.\n")
    return HELD


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen there now."""
    with socket.socket() as probe:
        # As servers do: connections that are closing down on both sides are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def port_sentence(port: int) -> str:
    """Say that the port is taken, and by whom where that can be found out."""
    pids = sorted(pids_listening_on(port))
    if not pids:
        return (
            f"Port {port} of 127.0.0.1 is already in use, by a process that is not visible here."
        )
    return f"Port {port} of 127.0.0.1 is already in use by {describe(pids[0])}."


def describe(pid: int) -> str:
    """Return "pid N (its command, cut)"."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return f"pid {pid}"
    command = " ".join(raw.decode(errors="replace").replace("\0", " ").split())
    if len(command) > COMMAND_WIDTH:
        command = command[: COMMAND_WIDTH - 1] + "…"
    return f"pid {pid} ({command})" if command else f"pid {pid}"


def pids_listening_on(port: int) -> set[int]:
    """Return the processes that listen on the port, on whatever address of this machine."""
    inodes = listening_inodes(port)
    return {pid for pid, target in open_files() if target in inodes} if inodes else set()


def listening_inodes(port: int) -> set[str]:
    """Return the listening sockets of the port as /proc names them: `socket:[inode]`."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            # proc(5): 1 is local address:port in hex, 3 the state, 9 the inode.
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def pids_with_files_below(folder: Path) -> set[int]:
    """Return the processes with a file open below the folder, but not who asks: us, our parent."""
    top = f"{folder.resolve()}/"
    askers = {os.getpid(), os.getppid()}
    return {pid for pid, target in open_files() if target.startswith(top) and pid not in askers}


def open_files() -> Iterator[tuple[int, str]]:
    """Yield (pid, target) of every open file that may be looked at."""
    try:
        pids = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return
    for pid in pids:
        for target in open_files_of(pid):
            yield pid, target


def open_files_of(pid: int) -> Iterator[str]:
    """Yield the targets of the process's open files, none where they may not be looked at."""
    try:
        links = list((PROC / str(pid) / "fd").iterdir())
    except OSError:
        return
    for link in links:
        with suppress(OSError):
            yield str(link.readlink())


if __name__ == "__main__":
    sys.exit(main())
