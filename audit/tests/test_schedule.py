"""The schedule, for real: broker, workers and beat, and a site whose events are due.

Each process is one of its own; what is killed is killed by SIGKILL. The schedule's guards are told
what time it is; everything else goes by the real clock.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from audit.tests.fault_proxy import Exchange, FaultProxy, refuse, stall
from audit.tests.redis_server import RedisServer
from audit.tests.simulator import PATIENCE, Site
from audit.tests.stack import Part, Stack

ARCHIVE = "audit.archive_tick"


@pytest.fixture
def stack(small_site: Site, redis: RedisServer) -> Iterator[Stack]:
    """Let the site run unattended; nothing runs yet."""
    redis.start()  # another test may have killed it
    with redis.client as client:
        client.flushall()
    with Stack(small_site, redis) as running:
        yield running


@pytest.fixture
def proxy(stack: Stack) -> Iterator[FaultProxy]:
    """Let the site reach its bucket through a proxy that can fail."""
    site = stack.site
    site.endpoint = site.env["AUDIT_COLD_ENDPOINT"]
    with FaultProxy(site.endpoint) as running:
        site.env["AUDIT_COLD_ENDPOINT"] = running.endpoint
        yield running
        for part in stack.parts:  # before the proxy that they ask
            part.kill()


def reset(exchange: Exchange) -> None:
    """Be gone."""
    exchange.reset()


def idle(stack: Stack, worker: Part, ticks: int = 2) -> None:
    """Wait until a worker has found nothing to do so many times more."""
    said = worker.said().count("archive: not now")
    stack.wait_until(
        lambda: worker.said().count("archive: not now") >= said + ticks, "ticks without a run"
    )


def done(stack: Stack) -> None:
    stack.wait_until(lambda: stack.day()[0] == "done", "the day's run")


def test_one_run_a_day_whatever_restarts_however_many_beats(stack: Stack) -> None:
    records = stack.site.template.records
    first = stack.worker(processes=2)
    beats = [stack.beat("archive"), stack.beat("archive")]
    done(stack)
    idle(stack, first)
    assert stack.runs() == [(1, "archived")]
    # Everything dies; what comes up in its place finds the day done.
    for part in (first, *beats):
        part.kill()
    second = stack.worker(processes=2)
    stack.beat("archive")
    stack.at("2026-11-24T17:00:00")
    idle(stack, second)
    assert stack.runs() == [(1, "archived")]
    assert stack.day() == ("done", 1, "archived")
    # An override in between neither needs nor uses up a day.
    assert stack.site.archive()["outcome"] == "nothing_due"
    stack.at("2026-11-25T02:59:59")
    idle(stack, second)
    assert stack.runs() == [(1, "archived")]
    stack.at("2026-11-25T03:00:00")
    stack.wait_until(lambda: len(stack.runs()) == 2, "the next day's run")
    done(stack)
    assert stack.runs()[1][1] == "nothing_due"
    assert stack.site.read_log().records == records


def test_a_message_that_comes_many_times_is_one_run(stack: Stack) -> None:
    message = stack.send(ARCHIVE)
    for _ in range(3):
        stack.send(ARCHIVE, id=message)
    worker = stack.worker(processes=2)
    stack.wait_until(lambda: worker.said().count("archive: not now") == 3)
    done(stack)
    assert stack.runs() == [(1, "archived")]


def test_a_missed_hour_is_caught_up_with_later_the_same_day(stack: Stack) -> None:
    stack.at("2026-11-24T02:10:00")
    worker = stack.worker()
    stack.beat("archive")
    idle(stack, worker)
    assert stack.runs() == []
    stack.at("2026-11-24T21:40:00")
    done(stack)
    assert stack.runs() == [(1, "archived")]


def test_without_archive_enabled_nothing_runs_by_itself(stack: Stack) -> None:
    stack.site.env["ARCHIVE_ENABLED"] = "false"
    worker = stack.worker()
    stack.beat("archive")
    stack.wait_until(lambda: worker.said().count("archive: off") >= 2)
    assert (stack.runs(), stack.day()) == ([], ("", 0, ""))
    # An operator's own run does not need it.
    assert stack.site.archive()["outcome"] == "archived"
    assert stack.day() == ("", 0, "")


def test_a_worker_is_killed_amid_a_run_and_another_one_finishes_it(
    stack: Stack, proxy: FaultProxy
) -> None:
    proxy.fault(stall, "PUT", ".manifest.json", skip=1)
    doomed = stack.worker()
    stack.beat("archive")
    stack.wait_until(lambda: proxy.count("PUT", ".manifest.json") == 2, "the second batch")
    doomed.kill()
    proxy.lift()
    assert stack.day()[0] == "running"
    stack.worker()
    done(stack)
    assert [outcome for _, outcome in stack.runs()] == ["interrupted", "archived"]
    assert stack.day() == ("done", 2, "archived")
    assert stack.site.read_log().records == stack.site.template.records


def test_what_kills_each_worker_is_given_time_and_then_it_is_an_alarm(
    stack: Stack, proxy: FaultProxy
) -> None:
    worker = stack.worker()
    stack.beat("archive", "watch")
    for tries, (time, after) in enumerate(
        [("03:00", "running"), ("03:00", "waiting"), ("04:30", "failed")], start=1
    ):
        proxy.fault(stall, "PUT", ".jsonl.gz")
        stack.at(f"2026-11-24T{time}:00")
        stack.wait_until(lambda: proxy.count("PUT", ".jsonl.gz"), f"try {tries}")
        assert len(stack.runs()) == tries
        stack.kill_holder()  # the child that is at it, as the kernel does where memory is short
        proxy.lift()
        stack.wait_for_day(after)
    stack.at("2026-11-24T23:59:59")
    idle(stack, worker)
    assert stack.day() == ("failed", 3, "")
    stack.wait_until(lambda: ("run_failed", "days", True) in stack.alarms(), "the alarm")
    stack.at("2026-11-25T03:00:00")
    done(stack)
    stack.wait_until(lambda: ("run_failed", "days", False) in stack.alarms(), "that it clears")
    assert stack.site.read_log().records == stack.site.template.records


def test_that_no_worker_answers_is_told_by_beat(stack: Stack) -> None:
    stack.site.env["TEST_ANSWERED_WITHIN"] = "2"
    worker = stack.worker()
    stack.beat("heartbeat")
    stack.wait_for_beats(2)
    worker.kill()
    stack.wait_until(lambda: ("schedule", "beat", True) in stack.alarms(), "the alarm")
    stack.worker()
    stack.wait_until(lambda: ("schedule", "beat", False) in stack.alarms(), "that it clears")


@pytest.mark.parametrize("server", ["worker", "beat"])
@pytest.mark.parametrize(
    ("name", "text"), [("AUDIT_ORIGIN", "AUDIT_ORIGIN is missing"), ("REDIS_URL", "is not set")]
)
def test_a_wrong_configuration_ends_them_at_once(
    stack: Stack, server: str, name: str, text: str
) -> None:
    stack.site.env[name] = ""
    part = stack.worker() if server == "worker" else stack.beat("heartbeat")
    assert part.process.wait(PATIENCE) == 1
    assert text in part.said()


def test_a_run_whose_end_was_not_written_down_is_not_done_again(stack: Stack) -> None:
    worker = stack.worker()
    stack.beat("archive")
    done(stack)
    with stack.site.sql() as connection:  # as where the database was locked just then
        connection.execute(
            "UPDATE audit_dayguard SET state = 'running', pid_started = '1', pid = 1, "
            "claimed_at = datetime(claimed_at, '-1 second')"
        )
    done(stack)
    idle(stack, worker, 1)
    assert stack.runs() == [(1, "archived")]


def test_a_worker_that_is_stopped_ends_its_run_between_two_steps(
    stack: Stack, proxy: FaultProxy
) -> None:
    proxy.fault(stall, "PUT", ".manifest.json", skip=1)
    stopped = stack.worker()
    stack.beat("archive")
    stack.wait_until(lambda: proxy.count("PUT", ".manifest.json") == 2, "the second batch")
    stopped.process.terminate()
    stack.wait_until(lambda: "shutdown" in stopped.said(), "that it begins to stop")
    proxy.lift()
    assert stopped.process.wait(PATIENCE) == 0
    assert [outcome for _, outcome in stack.runs()] == ["interrupted"]
    assert stack.day() == ("waiting", 0, "interrupted")  # that was no try
    stack.worker()
    done(stack)
    assert [outcome for _, outcome in stack.runs()] == ["interrupted", "archived"]
    assert stack.site.read_log().records == stack.site.template.records


def test_a_worker_that_is_stopped_ends_its_verification_and_another_one_does_it(
    stack: Stack, proxy: FaultProxy
) -> None:
    assert stack.site.archive()["outcome"] == "archived"
    proxy.fault(stall, "GET", ".jsonl.gz")
    stack.at("2026-11-24T04:00:00")
    stopped = stack.worker()
    stack.beat("verify", "watch")
    stack.wait_until(lambda: proxy.count("GET", ".jsonl.gz"), "that it reads an object")
    stopped.process.terminate()
    stack.wait_until(lambda: "shutdown" in stopped.said(), "that it begins to stop")
    proxy.lift()
    assert stopped.process.wait(PATIENCE) == 0
    assert stack.day("verify") == ("waiting", 0, "interrupted")
    stack.worker()
    stack.wait_until(lambda: stack.day("verify")[0] == "done", "another one")
    assert stack.day("verify") == ("done", 1, "ok")
    assert stack.alarms() == []


def test_three_tries_and_no_fourth_that_day(stack: Stack, proxy: FaultProxy) -> None:
    proxy.fault(refuse(503, "ServiceUnavailable"), "PUT", ".jsonl.gz")
    worker = stack.worker()
    stack.beat("archive")
    for tries, (time, until) in enumerate(
        [("03:00", "03:29"), ("03:30", "04:59"), ("05:00", "23:59")], start=1
    ):
        stack.at(f"2026-11-24T{time}:00")
        stack.wait_for_try(tries)
        stack.at(f"2026-11-24T{until}:59")
        idle(stack, worker)
        assert [outcome for _, outcome in stack.runs()] == ["failed"] * tries
    assert stack.day() == ("failed", 3, "failed")
    # The next day is another one, and the bucket takes again what it is given.
    proxy.lift()
    stack.at("2026-11-25T03:00:00")
    done(stack)
    assert stack.day() == ("done", 1, "archived")
    assert stack.site.read_log().records == stack.site.template.records


def test_a_busy_archive_is_no_try(stack: Stack, proxy: FaultProxy) -> None:
    proxy.fault(stall, "PUT", ".jsonl.gz")
    override = stack.site.start("archive_now")
    stack.wait_until(lambda: proxy.count("PUT", ".jsonl.gz"), "an operator's own run")
    stack.worker()
    stack.beat("archive")
    stack.wait_until(lambda: stack.day() == ("waiting", 0, "busy"), "that it is busy")
    proxy.lift()
    override.finish()
    done(stack)
    assert stack.day() == ("done", 1, "nothing_due")


# What comes back by itself ---------------------------------------------------------------------


def test_redis_is_gone_for_a_while(stack: Stack) -> None:
    stack.worker()
    stack.beat("heartbeat", "archive")
    stack.at("2026-11-24T02:00:00")
    stack.wait_for_beats(1)
    stack.redis.kill()
    stack.wait_until(lambda: stack.alarms() == [("broker", "beat", True)], "the alarm")
    assert stack.site.ingest(5).returncode == 0  # that needs no broker
    stack.redis.start()
    stack.wait_until(lambda: stack.alarms() == [("broker", "beat", False)], "that it clears")
    stack.wait_for_beats(1)
    stack.at("2026-11-24T03:00:00")
    done(stack)
    assert stack.runs() == [(1, "archived")]


def test_redis_goes_amid_a_run(stack: Stack, proxy: FaultProxy) -> None:
    proxy.fault(stall, "PUT", ".jsonl.gz")
    worker = stack.worker()
    stack.beat("archive")
    stack.wait_until(lambda: proxy.count("PUT", ".jsonl.gz"), "the run")
    stack.redis.kill()
    proxy.lift()  # the run goes on without it
    done(stack)
    stack.redis.start()
    idle(stack, worker)
    assert stack.runs() == [(1, "archived")]
    assert stack.site.read_log().records == stack.site.template.records


def test_the_bucket_is_gone_for_a_while(stack: Stack, proxy: FaultProxy) -> None:
    stack.site.env["AUDIT_COLD_ATTEMPTS"] = "1"
    for verb in ("GET", "HEAD", "LIST", "PUT"):
        proxy.fault(reset, verb)
    stack.worker(processes=2)
    stack.beat("archive", "safety net", "watch", "checkpoint")
    stack.wait_until(
        lambda: (
            {"bucket", "run_failed"} <= {kind for kind, _, ongoing in stack.alarms() if ongoing}
        ),
        "both alarms",
    )
    assert stack.site.ingest(5).returncode == 0
    proxy.lift()
    stack.at("2026-11-24T03:30:00")
    done(stack)
    stack.wait_until(lambda: not any(is_open for *_, is_open in stack.alarms()), "all clear")
    assert stack.runs()[-1][1] == "archived"
    stack.wait_until(lambda: told_of(stack, "cleared") == told_of(stack, "opened") > 1, "events")
    assert stack.site.manage("verify_audit").returncode == 0


def told_of(stack: Stack, what: str) -> int:
    """Return how many events of this kind the chain has of alarms."""
    return stack.site.own_events_in_hot().count(f"alarm_{what}")


def test_the_database_is_locked_for_a_while(stack: Stack) -> None:
    site = stack.site
    site.env["DATABASE_URL"] += "?timeout=1"
    worker = stack.worker()
    stack.beat("heartbeat", "archive")
    stack.at("2026-11-24T02:00:00")
    stack.wait_for_beats(1)
    lock = sqlite3.connect(site.database, timeout=PATIENCE)
    lock.execute("BEGIN IMMEDIATE")
    stack.at("2026-11-24T03:00:00")
    stack.wait_until(lambda: "Alarm (database)" in worker.said(), "the alarm")
    lock.rollback()
    lock.close()
    stack.wait_until(lambda: stack.alarms() == [("database", "database", False)], "that it clears")
    done(stack)
    assert site.read_log().records == site.template.records


# What is asked for over HTTP -------------------------------------------------------------------


def ask(stack: Stack, kind: str = "archive", **more: str) -> dict[str, Any]:
    """Ask as the web server does, in a process of the site."""
    code = (
        "from audit import handover; import json\n"
        "try: print(json.dumps(vars(handover.ask("
        f"{kind!r}, 'api', 'ada', '10.0.0.9', level={more.get('level', '')!r}))))\n"
        "except handover.NotTakenError as error: print(json.dumps({'error': str(error)}))"
    )
    done = stack.site.manage("shell", "--no-imports", "-c", code)
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_worker_carries_out_what_is_asked_for(stack: Stack, proxy: FaultProxy) -> None:
    stack.site.env["ARCHIVE_ENABLED"] = "false"
    stack.worker(processes=2)
    proxy.fault(stall, "PUT", ".jsonl.gz")
    begun = ask(stack)
    assert (begun["run"], begun["outcome"]) == (1, "running")
    refused = ask(stack)
    assert (refused["run"], refused["refused"]) == (None, "busy")
    proxy.lift()
    stack.wait_until(lambda: stack.runs("api") == [(1, "archived")], "its end")
    assert stack.site.rows(
        "SELECT requested_by, requested_from, override FROM audit_archiverun"
    ) == [("ada", "10.0.0.9", 1)]
    verified = ask(stack, "verify", level="full")
    assert (verified["run"], verified["outcome"]) == (1, "ok")


def test_a_request_whose_worker_died_is_ended(stack: Stack, proxy: FaultProxy) -> None:
    proxy.fault(stall, "PUT", ".jsonl.gz")
    doomed = stack.worker()
    assert ask(stack)["outcome"] == "running"
    doomed.kill()
    proxy.lift()
    stack.worker()
    stack.beat("watch")
    query = "SELECT answer FROM audit_runrequest WHERE state = 'ended'"
    stack.wait_until(lambda: stack.site.rows(query), "its end")
    answer = json.loads(stack.site.rows(query)[0][0])
    assert (answer["run"], answer["outcome"]) == (1, "failed")
    assert "ended without a word" in answer["error"]


def test_what_no_worker_takes_is_never_begun(stack: Stack) -> None:
    assert "No worker took it within 5 seconds" in ask(stack)["error"]
    worker = stack.worker()  # it finds the message, and that it was withdrawn
    stack.beat("archive")
    stack.at("2026-11-24T02:00:00")
    idle(stack, worker)
    assert (stack.runs("api"), stack.runs()) == ([], [])
    stack.redis.kill()
    assert "The broker does not answer" in ask(stack)["error"]
    states = stack.site.rows("SELECT state FROM audit_runrequest")
    assert states == [("withdrawn",), ("withdrawn",)]
