"""Guard the guards: take each one out in a copy of the tree, and see that its test turns red.

    scripts/check_guards.py [WORD]

With WORD, only those guards whose name holds it. Exit code 1 where a test stays green without
its guard, or where a guard is no longer found in the code.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "var", "__pycache__", ".*_cache", ".coverage*")


@dataclass(frozen=True)
class Guard:
    """A guard, how to take it out, and the test that must then fail."""

    name: str
    file: str
    code: str
    without: str
    test: str


CRASHES = "audit/tests/test_archive_crashes.py"
CONFIRMATION = "audit/tests/test_archive_confirmation.py"
CONTENTION = "audit/tests/test_archive_contention.py"
PAST = "audit/tests/test_archive_past.py"
TAMPERING = "audit/tests/test_archive_tampering.py"
ANCHORS = "audit/tests/test_anchors.py"
CHECKPOINTS = "audit/tests/test_checkpoints.py"

GUARDS = (
    Guard(
        "the link check while encoding",
        "audit/selection.py",
        "if link != stored_link:",
        "if False:",
        f"{TAMPERING}::test_the_run_stops_there_says_so_and_deletes_nothing[link edited]",
    ),
    Guard(
        "the check for missing rows",
        "audit/selection.py",
        "if found != expected:",
        "if False:",
        f"{TAMPERING}::test_the_run_stops_there_says_so_and_deletes_nothing"
        "[removed from the middle]",
    ),
    Guard(
        "the HEAD after the PUT",
        "audit/archive.py",
        "cold.confirm(item)",
        "pass",
        f"{CONFIRMATION}::test_an_object_that_is_not_what_was_sent_is_never_purged"
        "[other bytes of the same length-.jsonl.gz]",
    ),
    Guard(
        "the ETag held against our MD5",
        "audit/cold.py",
        "found.etag == sent.digests.md5.hex()",
        "True",
        f"{CONFIRMATION}::test_an_object_that_is_not_what_was_sent_is_never_purged"
        "[other bytes of the same length-.jsonl.gz]",
    ),
    Guard(
        "the encryption insisted on",
        "audit/cold.py",
        "if conf.cold_sse() and found",
        "if False and found",
        "audit/tests/test_archive.py::"
        "test_an_object_stored_without_the_encryption_asked_for_is_not_purged",
    ),
    Guard(
        "the lease: one run at a time",
        "audit/guard.py",
        "token=row.token, expires_at__lte=Now()",
        "token=row.token",
        f"{CONTENTION}::test_a_second_run_is_busy_and_says_who_works_since_when",
    ),
    Guard(
        "the lease required by each write to the ledger",
        "audit/guard.py",
        "if not self._renew():\n                raise self.lost()",
        "self._renew()",
        "audit/tests/test_ledger.py::test_nothing_is_written_without_the_lease",
    ),
    Guard(
        "the fence, as it is checked",
        "audit/log/state.py",
        "if state.fence != token:",
        "if False:",
        f"{CONTENTION}::test_a_run_whose_fence_is_passed_raises_no_floor",
    ),
    Guard(
        "the fence, as it is raised",
        "audit/archive.py",
        "log.raise_fence(self.grip.token)",
        "pass",
        f"{CONTENTION}::test_an_overtaken_run_raises_no_floor_even_if_the_ledger_was_restored",
    ),
    Guard(
        "the comparison of an adopted batch with hot",
        "audit/adoption.py",
        "if record != records[seq - first] or link != links[seq - first]:",
        "if False:",
        f"{PAST}::test_an_adopted_batch_that_differs_from_hot_stops_the_run",
    ),
    Guard(
        "the reading of a stored batch before its purge",
        "audit/archive.py",
        "cold.read_batch(row.manifest_key, manifest, adoption.comparing(manifest))",
        "pass",
        f"{PAST}::test_a_stored_batch_whose_object_was_changed_is_not_purged",
    ),
    Guard(
        "the reading of a purged batch before its rows go again",
        "audit/archive.py",
        "            self.confirm_by_reading(row)\n            purge.raise_floor_again",
        "            purge.raise_floor_again",
        f"{PAST}::test_rows_that_are_in_hot_again_go_only_when_their_batch_is_confirmed",
    ),
    Guard(
        "the comparison of what is purged with hot",
        "audit/archive.py",
        "manifest, adoption.comparing(manifest))",
        "manifest)",
        f"{PAST}::test_residue_that_differs_from_cold_is_kept_as_evidence",
    ),
    Guard(
        "the link that an adopted batch must continue",
        "audit/adoption.py",
        "if manifest.start_link != at.link:",
        "if False:",
        f"{PAST}::test_a_manifest_that_is_signed_and_does_not_continue_the_log_is_not_adopted"
        "[another link]",
    ),
    Guard(
        "the manifest that an adopted batch must follow",
        "audit/adoption.py",
        "if manifest.previous_manifest_sha256 != at.manifest_sha256:",
        "if False:",
        f"{PAST}::test_a_manifest_that_is_signed_and_does_not_continue_the_log_is_not_adopted"
        "[another manifest before]",
    ),
    Guard(
        "the members of a record before it leaves hot",
        "audit/canonical.py",
        "    check_members(members)\n    return",
        "    return",
        f"{TAMPERING}::test_what_is_no_record_is_never_archived_even_if_every_link_was_recomputed"
        "[record2]",
    ),
    Guard(
        "a hole in the ledger",
        "audit/archive.py",
        "        ledger.check_whole()\n",
        "",
        f"{PAST}::test_a_hole_in_the_ledger_stops_the_run",
    ),
    Guard(
        "a ledger's row held against its manifest",
        "audit/cold.py",
        "for name, value in signed.items() if getattr(row, name) != value",
        "for name, value in signed.items() if False",
        f"{PAST}::test_a_stored_row_that_is_not_its_manifests_purges_nothing"
        "[end_seq-end_seq + 100, event_count = event_count + 100]",
    ),
    Guard(
        "a manifest held against the digest in its name and in the ledger",
        "audit/cold.py",
        "not digest.startswith(name.digest) or manifest_sha256 not in {None, digest}",
        "False",
        "audit/tests/test_cold.py::test_a_manifest_is_read_only_under_its_own_digest",
    ),
    Guard(
        "the newest batch looked for before the log is continued",
        "audit/archive.py",
        "cold.check_presence(newest)",
        "pass",
        f"{PAST}::test_the_log_is_not_continued_from_a_batch_that_is_gone[.jsonl.gz]",
    ),
    Guard(
        "the prefix held against the ledger",
        "audit/cold.py",
        "if prefix != conf.cold_prefix():",
        "if False:",
        f"{PAST}::test_the_log_is_not_continued_elsewhere"
        "[change0-AUDIT_COLD_PREFIX is 'elsewhere': set it back]",
    ),
    Guard(
        "the floor held against ledger and bucket",
        "audit/archive.py",
        "        purge.check_floor()\n",
        "",
        f"{PAST}::test_a_floor_that_somebody_raised_purges_nothing",
    ),
    Guard(
        "nothing deleted above the floor",
        "audit/log/rows.py",
        "if last > floor:",
        "if False:",
        "audit/tests/test_log.py::test_nothing_above_the_floor_is_deleted",
    ),
    Guard(
        "lease and state held while the floor is raised",
        "audit/purge.py",
        "with ledger.still(grip, row, ArchiveBatch.State.STORED):",
        "if True:",
        "audit/tests/test_purge.py::test_the_floor_is_raised_only_over_a_stored_batch",
    ),
    Guard(
        "a manifest by an unknown key stops the run",
        "audit/adoption.py",
        "if planned is None or planned.manifest_key != key:",
        "if False:",
        f"{PAST}::test_a_manifest_by_a_key_that_is_not_known_stops_the_run",
    ),
    Guard(
        "the head held against its row before each append",
        "audit/log/appending.py",
        "        check_head(state)\n",
        "",
        "audit/tests/test_log.py::test_nothing_is_appended_where_the_newest_row_is_gone",
    ),
    Guard(
        "the database file looked at before each append",
        "audit/log/appending.py",
        "        check_file()\n",
        "",
        f"{PAST}::test_an_ingest_whose_database_file_is_replaced_acknowledges_nothing_more",
    ),
    Guard(
        "records read as records before they leave hot",
        "audit/selection.py",
        "recorded_at = _check_records(rows, recorded_at)",
        "pass",
        f"{TAMPERING}::test_what_is_no_record_is_never_archived_even_if_every_link_was_recomputed"
        "[no record]",
    ),
    Guard(
        "AUDIT_CONFIRM=read",
        "audit/cold.py",
        " and not conf.confirm_reads_everything()",
        "",
        "audit/tests/test_cold.py::test_with_confirm_read_even_what_was_just_sent_is_read",
    ),
    Guard(
        "what this run did not send is read",
        "audit/cold.py",
        "if sent.ours and found",
        "if found",
        "audit/tests/test_cold.py::test_what_this_run_did_not_send_is_read",
    ),
    Guard(
        "only our own lease is released",
        "audit/guard.py",
        "Lease.objects.filter(name=NAME, token=self.token).update(expires_at=None",
        "Lease.objects.filter(name=NAME).update(expires_at=None",
        "audit/tests/test_guard.py::test_a_run_that_was_overtaken_does_not_free_the_others_lease",
    ),
    Guard(
        "the head held against the ledger",
        "audit/log/state.py",
        "if state.head_seq < archived:",
        "if False:",
        f"{TAMPERING}::test_hot_rolled_back_behind_the_ledger_is_refused",
    ),
    Guard(
        "the head held against the bucket",
        "audit/adoption.py",
        "if name.end_seq > head:",
        "if False:",
        f"{PAST}::test_a_manifest_beyond_the_head_is_refused",
    ),
    Guard(
        "the state before required by each step of the ledger",
        "audit/ledger.py",
        "state=before).update(",
        "state__isnull=False).update(",
        "audit/tests/test_ledger.py::test_a_row_that_another_run_moved_on_is_left_alone",
    ),
    Guard(
        "the purge after the record, not before",
        "audit/archive.py",
        "self.archive(row, encoded)  # 4 to 7\n            self.purge_behind(row)  # 8",
        "self.purge(row)\n            self.archive(row, encoded)",
        "audit/tests/test_archive.py::test_what_is_older_than_the_retention_moves_and_the_rest_stays",
    ),
    Guard(
        "the place that an encoding ahead continues",
        "audit/ahead.py",
        "if prepared and not prepared.fits(at):",
        "if False:",
        f"{PAST}::test_a_later_batch_that_is_in_the_bucket_is_adopted_when_its_turn_comes",
    ),
    Guard(
        "no own event before the bucket was looked at",
        "audit/journal.py",
        "if self.looked:",
        "if True:",
        "audit/tests/test_archive_requests.py::"
        "test_no_event_is_written_before_the_bucket_was_looked_at",
    ),
    Guard(
        "the time of a batch's first record",
        "audit/selection.py",
        "if time != recorded_at or not first:",
        "if time != recorded_at:",
        f"{TAMPERING}::test_a_first_record_without_a_time_is_never_archived",
    ),
    Guard(
        "the bucket that a rebuilt ledger must reach",
        "audit/rebuild.py",
        "if at.seq < state.floor_seq:",
        "if False:",
        "audit/tests/test_rebuild_ledger.py::"
        "test_where_the_bucket_is_not_whole_the_ledger_is_left_as_it_is[gone-.manifest.json]",
    ),
    Guard(
        "the length of an object that the ledger is rebuilt from",
        "audit/rebuild.py",
        "if length != manifest.bytes_compressed:",
        "if False:",
        "audit/tests/test_rebuild_ledger.py::"
        "test_where_the_bucket_is_not_whole_the_ledger_is_left_as_it_is[cut short-.jsonl.gz]",
    ),
    Guard(
        "the checkpoints within a range",
        "audit/selection.py",
        "if anchors.within(first, len(rows)):",
        "if False:",
        f"{ANCHORS}::test_a_range_is_held_against_a_checkpoint_within_it",
    ),
    Guard(
        "the next checkpoint after a range",
        "audit/selection.py",
        "    anchors.lead_on(seq, link)\n",
        "",
        f"{ANCHORS}::test_a_range_is_held_against_the_next_checkpoint_after_it",
    ),
    Guard(
        "a checkpoint before anything is sent",
        "audit/archive.py",
        "                checkpoints.ensure_from(last)\n",
        "",
        f"{ANCHORS}::test_a_run_makes_one_first_where_none_comes_after_the_range",
    ),
    Guard(
        "the newest checkpoint at each append",
        "audit/log/appending.py",
        "        check_checkpoint(state)\n",
        "",
        f"{CHECKPOINTS}::test_a_log_whose_tail_was_cut_and_continued_is_refused",
    ),
    Guard(
        "what the bucket claims",
        "audit/log/appending.py",
        "        lookout.check(state)\n",
        "",
        f"{CHECKPOINTS}::"
        "test_a_log_that_was_restored_as_a_whole_is_refused_for_what_the_bucket_alone_knows",
    ),
    Guard(
        "nothing signed of a file that is gone",
        "audit/checkpoints.py",
        "    log.check_file()\n",
        "",
        f"{CHECKPOINTS}::test_nothing_is_signed_of_a_database_file_that_is_gone",
    ),
    Guard(
        "what was purged while a checkpoint was made",
        "audit/checkpoints.py",
        "if log.current_state().floor_seq != state.floor_seq:",
        "if False:",
        f"{CHECKPOINTS}::test_one_beside_a_run_that_purges_what_it_reads_is_made_all_the_same",
    ),
    Guard(
        "adopted checkpoints held against cold",
        "audit/checkpoints.py",
        "    _check_in_cold(tree.seq)\n",
        "",
        f"{CHECKPOINTS}::test_an_adopted_one_of_what_was_purged_is_held_against_the_cold_tier[40]",
    ),
    Guard(
        "the queue of writers",
        "audit/log/database.py",
        "with _turn(connections[alias]), transaction",
        "with transaction",
        "audit/tests/test_database.py::"
        "test_a_writer_whose_turn_does_not_come_is_busy_and_writes_nothing",
    ),
    Guard(
        "the canonical form of a record before it leaves hot",
        "audit/canonical.py",
        "return found if _encoder.encode(values) == text else None",
        "return found",
        "audit/tests/test_canonical.py::test_what_breaks_a_rule_is_never_let_through[a blank]",
    ),
    Guard(
        "the words between records that are read at once",
        "audit/canonical.py",
        "if len(found) != len(records) or values[1::2] != [WORD] * (len(records) - 1):",
        "if False:",
        "audit/tests/test_canonical.py::"
        "test_two_rows_that_only_together_are_two_records_are_not_let_through",
    ),
)


def main() -> int:
    """Try every guard; return the exit code."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    bad = 0
    with tempfile.TemporaryDirectory(prefix="dezky-audit-guards-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        (copy / ".venv").symlink_to(ROOT / ".venv")
        for guard in GUARDS:
            if word in guard.name:
                started = time.monotonic()
                verdict = try_without(guard, copy)
                bad += verdict != "red"
                print(f"{verdict:<10} {time.monotonic() - started:4.1f} s  {guard.name}")
                print(f"                   {guard.test}", flush=True)
    return bool(bad)


def try_without(guard: Guard, copy: Path) -> str:
    """Return what becomes of the test without the guard: red, as it must, or why not."""
    file = copy / guard.file
    code = file.read_text(encoding="utf-8")
    if code.count(guard.code) != 1:
        return "NOT FOUND"
    file.write_text(code.replace(guard.code, guard.without), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:randomly", guard.test],
            cwd=copy,
            capture_output=True,
            check=False,
        )
    finally:
        file.write_text(code, encoding="utf-8")
    failed = 1  # pytest's exit code where tests ran and one failed
    if done.returncode == failed:
        return "red"
    return "GREEN" if done.returncode == 0 else "NOT RUN"


if __name__ == "__main__":
    sys.exit(main())
