"""What a run finds in the bucket and in the ledger before it begins its own work."""

from __future__ import annotations

import base64
import gzip
import hmac
import itertools
import json
import shutil
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from audit.format.keys import HmacKey

from .simulator import SMALL_BATCH_EVENTS, SMALL_EVENTS, Site
from .sweep import sweep

ANOTHER_KEY = base64.b64encode(b"another key, of thirty-two bytes").decode()


@pytest.fixture
def site(small_site: Site) -> Site:
    """Have few events: more would show nothing else."""
    return small_site


def lose_ledger(site: Site, after: int = 0) -> None:
    """Restore the ledger to what it was before batches past a seq were stored."""
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_archivebatch WHERE end_seq > ?", [after])


def stop_at(site: Site, step: str) -> None:
    """Run the archive and kill it when a step is done."""
    run = site.driver("archive", f"--pause=step:{step}")
    run.wait_for("^paused")
    run.kill()


def manifest_key(site: Site, start: int = 1) -> str:
    return next(
        key for key in site.objects() if f"/{start:020d}-" in key and key.endswith(".json")
    )


def start_before_the_archive(site: Site) -> None:
    """Restore the database from before the run, where no checkpoint was made at its end."""
    site.bucket.objects.filter(Prefix=f"{site.prefix}/checkpoints/").delete()
    site.start_full()


def overwrite(site: Site, key: str, data: bytes) -> None:
    site.bucket.Object(key).put(Body=data)


@pytest.mark.parametrize("after", [0, SMALL_BATCH_EVENTS])
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


def test_rows_that_are_in_hot_again_after_their_purge_are_purged_again(site: Site) -> None:
    before = site.template.records
    restore_rows(site)
    assert site.archive()["outcome"] == "nothing_due"
    assert min(site.hot_seqs()) == site.floor() + 1 > SMALL_BATCH_EVENTS
    assert site.read_log().records == before


def test_an_adopted_batch_that_differs_from_hot_stops_the_run(site: Site) -> None:
    stop_at(site, "manifest sent")
    with site.sql() as connection:
        connection.execute("UPDATE audit_auditevent SET record = x'7b7d' WHERE seq = 27")
    hot = site.hot_seqs()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "Seq 27 differs between the hot database and " in answer["error"]
    assert site.hot_seqs() == hot


def test_an_object_that_was_changed_is_not_adopted(large_site: Site) -> None:
    stop_at(large_site, "manifest sent")
    key = next(key for key in large_site.objects() if key.endswith(".jsonl.gz"))
    data = bytearray(large_site.objects()[key])
    data[5_000] ^= 1
    overwrite(large_site, key, bytes(data))
    hot = large_site.hot_seqs()
    answer = large_site.archive()
    assert answer["outcome"] == "failed"
    assert "frame" in answer["error"]
    assert large_site.hot_seqs() == hot


def test_a_stored_batch_whose_object_was_changed_is_not_purged(site: Site) -> None:
    stop_at(site, "recorded")
    key = next(key for key in site.objects() if key.endswith(".jsonl.gz"))
    overwrite(site, key, b"x" * len(site.objects()[key]))
    hot = site.hot_seqs()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert site.hot_seqs() == hot
    assert site.floor() == 0


def test_a_batch_half_purged_loses_no_more_rows_where_its_object_was_changed(site: Site) -> None:
    """The floor is raised already: the bucket is looked at before the next row goes."""
    stop_at(site, "floor raised")
    key = next(key for key in site.objects() if key.endswith(".jsonl.gz"))
    overwrite(site, key, b"x" * len(site.objects()[key]))
    hot = site.hot_seqs()
    assert site.archive()["outcome"] == "failed"
    assert site.hot_seqs() == hot


@pytest.mark.parametrize("gone", [".jsonl.gz", ".manifest.json", ""])
def test_what_is_gone_of_a_stored_batch_is_sent_again_while_hot_has_it(
    site: Site, gone: str
) -> None:
    before = site.template.records
    stop_at(site, "recorded")
    sent = site.objects()
    for key in sent:
        if key.endswith(gone):
            site.bucket.Object(key).delete()
    answer = site.archive()
    assert answer["outcome"] == "archived"
    assert "Gone from the bucket and sent again from hot" in answer["notes"][0]
    assert sent.items() <= site.objects().items()
    assert site.read_log().records == before


def test_what_is_gone_of_a_batch_half_purged_stops_the_run(site: Site) -> None:
    stop_at(site, "chunk deleted")
    key = next(key for key in site.objects() if key.endswith(".jsonl.gz"))
    site.bucket.Object(key).delete()
    hot = site.hot_seqs()
    for _ in range(2):
        answer = site.archive()
        assert answer["outcome"] == "failed"
        assert "there is no such object" in answer["error"]
        assert site.hot_seqs() == hot


def test_a_changed_object_that_was_set_aside_is_sent_again(site: Site) -> None:
    """The way that the error of a changed object names."""
    before = site.template.records
    stop_at(site, "recorded")
    key = next(key for key in site.objects() if key.endswith(".jsonl.gz"))
    overwrite(site, key, b"x" * len(site.objects()[key]))
    answer = site.archive()
    assert f"{key} is not what its manifest says" in answer["error"]
    assert "run again and it is sent anew" in answer["error"]
    site.bucket.Object(key).delete()
    assert site.archive()["outcome"] == "archived"
    assert site.read_log().records == before


def test_a_manifest_beyond_the_head_is_refused(site: Site) -> None:
    """Hot was rolled back together with its ledger: the bucket still knows."""
    site.archive()
    lose_ledger(site)
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_checkpoint")
        connection.execute("DELETE FROM audit_auditevent")
        connection.execute(
            "UPDATE audit_logstate SET floor_seq = 30, head_seq = 30, floor_link = head_link"
        )
    answer = site.archive()
    assert answer["outcome"] == "refused"
    assert answer["error"].startswith("The bucket holds seq 70 in ")
    assert "hot was rolled back" in answer["error"]
    assert site.batches() == []
    assert site.rows("SELECT count(*) FROM audit_checkpoint") == [(0,)]


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
    stop_at(site, "manifest sent")
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


@pytest.mark.parametrize(
    "step",
    sweep(
        ["range fixed", "manifest sent", "recorded", "floor raised", "rows deleted"],
        always=["manifest sent", "floor raised"],
    ),
)
def test_purged_rows_are_in_hot_again_while_the_next_batch_is_unfinished(
    site: Site, step: str
) -> None:
    site.split()
    hot = backup(site.hot_database, site.folder / "hot")
    site.archive("--max-batches=1")
    stop_at(site, step)
    site.put_back(hot)
    assert site.archive()["outcome"] == "archived"
    assert site.read_log().records == site.template.records


def test_a_hot_copy_whose_head_is_behind_a_checkpoint_is_refused_everywhere(site: Site) -> None:
    """What came after the copy is lost: other events would take its seqs."""
    site.split()
    hot = backup(site.hot_database, site.folder / "hot")
    site.archive("--max-batches=1")
    backup(hot, site.hot_database)
    words = (
        f"The hot database ends at seq {SMALL_EVENTS}, but a checkpoint is signed for seq "
        f"{SMALL_EVENTS + 2}: hot was rolled back. Nothing is appended or archived; restore the "
        "hot database from its newest backup."
    )
    before, objects = site.dump(), (site.objects(), site.checkpoints())
    code, error = ingest(site)
    assert code == 1
    assert words in error
    answer = site.archive()
    assert (answer["outcome"], answer["exit"], answer["error"]) == ("refused", 1, words)
    done = site.manage("checkpoint_now", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"outcome": "refused", "error": words}
    assert len(site.hot_seqs()) == SMALL_EVENTS
    assert (site.objects(), site.checkpoints()) == objects
    assert [row for row in before if '"audit_checkpoint"' in row] == [
        row for row in site.dump() if '"audit_checkpoint"' in row
    ]


def ingest(site: Site) -> tuple[int, str]:
    """Ingest an event; return the exit code and the sentence where it was refused."""
    line = b'{"occurred_at":"2026-01-01T00:00:00Z","action":"x"}'
    done = site.manage("ingest_events", "-", data=line)
    return done.returncode, done.stderr.decode().strip()


def restore_rows(site: Site) -> None:
    """Archive, then put the rows that were purged back, and the floor as it was before."""
    site.archive()
    site.put_back(site.template.full)


@pytest.mark.parametrize("step", ["confirmed", "chunk deleted"])
def test_a_run_killed_while_it_deletes_residue_loses_nothing(site: Site, step: str) -> None:
    restore_rows(site)
    stop_at(site, step)
    assert site.archive()["outcome"] == "nothing_due"
    assert site.read_log().records == site.template.records


def test_residue_that_differs_from_cold_is_kept_as_evidence(site: Site) -> None:
    restore_rows(site)
    edit(site, "UPDATE audit_auditevent SET record = x'7b7d' WHERE seq = 7")
    hot = site.hot_seqs()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "Seq 7 differs between the hot database and " in answer["error"]
    assert site.hot_seqs() == hot


def test_a_stored_batch_that_differs_from_hot_is_not_purged(site: Site) -> None:
    stop_at(site, "recorded")
    edit(site, "UPDATE audit_auditevent SET record = x'7b7d' WHERE seq = 27")
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "Seq 27 differs between the hot database and " in answer["error"]
    assert len(site.hot_seqs()) == SMALL_EVENTS


def test_a_run_killed_while_it_sends_a_batch_again_loses_nothing(site: Site) -> None:
    stop_at(site, "recorded")
    site.bucket.objects.filter(Prefix=f"{site.prefix}/").delete()
    stop_at(site, "encoded")
    assert site.archive()["outcome"] == "archived"
    assert site.read_log().records == site.template.records


def test_an_adopted_batch_that_is_gone_before_its_purge_is_sent_again(site: Site) -> None:
    stop_at(site, "manifest sent")
    lose_ledger(site)
    stop_at(site, "adopted")
    site.bucket.Object(manifest_key(site)).delete()
    assert site.archive()["outcome"] == "archived"
    assert site.read_log().records == site.template.records


@pytest.mark.parametrize("where", ['sql:"jsonl_sha256" =', 'sql:"manifest_sha256" ='])
def test_a_run_killed_while_a_row_learns_a_name_loses_nothing(site: Site, where: str) -> None:
    run = site.driver("archive", f"--pause={where}")
    run.wait_for("^paused")
    run.kill()
    assert site.archive()["outcome"] == "archived"
    assert site.read_log().records == site.template.records


def test_a_hole_in_the_ledger_stops_the_run(site: Site) -> None:
    site.archive()
    edit(site, "DELETE FROM audit_archivebatch WHERE start_seq = 1")
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "a row was removed or changed" in answer["error"]


FORGERIES: dict[str, tuple[dict[str, Any], str]] = {
    "another link": ({"start_link": "ab" * 32}, "does not continue the link of seq 70"),
    "another manifest before": (
        {"previous_manifest_sha256": "ab" * 32},
        "follows another manifest than the ledger's",
    ),
    "earlier times": (
        {"first_recorded_at": "2001-01-01T00:00:00.000Z"},
        "goes back in time behind seq 70",
    ),
    "an object elsewhere": ({"key": "elsewhere/"}, "names an object that is elsewhere"),
    "another root": ({"root": "ab" * 32}, "its frames do not lead to its signed root"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_manifest_that_is_signed_and_does_not_continue_the_log_is_not_adopted(
    site: Site, name: str
) -> None:
    """Whoever holds the key can sign; what does not fit the ledger is still not believed."""
    changes, words = FORGERIES[name]
    site.archive()
    lose_ledger(site, SMALL_BATCH_EVENTS)
    key = manifest_key(site, SMALL_BATCH_EVENTS + 1)
    document = json.loads(site.objects()[key])
    inner = document["manifest"]
    first_key = inner["key"]
    inner.update(changes)
    if name == "an object elsewhere":
        inner["key"] = f"elsewhere/{first_key.rpartition('/')[2]}"
    if name == "earlier times":
        inner["frames"][0]["first_recorded_at"] = changes["first_recorded_at"]
    site.bucket.Object(key).delete()
    put_signed(site, key, document)
    answer = site.archive()  # hot has no such rows any more: nothing can be made of it
    assert answer["outcome"] == "failed"
    assert any(note.startswith("Not adopted: ") and words in note for note in answer["notes"])
    assert site.batches() == [(1, SMALL_BATCH_EVENTS, "purged")]


def test_two_signed_histories_of_one_range_stop_the_run(site: Site) -> None:
    site.archive()
    lose_ledger(site, SMALL_BATCH_EVENTS)
    key = manifest_key(site, SMALL_BATCH_EVENTS + 1)
    document = json.loads(site.objects()[key])
    inner = document["manifest"]
    inner["end_link"] = inner["frames"][-1]["end_link"] = "ab" * 32
    put_signed(site, key, document)
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "are both signed and lead to different links" in answer["error"]
    assert site.batches() == [(1, SMALL_BATCH_EVENTS, "purged")]


def put_signed(site: Site, key: str, document: dict[str, Any]) -> None:
    """Sign a manifest anew, as whoever holds the key can, and put it beside the one at `key`."""
    secret = base64.b64decode(site.env["AUDIT_SIGNING_KEY"])
    message = b"dezky-audit/manifest/v1\n" + canonical(document["manifest"])
    signature = hmac.digest(secret, message, "sha256")
    document["signatures"][0]["signature"] = base64.b64encode(signature).decode()
    data = canonical(document)
    overwrite(site, f"{key[:-30]}{sha256(data).hexdigest()[:16]}.manifest.json", data)


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# What is not believed --------------------------------------------------------------------


def edit(site: Site, statement: str) -> None:
    with site.sql() as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("end_seq", "end_seq + 100, event_count = event_count + 100"),
        ("end_link", "'" + "ab" * 32 + "'"),
        ("jsonl_sha256", "'" + "ab" * 32 + "'"),
        ("root", "'" + "ab" * 32 + "'"),
    ],
)
def test_a_stored_row_that_is_not_its_manifests_purges_nothing(
    site: Site, column: str, value: str
) -> None:
    stop_at(site, "recorded")
    edit(site, f"UPDATE audit_archivebatch SET {column} = {value}")  # noqa: S608  # our own names
    hot = site.hot_seqs()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert f"its {column} is not the signed one" in answer["error"]
    assert site.hot_seqs() == hot


def test_a_floor_that_somebody_raised_purges_nothing(site: Site) -> None:
    edit(site, "UPDATE audit_logstate SET floor_seq = head_seq, floor_link = head_link")
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert (
        f"Hot was purged up to seq {SMALL_EVENTS}, but ledger and bucket reach only seq 0"
        in (answer["error"])
    )
    assert len(site.hot_seqs()) == SMALL_EVENTS


def test_a_row_that_somebody_put_into_the_ledger_purges_nothing(site: Site) -> None:
    stop_at(site, "recorded")
    edit(
        site,
        "UPDATE audit_archivebatch SET state = 'purged', purged_at = archived_at, "
        "end_seq = 200, event_count = 200",
    )
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "its end_seq is not the signed one" in answer["error"]
    assert len(site.hot_seqs()) == SMALL_EVENTS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AUDIT_COLD_PREFIX": "elsewhere"}, "AUDIT_COLD_PREFIX is 'elsewhere': set it back"),
        ({"AUDIT_COLD_BUCKET": "another"}, "See that AUDIT_COLD_BUCKET"),
    ],
)
def test_the_log_is_not_continued_elsewhere(
    site: Site, change: dict[str, str], words: str
) -> None:
    assert site.archive("--max-batches=1")["outcome"] == "archived"
    for name in change.keys() & {"AUDIT_COLD_BUCKET"}:
        site.bucket.meta.client.create_bucket(Bucket=change[name])
    site.env.update(change)
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert words in answer["error"]
    assert site.batches() == [(1, SMALL_BATCH_EVENTS, "purged")]


@pytest.mark.parametrize("end", [".jsonl.gz", ".manifest.json"])
def test_the_log_is_not_continued_from_a_batch_that_is_gone(site: Site, end: str) -> None:
    site.archive("--max-batches=1")
    site.bucket.Object(next(key for key in site.objects() if key.endswith(end))).delete()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "there is no such object" in answer["error"]
    assert site.batches() == [(1, SMALL_BATCH_EVENTS, "purged")]


def test_rows_that_are_in_hot_again_where_the_bucket_is_lost_are_not_purged_again(
    site: Site,
) -> None:
    restore_rows(site)
    site.bucket.objects.filter(Prefix=f"{site.prefix}/").delete()
    for _ in range(2):
        assert site.archive()["outcome"] == "failed"
        assert len(site.hot_seqs()) == SMALL_EVENTS


def test_rows_that_are_in_hot_again_go_only_when_their_batch_is_confirmed(site: Site) -> None:
    """The first of two purged batches is changed in the bucket, and hot has its rows again."""
    restore_rows(site)
    key = min(key for key in site.objects() if key.endswith(".jsonl.gz"))
    overwrite(site, key, b"x" * len(site.objects()[key]))
    for _ in range(2):
        answer = site.archive()
        assert answer["outcome"] == "failed"
        assert f"{key} is not what its manifest says" in answer["error"]
        assert len(site.hot_seqs()) == SMALL_EVENTS
        assert site.floor() == 0


def test_a_manifest_by_a_key_that_is_not_known_stops_the_run(site: Site) -> None:
    """It may be right: beside it the same seqs must not be given to other objects."""
    stop_at(site, "manifest sent")
    site.start_full(AUDIT_SIGNING_KEY=ANOTHER_KEY)
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert (
        "of which no key is known. Set AUDIT_SIGNING_KEY to the key of that id" in answer["error"]
    )
    assert site.batches() == []


def test_a_log_that_may_have_been_rolled_back_takes_none_of_a_runs_own_events(site: Site) -> None:
    """The machine was restored whole, with its settings, from before a key was replaced."""
    assert site.archive()["outcome"] == "archived"
    old = {path: path.read_bytes() for path in (site.database, site.hot_database)}
    known = site.env["AUDIT_SIGNING_KEY"]
    site.env |= {
        "AUDIT_SIGNING_KEY": "",
        "AUDIT_SIGNING_KEYS": f"hmac-sha256:k-new:{ANOTHER_KEY},{named(known)}",
    }
    assert site.ingest(3).returncode == 0
    assert site.manage("checkpoint_now").returncode == 0
    for path, data in old.items():
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        path.write_bytes(data)
    site.env |= {"AUDIT_SIGNING_KEY": known, "AUDIT_SIGNING_KEYS": ""}
    query = "SELECT head_seq FROM hot.audit_logstate"
    head = site.rows(query)
    notes = site.archive("--through-seq", str(SMALL_EVENTS))["notes"]
    assert any("of which no key is known" in note for note in notes)
    assert site.rows(query) == head
    assert site.rows("SELECT count(*) FROM audit_ownevent")[0][0] > 0


def named(key: str) -> str:
    """Return a single key as one of several, by the id that it has."""
    return f"hmac-sha256:{HmacKey.from_base64(key).key_id}:{key}"


def test_our_own_try_signed_by_a_key_that_was_replaced_is_done_again(site: Site) -> None:
    stop_at(site, "manifest sent")
    site.env["AUDIT_SIGNING_KEY"] = ANOTHER_KEY
    edit(site, "DELETE FROM audit_checkpoint")  # whoever has lost its key makes a new one
    (old,) = (key for key in site.objects() if key.endswith(".json"))
    answer = site.archive()
    assert answer["outcome"] == "archived"
    assert any(note.startswith(f"Not adopted: {old}") for note in answer["notes"])
    site.bucket.Object(old).delete()
    assert site.read_log().records == site.template.records


def test_other_bytes_of_another_library_version_stand_beside_and_block_nothing(
    site: Site,
) -> None:
    """Died after the object; the compressor was upgraded; the same range gives other bytes."""
    run = site.driver("archive", "--pause=step:jsonl sent")
    run.wait_for("^paused")
    run.kill()
    ((key, data),) = site.objects().items()
    other = gzip.compress(gzip.decompress(data), 9, mtime=0)
    digest = sha256(other).hexdigest()
    old = f"{key[: -len('0123456789abcdef.jsonl.gz')]}{digest[:16]}.jsonl.gz"
    site.bucket.put_object(Key=old, Body=other)
    site.bucket.Object(key).delete()
    with site.sql() as connection:
        connection.execute(
            "UPDATE audit_archivebatch SET jsonl_key = ?, jsonl_sha256 = ?", [old, digest]
        )
    answer = site.archive()
    assert (answer["outcome"], answer["error"]) == ("archived", None)
    assert site.objects()[old] == other
    assert answer["batches"][0]["jsonl_key"] == key
    assert site.read_log().records == site.template.records


def test_a_manifest_further_on_that_is_beyond_the_head_is_refused(site: Site) -> None:
    """The first manifest is gone, too: what the second one says still counts."""
    site.archive()
    site.bucket.Object(manifest_key(site)).delete()
    start_before_the_archive(site)
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_checkpoint")
        connection.execute("DELETE FROM audit_auditevent WHERE seq > 80")
        connection.execute(
            "UPDATE audit_logstate SET head_seq = 80, head_link = "
            "(SELECT link FROM audit_auditevent WHERE seq = 80)"
        )
    answer = site.archive()
    assert answer["outcome"] == "refused"
    assert "hot was rolled back" in answer["error"]
    assert site.batches() == []


def test_a_later_batch_that_is_in_the_bucket_is_adopted_when_its_turn_comes(site: Site) -> None:
    """The ledger is lost and the first manifest with it; the second one is not sent again."""
    first = site.archive()
    site.bucket.Object(manifest_key(site)).delete()
    planned = site.rows("SELECT planned_at FROM audit_archivebatch ORDER BY start_seq")[0][0]
    start_before_the_archive(site)
    stop_at(site, "range fixed")
    edit(site, f"UPDATE audit_archivebatch SET planned_at = '{planned}'")  # noqa: S608  # our own names
    answer = site.archive()
    assert (answer["outcome"], answer["error"]) == ("archived", None)
    assert answer["batches"] == first["batches"]
    assert any("Adopted from the bucket" in note for note in answer["notes"])
    assert site.read_log().records == site.template.records


def test_an_ingest_whose_database_file_is_replaced_acknowledges_nothing_more(site: Site) -> None:
    site.start_empty()
    writer = site.driver("append", "--calls=2", "--each=5", "--pause=call:append:2")
    writer.wait_for("^paused")
    site.database.rename(site.folder / "aside.sqlite3")
    shutil.copy(site.template.empty, site.database)
    writer.go_on()
    lines = writer.finish(code=1)
    assert sum(line.startswith("acknowledged") for line in lines) == 5
    assert "was removed or replaced while this process had it open" in lines[-1]


# Hot, ledger and bucket restored to different times ----------------------------------------


def readable(site: Site) -> set[int]:
    """Return every seq that can be read in hot or in an object of the bucket."""
    cold = {
        json.loads(line)["seq"]
        for key, data in site.objects().items()
        if key.endswith(".jsonl.gz")
        for line in gzip.decompress(data).splitlines()
    }
    return site.hot_seqs() | cold


def backup(source: Path, target: Path) -> Path:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return target


@pytest.mark.parametrize("bucket", sweep(range(4), always=[2]))
def test_nothing_that_can_be_read_is_lost_whatever_was_restored(site: Site, bucket: int) -> None:
    """Each of the three stores is put back to each of four times, in every combination."""
    site.split()
    times = []
    for number, step in enumerate((None, "recorded", "chunk deleted", "purged")):
        if step:
            stop_at(site, step)
        hot = backup(site.hot_database, site.folder / f"hot-{number}")
        ledger = backup(site.database, site.folder / f"ledger-{number}")
        times.append((hot, ledger, site.objects()))
    for hot_at, ledger_at in itertools.product(range(4), range(4)):
        backup(times[hot_at][0], site.hot_database)
        backup(times[ledger_at][1], site.database)
        site.bucket.objects.filter(Prefix=f"{site.prefix}/").delete()
        for key, data in times[bucket][2].items():
            site.bucket.Object(key).put(Body=data)
        before = readable(site)
        answer = site.archive()
        place = f"hot {hot_at}, ledger {ledger_at}, bucket {bucket}: {answer['error']}"
        assert before <= readable(site), place
        if answer["outcome"] == "archived":
            assert site.read_log().records == site.template.records, place
        else:
            assert answer["error"], place
