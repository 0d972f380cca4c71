"""`rebuild_ledger`: the ledger made anew from what is signed in the bucket."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from hashlib import sha256
from typing import Any

import pytest

from .simulator import SMALL_BATCH_EVENTS, Site

EDIT = "UPDATE audit_archivebatch SET "
GROWN = EDIT + "end_seq = end_seq + 90000, event_count = event_count + 90000 WHERE start_seq > 1"
DAMAGES: dict[str, tuple[str, int, int]] = {
    # what was done: statement, rows added, rows replaced
    "all lost": ("DELETE FROM audit_archivebatch", 2, 0),
    "newest lost": ("DELETE FROM audit_archivebatch WHERE start_seq > 1", 1, 0),
    "oldest lost": ("DELETE FROM audit_archivebatch WHERE start_seq = 1", 1, 0),
    "root edited": (EDIT + f"root = '{'ab' * 32}' WHERE start_seq = 1", 0, 1),
    "key edited": (EDIT + "jsonl_key = 'x' WHERE start_seq = 1", 0, 1),
    "end beyond the head": (GROWN, 0, 1),
}


@pytest.fixture
def site(small_site: Site) -> Site:
    """Have few events: more would show nothing else."""
    return small_site


def rebuild(site: Site, *args: str) -> dict[str, Any]:
    done = site.manage("rebuild_ledger", "--json", *args)
    assert done.stdout, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return {**answer, "exit": done.returncode}


def ledger(site: Site) -> list[Any]:
    """Return what the ledger says, less ids and times of its own making."""
    return site.rows(
        "SELECT start_seq, end_seq, state, event_count, start_link, end_link, root, frontier, "
        "last_recorded_at, bucket, jsonl_key, jsonl_sha256, manifest_key, manifest_sha256, "
        "bytes_uncompressed, bytes_compressed FROM audit_archivebatch ORDER BY 1"
    )


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_ledger_is_made_what_the_manifests_say(site: Site, name: str) -> None:
    statement, added, replaced = DAMAGES[name]
    site.archive()
    before = ledger(site)
    with site.sql() as connection:
        connection.execute(statement)

    plan = rebuild(site, "--dry-run")
    assert (plan["outcome"], plan["exit"]) == ("planned", 0)
    assert ledger(site) != before
    answer = rebuild(site)
    assert (answer["outcome"], answer["exit"], answer["error"]) == ("rebuilt", 0, None)
    assert (len(answer["added"]), len(answer["replaced"])) == (added, replaced)
    assert answer["verified"] == len(before)
    assert ledger(site) == before
    (event,) = (event for event in site.own_events() if event["action"] == "ledger_rebuilt")
    assert event["data"]["added"] == added
    assert event["actor"]["name"]
    assert site.archive()["outcome"] == "nothing_due"
    assert rebuild(site)["outcome"] == "unchanged"
    assert site.read_log().records == site.template.records


def test_batches_that_hot_still_has_are_stored_and_purged_only_after_reading(site: Site) -> None:
    run = site.driver("archive", "--pause=step:recorded", "--max-batches=1")
    run.wait_for("^paused")
    run.kill()
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_archivebatch")
        connection.execute("UPDATE audit_lease SET expires_at = NULL")
    assert rebuild(site)["outcome"] == "rebuilt"
    assert site.batches() == [(1, SMALL_BATCH_EVENTS, "stored")]
    assert len(site.hot_seqs()) == len(site.template.records)
    assert site.archive()["outcome"] == "archived"
    assert site.read_log().records == site.template.records


def test_a_planned_batch_that_still_continues_stays(site: Site) -> None:
    site.archive("--max-batches=1")
    run = site.driver("archive", "--pause=step:range fixed")
    run.wait_for("^paused")
    run.kill()
    before = site.batches()
    assert [state for *_, state in before] == ["purged", "planned"]
    assert rebuild(site)["outcome"] == "unchanged"
    assert site.batches() == before


@pytest.mark.parametrize("end", [".jsonl.gz", ".manifest.json"])
@pytest.mark.parametrize("how", ["gone", "cut short"])
def test_where_the_bucket_is_not_whole_the_ledger_is_left_as_it_is(
    site: Site, end: str, how: str
) -> None:
    site.archive()
    key = next(key for key in sorted(site.objects()) if key.endswith(end))
    item = site.bucket.Object(key)
    if how == "gone":
        item.delete()
    else:
        item.put(Body=item.get()["Body"].read()[:-1])
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_archivebatch")
    answer = rebuild(site)
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert answer["error"]
    assert site.batches() == []
    assert not [event for event in site.own_events_in_hot() if event == "ledger_rebuilt"]


def test_a_log_that_was_rolled_back_is_refused(site: Site) -> None:
    site.archive()
    site.start_full()
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_auditevent WHERE seq > 100")
        connection.execute("UPDATE audit_logstate SET head_seq = 100")
    answer = rebuild(site)
    assert (answer["outcome"], answer["exit"]) == ("refused", 1)
    assert "hot was rolled back" in answer["error"]


def test_beside_a_run_it_is_busy(site: Site) -> None:
    run = site.driver("archive", "--pause=step:encoded")
    run.wait_for("^paused")
    answer = rebuild(site)
    assert (answer["outcome"], answer["exit"]) == ("busy", 3)
    assert "Another run holds the lease" in answer["error"]
    run.kill()


def test_a_person_reads_what_was_done(site: Site) -> None:
    site.archive()
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_archivebatch WHERE start_seq > 1")
    text = site.manage("rebuild_ledger").stdout.decode()
    assert "added: batch 71–" in text
    assert "2 manifests verified" in text
    assert "1 rows added, 0 replaced, 0 removed, 1 as they were" in text
    assert text.splitlines()[-1].startswith("rebuilt: run archive_now next")


def test_rows_that_are_in_hot_again_block_no_run_after_a_rebuild(site: Site) -> None:
    site.archive()
    with site.sql() as connection:
        connection.execute("ATTACH ? AS old", [str(site.template.full)])
        connection.execute(
            "INSERT INTO audit_auditevent SELECT * FROM old.audit_auditevent WHERE seq <= 50"
        )
        connection.execute("DELETE FROM audit_archivebatch")
    assert rebuild(site)["outcome"] == "rebuilt"
    answer = site.archive()
    assert answer["outcome"] == "nothing_due"
    assert "Purged before and in hot again" in answer["notes"][0]
    assert site.read_log().records == site.template.records
    assert min(site.hot_seqs()) > 50


def test_a_manifest_by_an_unknown_key_beside_the_right_one_blocks_nothing(site: Site) -> None:
    site.archive()
    key, data = next((k, v) for k, v in site.objects().items() if k.endswith(".manifest.json"))
    other = re.sub(rb"k-[0-9a-f]{8}", b"k-deadbeef", data)
    name = f"{key[: -len('0123456789abcdef.manifest.json')]}{sha256(other).hexdigest()[:16]}"
    site.bucket.put_object(Key=f"{name}.manifest.json", Body=other)
    answer = rebuild(site)
    assert (answer["outcome"], answer["verified"]) == ("unchanged", 2)
    assert "of which no key is known" in answer["notes"][0]


def test_the_event_of_a_rebuild_is_in_the_log_even_if_it_died_right_then(site: Site) -> None:
    """What is noted in the transaction that changes the ledger cannot be lost with it."""
    site.archive()
    site.split()  # the ledger's own database is an empty one
    site.env["HOT_DATABASE_URL"] += "?timeout=1"
    with closing(sqlite3.connect(site.hot_database)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        answer = rebuild(site)
    assert (answer["outcome"], answer["exit"]) == ("rebuilt", 0)
    assert "the next run writes it" in answer["notes"][-1]
    assert site.archive()["outcome"] == "nothing_due"
    (event,) = (event for event in site.own_events() if event["action"] == "ledger_rebuilt")
    assert (event["data"]["added"], event["data"]["before"]) == (2, [])
