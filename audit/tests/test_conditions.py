"""What the databases and this machine say is wrong: each caused for real, and mended."""

# ruff: noqa: S608  # an attack is SQL, and its values are the test's own

from __future__ import annotations

import base64
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit import checkpoints, conditions, tasks
from audit.alarms import Kind
from audit.conditions import LOOKS
from audit.format.errors import AuditError
from audit.models import ArchiveRun, DayGuard, Heartbeat, VerificationRun

from .attacks import ED25519, KEYS, NEWER, ONE, UNKNOWN, Scene
from .doors import verification
from .fault_proxy import FaultProxy, refuse
from .simulator import Site
from .test_archive_disk import locked
from .tiny_disk import tiny_disk
from .watching import NOWHERE, TOGETHER, Watched, look, message, only, quiet

FORGE = (
    "UPDATE audit_auditevent SET record = "
    "CAST(replace(record, '\"v\":{}', '\"v\":{}') AS BLOB) WHERE seq = 9"
)
TAKE_OUT = (
    "CREATE TABLE kept AS SELECT * FROM audit_auditevent WHERE seq = 9; "
    "DELETE FROM audit_auditevent WHERE seq = 9"
)
PUT_BACK = "INSERT INTO audit_auditevent SELECT * FROM kept; DROP TABLE kept"
NEWEST = 'WHERE "index" = (SELECT max("index") FROM audit_checkpoint)'
ANOTHER_KEY = base64.b64encode(b"another key, of thirty-two bytes").decode()


@pytest.fixture
def watched(small_site: Site, django_db_blocker: Any) -> Watched:
    """Watch a site of which two batches are due."""
    small_site.env["AUDIT_COLD_ATTEMPTS"] = "1"
    return Watched(small_site, django_db_blocker)


@pytest.fixture
def calm(scene: Scene) -> Scene:
    """Watch a log that is archived; nothing is wrong with it."""
    quiet(scene)
    assert look(scene, *LOOKS) == set()
    return scene


# The last run --------------------------------------------------------------------------------


def run(watched: Watched, expected: str, *args: str, **env: str) -> set[tuple[str, str]]:
    """Run the archive in an environment; return what a look finds then."""
    site = watched.site
    before, site.env = site.env, {**site.env, **env}
    answer = site.archive(*args)
    site.env = before
    assert answer["outcome"] == expected, answer
    return look(watched, *only(LOOKS, "run"))


def test_a_run_that_failed_is_an_alarm_until_one_ends_well(watched: Watched) -> None:
    assert look(watched, *LOOKS) == set()
    failed = {(Kind.RUN_FAILED, "run")}
    assert run(watched, "failed", AUDIT_COLD_ENDPOINT=NOWHERE) == failed
    assert "no whole answer after 1 of 1 tries" in message(watched, *failed.copy().pop())
    assert run(watched, "failed", AUDIT_COLD_SECRET_KEY="wrong") == failed
    assert "AUDIT_COLD_SECRET_KEY" in message(watched, *failed.copy().pop())
    # None of these puts anything right: one that was killed, and one that was asked for too much.
    driver = watched.site.driver("archive", "--pause=step:range fixed")
    driver.wait_for("^paused")
    assert look(watched, *only(LOOKS, "run")) == failed
    driver.kill()
    assert run(watched, "failed", "--through-seq=1000000") == failed
    with watched.inside():
        outcomes = list(ArchiveRun.objects.values_list("outcome", "failure"))
    assert outcomes[:2] == [("failed", ""), ("interrupted", "")]
    assert run(watched, "archived") == set()


def test_a_run_that_was_not_allowed_is_no_alarm(watched: Watched) -> None:
    from audit import archive
    from audit.request import Request

    with watched.inside():
        assert archive.run(Request("beat", "schedule")).outcome == "refused"
    assert look(watched, *LOOKS) == set()


def test_what_is_grave_about_a_run_is_an_alarm_of_its_own(
    watched: Watched, tmp_path: Path
) -> None:
    site = watched.site

    def refused(kind: Kind, expected: str = "failed", **env: str) -> None:
        assert run(watched, expected, **env) == {(kind, "run")}
        message(watched, kind, "run")

    refused(Kind.KEY_MISSING, AUDIT_SIGNING_KEY=ANOTHER_KEY)
    refused(Kind.APPEND_REFUSED, "refused", AUDIT_ORIGIN="another-log")
    with FaultProxy(site.env["AUDIT_COLD_ENDPOINT"]) as proxy:
        proxy.fault(refuse(507, "QuotaExceeded"), "PUT", ".jsonl.gz")
        refused(Kind.FULL, AUDIT_COLD_ENDPOINT=proxy.endpoint)
    with tiny_disk(tmp_path / "disk", 4) as disk:
        refused(Kind.FULL, TMPDIR=str(disk))
    skewed = site.driver("archive", f"--clock={20 * 60}")
    assert "outcome failed" in skewed.finish()[-1]
    assert look(watched, *only(LOOKS, "run")) == {(Kind.CLOCK, "run")}
    for kind, statement, mend in (
        (Kind.TAMPERING, FORGE.format(1, 2), FORGE.format(2, 1)),
        (Kind.GAP, TAKE_OUT, PUT_BACK),
    ):
        with site.sql() as connection:
            connection.executescript(statement)
        refused(kind)
        with site.sql() as connection:
            connection.executescript(mend)
    assert run(watched, "archived") == set()
    assert site.read_log().records == site.template.records


# Verifications ---------------------------------------------------------------------------------


def test_what_a_verification_found_is_an_alarm_until_one_as_thorough_is_ok(calm: Scene) -> None:
    looks = only(LOOKS, "verification")

    def verified(level: str = "full") -> set[tuple[str, str]]:
        calm.verify(level)
        return look(calm, *looks)

    key = calm.key(21)
    flipped = bytearray(calm.get(key))
    flipped[len(flipped) // 2] ^= 1
    calm.put(key, bytes(flipped))
    tampered = {(Kind.TAMPERING, "verification")}
    assert verified() == tampered
    assert key.rpartition("/")[2] in message(calm, Kind.TAMPERING, "verification")
    calm.put(key, calm.get(key))
    assert verified("manifests") == tampered  # which looked at less
    assert verified() == set()
    calm.remove(key)
    assert verified() == {(Kind.GAP, "verification")}
    calm.put(key, calm.get(key))
    assert verified() == set()
    calm.endpoint = NOWHERE
    calm.settings["AUDIT_COLD_ATTEMPTS"] = 1
    assert verified("manifests") == {(Kind.UNVERIFIABLE, "verification")}
    calm.endpoint = ""
    assert verified() == set()


# Checkpoints -----------------------------------------------------------------------------------


def test_a_checkpoint_that_was_refused_is_an_alarm_until_one_is_made(calm: Scene) -> None:
    turn = "UPDATE audit_logstate SET head_link = replace(replace(replace(head_link, {}), {}), {})"
    turn = turn.format("'a', 'x'", "'b', 'a'", "'x', 'b'")
    calm.run(turn)
    with calm.inside(), pytest.raises(AuditError):
        checkpoints.make()
    refused = {(Kind.TAMPERING, "checkpoint")}
    assert look(calm, *only(LOOKS, "checkpoint")) == refused
    assert "No checkpoint is made since 20" in message(calm, Kind.TAMPERING, "checkpoint")
    calm.run(turn)
    assert look(calm, *only(LOOKS, "checkpoint")) == refused  # none was made yet
    with calm.inside():
        made = checkpoints.make()
    calm.remove(made.key)
    assert look(calm, *only(LOOKS, "checkpoint")) == set()


def test_a_checkpoint_that_waits_for_hours_is_an_alarm(calm: Scene) -> None:
    calm.endpoint = NOWHERE
    calm.settings["AUDIT_COLD_ATTEMPTS"] = 1
    with calm.inside():
        made = checkpoints.make()
    assert not made.published
    assert look(calm, *LOOKS) == set()

    def date(at: str) -> None:
        with calm.sql() as connection:
            connection.execute(f"UPDATE audit_checkpoint SET at = ? {NEWEST}", [at])

    old = datetime.now(UTC) - conditions.PUBLISHED_WITHIN - timedelta(minutes=1)
    date(f"{old:%Y-%m-%d %H:%M:%S}")
    looks = only(LOOKS, "checkpoints")
    assert look(calm, *looks) == {(Kind.BUCKET, "checkpoints")}
    assert message(calm, Kind.BUCKET, "checkpoints").startswith("1 checkpoint not published")
    date(made.at.replace("T", " ").replace("Z", "000"))
    calm.endpoint = ""
    with calm.inside():
        assert checkpoints.publish()
    calm.remove(made.key)
    assert look(calm, *LOOKS) == set()


# Keys ------------------------------------------------------------------------------------------


def test_a_key_that_is_missing_ended_or_unknown_is_an_alarm(calm: Scene) -> None:
    looks = only(LOOKS, "keys")
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    mine, unknown = (Kind.KEY_MISSING, "keys"), (Kind.KEY_MISSING, TOGETHER)
    for keys, found, words in (
        ("nonsense", {mine}, "AUDIT_SIGNING_KEYS"),
        ("", {mine, unknown}, "No key signs"),
        (UNKNOWN, {unknown}, "set AUDIT_SIGNING_KEYS so that it has that key, too"),
        # It signed today, which it should not have: the same look finds both.
        (
            f"{ONE}:until={yesterday},ed25519:e-two:{ED25519}",
            {mine, (Kind.TAMPERING, "keys")},
            "k-one has come to its end",
        ),
    ):
        calm.keys = keys
        assert look(calm, *looks) == found, keys
        assert words in message(calm, *(mine if mine in found else unknown))
        calm.keys = KEYS
        assert look(calm, *looks) == set()
    today = datetime.now(UTC).date()
    calm.keys = f"{ONE}:until={today},+ed25519:e-two:{ED25519},{NEWER}"
    assert look(calm, *looks) == set()


def test_a_checkpoint_that_was_changed_is_an_alarm(calm: Scene) -> None:
    calm.run(f"UPDATE audit_checkpoint SET seq = seq - 1 {NEWEST}")
    assert look(calm, *only(LOOKS, "keys")) == {(Kind.TAMPERING, "keys")}
    calm.run(f"UPDATE audit_checkpoint SET seq = seq + 1 {NEWEST}")
    assert look(calm, *LOOKS) == set()


# Room, and the database of the log ---------------------------------------------------------------


def test_a_disk_with_too_little_room_is_an_alarm_that_names_it(
    calm: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = only(LOOKS, "room")
    full = (Kind.FULL, "room")
    calm.settings["AUDIT_MIN_FREE_MB"] = 10**9
    assert look(calm, *looks) == {full}
    assert "and AUDIT_MIN_FREE_MB is 1,000,000,000: make room, until 1,250" in message(calm, *full)
    calm.settings["AUDIT_MIN_FREE_MB"] = 1
    assert look(calm, *looks) == set()
    with tiny_disk(tmp_path / "disk", 64) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        assert look(calm, *looks) == {full}
        text = message(calm, *full)
        assert str(disk) in text
        assert text.count("make room") == 1
        # The other one as well, in the same alarm.
        calm.settings["AUDIT_MIN_FREE_MB"] = 10**9
        look(calm, *looks)
        assert message(calm, *full).count("make room") == 2
        monkeypatch.undo()
    calm.settings["AUDIT_MIN_FREE_MB"] = 1
    assert shutil.disk_usage(tempfile.gettempdir()).free > 1024**2
    assert look(calm, *looks) == set()


def test_a_little_more_room_is_no_end_of_an_alarm_and_clearly_more_is(
    calm: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = only(LOOKS, "room")
    full = (Kind.FULL, "room")
    with tiny_disk(tmp_path / "disk", 16 * 1024) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        free = shutil.disk_usage(disk).free // 1024**2
        for least, found in (
            (free - 1, set()),
            (free + 1, {full}),
            (free - 1, {full}),
            (free // 2, set()),
            (free - 1, set()),
        ):
            calm.settings["AUDIT_MIN_FREE_MB"] = least
            assert look(calm, *looks) == found
        # Another disk that has just enough keeps none open that was never of it.
        calm.settings["AUDIT_MIN_FREE_MB"] = free + 1
        assert look(calm, *looks) == {full}
        monkeypatch.undo()
        free = shutil.disk_usage(tempfile.gettempdir()).free // 1024**2
        calm.settings["AUDIT_MIN_FREE_MB"] = int(free / 1.1)
        assert look(calm, *looks) == set()
        monkeypatch.undo()


def test_a_log_that_takes_nothing_is_an_alarm_where_its_database_is_another(
    small_site: Site,
) -> None:
    small_site.split()
    for name in ("DATABASE_URL", "HOT_DATABASE_URL"):
        small_site.env[name] += "?timeout=1"
    small_site.env["AUDIT_MIN_FREE_MB"] = "1"

    def found() -> list[Any]:
        query = "SELECT kind, subject FROM main.audit_alarm WHERE cleared_at IS NULL"
        return small_site.rows(query)

    with locked(small_site.hot_database):
        assert small_site.driver("tasks", "watch").finish()[-1] == "did watch"
    assert found() == [("database", "watch")]
    small_site.driver("tasks", "watch").finish()
    assert found() == []


# The schedule itself --------------------------------------------------------------------------


def heartbeat(watched: Watched, **ages: timedelta) -> None:
    now = datetime.now(UTC)
    for name, age in ages.items():
        Heartbeat.objects.update_or_create(name=name, defaults={"at": now - age})


def test_a_queue_that_nobody_serves_is_an_alarm(watched: Watched) -> None:
    looks = only(LOOKS, "long queue")
    day, hour, minute = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
    alarm = {(Kind.SCHEDULE, "long queue")}
    for since, looked, expected in (
        (hour - minute, day, set()),  # it has just come up, after a night without power
        (day, hour - minute, set()),
        (day, hour + minute, alarm),
        (hour - minute, day, alarm),  # after a pause nobody knows whether it is over
        (hour - minute, minute, set()),
        (hour + minute, day, alarm),
        (day, minute, set()),
    ):
        with watched.inside():
            heartbeat(watched, schedule_since=since, safety_net=looked)
        assert look(watched, *looks) == expected, (since, looked)


UNVERIFIED = {(Kind.UNVERIFIABLE, "unverified")}


def test_a_log_that_nobody_verifies_is_an_alarm(watched: Watched) -> None:
    looks = only(LOOKS, "unverified")
    hours, now = timedelta(hours=1), datetime.now(UTC)
    with watched.inside():
        heartbeat(watched, schedule_since=35 * hours)
    assert look(watched, *looks) == set()
    with watched.inside():
        heartbeat(watched, schedule_since=37 * hours)
    assert look(watched, *looks) == UNVERIFIED
    with watched.inside():
        row = verification(
            trigger="beat", outcome="ok", finished_at=now - 30 * hours, report={"problems": []}
        )
    assert look(watched, *looks) == set()
    with watched.inside():
        heartbeat(watched, schedule_since=300 * hours)
        verification(trigger="beat", outcome="ok", finished_at=now, level="manifests")
        VerificationRun.objects.filter(pk=row.pk).update(finished_at=now - 193 * hours)
    assert look(watched, *looks) == UNVERIFIED
    assert "full" in message(watched, *next(iter(UNVERIFIED)))


def test_a_site_that_pauses_every_night_is_told_all_the_same(watched: Watched) -> None:
    looks = only(LOOKS, "unverified")
    hours, now = timedelta(hours=1), datetime.now(UTC)
    with watched.inside():
        DayGuard.objects.create(
            job="verify", day="2026-11-01", state="failed", tries=3, claimed_at=now - 200 * hours
        )
        at_work = verification(outcome="", finished_at=None)
    # What is not known is no news: the day's own may come yet, or is at work.
    for since, done, begun, expected in (
        (2, True, 1, set()),
        (4, False, 11, set()),
        (4, False, 13, UNVERIFIED),
        (4, True, 1, UNVERIFIED),
    ):
        with watched.inside():
            VerificationRun.objects.filter(pk=at_work.pk).update(
                outcome="unverifiable" if done else "",
                report={"error": "It died."},
                started_at=now - begun * hours,
            )
            heartbeat(watched, schedule_since=since * hours)
        assert look(watched, *looks) == expected, (since, done)
    with watched.inside():
        heartbeat(watched, schedule_since=hours)  # another pause, and it is as it was
    assert look(watched, *looks) == UNVERIFIED
    assert message(watched, *next(iter(UNVERIFIED))).count("level") == 2
    with watched.inside():
        heartbeat(watched, schedule_since=4 * hours)
        for how in ("stopped", "broken", "error"):
            verification(outcome="unverifiable", finished_at=now, report={how: True})
    assert look(watched, *looks) == UNVERIFIED
    with watched.inside():
        verification(outcome="tampered", finished_at=now)
    assert look(watched, *looks) == set()


def test_a_clock_that_had_leapt_ahead_hides_nothing(watched: Watched) -> None:
    year, hours = timedelta(days=365), timedelta(hours=1)
    looks = only(LOOKS, "long queue", "days")
    with watched.inside():
        DayGuard.objects.create(job="verify", day="2026-11-20", state="failed", tries=3)
        DayGuard.objects.create(job="verify", day="2099-11-20", state="done", tries=1)
        heartbeat(watched, schedule=-year, schedule_since=-year, safety_net=-year)
        tasks.heartbeat()
        began = Heartbeat.objects.get(name=Heartbeat.SINCE).at
        assert began <= datetime.now(UTC)
        tasks.heartbeat()
        assert Heartbeat.objects.get(name=Heartbeat.SINCE).at == began
        heartbeat(watched, schedule_since=2 * hours)
    assert look(watched, *looks) == {(Kind.SCHEDULE, "long queue"), (Kind.UNVERIFIABLE, "days")}


def test_a_day_that_was_given_up_is_over_when_somebody_has_done_its_work(calm: Scene) -> None:
    looks = only(LOOKS, "days")
    now = datetime.now(UTC)
    with calm.inside():
        for job in ("archive", "verify"):
            DayGuard.objects.create(
                job=job, day="2026-11-23", state="failed", tries=3, claimed_at=now
            )
    calm.settings["ARCHIVE_ENABLED"] = True
    assert len(look(calm, *looks)) == 2
    with calm.inside():
        ArchiveRun.objects.create(
            trigger="command", token=99, outcome="archived", started_at=now, cutoff=now
        )
    assert look(calm, *looks) == {(Kind.UNVERIFIABLE, "days")}
    calm.verify()
    assert look(calm, *looks) == set()


def test_a_day_that_was_given_up_is_an_alarm_until_one_is_done(watched: Watched) -> None:
    (days,) = (each for each in LOOKS if each.name == "days")
    with watched.inside():
        DayGuard.objects.create(job="archive", day="2026-11-23", state="failed", tries=3)
        DayGuard.objects.create(job="verify", day="2026-11-23", state="failed", tries=3)
        DayGuard.objects.create(job="archive", day="2026-11-24", state="running", tries=1)
    both = {(Kind.RUN_FAILED, "days"), (Kind.UNVERIFIABLE, "days")}
    assert look(watched, days) == {(Kind.UNVERIFIABLE, "days")}  # the archive is off
    watched.settings["ARCHIVE_ENABLED"] = True
    assert look(watched, days) == both
    with watched.inside():
        DayGuard.objects.filter(job="archive", day="2026-11-24").update(state="done")
        DayGuard.objects.create(job="verify", day="2026-11-24", state="done", tries=1)
    assert look(watched, days) == set()


@pytest.mark.parametrize("report", [{"error": "It died."}, {"problems": [], "stopped": True}])
def test_a_verification_that_says_nothing_neither_opens_nor_clears(
    watched: Watched, report: dict[str, Any]
) -> None:
    (verdicts,) = (each for each in LOOKS if each.name == "verification")
    now = datetime.now(UTC)
    with watched.inside():
        verification(outcome="unverifiable", finished_at=now, report=report)
    assert look(watched, verdicts) == set()
    with watched.inside():
        verification(outcome="unverifiable", finished_at=now, report={"problems": [{"kind": "x"}]})
    alarm = {(Kind.UNVERIFIABLE, "verification")}
    assert look(watched, verdicts) == alarm
    with watched.inside():
        verification(outcome="unverifiable", finished_at=now, report=report)
    assert look(watched, verdicts) == alarm
