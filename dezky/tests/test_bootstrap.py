"""`./scripts/bootstrap.sh` brings up the whole stack, and nothing of it stays behind.

In a copy of the tree, with the packages of the tests and ports of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 180.0  # seconds; of use only where something hangs
STOPPED = 20.0
NEEDED = ("audit", "dezky", "scripts", "templates", "tenants", "manage.py")
PROCESSES = {"web", "worker", "worker-short", "beat", "redis", "s3"}
LOCKS = ("requirements.txt", "requirements-local.txt", "requirements-dev.txt")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Stack:
    """One run of the script, in a session of its own, as a terminal would have it."""

    tree: Path
    ports: dict[str, int]
    script: subprocess.Popen[bytes]
    output: Path

    def says(self) -> str:
        return self.output.read_text()

    def processes(self) -> dict[int, str]:
        """Return the command lines of all that works in the tree."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "cwd").readlink().is_relative_to(self.tree):
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return found

    def pid_of(self, command: str) -> int:
        """Return the oldest process whose command line begins so."""
        return min(pid for pid, line in self.processes().items() if re.match(command, line))

    def wait_until(self, holds: Callable[[], bool], seconds: float) -> None:
        give_up = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < give_up, (self.says(), self.processes())
            time.sleep(0.05)

    def is_up(self) -> bool:
        assert self.script.poll() is None, self.says()
        return "\nConsole: " in self.says()

    def is_gone(self) -> bool:
        return self.script.poll() is not None and not self.processes()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone after `./scripts/test.sh`: the packages there, but no .env and no data."""
    tree = tmp_path_factory.mktemp("clone")
    for name in (*NEEDED, *LOCKS):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, tree / name)
    # Python takes the folder in which it is found for its environment, links or not.
    environment = tree / ".venv"
    environment.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "installed":
            (environment / path.name).symlink_to(path)
    subprocess.run(["bash", "-c", ". scripts/lib.sh; stamp dev"], cwd=tree, check=True)
    return tree


@pytest.fixture
def stack(tree: Path) -> Iterator[Stack]:
    """Start the script and wait for the console."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for each in (one, two, three):
            each.bind(("127.0.0.1", 0))
        web, s3, redis = (each.getsockname()[1] for each in (one, two, three))
    env_file = tree / ".env"
    if not env_file.exists():
        subprocess.run([sys.executable, "scripts/make_env.py"], cwd=tree, check=True)
    text = re.sub(r"(?m)^(AUDIT_COLD_ENDPOINT=.*:)\d+$", rf"\g<1>{s3}", env_file.read_text())
    env_file.write_text(re.sub(r"(?m)^(REDIS_URL=.*:)\d+/0$", rf"\g<1>{redis}/0", text))
    output = tree / "output"
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    environ = {name: os.environ[name] for name in names if name in os.environ}
    with output.open("wb") as file:
        script = subprocess.Popen(
            ["./scripts/bootstrap.sh"],
            cwd=tree,
            env=environ | {"PORT": str(web)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    stack = Stack(tree, {"web": web, "s3": s3, "redis": redis}, script, output)
    try:
        stack.wait_until(stack.is_up, PATIENCE)
        yield stack
    finally:
        for pid in stack.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        script.wait()


def assert_free(stack: Stack) -> None:
    """Nothing listens where it did."""
    for port in stack.ports.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            probe.listen()


def test_it_runs_six_processes_and_ctrl_c_ends_them_all(stack: Stack) -> None:
    with urlopen(f"http://127.0.0.1:{stack.ports['web']}/healthz", timeout=30) as answer:
        assert answer.status == 200
    names = re.findall(r"supervised\.py ([\w-]+) ", "\n".join(stack.processes().values()))
    assert sorted(names) == sorted(PROCESSES)
    password = re.search(r"(?m)^REDIS_URL=redis://:(.+)@", (stack.tree / ".env").read_text())
    assert password
    assert not [line for line in stack.processes().values() if password[1] in line]
    os.killpg(stack.script.pid, signal.SIGINT)
    stack.wait_until(stack.is_gone, STOPPED)
    assert stack.script.returncode == 130
    said = re.findall(r"(\w[\w-]*)\.1 +stopped \(rc=(-?\d+)\)", stack.says())
    assert sorted(said) == sorted((name, "0") for name in PROCESSES)  # none was killed
    assert {name for name, _ in said[-2:]} == {"s3", "redis"}  # and these were the last
    assert_free(stack)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_script_ends_them_all(stack: Stack, number: signal.Signals) -> None:
    stack.script.send_signal(number)
    stack.wait_until(stack.is_gone, STOPPED)
    assert_free(stack)


def test_a_terminal_that_closes_ends_them_all(stack: Stack) -> None:
    os.killpg(stack.script.pid, signal.SIGHUP)
    stack.wait_until(stack.is_gone, STOPPED)
    assert_free(stack)


def test_a_supervisor_that_is_killed_leaves_nothing(stack: Stack) -> None:
    os.kill(stack.pid_of(r"\S*python -m honcho "), signal.SIGKILL)
    stack.wait_until(stack.is_gone, STOPPED)
    assert stack.script.returncode == 1
    assert "The supervisor ended (exit code 137)" in stack.says()
    assert_free(stack)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (r"\S*valkey-server ", "redis ended by itself (exit code 1)"),
        (
            r"\S*python -m celery -A dezky --quiet worker -Q long",
            "worker ended by itself (by SIGKILL)",
        ),
    ],
)
def test_where_one_dies_the_rest_is_stopped_and_it_says_which(
    stack: Stack, command: str, said: str
) -> None:
    os.kill(stack.pid_of(command), signal.SIGKILL)
    stack.wait_until(stack.is_gone, STOPPED)
    assert stack.script.returncode == 1
    assert said in stack.says()
    assert_free(stack)
