"""A database that takes nothing is told all the same, once; and so is a broker that is gone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .hook import Hook, status
from .redis_server import RedisServer
from .simulator import Site
from .stack import Stack
from .test_archive_disk import full, locked

HUGE_MB = str(10**9)  # no disk has it, so there is an alarm to be written down


@pytest.fixture
def hook(small_site: Site, redis: RedisServer) -> Iterator[Hook]:
    """Let a site, with a broker that knows of nothing, tell by a webhook."""
    with redis.client as client:
        client.flushall()
    with Hook() as running:
        small_site.env |= {
            **running.env,
            "REDIS_URL": redis.url,
            "AUDIT_MIN_FREE_MB": "1",
            "DATABASE_URL": f"sqlite:///{small_site.database}?timeout=1",
        }
        yield running


def do(site: Site, *tasks: str) -> str:
    """Do what a worker does for each of these messages; return all that was said."""
    lines = site.driver("tasks", *tasks).finish()
    said = "\n".join(lines)
    assert [line for line in lines if line.startswith("did ")] == [f"did {t}" for t in tasks], said
    return said


def alarms(site: Site) -> list[tuple[str, str, bool]]:
    query = "SELECT kind, subject, cleared_at IS NULL FROM audit_alarm ORDER BY id"
    return [(kind, subject, bool(is_open)) for kind, subject, is_open in site.rows(query)]


def test_a_locked_database_is_told_once_kept_and_written_down_later(
    small_site: Site, hook: Hook, redis: RedisServer
) -> None:
    do(small_site, "heartbeat", "watch")
    with locked(small_site.database):
        said = do(small_site, "heartbeat", "heartbeat")
        assert "Alarm (database): The database stayed locked by another process" in said
        # That another alarm cannot be written down has the same cause.
        small_site.env["AUDIT_MIN_FREE_MB"] = HUGE_MB
        do(small_site, "watch", "safety_net")
        small_site.env["AUDIT_MIN_FREE_MB"] = "1"
        assert hook.types == ["alarm.opened database"]
        with redis.client as client:
            kept = {key: client.get(key) for key in client.scan_iter("*database-alarm*")}
    assert hook.told[0]["data"]["alarm"] is None
    assert alarms(small_site) == []
    do(small_site, "heartbeat", "watch")
    assert alarms(small_site) == [("database", "database", False)]
    assert hook.types == ["alarm.opened database", "alarm.cleared database"]
    first, second = (body["data"] for body in hook.told)
    assert (first["opened_at"], first["message"]) == (second["opened_at"], second["message"])
    assert hook.ids[0].removesuffix("-opened") == hook.ids[1].removesuffix("-cleared")
    # Had it died before the broker forgot: it is written down once all the same.
    with redis.client as client:
        for key, value in kept.items():
            client.set(key, value)
    do(small_site, "heartbeat", "watch", "heartbeat")
    assert (len(alarms(small_site)), len(hook.told)) == (1, 2)
    events = small_site.rows("SELECT event FROM audit_ownevent ORDER BY id")
    assert [json.loads(event)["action"] for (event,) in events] == [
        "alarm_opened",
        "alarm_cleared",
    ]
    # Another time is another alarm.
    with locked(small_site.database):
        do(small_site, "heartbeat")
    assert len(hook.told) == 3


def leave_no_room_for_a_heartbeat(site: Site) -> None:
    """Put short rows into its table, up to where one more takes another page."""
    with site.sql() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()
        for number in itertools.count():
            connection.execute("SAVEPOINT one")
            connection.execute("INSERT INTO audit_heartbeat VALUES (?, '', '')", [str(number)])
            if connection.execute("PRAGMA page_count").fetchone() != pages:
                connection.execute("ROLLBACK TO one")
                return


def test_a_full_database_is_told(small_site: Site, hook: Hook) -> None:
    leave_no_room_for_a_heartbeat(small_site)
    small_site.env["DATABASE_URL"] = f"sqlite:///{small_site.database}"
    with full(small_site, "DATABASE_URL"):
        said = do(small_site, "heartbeat", "heartbeat")
    assert "Alarm (full): The database failed (database or disk is full)" in said
    assert (hook.types, alarms(small_site)) == (["alarm.opened full"], [])
    do(small_site, "heartbeat", "watch")
    assert hook.types == ["alarm.opened full", "alarm.cleared full"]
    assert alarms(small_site) == [("full", "database", False)]


def let_expire(redis: RedisServer) -> None:
    """Let the time be over in which nobody else tries."""
    with redis.client as client:
        for key in client.scan_iter("*database-alarm*webhook"):
            assert 0 < client.ttl(key) <= 50
            client.delete(key)


def test_what_could_not_be_told_is_tried_again_while_the_database_takes_nothing(
    small_site: Site, hook: Hook, redis: RedisServer
) -> None:
    hook.answers.append(status(503))
    with locked(small_site.database):
        assert "That could not be told yet: The webhook answered with 503" in do(
            small_site, "heartbeat", "heartbeat"
        )
        assert len(hook.told) == 1
        let_expire(redis)
        do(small_site, "heartbeat", "heartbeat")
    assert (len(hook.told), len(set(hook.ids))) == (2, 1)
    do(small_site, "heartbeat", "watch")
    assert hook.types == ["alarm.opened database"] * 2 + ["alarm.cleared database"]


def test_what_was_never_told_is_told_when_the_database_is_back(
    small_site: Site, hook: Hook
) -> None:
    hook.answers.append(status(503))
    with locked(small_site.database):
        do(small_site, "heartbeat")
    do(small_site, "heartbeat", "watch")
    assert hook.types[1:] == ["alarm.opened database", "alarm.cleared database"]
    assert hook.ids[0] == hook.ids[1]


@pytest.mark.parametrize("address", ["redis://:s3cret@127.0.0.1:9/0", "s3cret", ""])
def test_without_a_broker_there_is_a_line_in_the_log(
    small_site: Site, hook: Hook, address: str
) -> None:
    small_site.env["REDIS_URL"] = address
    with locked(small_site.database):
        said = do(small_site, "heartbeat")
    assert "CRITICAL audit.lastresort: Alarm (database): The database stayed locked" in said
    assert "That could not be kept by the broker" in said
    assert "s3cret" not in said + do(small_site, "heartbeat")
    assert hook.told == []


def test_beat_tells_that_the_broker_is_gone_and_that_it_is_back(
    small_site: Site, hook: Hook, redis: RedisServer
) -> None:
    with Stack(small_site, redis) as stack:
        beat: Any = stack.beat("heartbeat")
        stack.wait_until(lambda: "Sending due task" in beat.said() or queued(redis), "a message")
        assert alarms(small_site) == []
        redis.kill()
        try:
            stack.wait_until(lambda: hook.told, "the alarm")
            assert alarms(small_site) == [("broker", "beat", True)]
        finally:
            redis.start()
        stack.wait_until(lambda: alarms(small_site) == [("broker", "beat", False)], "its end")
    do(small_site, "watch")
    assert hook.types == ["alarm.opened broker", "alarm.cleared broker"]


@pytest.mark.parametrize("first", ["database", "broker"])
def test_beat_tells_once_where_broker_and_database_are_gone_and_writes_it_down_later(
    small_site: Site, hook: Hook, redis: RedisServer, first: str
) -> None:
    """Whichever of the two is back first."""
    with Stack(small_site, redis) as stack, ExitStack() as broken:
        beat: Any = stack.beat("heartbeat")
        stack.wait_until(lambda: "Sending due task" in beat.said() or queued(redis), "a message")
        broken.enter_context(locked(small_site.database))
        redis.kill()
        try:
            stack.wait_until(lambda: hook.told, "the alarm")
            seen = len(beat.said())
            if first == "database":
                broken.close()
                stack.wait_until(
                    lambda: ("database", "database", False) in alarms(small_site), "its end"
                )
            stack.wait_until(lambda: "Not sent" in beat.said()[seen:], "another time")
        finally:
            redis.start()
        if first == "broker":
            stack.wait_until(lambda: kept(redis), "that the broker keeps it")
            broken.close()
        do(small_site, "heartbeat")
        stack.wait_until(
            lambda: not {is_open for _, _, is_open in alarms(small_site)} - {False}, "the end"
        )
    do(small_site, "watch")
    assert ("database", "database", False) in alarms(small_site)
    ours = [line for line in hook.types if line.endswith(" database")]
    assert ours == ["alarm.opened database", "alarm.cleared database"]


def kept(redis: RedisServer) -> bool:
    with redis.client as client:
        return any(client.scan_iter("*database-alarm*"))


def queued(redis: RedisServer) -> bool:
    with redis.client as client:
        return any(client.scan_iter("*short*"))
