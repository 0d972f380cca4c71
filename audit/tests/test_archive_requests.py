"""Who asked for a run, from where, and how it ended, are events in the log."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
from typing import Any

import pytest

from .simulator import SMALL_BATCH_EVENTS, SMALL_EVENTS, Site


@pytest.fixture
def site(small_site: Site) -> Site:
    """Have few events: more would show nothing else."""
    return small_site


def own(site: Site) -> list[tuple[str, str, Any]]:
    """Return (action, outcome, data's outcome) of the events of requests and runs."""
    return [
        (event["action"], event["outcome"], event["data"].get("outcome"))
        for event in site.own_events()
        if event["action"].startswith("archive_")
    ]


def test_a_run_leaves_two_events_that_say_who_and_from_where(site: Site) -> None:
    answer = site.archive("--max-batches=1")
    asked, ended = site.own_events()
    for event in (asked, ended):
        assert event["actor"]["name"] == getpass.getuser()
        assert event["data"]["from"].startswith(socket.gethostname())
        assert event["data"]["trigger"] == "command"
        assert event["data"]["override"] is True
        assert event["data"]["max_batches"] == 1
        assert event["data"]["request"] == asked["data"]["request"]
    assert (asked["action"], asked["outcome"]) == ("archive_requested", "unknown")
    assert (ended["action"], ended["outcome"]) == ("archive_ended", "success")
    assert (ended["data"]["outcome"], ended["data"]["events"]) == ("archived", SMALL_BATCH_EVENTS)
    assert ended["target"] == {"id": str(answer["run"]), "name": "run 1", "type": "archive_run"}
    seqs = site.rows("SELECT request_seq, outcome_seq FROM audit_archiverun")
    assert seqs == [(asked["seq"], ended["seq"])] == [(SMALL_EVENTS + 1, SMALL_EVENTS + 2)]


def test_a_busy_one_leaves_them_too(site: Site) -> None:
    run = site.driver("archive", "--pause=step:encoded")
    run.wait_for("^paused")
    assert site.archive()["outcome"] == "busy"
    run.go_on()
    run.finish()
    assert own(site) == [
        ("archive_requested", "unknown", None),
        ("archive_requested", "unknown", None),
        ("archive_ended", "failure", "busy"),
        ("archive_ended", "success", "archived"),
    ]
    assert "Another run holds the lease" in site.own_events()[2]["data"]["error"]


def test_a_look_at_the_plan_leaves_none(site: Site) -> None:
    before = site.dump()
    assert site.archive("--dry-run", "--through-seq=10")["outcome"] == "planned"
    assert site.dump() == before


def test_a_run_that_fails_says_so_in_the_log(site: Site) -> None:
    endpoint = site.env["AUDIT_COLD_ENDPOINT"]
    site.env["AUDIT_COLD_ENDPOINT"] = "http://127.0.0.1:9"
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert site.own_events_in_hot() == []  # what the bucket holds is not known
    site.env["AUDIT_COLD_ENDPOINT"] = endpoint
    site.archive()
    assert own(site) == [
        ("archive_requested", "unknown", None),
        ("archive_ended", "failure", "failed"),
        ("archive_requested", "unknown", None),
        ("archive_ended", "success", "archived"),
    ]
    assert site.own_events()[1]["data"]["error"] == answer["error"]
    assert site.rows("SELECT count(*) FROM audit_ownevent") == [(0,)]
    seqs = site.rows("SELECT request_seq, outcome_seq FROM audit_archiverun ORDER BY id")
    # Between the two is the event that the settings were changed.
    assert seqs == [(SMALL_EVENTS + 1, SMALL_EVENTS + 2), (SMALL_EVENTS + 4, SMALL_EVENTS + 5)]


def roll_back(site: Site, head: int) -> None:
    """Put the whole database back to when it ended there and nothing was archived."""
    shutil.copy(site.template.full, site.database)
    for end in ("-wal", "-shm"):
        site.database.with_name(site.database.name + end).unlink(missing_ok=True)
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_auditevent WHERE seq > ?", [head])
        connection.execute("DELETE FROM audit_eventkey WHERE seq > ?", [head])
        connection.execute("DELETE FROM audit_checkpoint WHERE seq > ?", [head])
        connection.execute(
            "UPDATE audit_logstate SET head_seq = ?, head_link = "
            "(SELECT link FROM audit_auditevent WHERE seq = ?)",
            [head, head],
        )


@pytest.mark.parametrize("how", ["the bucket does not answer", "another run is at work"])
def test_no_event_is_written_before_the_bucket_was_looked_at(site: Site, how: str) -> None:
    """The bucket ends one seq beyond a log that was put back: an event would take that seq."""
    site.archive("--max-batches=1")
    roll_back(site, SMALL_BATCH_EVENTS - 1)
    if how == "another run is at work":
        run = site.driver("archive", "--pause=step:fenced")
        run.wait_for("^paused")
        assert site.archive()["outcome"] == "busy"
        run.go_on()
        assert run.finish()[-1].startswith("outcome refused: The bucket holds seq 70")
    else:
        endpoint = site.env["AUDIT_COLD_ENDPOINT"]
        site.env["AUDIT_COLD_ENDPOINT"] = "http://127.0.0.1:9"
        assert site.archive()["outcome"] == "failed"
        site.env["AUDIT_COLD_ENDPOINT"] = endpoint
    answer = site.archive()
    assert answer["outcome"] == "refused"
    assert "hot was rolled back" in answer["error"]
    assert site.own_events_in_hot() == []


def test_a_log_that_was_rolled_back_takes_none_until_it_is_restored(site: Site) -> None:
    """An event would take the seq of another that the bucket has."""
    site.archive()
    whole = site.hot_database.read_bytes()
    records = site.read_log().records
    with site.sql() as connection:
        for table in ("archivebatch", "eventkey", "auditevent"):
            column = {"archivebatch": "start_seq"}.get(table, "seq")
            connection.execute(f"DELETE FROM audit_{table} WHERE {column} >= 100")  # noqa: S608  # our own names
        connection.execute("UPDATE audit_logstate SET head_seq = 0, floor_seq = 0")
        link = connection.execute("SELECT start_link FROM audit_archivebatch").fetchone()[0]
        connection.execute("UPDATE audit_logstate SET head_link = ?, floor_link = ?", [link, link])
        connection.execute("DELETE FROM audit_archivebatch")
    answer = site.archive()
    assert answer["outcome"] == "refused"
    assert "hot was rolled back" in answer["error"]
    assert site.rows("SELECT count(*) FROM audit_auditevent") == [(0,)]
    (site.database.parent / "site.sqlite3-wal").unlink(missing_ok=True)
    site.hot_database.write_bytes(whole)
    assert site.archive()["outcome"] == "nothing_due"
    assert site.read_log().records == records


def test_what_a_dead_run_could_not_write_the_next_one_writes(site: Site) -> None:
    run = site.driver("archive", "--pause=step:encoded")
    run.wait_for("^paused")
    run.kill()
    assert own(site) == [("archive_requested", "unknown", None)]
    site.archive()
    assert own(site) == [
        ("archive_requested", "unknown", None),
        ("archive_ended", "failure", "interrupted"),
        ("archive_requested", "unknown", None),
        ("archive_ended", "success", "archived"),
    ]


# Up to a seq, whatever its age ---------------------------------------------------------------


def check_through(site: Site, seq: int) -> None:
    plan = site.archive("--dry-run", f"--through-seq={seq}")
    answer = site.archive(f"--through-seq={seq}")
    assert (answer["outcome"], answer["highest_archived_seq"]) == ("archived", seq)
    assert answer["events"] == plan["events"] == seq
    assert answer["oldest_hot_seq"] == seq + 1
    assert site.read_log().records == site.template.records
    (asked, _) = site.own_events()
    assert asked["data"]["through_seq"] == seq
    assert site.archive(f"--through-seq={seq}")["outcome"] == "nothing_due"


@pytest.mark.parametrize("seq", [1, SMALL_BATCH_EVENTS, SMALL_BATCH_EVENTS + 1, SMALL_EVENTS])
def test_through_a_seq_archives_up_to_it_and_no_further(site: Site, seq: int) -> None:
    check_through(site, seq)


def test_the_same_holds_at_the_end_of_a_frame(large_site: Site) -> None:
    check_through(large_site, 1024)


def test_through_a_seq_that_the_log_has_not_reached_does_nothing(site: Site) -> None:
    for arguments in (["--dry-run"], []):
        answer = site.archive(f"--through-seq={SMALL_EVENTS + 50}", *arguments)
        assert (answer["outcome"], answer["exit"]) == ("failed", 1)
        assert f"the log ends at seq {SMALL_EVENTS}" in answer["error"]
    assert site.batches() == []
    assert len(site.hot_seqs()) == SMALL_EVENTS


def test_a_log_whose_clock_once_leapt_ahead_can_be_archived(site: Site) -> None:
    """All that comes after such an event is recorded at its time at the earliest."""
    site.start_empty()
    site.driver("append", "--name=leap", "--calls=1", "--each=5", "--at=2999-01-01").finish()
    site.driver("append", "--name=after", "--calls=1", "--each=5").finish()
    assert site.archive("--max-batches=1")["outcome"] == "nothing_due"
    answer = site.archive("--through-seq=7")
    assert (answer["outcome"], answer["highest_archived_seq"]) == ("archived", 7)
    times = {json.loads(record)["recorded_at"][:10] for record in site.read_log().records}
    assert times == {"2999-01-01"}


def test_a_batch_that_was_begun_and_goes_beyond_the_seq_is_not_archived(site: Site) -> None:
    run = site.driver("archive", "--pause=step:range fixed")
    run.wait_for("^paused")
    run.kill()
    for arguments in (["--dry-run"], []):
        answer = site.archive("--through-seq=10", *arguments)
        assert (answer["outcome"], answer["highest_archived_seq"]) == ("failed", 0)
        assert "was begun by an earlier run and goes beyond seq 10" in answer["error"]
    answer = site.archive(f"--through-seq={SMALL_BATCH_EVENTS}")
    assert answer["highest_archived_seq"] == SMALL_BATCH_EVENTS


def test_what_is_kept_begins_after_what_was_archived(site: Site) -> None:
    site.archive(f"--through-seq={SMALL_EVENTS}", "--max-batches=2")
    ((kept,),) = site.rows("SELECT kept FROM audit_archiverun")
    first = 2 * SMALL_BATCH_EVENTS + 1
    assert kept.startswith(f"seq {first}–{SMALL_EVENTS + 1}: recorded at or after")


def test_a_name_that_is_no_unicode_stops_nothing(site: Site) -> None:
    site.env["LOGNAME"] = "\udcff"
    assert site.archive()["outcome"] == "archived"
    assert site.own_events()[0]["actor"]["name"] == "?"


@pytest.mark.parametrize("option", ["--through-seq", "--max-batches"])
@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", str(2**53), "9" * 20])
def test_a_number_that_is_none_is_wrong_usage(site: Site, text: str, option: str) -> None:
    done = site.manage("archive_now", f"{option}={text}")
    assert done.returncode == 2
    assert b"not a whole number from 1 up" in done.stderr
