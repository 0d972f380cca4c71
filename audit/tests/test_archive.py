"""The archive on a good day, as its operator sees it."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, datetime, timedelta

from .simulator import BATCH_EVENTS, EVENTS, Site


def test_what_is_older_than_the_retention_moves_and_the_rest_stays(site: Site) -> None:
    before = site.template.records
    cutoff = datetime.now(UTC) - timedelta(days=90)
    answer = site.archive()

    assert (answer["outcome"], answer["exit"], answer["error"]) == ("archived", 0, None)
    boundary = answer["highest_archived_seq"]
    assert answer["oldest_hot_seq"] == boundary + 1
    assert answer["events"] == sum(batch["event_count"] for batch in answer["batches"]) == boundary
    times = [json.loads(record)["recorded_at"] for record in before]
    assert times[boundary - 1] < cutoff.isoformat() <= times[boundary]
    assert site.hot_seqs() == set(range(boundary + 1, EVENTS + 1))
    assert site.read_log().records == before


def test_the_answer_names_what_is_in_the_bucket(site: Site) -> None:
    answer = site.archive()
    objects = site.objects()
    assert len(objects) == 2 * len(answer["batches"]) == 4
    for batch in answer["batches"]:
        data = objects[batch["jsonl_key"]]
        assert len(data) == batch["bytes_compressed"]
        assert len(gzip.decompress(data)) == batch["bytes_uncompressed"]
        assert batch["manifest_key"] in objects
    assert set(answer["seconds"]) == {
        "past", "plan", "encode", "upload", "confirm", "record", "purge"
    }  # fmt: skip


def test_the_object_is_plain_json_lines_for_any_gzip_tool(site: Site) -> None:
    batch = site.archive("--max-batches=1")["batches"][0]
    stored = site.bucket.Object(batch["jsonl_key"])
    assert stored.content_type == "application/gzip"
    assert stored.content_encoding is None
    lines = gzip.decompress(stored.get()["Body"].read()).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, BATCH_EVENTS + 1))


def test_at_most_the_batches_asked_for_are_archived(site: Site) -> None:
    assert len(site.archive("--max-batches=1")["batches"]) == 1
    assert site.batches() == [(1, BATCH_EVENTS, "purged")]
    assert len(site.archive()["batches"]) == 1


def test_a_second_run_finds_nothing_due(site: Site) -> None:
    site.archive()
    answer = site.archive()
    assert (answer["outcome"], answer["exit"], answer["batches"]) == ("nothing_due", 0, [])


def test_an_empty_log_has_nothing_due(site: Site) -> None:
    site.start_empty()
    for arguments in (["--dry-run"], []):
        answer = site.archive(*arguments)
        assert answer["outcome"] == ("planned" if arguments else "nothing_due")
        own = None if arguments else 1  # a run writes down that it was asked for
        assert (answer["oldest_hot_seq"], answer["highest_archived_seq"]) == (own, 0)


def test_a_dry_run_prints_the_plan_and_changes_nothing(site: Site) -> None:
    dump = site.dump()
    answer = site.archive("--dry-run")
    assert (answer["outcome"], answer["exit"], answer["run"]) == ("planned", 0, None)
    assert site.dump() == dump
    assert site.objects() == {}
    done = site.archive()
    parts = ("start_seq", "end_seq", "event_count", "bytes_uncompressed")
    planned = [[batch[part] for part in parts] for batch in answer["batches"]]
    assert planned == [[batch[part] for part in parts] for batch in done["batches"]]


def test_a_dry_run_on_an_empty_database_changes_nothing_either(site: Site) -> None:
    site.start_empty()
    dump = site.dump()
    site.archive("--dry-run")
    assert site.dump() == dump


def test_a_dry_run_says_what_is_kept_and_why(site: Site) -> None:
    text = site.manage("archive_now", "--dry-run", "--max-batches=1").stdout.decode()
    due = site.archive("--dry-run")["batches"][-1]["end_seq"]
    assert f"seq {BATCH_EVENTS + 1:,}–{due:,}: due, left to a later run" in text
    assert f"seq {due + 1:,}–{EVENTS:,}: recorded at or after 20" in text
    assert "not older than 90 days" in text


def test_a_retention_of_zero_means_all_that_was_recorded_before_the_run(site: Site) -> None:
    site.env["AUDIT_HOT_RETENTION_DAYS"] = "0"
    answer = site.archive()
    assert answer["highest_archived_seq"] == EVENTS
    assert answer["oldest_hot_seq"] == EVENTS + 1  # its own events, which are never due in it
    assert [event["seq"] for event in site.own_events()] == [EVENTS + 1, EVENTS + 2]
    assert site.hot_seqs() == set()
    more = site.driver("append", "--calls=1", "--each=3")
    more.finish()
    assert site.archive()["highest_archived_seq"] == EVENTS + 5  # what the first run wrote, too
    site.read_log()


def test_a_batch_is_cut_by_its_bytes_too(site: Site) -> None:
    site.env["AUDIT_BATCH_MAX_BYTES"] = "200000"
    answer = site.archive()
    assert len(answer["batches"]) > 2
    for batch in answer["batches"][:-1]:
        assert 190_000 < batch["bytes_uncompressed"] <= 200_000
    site.read_log()


def test_one_event_larger_than_a_batch_may_be_makes_a_batch_of_its_own(site: Site) -> None:
    site.start_empty(AUDIT_HOT_RETENTION_DAYS="0", AUDIT_BATCH_MAX_BYTES="1")
    site.driver("append", "--calls=1", "--each=3").finish()
    assert [batch["event_count"] for batch in site.archive()["batches"]] == [1, 1, 1]
    site.read_log()


def test_frames_are_cut_by_their_bytes(site: Site) -> None:
    site.start_empty(AUDIT_HOT_RETENTION_DAYS="0")
    line = {"occurred_at": "2026-01-01T00:00:00Z", "action": "x", "data": {"text": "y" * 250_000}}
    lines = b"\n".join(json.dumps({**line, "external_id": str(n)}).encode() for n in range(40))
    assert site.manage("ingest_events", "-", data=lines).returncode == 0
    site.archive()
    (manifest,) = (data for key, data in site.objects().items() if key.endswith(".json"))
    frames = json.loads(manifest)["manifest"]["frames"]
    assert [frame["count"] for frame in frames] == [16, 16, 8]
    assert frames[1]["first_seq"] == 17
    assert len(frames[0]["subtrees"]) == 1
    site.read_log()


def test_a_replayed_file_is_all_duplicates_before_and_after_it_went_to_cold(site: Site) -> None:
    site.start_empty(AUDIT_HOT_RETENTION_DAYS="0")
    line = '{"occurred_at":"2026-01-01T00:00:00Z","action":"x"%s}\n'
    lines = [line % f',"external_id":"e{n}"' for n in range(500)] + [line % ""] * 3
    data = "".join(lines).encode()
    first = site.manage("ingest_events", "-", data=data)
    assert b"503 lines: 503 appended (seq 1\xe2\x80\x93503), 0 duplicates" in first.stdout
    again = site.manage("ingest_events", "-", data=data)
    assert b"503 lines: 0 appended, 503 duplicates" in again.stdout
    assert site.archive()["highest_archived_seq"] == 503
    again = site.manage("ingest_events", "-", data=data)
    assert (again.returncode, b"0 appended, 503 duplicates" in again.stdout) == (0, True)
    assert len(site.read_log().records) == 503


def test_a_person_reads_batches_phases_and_the_tier_boundary(site: Site) -> None:
    done = site.manage("archive_now")
    text = done.stdout.decode()
    assert done.returncode == 0
    assert done.stderr == b""
    assert re.search(r"^batch 1–1,100: 1,100 events, 0\.\d MB, 0\.\d MB compressed$", text, re.M)
    assert re.search(r"^phase +seconds +events/s +MB/s$", text, re.M)
    assert re.search(r"^encode +\d+\.\d{3} +[\d,]+ +[\d,.]+$", text, re.M)
    assert re.search(r"^archived \(run 1\): 1,\d+ events in 2 batches$", text, re.M)
    assert re.search(
        r"^tier boundary: highest archived seq 1,\d+, oldest hot seq 1,\d+$", text, re.M
    )


def test_the_run_row_tells_what_happened(site: Site) -> None:
    answer = site.archive()
    ((trigger, override, outcome, batches, events, error),) = site.rows(
        "SELECT trigger, override, outcome, batches, events, error FROM audit_archiverun"
    )
    assert (trigger, override, outcome) == ("command", 1, "archived")
    assert (batches, events, error) == (2, answer["events"], "")


def test_a_refused_key_fails_the_run_with_a_sentence_and_keeps_hot(site: Site) -> None:
    key = site.env["AUDIT_COLD_ACCESS_KEY"]
    site.env["AUDIT_COLD_ACCESS_KEY"] = "wrong"
    answer = site.archive()
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert "correct AUDIT_COLD_ACCESS_KEY" in answer["error"]
    assert len(site.hot_seqs()) == EVENTS
    site.env["AUDIT_COLD_ACCESS_KEY"] = key
    assert site.archive()["outcome"] == "archived"


def test_a_server_that_is_down_fails_the_run_with_a_sentence_and_keeps_hot(site: Site) -> None:
    endpoint = site.env["AUDIT_COLD_ENDPOINT"]
    site.env["AUDIT_COLD_ENDPOINT"] = "http://127.0.0.1:9"
    answer = site.archive()
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert "see that AUDIT_COLD_ENDPOINT is right and the service is up" in answer["error"]
    assert len(site.hot_seqs()) == EVENTS
    site.env["AUDIT_COLD_ENDPOINT"] = endpoint
    assert site.archive()["outcome"] == "archived"


def test_confirmation_by_reading_archives_as_well(site: Site) -> None:
    site.env["AUDIT_CONFIRM"] = "read"
    assert site.archive()["outcome"] == "archived"
    site.read_log()


def test_encryption_asked_for_is_insisted_on(site: Site) -> None:
    site.env["AUDIT_COLD_SSE"] = "true"
    answer = site.archive("--max-batches=1")
    assert answer["outcome"] == "archived"
    stored = site.bucket.Object(answer["batches"][0]["jsonl_key"])
    assert stored.server_side_encryption == "AES256"


def test_an_object_stored_without_the_encryption_asked_for_is_not_purged(site: Site) -> None:
    run = site.driver("archive", "--pause=step:jsonl sent")
    run.wait_for("^paused")
    run.kill()
    site.env["AUDIT_COLD_SSE"] = "true"
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "without the encryption that AUDIT_COLD_SSE asks for" in answer["error"]
    assert len(site.hot_seqs()) == EVENTS
