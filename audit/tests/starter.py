"""Starts management commands at a third of the price: each in a process of its own.

    python -m audit.tests.starter

The libraries are loaded once, and each command is a fork of that: it reads its own environment,
sets Django up, and ends with its own exit code. One JSON object a line, in and out.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
LOADED = """boto3.s3.inject boto3.resources.factory botocore.client botocore.parsers
    s3transfer.manager storages.backends.s3 django.contrib.admin.options django.db.models
    django.core.management django.db.backends.sqlite3.base environ isal.igzip orjson tqdm"""


class Starter:
    """The process that starts commands, as seen from the tests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def manage(self, env: dict[str, str], *args: str) -> subprocess.CompletedProcess[bytes]:
        """Run a management command to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"env": env, "args": args}) + "\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(args, code, out.encode(), err.encode())


@contextmanager
def starter() -> Iterator[Starter]:
    """Run it; it ends with its standard input."""
    with subprocess.Popen(
        [sys.executable, "-m", "audit.tests.starter"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Starter(process)


def main() -> None:
    """Serve until the end of standard input."""
    for name in LOADED.split():
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                carry_out(asked["env"], asked["args"], out, err)
            _, status = os.waitpid(child, 0)
            said = [text(out), text(err)]
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), *said]) + "\n")
        sys.stdout.flush()


def carry_out(env: dict[str, str], args: list[str], out: IO[bytes], err: IO[bytes]) -> None:
    """Be the command; never returns."""
    code: object = 1
    try:
        for number, file in enumerate((open(os.devnull, "rb"), out, err)):  # noqa: PTH123, SIM115
            os.dup2(file.fileno(), number)
        tempfile.tempdir = None  # it was found out by another TMPDIR
        os.environ.clear()
        os.environ.update(env, DJANGO_SETTINGS_MODULE="dezky.settings")
        from django.core.management import execute_from_command_line

        execute_from_command_line(["manage.py", *args])
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


if __name__ == "__main__":
    main()
