"""The safety net: each thing that must not be is caused for real, found, and over when mended."""

# ruff: noqa: S608  # an attack is SQL, and its values are the test's own

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from typing import Any

import pytest

from audit import alarms, guard, safetynet, tasks
from audit.alarms import Kind
from audit.format.names import Kind as ObjectKind
from audit.format.names import ObjectName
from audit.models import Alarm, Heartbeat, OwnEvent
from audit.safetynet import LOOKS
from audit.watcher import Step

from .attacks import UNKNOWN, Scene
from .doors import own_events
from .fault_proxy import Exchange, FaultProxy, pass_on, redate, refuse_skewed
from .simulator import SMALL_BATCH_EVENTS, Site
from .watching import ALL, NOWHERE, TOGETHER, Watched, look, message, only, opened, quiet

OF_THE_NET = {"audit_alarm", "audit_notice", "audit_ownevent", "audit_heartbeat"}
BEHIND = (Kind.ARCHIVE_BEHIND, "overdue")


@pytest.fixture
def watched(small_site: Site, django_db_blocker: Any) -> Watched:
    """Watch a site of which two batches are due, and one event is overdue."""
    return Watched(small_site, django_db_blocker)


@pytest.fixture
def calm(scene: Scene) -> Scene:
    """Watch a log that is archived; nothing is wrong with it."""
    quiet(scene)
    assert look(scene, *ALL) == set()
    return scene


# The log ---------------------------------------------------------------------------------------


def test_a_log_behind_what_is_signed_is_one_alarm_and_its_events_wait(calm: Scene) -> None:
    head = calm.head
    refused = {(Kind.APPEND_REFUSED, TOGETHER)}
    calm.run(f"UPDATE audit_logstate SET head_seq = {calm.signed - 1}")
    with calm.inside():
        tasks.safety_net()
    assert look(calm, *LOOKS) == refused
    assert "a checkpoint is signed for seq" in message(calm, *refused.copy().pop())
    with calm.inside():
        assert [row.event["action"] for row in OwnEvent.objects.all()] == ["alarm_opened"]
        assert Heartbeat.objects.get(name="safety_net")
    calm.run(f"UPDATE audit_logstate SET head_seq = {head}")
    with calm.inside():
        before = len(own_events())
        tasks.safety_net()  # clears it, and nothing is wrong, so the log takes them
        actions = [event["action"] for event in own_events()[before:]]
        assert actions == ["alarm_opened", "alarm_cleared"]
        assert not OwnEvent.objects.exists()
    assert look(calm, *LOOKS) == set()


def test_what_is_wrong_elsewhere_keeps_no_event_of_an_alarm_out_of_the_log(calm: Scene) -> None:
    calm.put(f"{calm.prefix}/note.txt", b"x")
    with calm.inside():
        before = len(own_events())
        tasks.safety_net()
        assert [event["data"]["kind"] for event in own_events()[before:]] == ["unknown_objects"]
    # Where the bucket was not asked, nobody knows whether hot was rolled back.
    calm.endpoint = NOWHERE
    calm.settings["AUDIT_COLD_ATTEMPTS"] = 1
    with calm.inside():
        before = len(own_events())
        tasks.safety_net()
        assert len(own_events()) == before
        assert [row.event["data"]["kind"] for row in OwnEvent.objects.all()] == ["bucket"]


@pytest.mark.parametrize("why", ["a key is not known", "a clock is refused", "another net"])
def test_where_it_cannot_be_said_whether_the_log_was_rolled_back_nothing_is_chained(
    calm: Scene, why: str
) -> None:
    """It was, with the alarms: the database is older than the bucket."""
    calm.restore("archived")
    calm.settings["AUDIT_COLD_ATTEMPTS"] = 1
    head = calm.head
    with FaultProxy(calm.env["AUDIT_COLD_ENDPOINT"]) as proxy:
        calm.endpoint = proxy.endpoint
        if why == "a key is not known":
            calm.keys = UNKNOWN
        if why == "a clock is refused":
            # It is set right while the rest is looked at.
            proxy.fault(refuse_skewed(3600, 900), "LIST", times=1, skip=3)
        with calm.inside():
            if why == "another net":
                found = alarms.go(Alarm.SAFETY_NET, LOOKS)
                Alarm.objects.all().delete()  # one that has looked before the restore
                assert not safetynet.is_in_order(found)
            else:
                tasks.safety_net()
                assert not safetynet.is_in_order([])
            assert OwnEvent.objects.exists()
    assert calm.head == head


def test_a_log_behind_the_ledger_is_an_alarm(calm: Scene) -> None:
    with calm.sql() as connection:
        connection.executescript(
            "CREATE TABLE kept AS SELECT * FROM audit_checkpoint; DELETE FROM audit_checkpoint; "
            "CREATE TABLE state AS SELECT * FROM audit_logstate; "
            "UPDATE audit_logstate SET head_seq = 59, floor_seq = 40"
        )
    assert look(calm, *only(LOOKS, "log")) == {(Kind.APPEND_REFUSED, TOGETHER)}
    assert "the ledger knows seq 60" in message(calm, Kind.APPEND_REFUSED, TOGETHER)
    with calm.sql() as connection:
        connection.executescript(
            "INSERT INTO audit_checkpoint SELECT * FROM kept; DELETE FROM audit_logstate; "
            "INSERT INTO audit_logstate SELECT * FROM state"
        )
    assert look(calm, *LOOKS) == set()


def test_a_log_that_was_cut_and_continued_is_an_alarm(calm: Scene) -> None:
    turned = "UPDATE audit_auditevent SET link = replace(replace(replace(link, {}), {}), {}) "
    turned = turned.format("'a', 'x'", "'b', 'a'", "'x', 'b'")
    turned += "WHERE seq = (SELECT max(seq) FROM audit_checkpoint)"
    calm.run(turned)
    assert look(calm, *LOOKS) == {(Kind.APPEND_REFUSED, TOGETHER), (Kind.APPEND_REFUSED, "claims")}
    calm.run(turned)
    assert look(calm, *LOOKS) == set()


def test_a_head_that_is_to_come_is_an_alarm(calm: Scene) -> None:
    ahead = (Kind.CLOCK, "log")
    now = datetime.now(UTC)
    before = calm.one("SELECT head_recorded_at FROM audit_logstate")
    calm.append(now=now + timedelta(minutes=4))
    assert look(calm, *LOOKS) == set()
    calm.append(now=now + timedelta(hours=2))
    assert look(calm, *LOOKS) == {ahead}
    assert f"{now + timedelta(hours=2):%Y-%m-%d %H:%M:%S} UTC, which is to" in message(
        calm, *ahead
    )
    with calm.sql() as connection:  # as when two hours have passed
        connection.execute("UPDATE audit_logstate SET head_recorded_at = ?", [before])
    assert look(calm, *LOOKS) == set()


def test_events_that_should_have_been_archived_are_an_alarm_until_they_are(
    watched: Watched,
) -> None:
    assert look(watched) == {BEHIND}
    text = message(watched, *BEHIND)
    assert "from seq 1 on are still in hot, more than 2 days after they were due." in text
    assert "ARCHIVE_ENABLED is off" in text
    watched.settings["ARCHIVE_ENABLED"] = True
    assert look(watched) == {BEHIND}
    assert "ARCHIVE_ENABLED" not in message(watched, *BEHIND)
    watched.settings["AUDIT_GRACE_DAYS"] = 91
    assert look(watched) == set()
    watched.settings["AUDIT_GRACE_DAYS"] = 2
    watched.settings["AUDIT_HOT_RETENTION_DAYS"] = 10**9  # for ever
    assert look(watched) == set()
    watched.settings["AUDIT_HOT_RETENTION_DAYS"] = 90
    assert look(watched) == {BEHIND}
    assert watched.site.archive()["outcome"] == "archived"
    assert look(watched) == set()


# What runs have left -----------------------------------------------------------------------------


def put_back(scene: Scene, seq: int) -> None:
    """Let hot have a row again that was purged."""
    with scene.sql() as connection:
        connection.execute("ATTACH ? AS old", [str(scene.archived.old["unarchived"])])
        connection.execute(
            "INSERT INTO main.audit_auditevent SELECT * FROM old.audit_auditevent WHERE seq = ?",
            [seq],
        )


@pytest.mark.parametrize("seq", [5, 60])
def test_rows_below_the_floor_are_an_alarm_unless_a_run_is_at_work(calm: Scene, seq: int) -> None:
    left = {(Kind.UNFINISHED, "residue")}
    put_back(calm, seq)
    with calm.inside(), guard.lease():
        assert look_within() == set()
    assert look(calm, *LOOKS) == left
    assert message(calm, Kind.UNFINISHED, "residue").startswith(f"Seq {seq} is in hot although")
    with calm.inside(), guard.lease():  # which may yet fail: so it is not over
        assert look_within() == left
    calm.run(f"DELETE FROM audit_auditevent WHERE seq = {seq}")
    assert look(calm, *LOOKS) == set()


def look_within() -> set[tuple[str, str]]:
    """Look, where this process is the deployment already."""
    alarms.go(TOGETHER, LOOKS)
    return opened()


def test_rows_that_no_batch_holds_are_a_gap_in_the_ledger(calm: Scene) -> None:
    put_back(calm, 5)
    with calm.sql() as connection:
        connection.executescript(
            "CREATE TABLE kept AS SELECT * FROM audit_archivebatch WHERE start_seq = 1; "
            "DELETE FROM audit_archivebatch WHERE start_seq = 1"
        )
    assert look(calm, *only(LOOKS, "residue")) == {(Kind.GAP, "residue")}
    with calm.sql() as connection:
        connection.executescript(
            "INSERT INTO audit_archivebatch SELECT * FROM kept; "
            "DELETE FROM audit_auditevent WHERE seq = 5"
        )
    assert look(calm, *LOOKS) == set()


@pytest.mark.parametrize(
    ("step", "subject", "column", "words"),
    [
        (Step.RECORDED, "stored", "archived_at", "is stored and not purged"),
        (Step.RANGE_FIXED, "planned", "planned_at", "was planned and is not stored"),
    ],
)
def test_a_batch_that_nobody_finishes_is_an_alarm(
    watched: Watched, step: Step, subject: str, column: str, words: str
) -> None:
    site = watched.site
    run = site.driver("archive", f"--pause=step:{step}")
    run.wait_for("^paused")
    run.kill()
    assert look(watched, *LOOKS) == {BEHIND}  # it has not been so for long
    old = datetime.now(UTC) - timedelta(hours=2, minutes=1)
    with site.sql() as connection:
        connection.execute(f"UPDATE audit_archivebatch SET {column} = ?", [f"{old:%F %T}"])
    assert look(watched, *LOOKS) == {BEHIND, (Kind.UNFINISHED, subject)}
    text = message(watched, Kind.UNFINISHED, subject)
    assert text.startswith(f"batch 1–{SMALL_BATCH_EVENTS} ({subject}) {words}, since ")
    # While the next run is at it, it is neither an alarm anew nor over.
    run = site.driver("archive", f"--pause=step:{Step.LISTED}")
    run.wait_for("^paused")
    assert look(watched, *LOOKS) == {BEHIND, (Kind.UNFINISHED, subject)}
    run.go_on()
    run.finish()
    assert look(watched, *LOOKS) == set()
    assert site.read_log().records == site.template.records


def test_no_step_of_a_run_is_a_false_alarm_nor_is_dying_there(watched: Watched) -> None:
    site = watched.site
    # What died amid a purge has left rows that the next run deletes, and that is said.
    amid_a_purge = {Step.FLOOR_RAISED, Step.CHUNK_DELETED}
    for step in Step:
        site.bucket.objects.filter(Prefix=f"{site.prefix}/").delete()
        site.start_full()
        before = Step.MANIFEST_SENT if step is Step.ADOPTED else None
        for at in filter(None, (before, step)):
            run = site.driver("archive", f"--pause=step:{at}")
            run.wait_for("^paused")
            assert look(watched) <= {BEHIND}, at
            run.kill()
            left = {(Kind.UNFINISHED, "residue")} if at in amid_a_purge else set()
            assert look(watched) - {BEHIND} == left, at
    assert site.archive()["outcome"] == "archived"
    assert look(watched) == set()
    assert site.read_log().records == site.template.records


# The bucket ------------------------------------------------------------------------------------


def test_objects_that_are_gone_are_an_alarm_that_names_them(calm: Scene) -> None:
    gone = {(Kind.GAP, "objects")}
    newest = max(key for key in calm.archived.objects if "/checkpoints/" in key)
    for key in (calm.key(1), calm.key(41, ObjectKind.MANIFEST), newest):
        calm.remove(key)
        assert look(calm, *LOOKS) == gone
        assert message(calm, Kind.GAP, "objects").startswith(
            f"1 object that rows name are not in the bucket 'dezky-audit': {key}. "
        )
        calm.put(key, calm.get(key))
        assert look(calm, *LOOKS) == set()
    calm.remove(*(calm.key(start, kind) for start in (1, 21, 41) for kind in ObjectKind))
    assert look(calm, *LOOKS) == gone
    text = message(calm, Kind.GAP, "objects")
    assert text.startswith("6 objects that rows name")
    assert "and 3 more" in text


def test_objects_that_no_row_knows_are_an_alarm(calm: Scene) -> None:
    unknown = {(Kind.UNKNOWN_OBJECTS, "objects")}
    stranger = ObjectName.of(ObjectKind.JSONL, 61, 80, sha256(b"x").hexdigest())
    for name in ("note.txt", "checkpoints/note.txt", str(stranger)):
        key = f"{calm.prefix}/{name}"
        calm.put(key, b"x")
        assert look(calm, *LOOKS) == unknown
        assert f": {key}. " in message(calm, Kind.UNKNOWN_OBJECTS, "objects")
        calm.remove(key)
        assert look(calm, *LOOKS) == set()
    # What a run that died may have left of a range that is archived is none.
    superseded = ObjectName.of(ObjectKind.JSONL, 21, 40, sha256(b"x").hexdigest())
    calm.put(superseded.key(calm.prefix), b"x")
    assert look(calm, *LOOKS) == set()


def test_what_a_run_sends_while_it_looks_is_no_alarm(watched: Watched) -> None:
    """Between its look at the rows and the answer of the bucket all is archived."""
    site = watched.site

    def archive_first(exchange: Exchange) -> None:
        assert site.archive()["outcome"] == "archived"
        pass_on(exchange)

    with FaultProxy(site.env["AUDIT_COLD_ENDPOINT"]) as proxy:
        watched.endpoint = proxy.endpoint
        proxy.fault(archive_first, "LIST", times=1)
        assert look(watched, *only(LOOKS, "objects")) == set()
    assert len(site.objects()) == 4


def test_an_object_that_goes_with_its_row_while_it_looks_is_no_alarm(watched: Watched) -> None:
    """As where the ledger is made anew, from a bucket that was put right, just then."""
    site = watched.site
    assert site.archive()["outcome"] == "archived"
    (keys,) = site.rows("SELECT jsonl_key, manifest_key FROM audit_archivebatch LIMIT 1")

    def remove_first(exchange: Exchange) -> None:
        with site.sql() as connection:
            connection.execute("DELETE FROM audit_archivebatch WHERE jsonl_key = ?", keys[:1])
        site.bucket.delete_objects(Delete={"Objects": [{"Key": key} for key in keys]})
        pass_on(exchange)

    with FaultProxy(site.env["AUDIT_COLD_ENDPOINT"]) as proxy:
        watched.endpoint = proxy.endpoint
        proxy.fault(remove_first, "LIST", times=1)
        assert look(watched, *only(LOOKS, "objects")) == set()


def test_a_claim_of_the_bucket_that_the_log_does_not_bear_out_is_an_alarm(calm: Scene) -> None:
    newest = calm.one('SELECT max("index") FROM audit_checkpoint')
    name = calm.add_checkpoint(newest, row=False, seq=calm.head + 10)
    expected = {(Kind.APPEND_REFUSED, "claims"), (Kind.UNKNOWN_OBJECTS, "objects")}
    assert look(calm, *LOOKS) == expected
    key = f"{calm.prefix}/checkpoints/{name}"
    assert message(calm, Kind.APPEND_REFUSED, "claims").startswith(f"{key} in the bucket is sig")
    calm.remove(key)
    assert look(calm, *LOOKS) == set()
    # And so it is where the whole database was restored: what is noted takes no seq of it.
    calm.restore("archived")
    head = calm.head
    with calm.inside():
        tasks.safety_net()
        assert opened() == expected
        assert OwnEvent.objects.count() == len(expected)
    assert calm.head == head


def test_a_bucket_that_does_not_answer_or_is_not_there_is_one_alarm(calm: Scene) -> None:
    calm.settings["AUDIT_COLD_ATTEMPTS"] = 1
    for endpoint, bucket in ((NOWHERE, ""), ("", "no-such-bucket")):
        calm.endpoint, calm.bucket = endpoint, bucket
        for _ in range(2):
            assert look(calm, *LOOKS) == {(Kind.BUCKET, TOGETHER)}
        # Each of them would say so.
        with calm.inside():
            found = [
                alarms.go(TOGETHER, [one])[0].kind
                for one in only(LOOKS, "claims", "objects", "clock")
            ]
        assert found == [Kind.BUCKET] * 3
        calm.endpoint = calm.bucket = ""
        assert look(calm, *LOOKS) == set()


def test_a_clock_that_is_not_the_buckets_is_an_alarm(calm: Scene) -> None:
    off = {(Kind.CLOCK, "clock")}
    with FaultProxy(calm.env["AUDIT_COLD_ENDPOINT"]) as proxy:
        calm.endpoint = proxy.endpoint

        def looked(date: str | None) -> set[tuple[str, str]]:
            proxy.lift()
            proxy.fault(redate(date), "LIST")
            return look(calm, *only(LOOKS, "clock"))

        def http(minutes: float) -> str:
            return format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)

        assert looked(http(-7)) == off
        assert "clock is 7 minutes ahead of the object" in message(calm, Kind.CLOCK, "clock")
        assert looked(http(4)) == set()
        assert looked(http(7)) == off
        assert "clock is 7 minutes behind the object" in message(calm, Kind.CLOCK, "clock")
        assert looked(http(-4)) == set()
        assert looked(http(7).replace("GMT", "-0000")) == off
        assert looked(None) == set()
        assert looked("the day before yesterday") == set()
        proxy.lift()
        assert look(calm, *LOOKS) == set()


def test_it_deletes_and_mends_nothing(calm: Scene) -> None:
    """Whatever is wrong, and however often it looks."""
    put_back(calm, 5)
    calm.remove(calm.key(1))
    calm.put(f"{calm.prefix}/note.txt", b"x")
    calm.run(
        "UPDATE audit_archivebatch SET state = 'stored', purged_at = NULL, archived_at = "
        "'2026-01-01 00:00:00' WHERE start_seq = 41"
    )
    calm.append(now=datetime.now(UTC) + timedelta(hours=1))
    calm.settings |= {"AUDIT_HOT_RETENTION_DAYS": 0, "AUDIT_GRACE_DAYS": 0}

    def all_of_it() -> tuple[list[str], list[tuple[str, str, int, datetime]]]:
        rows = [
            line
            for line in calm.dump()
            if not any(f'INSERT INTO "{table}"' in line for table in OF_THE_NET)
        ]
        bucket = calm.archived.site.bucket.objects.filter(Prefix=f"{calm.prefix}/")
        objects = [(item.key, item.e_tag, item.size, item.last_modified) for item in bucket]
        return rows, objects

    before = all_of_it()
    assert len(before[1]) > len(calm.archived.objects) / 2
    for _ in range(2):
        assert look(calm, *LOOKS) == {
            (Kind.CLOCK, "log"),
            BEHIND,
            (Kind.UNFINISHED, "residue"),
            (Kind.UNFINISHED, "stored"),
            (Kind.GAP, "objects"),
            (Kind.UNKNOWN_OBJECTS, "objects"),
        }
    assert all_of_it() == before
