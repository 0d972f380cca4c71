"""The schedule, for real: broker, workers and beat, and a site whose events are due.

Each process is one of its own; what is killed is killed by SIGKILL. The schedule's guards are told
what time it is; everything else goes by the real clock. Below, they are asked without a schedule.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from celery import Celery
from django.db import connection, connections

from audit import conditions, daily, guard, handover, prune, schedule
from audit.daily import Claim, End, Job
from audit.guard import Process
from audit.models import ArchiveRun, DayGuard, Heartbeat, RunRequest
from audit.tests.attacks import BATCH, COLD, Scene
from audit.tests.doors import GONE, verification
from audit.tests.fault_proxy import Exchange, FaultProxy, redate, refuse, stall
from audit.tests.redis_server import RedisServer
from audit.tests.simulator import PATIENCE, Site
from audit.tests.stack import Part, Stack
from audit.watcher import Watcher
from dezky import celery_app
from dezky.celery import configuration

ARCHIVE = "audit.archive_tick"
NIGHT = datetime(2026, 11, 24, 3, tzinfo=UTC)
AT_ONCE = 6


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
    stack.wait_until(lambda: ("schedule", "workers", True) in stack.alarms(), "the alarm")
    # That the broker is gone as well is another matter, and not the end of this one.
    stack.redis.kill()
    stack.wait_until(lambda: ("broker", "beat", True) in stack.alarms(), "another alarm")
    assert ("schedule", "workers", True) in stack.alarms()
    stack.redis.start()
    stack.worker()
    stack.wait_until(lambda: ("schedule", "workers", False) in stack.alarms(), "that it clears")


def test_where_the_broker_was_gone_no_worker_could_answer_and_that_is_no_alarm(
    stack: Stack,
) -> None:
    stack.site.env["TEST_ANSWERED_WITHIN"] = "8"
    stack.worker()
    stack.beat("heartbeat")
    stack.wait_for_beats(2)
    stack.redis.kill()
    stack.wait_until(lambda: ("broker", "beat", True) in stack.alarms(), "the alarm")
    with stack.site.sql() as connection:  # as after hours
        connection.execute(
            "UPDATE audit_heartbeat SET at = datetime(at, '-1 day') WHERE name = 'schedule'"
        )
    stack.redis.start()
    stack.wait_for_beats(3)
    assert stack.alarms() == [("broker", "beat", False)]


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


@pytest.mark.parametrize("whole", [False, True], ids=["worker", "with its children"])
def test_a_worker_that_is_stopped_ends_its_verification_and_another_one_does_it(
    stack: Stack, proxy: FaultProxy, whole: bool
) -> None:
    assert stack.site.archive()["outcome"] == "archived"
    proxy.fault(stall, "GET", ".jsonl.gz")
    stack.at("2026-11-24T04:00:00")
    stopped = stack.worker()
    stack.beat("verify", "watch")
    stack.wait_until(lambda: proxy.count("GET", ".jsonl.gz"), "that it reads an object")
    if whole:
        os.killpg(stopped.process.pid, signal.SIGTERM)
    else:
        stopped.process.terminate()
    stack.wait_until(lambda: "shutdown" in stopped.said(), "that it begins to stop")
    proxy.lift()
    assert stopped.process.wait(PATIENCE) == 0
    assert stack.day("verify") == ("waiting", 0, "interrupted")
    stack.worker()
    stack.wait_until(lambda: stack.day("verify")[0] == "done", "another one")
    assert stack.day("verify") == ("done", 1, "ok")
    assert stack.alarms() == []


def test_a_verification_that_cannot_be_written_down_is_not_begun_and_is_a_try(
    stack: Stack,
) -> None:
    stack.site.env["DATABASE_URL"] += "?timeout=1"
    stack.at("2026-11-24T04:00:00")
    with stack.site.sql() as connection:  # only its row cannot be
        connection.execute(
            "CREATE TRIGGER no BEFORE INSERT ON audit_verificationrun "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    stack.worker()
    stack.beat("verify")
    stack.wait_until(lambda: stack.day("verify") == ("waiting", 1, "failed"), "the first try")
    with stack.site.sql() as connection:
        connection.execute("DROP TRIGGER no")
    stack.at("2026-11-24T04:30:00")
    stack.wait_until(lambda: stack.day("verify")[0] == "done", "the second one")


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


# The guard of a day ----------------------------------------------------------------------------


def claim(job: DayGuard.Job = Job.ARCHIVE, **later: float) -> Claim | None:
    return daily.claim(job, NIGHT + timedelta(**later), NIGHT.hour)


def claimed(**later: float) -> Claim:
    found = claim(Job.ARCHIVE, **later)
    assert found is not None
    return found


def settle(mine: Claim, end: End, **later: float) -> tuple[str, int]:
    """Settle a claim; return state and tries of its day."""
    daily.settle(mine, NIGHT + timedelta(**later), end, end.value, None)
    row = DayGuard.objects.get(pk=mine.row)
    return row.state, row.tries


@pytest.mark.django_db
def test_a_day_is_done_once_and_not_before_its_hour() -> None:
    assert claim(seconds=-1) is None
    assert not DayGuard.objects.exists()
    mine = claimed()
    assert claim() is None  # somebody is at it
    assert claim(Job.VERIFY) is not None
    assert settle(mine, End.DONE) == ("done", 1)
    assert claim(hours=20) is None
    assert claim(hours=23) is None  # another day, and too early
    assert claimed(hours=24).row != mine.row


@pytest.mark.django_db(transaction=True)
def test_of_many_that_claim_a_day_at_once_one_has_it() -> None:
    def work(number: int) -> Claim | None:
        try:
            return claim(minutes=number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(work, range(AT_ONCE)))
    assert len([each for each in found if each]) == DayGuard.objects.get().token == 1


@pytest.mark.django_db
def test_what_fails_is_tried_again_later_and_after_three_tries_no_more() -> None:
    assert settle(claimed(), End.FAILED) == ("waiting", 1)
    assert claim(minutes=29) is None
    assert settle(claimed(minutes=30), End.FAILED, minutes=30) == ("waiting", 2)
    assert claim(minutes=119) is None
    # What was not tried does not count, and is not waited for.
    for _ in range(3):
        assert settle(claimed(minutes=120), End.NOT_TRIED, minutes=120) == ("waiting", 2)
    assert settle(claimed(minutes=120), End.FAILED, minutes=120) == ("failed", 3)
    assert claim(hours=20) is None


@pytest.mark.django_db
def test_who_is_gone_is_followed_and_settles_nothing_any_more() -> None:
    lost = claimed()
    DayGuard.objects.update(**GONE)
    mine = claimed()
    assert (mine.row, mine.token > lost.token) == (lost.row, True)
    assert settle(lost, End.DONE) == ("running", 2)
    assert settle(mine, End.FAILED) == ("waiting", 2)


@pytest.mark.django_db
def test_who_is_gone_three_times_is_followed_by_nobody() -> None:
    for later in (0, 0, 120):  # the second one at once, the third after a pause
        claimed(minutes=later)
        DayGuard.objects.update(**GONE)
        assert later or DayGuard.objects.get().state == "running"
        if DayGuard.objects.get().tries == 2:
            assert claim() is None
            assert claim(minutes=89) is None
    assert claim(hours=20) is None
    assert DayGuard.objects.get().state == "failed"


@pytest.mark.django_db
def test_who_is_of_another_machine_is_followed_when_nobody_can_be_at_it() -> None:
    now = datetime.now(UTC)
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    mine = claimed()
    row = DayGuard.objects.filter(pk=mine.row)
    row.update(host="another", claimed_at=now - minute)
    assert claim() is None
    row.update(claimed_at=now - hour)
    with guard.lease():  # which may be its own
        assert claim() is None
    assert claim() is not None
    assert claim(Job.VERIFY) is not None
    row = DayGuard.objects.filter(job=Job.VERIFY)
    row.update(host="another", claimed_at=now - hour)
    its = verification(started_at=now - minute, holder=row.get().holder)
    assert claim(Job.VERIFY) is None
    its.delete()
    assert claim(Job.VERIFY) is not None


@pytest.mark.django_db
def test_a_run_of_who_is_gone_that_had_ended_well_is_the_day_s() -> None:
    claimed()
    DayGuard.objects.update(**GONE)
    now = datetime.now(UTC)
    ArchiveRun.objects.create(
        trigger="beat", outcome="archived", token=1, started_at=now, cutoff=now
    )
    assert claim() is None
    row = DayGuard.objects.get()
    assert (row.state, row.outcome, row.run) == ("done", "archived", ArchiveRun.objects.get().pk)


@pytest.mark.django_db
@pytest.mark.parametrize("tries", [1, 2])
def test_a_day_that_is_over_is_given_up_unless_somebody_is_at_it(tries: int) -> None:
    for number in range(tries):
        if number:
            DayGuard.objects.update(state="waiting", next_try_at=None)
        claimed(minutes=number)
    day = DayGuard.objects.filter(pk=DayGuard.objects.get().pk)
    later = claimed(days=1)  # a verification may be at work until long after midnight
    assert day.get().state == "running"
    assert settle(later, End.DONE, days=1) == ("done", 1)
    day.update(**GONE)
    settle(claimed(days=2), End.NOT_TRIED, days=2)
    assert day.get().state == "failed"
    claimed(days=3)  # what was not tried at all was not given up
    states = DayGuard.objects.order_by("day").values_list("state", flat=True)
    assert list(states) == ["failed", "done", "waiting", "running"]


@pytest.mark.django_db(transaction=True)
def test_a_tick_of_an_archive_that_is_off_or_busy_is_no_try(settings: Any) -> None:
    settings.ARCHIVE_ENABLED = False
    assert schedule.archive_tick(lambda: NIGHT, Watcher()) == "off"
    assert not DayGuard.objects.exists()
    settings.ARCHIVE_ENABLED = True
    with guard.lease():
        assert schedule.archive_tick(lambda: NIGHT, Watcher()) == "busy"
    row = DayGuard.objects.get()
    assert (row.state, row.tries, row.outcome) == ("waiting", 0, "busy")


@pytest.mark.django_db
def test_once_a_week_the_log_is_verified_in_full() -> None:
    def ended(days: float, **members: Any) -> None:
        at = NIGHT - timedelta(days=days)
        verification(**{"trigger": "beat", "finished_at": at, "outcome": "ok", **members})

    ended(6.9)
    ended(1, level="manifests")
    ended(1, trigger="api")
    ended(1, outcome="unverifiable", report={"error": "It died."})
    for how in ("stopped", "broken"):
        ended(1, outcome="unverifiable", report={"problems": [], how: True})
    year = 365
    ended(-year)  # by a clock that had leapt
    assert schedule.level_due(NIGHT) == "full"
    ended(6, outcome="unverifiable", report={"problems": []})  # that did look
    assert schedule.level_due(NIGHT) == "manifests"


@pytest.mark.django_db
def test_a_verification_that_came_to_no_end_makes_up_for_no_day() -> None:
    row = DayGuard.objects.create(job="verify", day=NIGHT.date(), claimed_at=NIGHT)
    for report in ({"stopped": True}, {"broken": True}):
        verification(outcome="gap", started_at=NIGHT, finished_at=NIGHT, report=report)
        assert not daily.is_made_up_for(row)
    verification(outcome="gap", started_at=NIGHT, finished_at=NIGHT, report={"problems": []})
    assert daily.is_made_up_for(row)


@pytest.mark.django_db
def test_an_answer_of_a_worker_that_is_too_old_is_none() -> None:
    now = datetime.now(UTC)
    assert len(list(conditions.unanswered(now))) == 1
    Heartbeat.objects.create(name=Heartbeat.SCHEDULE, at=now)
    assert len(list(conditions.unanswered(now + timedelta(seconds=1)))) == 1
    assert list(conditions.unanswered(now)) == []


# What is asked for, and its message ------------------------------------------------------------


def asked(**members: Any) -> RunRequest:
    values = {"kind": "archive", "trigger": "api", "asked_at": datetime.now(UTC)}
    return RunRequest.objects.create(id=uuid.uuid4(), **{**values, **members})


@pytest.mark.django_db
def test_a_worker_that_is_taken_for_dead_just_as_it_ends_has_the_last_word() -> None:
    row = asked(state="taken")
    assert handover.end(row, handover.Answer(1, "archived"))
    assert not handover.end(row, handover.Answer(None, "failed", "It ended without a word."))
    assert RunRequest.objects.get().answer["outcome"] == "archived"


@pytest.mark.django_db
def test_what_is_asked_for_is_taken_once_and_not_when_it_was_withdrawn() -> None:
    row = asked()
    taken = handover.take(str(row.pk))
    assert taken is not None
    assert Process.holding(taken) == Process.current()
    assert handover.take(str(row.pk)) is None
    assert handover.take(str(asked(state="withdrawn").pk)) is None


@pytest.mark.django_db
def test_what_is_taken_just_before_it_would_be_withdrawn_is_not_withdrawn(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.start()
    monkeypatch.setitem(celery_app.conf, "task_always_eager", False)
    monkeypatch.setitem(celery_app.conf, "broker_url", redis.url)
    monkeypatch.setattr(handover, "TAKEN_WITHIN", 0.1)
    monkeypatch.setattr(handover, "BEGUN_WITHIN", 0.1)
    monkeypatch.setattr(handover, "ENDED_WITHIN", 0.1)

    def take_first(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE") and "withdrawn" in params:
            assert handover.take(str(RunRequest.objects.get().pk))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(take_first):
        assert handover.ask(RunRequest.Kind.ARCHIVE, "api", "ada", "here").outcome == "running"
    assert RunRequest.objects.get().state == "taken"


@pytest.mark.django_db
def test_only_requests_whose_worker_is_gone_are_ended() -> None:
    me = {"host": Process.current().host, "pid": Process.current().pid}
    row = asked(state="taken", **me, **GONE)
    asked(state="taken", **me, pid_started=Process.current().started)
    asked(state="taken", host="another", pid_started="1")
    asked()
    assert handover.close_dead() == 1
    assert RunRequest.objects.get(state="ended") == row
    RunRequest.objects.filter(host="another").update(asked_at=datetime.now(UTC) - handover.DIES)
    assert handover.close_dead() == 1


def test_a_message_is_kept_until_its_task_has_ended(stack: Stack, proxy: FaultProxy) -> None:
    """So it comes again where its worker dies."""

    def kept() -> int:
        with stack.redis.client as client:
            return sum(client.hlen(key) for key in client.scan_iter("*:unacked"))

    proxy.fault(stall, "PUT", ".jsonl.gz")
    stack.worker()
    stack.send(ARCHIVE)
    stack.wait_until(lambda: proxy.count("PUT", ".jsonl.gz"), "the run")
    assert kept() == 1
    proxy.lift()
    done(stack)
    stack.wait_until(lambda: kept() == 0, "that it is acknowledged")


def test_two_logs_that_share_a_broker_get_no_message_of_each_other(
    redis: RedisServer, settings: Any
) -> None:
    redis.start()
    with redis.client as client:
        client.flushall()
        for origin in ("one", "another"):
            settings.AUDIT_ORIGIN = origin
            with Celery(broker=redis.url, set_as_current=False) as producer:
                producer.conf.broker_transport_options = configuration()[
                    "broker_transport_options"
                ]
                producer.send_task(ARCHIVE, queue="long", ignore_result=True)
        queues = [key for key in client.scan_iter("*long") if client.type(key) == b"list"]
        assert [client.llen(key) for key in queues] == [1, 1]


# What is forgotten -----------------------------------------------------------------------------


def forget(scene: Scene) -> list[int]:
    """Forget all that may be; return how many keys went, and the first seq that is known."""
    with scene.inside():
        gone = prune.forget()
    return [gone, scene.one("SELECT min(seq) FROM audit_eventkey")]


def test_keys_are_forgotten_of_old_events_that_were_purged(scene: Scene) -> None:
    assert forget(scene) == [0, 1]  # none is old
    scene.settings["AUDIT_DEDUP_DAYS"] = 0
    stored = "state = 'stored', purged_at = NULL"
    scene.run(f"UPDATE audit_archivebatch SET {stored} WHERE end_seq = {COLD}")  # noqa: S608  # ours
    assert forget(scene) == [COLD - BATCH, COLD - BATCH + 1]


@pytest.mark.parametrize("minutes", [-7, 7])
def test_nothing_is_forgotten_by_a_clock_that_is_not_the_bucket_s(
    scene: Scene, minutes: int
) -> None:
    scene.settings["AUDIT_DEDUP_DAYS"] = 0
    its = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)
    with FaultProxy(scene.env["AUDIT_COLD_ENDPOINT"]) as proxy:
        scene.endpoint = proxy.endpoint
        proxy.fault(redate(its), "LIST")
        assert forget(scene) == [0, 1]
        proxy.lift()
        assert forget(scene)[0] == COLD
