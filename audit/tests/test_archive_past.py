"""What a run finds in the bucket and in the ledger before it begins its own work."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .simulator import BATCH_EVENTS, Site


def lose_ledger(site: Site, after: int = 0) -> None:
    """Restore the ledger to what it was before batches past a seq were stored."""
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_archivebatch WHERE end_seq > ?", [after])


def manifest_key(site: Site, start: int = 1) -> str:
    return next(
        key for key in site.objects() if f"/{start:020d}-" in key and key.endswith(".json")
    )


def overwrite(site: Site, key: str, data: bytes) -> None:
    site.bucket.Object(key).put(Body=data)


@pytest.mark.parametrize("after", [0, BATCH_EVENTS])
def test_a_ledger_restored_to_before_stored_is_made_whole_from_the_bucket(
    site: Site, after: int
) -> None:
    before = site.template.records
    first = site.archive()
    lose_ledger(site, after)
    assert len(site.batches()) == (0 if after == 0 else 1)

    answer = site.archive()
    assert answer["outcome"] == "archived"
    assert answer["batches"] == [batch for batch in first["batches"] if batch["end_seq"] > after]
    assert site.read_log().records == before
    notes = site.rows("SELECT notes FROM audit_archiverun ORDER BY id")[-1][0]
    assert notes.count("Adopted from the bucket") == len(answer["batches"])


def test_a_hot_copy_restored_from_before_its_purge_is_purged_again(site: Site) -> None:
    before = site.template.records
    with site.sql() as connection:
        rows = connection.execute("SELECT * FROM audit_auditevent WHERE seq <= 10").fetchall()
    site.archive()
    with site.sql() as connection:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO audit_auditevent VALUES ({marks})", rows)  # noqa: S608
        connection.execute("UPDATE audit_logstate SET floor_seq = 0")
    assert site.archive()["outcome"] == "nothing_due"
    assert min(site.hot_seqs()) == site.floor() + 1 > BATCH_EVENTS
    assert site.read_log().records == before


def test_an_adopted_batch_that_differs_from_hot_stops_the_run(site: Site) -> None:
    run = site.driver("archive", "--pause=step:manifest sent")
    run.wait_for("^paused")
    run.kill()
    with site.sql() as connection:
        connection.execute("UPDATE audit_auditevent SET record = x'7b7d' WHERE seq = 77")
    hot = site.hot_seqs()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "Seq 77 differs between the hot database and " in answer["error"]
    assert site.hot_seqs() == hot


def test_an_object_that_was_changed_is_not_adopted(site: Site) -> None:
    run = site.driver("archive", "--pause=step:manifest sent")
    run.wait_for("^paused")
    run.kill()
    key = next(key for key in site.objects() if key.endswith(".jsonl.gz"))
    data = bytearray(site.objects()[key])
    data[5_000] ^= 1
    overwrite(site, key, bytes(data))
    hot = site.hot_seqs()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "frame" in answer["error"]
    assert site.hot_seqs() == hot


def test_a_stored_batch_whose_object_was_changed_is_not_purged(site: Site) -> None:
    run = site.driver("archive", "--pause=step:recorded")
    run.wait_for("^paused")
    run.kill()
    key = next(key for key in site.objects() if key.endswith(".jsonl.gz"))
    overwrite(site, key, b"x" * len(site.objects()[key]))
    hot = site.hot_seqs()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert site.hot_seqs() == hot
    assert site.floor() == 0


def test_a_batch_half_purged_loses_no_more_rows_where_its_object_was_changed(site: Site) -> None:
    """The floor is raised already: the bucket is looked at before the next row goes."""
    run = site.driver("archive", "--pause=step:floor raised")
    run.wait_for("^paused")
    run.kill()
    key = next(key for key in site.objects() if key.endswith(".jsonl.gz"))
    overwrite(site, key, b"x" * len(site.objects()[key]))
    hot = site.hot_seqs()
    assert site.archive()["outcome"] == "failed"
    assert site.hot_seqs() == hot


def test_a_stored_batch_whose_object_is_gone_is_not_purged(site: Site) -> None:
    run = site.driver("archive", "--pause=step:recorded")
    run.wait_for("^paused")
    run.kill()
    key = next(key for key in site.objects() if key.endswith(".jsonl.gz"))
    site.bucket.Object(key).delete()
    hot = site.hot_seqs()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "there is no such object" in answer["error"]
    assert site.hot_seqs() == hot


def test_a_manifest_beyond_the_head_is_refused(site: Site) -> None:
    """Hot was rolled back together with its ledger: the bucket still knows."""
    site.archive()
    lose_ledger(site)
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_auditevent")
        connection.execute("UPDATE audit_logstate SET floor_seq = 0, head_seq = 100")
    answer = site.archive()
    assert answer["outcome"] == "refused"
    assert "hot was rolled back" in answer["error"]
    assert site.batches() == []


def test_an_invalid_manifest_beside_the_range_blocks_nothing_and_is_reported(site: Site) -> None:
    before = site.template.records
    site.archive()
    key = manifest_key(site)
    forged = json.loads(site.objects()[key])
    forged["manifest"]["end_link"] = "00" * 32
    site.bucket.objects.filter(Prefix=f"{site.prefix}/").delete()
    site.start_full()
    overwrite(site, key, json.dumps(forged).encode())
    answer = site.archive()
    assert answer["outcome"] == "archived"
    notes = site.rows("SELECT notes FROM audit_archiverun ORDER BY id")[-1][0]
    assert f"Not adopted: {key}" in notes
    site.bucket.Object(key).delete()
    assert site.read_log().records == before


def test_of_two_valid_manifests_the_one_that_the_next_names_is_adopted(site: Site) -> None:
    """Other bytes for the same range, as another library version would write them."""
    before = site.template.records
    run = site.driver("archive", "--pause=step:manifest sent")
    run.wait_for("^paused")
    run.kill()
    (early,) = (key for key in site.objects() if key.endswith(".json"))
    kept = site.objects()[early]
    site.bucket.Object(early).delete()
    with site.sql() as connection:  # another planned time makes another manifest
        connection.execute("UPDATE audit_archivebatch SET planned_at = '2026-01-01 00:00:00'")
    site.archive()
    names = {batch[0] for batch in site.rows("SELECT manifest_key FROM audit_archivebatch")}
    overwrite(site, early, kept)
    lose_ledger(site)
    answer: dict[str, Any] = site.archive()
    assert {batch["manifest_key"] for batch in answer["batches"]} == names
    notes = site.rows("SELECT notes FROM audit_archiverun ORDER BY id")[-1][0]
    assert f"Superseded: {early}" in notes
    site.bucket.Object(early).delete()
    assert site.read_log().records == before


def test_a_manifest_of_another_log_is_not_adopted(site: Site) -> None:
    site.archive("--max-batches=1")
    site.start_full(AUDIT_ORIGIN="another-log")
    with site.sql() as connection:
        connection.execute("UPDATE audit_logstate SET origin = 'another-log'")
    answer = site.archive()
    assert answer["outcome"] == "failed"  # the hot chain is of another origin, too
    notes = site.rows("SELECT notes FROM audit_archiverun ORDER BY id")[-1][0]
    assert "is of another log, 'dezky-test'" in notes
