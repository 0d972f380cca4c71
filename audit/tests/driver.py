"""Runs our use cases in a process of its own, and pauses where a test wants to kill it.

    python -m audit.tests.driver archive [--pause WHERE] [--max-batches N] [--clock SECONDS]
                                         [--through-seq SEQ] [--transactions]
    python -m audit.tests.driver append --name NAME --calls N --each K [--at DATE] [--pause WHERE]
                                        [--every SECONDS]
    python -m audit.tests.driver checkpoint [--calls N] [--pause WHERE]
    python -m audit.tests.driver tasks NAME...

WHERE is one of
    step:NAME[:n]    after the n-th time that a step of the archive is done
    sql:TEXT[:n]     after the n-th statement that has TEXT in it, before its commit
    send:OP[:n]      before the n-th request of an S3 operation is sent
    body:OP[:n]      when a part of the body of that request has been sent
    call:append[:n]  before the n-th call of append

It prints `paused WHERE` and waits for a line on standard input; `--calls 0` appends for ever.
Nothing of ours is replaced: the hooks are the archive's own watcher, Django's execute wrapper and
botocore's events.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import django

# So small that a batch is purged in several; a small one needs DRIVER_DELETE_CHUNK.
DELETE_CHUNK = 1000


class Pause:
    """Waits at the n-th time that a place is passed."""

    def __init__(self, where: str | None) -> None:
        self.where = where
        match = re.fullmatch(r"(\w+):(.*?)(?::(\d+))?", where or "")
        self.kind, self.place = (match[1], match[2]) if match else ("", "")
        self.left = int(match[3] or 1) if match else 0

    def passes(self, kind: str, text: str, *, inside: bool = False) -> None:
        """Pass a place."""
        if kind != self.kind or not (self.place in text if inside else self.place == text):
            return
        self.left -= 1
        if self.left == 0:
            say(f"paused {self.where}")
            sys.stdin.readline()


def say(text: str) -> None:
    """Print a line that the test reads at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class PausingBody:
    """A request's body that pauses when its first part has been read."""

    def __init__(self, body: Any, pause: Callable[[], None]) -> None:
        self._body, self._pause, self._parts = body, pause, 0

    def read(self, size: int = -1) -> Any:
        self._parts += 1
        if self._parts == 2:
            self._pause()
        return self._body.read(min(size, 1000) if self._parts == 1 else size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


def hook_database(pause: Pause) -> None:
    """Pass every statement."""
    from django.db.backends.signals import connection_created

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        pause.passes("sql", sql, inside=True)
        return result

    def hook(connection: Any, **kwargs: Any) -> None:
        if threading.current_thread().name != "lease":  # it renews whenever it likes
            connection.execute_wrappers.append(wrapper)

    connection_created.connect(hook, weak=False)


def show_transactions() -> None:
    """Print `transaction VERB TABLE ROWS, …` for each one that is committed.

    ROWS is how many were written; of a SELECT it is 1, or 0 where nothing limits it to one.
    """
    from django.db.backends.signals import connection_created

    def hook(connection: Any, **kwargs: Any) -> None:
        done: list[str] = []

        def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            result = execute(sql, params, many, context)
            verb, table = sql.split(maxsplit=1)[0], re.search(r'(?:FROM|INTO|UPDATE) "(\w+)"', sql)
            if verb == "BEGIN":
                done.clear()
            elif connection.in_atomic_block and table:
                if not done:
                    connection.on_commit(lambda: say(f"transaction {', '.join(done)}"))
                rows = int("LIMIT 1" in sql) if verb == "SELECT" else context["cursor"].rowcount
                done.append(f"{verb} {table[1]} {rows}")
            return result

        connection.execute_wrappers.append(wrapper)

    connection_created.connect(hook, weak=False)


def hook_storage(pause: Pause) -> None:
    """Pass every request to the object store."""
    from django.core.files.storage import storages

    from audit.storage import ColdStorage

    def before_send(request: Any, event_name: str, **kwargs: Any) -> None:
        operation = event_name.rpartition(".")[2]
        pause.passes("send", operation)
        if pause.kind == "body" and hasattr(request.body, "read"):
            request.body = PausingBody(request.body, lambda: pause.passes("body", operation))

    client = cast(ColdStorage, storages["cold"]).connection.meta.client
    client.meta.events.register("before-send.s3", before_send)


def shift_clock(seconds: int) -> None:
    """Let the SDK sign by a clock that is off, which is all that a service can see of it."""
    from botocore import auth

    signing: Any = auth
    right = signing.get_current_datetime

    def wrong(*args: Any, **kwargs: Any) -> datetime:
        return cast(datetime, right(*args, **kwargs)) + timedelta(seconds=seconds)

    signing.get_current_datetime = wrong


def archive(pause: Pause, max_batches: int | None, through_seq: int | None) -> None:
    """Run the archive; print its result."""
    from audit import archive as use_case
    from audit.log import rows
    from audit.models import ArchiveRun
    from audit.request import Request
    from audit.watcher import Step, Watcher

    class Pausing(Watcher):
        def done(self, step: Step) -> None:
            say(f"done {step}")
            pause.passes("step", step)

    rows.DELETE_CHUNK = int(os.environ.get("DRIVER_DELETE_CHUNK", DELETE_CHUNK))
    request = Request(
        ArchiveRun.Trigger.COMMAND,
        "driver",
        "here",
        override=True,
        max_batches=max_batches,
        through_seq=through_seq,
    )
    result = use_case.run(request, Pausing())
    say(f"outcome {result.outcome}: {result.error}")


def checkpoint(calls: int) -> None:
    """Make checkpoints; print `made INDEX SEQ PUBLISHED`, or `refused WHY`."""
    from audit import checkpoints
    from audit.format.errors import AuditError

    for _ in range(calls):
        try:
            made = checkpoints.make()
            say(f"made {made.index} {made.seq} {made.published} {made.notes}")
        except AuditError as error:
            say(f"refused {error}")


def append(
    pause: Pause, name: str, calls: int, each: int, at: datetime | None, every: float
) -> None:
    """Append; print `acknowledged SEQ ID` for each event, `busy WHY` and try again where busy."""
    from audit import ingest, log

    for call in range(calls) if calls else itertools.count():
        time.sleep(every)
        pause.passes("call", "append")
        drafts = [
            ingest.draft(
                ingest.generic_event(
                    "platform",
                    {
                        "occurred_at": "2026-01-01T00:00:00Z",
                        "external_id": f"{name}-{call}-{number}",
                        "action": "tested",
                    },
                ),
                "driver",
            )
            for number in range(each)
        ]
        while True:
            try:
                answers = log.append(drafts, now=at)
                break
            except log.BusyError as error:
                say(f"busy {error}")
        for draft, answer in zip(drafts, answers, strict=True):
            say(f"acknowledged {answer.seq} {draft.event['external_id']}")


def do_tasks(names: list[str]) -> None:
    """Do what a worker does for each of these messages; print `did NAME`, or `failed NAME WHY`."""
    from audit import tasks

    for name in names:
        try:
            getattr(tasks, name)()
            say(f"did {name}")
        except Exception as error:  # as a worker goes on after it
            say(f"failed {name} {error!r}")


def main() -> None:
    """Take the arguments and go."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["archive", "append", "checkpoint", "tasks"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--pause")
    parser.add_argument("--max-batches", type=int)
    parser.add_argument("--through-seq", type=int)
    parser.add_argument("--clock", type=int, default=0)
    parser.add_argument("--name", default="driver")
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--each", type=int, default=1)
    parser.add_argument("--transactions", action="store_true")
    parser.add_argument("--every", type=float, default=0)
    parser.add_argument("--at", type=lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC))
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dezky.settings")
    django.setup()
    pause = Pause(arguments.pause)
    hook_database(pause)
    if arguments.transactions:
        show_transactions()
    if arguments.what == "archive":
        hook_storage(pause)
        shift_clock(arguments.clock)
        archive(pause, arguments.max_batches, arguments.through_seq)
    elif arguments.what == "checkpoint":
        hook_storage(pause)
        checkpoint(arguments.calls)
    elif arguments.what == "tasks":
        do_tasks(arguments.names)
    else:
        append(
            pause,
            arguments.name,
            arguments.calls,
            arguments.each,
            arguments.at,
            arguments.every,
        )


if __name__ == "__main__":
    main()
