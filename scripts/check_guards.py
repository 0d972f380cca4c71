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
OFFLINE = "audit/tests/test_offline.py"
COLD = "audit/tests/test_verify_cold.py"
HOT = "audit/tests/test_verify_hot.py::test_it_is_found_and_named_at_either_level"
LEDGER = "audit/tests/test_verify_ledger.py"
FRAMES = "audit/tests/format/test_frames.py"
SIGNING = "audit/tests/format/test_signing.py"
WALK = "audit/tests/format/test_walk.py"
SCHEDULE = "audit/tests/test_schedule.py"
ALARMS = "audit/tests/test_alarms.py"
NOTICES = "audit/tests/test_notices.py"
LASTRESORT = "audit/tests/test_lastresort.py"
SAFETYNET = "audit/tests/test_safetynet.py"
CONDITIONS = "audit/tests/test_conditions.py"
METRICS = "audit/tests/monitoring/test_metrics.py"
READINESS = "audit/tests/monitoring/test_readiness.py"
PROXIES = "dezky/tests/test_proxies.py"
LOGGING = "dezky/tests/test_logging.py"

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
        "first_recorded_at, recorded_at = _check_records(rows, recorded_at)",
        'first_recorded_at = recorded_at = "2026-01-01T00:00:00.000Z"',
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
        '_wait(file, float(connection.settings_dict["OPTIONS"].get("timeout", 5)))',
        "pass",
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
    # Of the verification: without one of these it says `ok` of a log that is not.
    Guard(
        "verify: the digest in a manifest's name",
        "audit/format/walk.py",
        "if not digest.startswith(name.digest):",
        "if False:",
        f"{COLD}::test_a_manifest_replaced_under_its_own_name_is_found[by a newer key]",
    ),
    Guard(
        "verify: the link that a manifest must continue",
        "audit/format/walk.py",
        "if at.link is not None and manifest.start_link != at.link:",
        "if False:",
        f"{WALK}::test_a_batch_that_goes_on_from_another_log_and_is_signed_to_follow_this_one",
    ),
    Guard(
        "verify: the manifest that the next one names",
        "audit/format/walk.py",
        "if not at.manifest or named == at.manifest or self._newest is None:",
        "if True:",
        f"{OFFLINE}::test_a_manifest_that_was_signed_again_by_another_known_key",
    ),
    Guard(
        "verify: a manifest's root held against its frames",
        "audit/format/walk.py",
        "if tree.root() != manifest.root:",
        "if False:",
        f"{OFFLINE}::test_a_root_that_is_signed_and_wrong",
    ),
    Guard(
        "verify: what is missing between two manifests",
        "audit/format/walk.py",
        "                self._missing(self.place.seq + 1, start - 1)\n",
        "",
        f"{OFFLINE}::test_two_neighbours_of_which_nothing_is_left_are_one_stretch",
    ),
    Guard(
        "verify: the length of an object that is not read",
        "audit/format/walk.py",
        "if size != manifest.bytes_compressed:",
        "if False:",
        f"{WALK}::test_at_the_level_of_manifests_lengths_and_frames_ends_are_held[True]",
    ),
    Guard(
        "verify: a checkpoint held against the one before it",
        "audit/format/points.py",
        "point.checkpoint.check_follows(before.checkpoint, before.sha256)",
        "pass",
        f"{OFFLINE}::test_a_checkpoint_that_goes_back",
    ),
    Guard(
        "verify: two signed checkpoints of one index",
        "audit/format/points.py",
        "if len(signed) > 1:",
        "if False:",
        f"{OFFLINE}::test_two_checkpoints_of_one_index",
    ),
    Guard(
        "verify: the checkpoint before, by its digest",
        "audit/format/checkpoint.py",
        "if self.index == before.index + 1 and not follows:",
        "if False:",
        f"{OFFLINE}::test_a_checkpoint_that_was_signed_anew_is_named_by_the_next",
    ),
    Guard(
        "verify: the link of a checkpoint, in an object",
        "audit/format/inspect.py",
        "if links[nth] != anchor.link:",
        "if False:",
        f"{OFFLINE}::test_a_signed_checkpoint_that_disagrees_with_the_batches[link-in a frame]",
    ),
    Guard(
        "verify: the root of a checkpoint, in an object",
        "audit/format/inspect.py",
        "if roots[nth] != anchor.root:",
        "if False:",
        f"{OFFLINE}::test_a_signed_checkpoint_that_disagrees_with_the_batches[root-in a frame]",
    ),
    Guard(
        "verify: an object's bytes held against its signed digest",
        "audit/format/inspect.py",
        "elif self.good and digest != manifest.sha256:",
        "elif False:",
        f"{OFFLINE}::test_an_object_that_was_compressed_anew",
    ),
    Guard(
        "verify: bytes after the last frame",
        "audit/format/inspect.py",
        "if stream.read(1):",
        "if False:",
        f"{OFFLINE}::test_an_object_that_goes_on[a member]",
    ),
    Guard(
        "verify: a frame's records held against its signed link",
        "audit/format/frames.py",
        "if link != frame.end_link:",
        "if False:",
        f"{FRAMES}::test_other_records_do_not_lead_to_the_signed_link",
    ),
    Guard(
        "verify: a frame's records held against its signed subtrees",
        "audit/format/frames.py",
        "if tuple(merkle.subtrees(frame.first_seq - 1, leaves)) != frame.subtrees:",
        "if False:",
        f"{FRAMES}::test_other_subtrees_than_the_records_make_are_refused",
    ),
    Guard(
        "verify: bytes after a frame's member",
        "audit/format/frames.py",
        "if not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:",
        "if not inflater.eof:",
        f"{FRAMES}::test_anything_after_the_member_is_refused",
    ),
    Guard(
        "verify: the seq and the time of each record",
        "audit/format/frames.py",
        "if int(said) == seq and found >= time and (its_day == day or is_time(found.decode())):",
        "if True:",
        f"{OFFLINE}::test_a_record_that_says_that_it_is_of_another_place",
    ),
    Guard(
        "verify: each signature by a key that is known",
        "audit/format/signing.py",
        "if key.algorithm != item.algorithm or not key.verify(message, item.signature):",
        "if False:",
        f"{SIGNING}::test_another_body_or_domain_is_not_what_was_signed",
    ),
    Guard(
        "verify: a signature that was stripped",
        "audit/format/signing.py",
        " or given != list(signed_by):",
        ":",
        f"{SIGNING}::test_a_listed_signature_that_was_stripped_is_tampering",
    ),
    Guard(
        "verify: a key's last day",
        "audit/format/signing.py",
        "day > key.until:\n                raise EndedKeyError(",
        "False:\n                raise EndedKeyError(",
        f"{OFFLINE}::test_a_key_that_is_past_its_end_and_a_manifest_dated_back",
    ),
    Guard(
        "verify: a kept checkpoint beyond the end of a copy",
        "audit/offline.py",
        "if newest is None or newest.index < kept.index:",
        "if False:",
        f"{OFFLINE}::test_an_end_that_was_cut_off_is_not_seen_without_a_kept_checkpoint",
    ),
    Guard(
        "verify: a kept checkpoint as an anchor",
        "audit/offline.py",
        "    walk.kept = kept\n",
        "",
        f"{OFFLINE}::test_history_without_checkpoints_is_held_against_a_kept_one",
    ),
    Guard(
        "verify: the link of each row in hot",
        "audit/hotwalk.py",
        "if link != row.link:",
        "if False:",
        f"{HOT}[a link edited]",
    ),
    Guard(
        "verify: the link of a checkpoint, in hot",
        "audit/hotwalk.py",
        "if self.link != anchor.link:",
        "if False:",
        f"{HOT}[a record edited, every later link recomputed, and the state]",
    ),
    Guard(
        "verify: rows that are missing from hot",
        "audit/hotwalk.py",
        "if row.seq != self.seq + 1 and self._missing(row.seq - 1):",
        "if False:",
        f"{HOT}[the first row removed]",
    ),
    Guard(
        "verify: the columns of a row held against its record",
        "audit/hotwalk.py",
        "if wrong := changed_columns(row, members):",
        "if wrong := []:",
        "audit/tests/test_verify_hot.py::"
        "test_a_column_that_does_not_say_what_its_record_says_is_named[tenant-upper(tenant)]",
    ),
    Guard(
        "verify: the head's link held against the rows",
        "audit/hotwalk.py",
        "elif state.head_link != self.link.hex():",
        "elif False:",
        f"{HOT}[the head's link edited]",
    ),
    Guard(
        "verify: a checkpoint beyond the head",
        "audit/hotwalk.py",
        "if anchor.seq > state.head_seq:",
        "if False:",
        f"{HOT}[the head lowered, with the link and time of its row]",
    ),
    Guard(
        "verify: a floor above what cold reaches",
        "audit/statecheck.py",
        "if state.floor_seq > archived:",
        "if False:",
        f"{HOT}[the floor raised]",
    ),
    Guard(
        "verify: rows beyond the head",
        "audit/statecheck.py",
        "if newest is not None and (type(newest) is not int or newest > end):",
        "if False:",
        f"{HOT}[a row beyond the head]",
    ),
    Guard(
        "verify: a ledger's row held against its manifest",
        "audit/ledgercheck.py",
        "if name := _changed_in(row, manifest, tree):",
        'if name := "":',
        f"{LEDGER}::test_what_was_done_to_the_ledger_is_found_and_named[its root edited]",
    ),
    Guard(
        "verify: a checkpoint without its row",
        "audit/pointcheck.py",
        "if index not in indexes and not CheckpointRow.objects.filter(index=index).exists():",
        "if False:",
        f"{LEDGER}::test_what_was_done_to_a_checkpoint_is_found_and_named[its row removed]",
    ),
    Guard(
        "verify: a checkpoint without its object",
        "audit/pointcheck.py",
        "there = name in listed or self._is_there(walk, row, name, published)",
        "there = True",
        f"{LEDGER}::test_what_was_done_to_a_checkpoint_is_found_and_named[its object removed]",
    ),
    Guard(
        "operations: a day's work only from its hour on",
        "audit/daily.py",
        "if now.hour < from_hour:",
        "if False:",
        f"{SCHEDULE}::test_a_day_is_done_once_and_not_before_its_hour",
    ),
    Guard(
        "operations: a day's work done once",
        "audit/daily.py",
        "elif row.state != State.WAITING or (row.next_try_at and now < row.next_try_at):",
        "elif row.next_try_at and now < row.next_try_at:",
        f"{SCHEDULE}::test_a_day_is_done_once_and_not_before_its_hour",
    ),
    Guard(
        "operations: a pause before what failed is tried again",
        "audit/daily.py",
        "elif row.state != State.WAITING or (row.next_try_at and now < row.next_try_at):",
        "elif row.state != State.WAITING:",
        f"{SCHEDULE}::test_what_fails_is_tried_again_later_and_after_three_tries_no_more",
    ),
    Guard(
        "operations: three tries a day and no fourth",
        "audit/daily.py",
        "elif end is End.FAILED and tries >= MOST_TRIES:",
        "elif end is End.FAILED and tries > MOST_TRIES:",
        f"{SCHEDULE}::test_what_fails_is_tried_again_later_and_after_three_tries_no_more",
    ),
    Guard(
        "operations: what was not tried counts for no try",
        "audit/daily.py",
        "(1 if end is End.NOT_TRIED else 0)",
        "0",
        f"{SCHEDULE}::test_what_fails_is_tried_again_later_and_after_three_tries_no_more",
    ),
    Guard(
        "operations: a claim taken over only from who is gone",
        "audit/daily.py",
        "if not _is_abandoned(row) or not _take_back(row, now):",
        "if not _take_back(row, now):",
        f"{SCHEDULE}::test_of_many_that_claim_a_day_at_once_one_has_it",
    ),
    Guard(
        "operations: a claim of another machine while the lease is held",
        "audit/daily.py",
        "if not at_work:",
        "if True:",
        f"{SCHEDULE}::test_who_is_of_another_machine_is_followed_when_nobody_can_be_at_it",
    ),
    Guard(
        "operations: a claim that was taken over settles nothing",
        "audit/daily.py",
        "filter(pk=pk, token=held)",
        "filter(pk=pk)",
        f"{SCHEDULE}::test_who_is_gone_is_followed_and_settles_nothing_any_more",
    ),
    Guard(
        "operations: a run that had ended well before its end was written down",
        "audit/daily.py",
        "if _settle_if_done(row):",
        "if False:",
        f"{SCHEDULE}::test_a_run_of_who_is_gone_that_had_ended_well_is_the_day_s",
    ),
    Guard(
        "operations: a worker's deaths counted",
        "audit/daily.py",
        "if row.tries >= MOST_TRIES:\n        _update(",
        "if False:\n        _update(",
        f"{SCHEDULE}::test_who_is_gone_three_times_is_followed_by_nobody",
    ),
    Guard(
        "operations: no archive by schedule that is not enabled",
        "audit/schedule.py",
        "if not conf.archive_enabled():",
        "if False:",
        f"{SCHEDULE}::test_a_tick_of_an_archive_that_is_off_or_busy_is_no_try",
    ),
    Guard(
        "operations: a busy archive is no try",
        "audit/schedule.py",
        "Outcome.BUSY: End.NOT_TRIED",
        "Outcome.BUSY: End.FAILED",
        f"{SCHEDULE}::test_a_tick_of_an_archive_that_is_off_or_busy_is_no_try",
    ),
    Guard(
        "operations: a week's full verification that died was none",
        "audit/schedule.py",
        "any(row.is_whole for row in full)",
        "full.exists()",
        f"{SCHEDULE}::test_once_a_week_the_log_is_verified_in_full",
    ),
    Guard(
        "operations: a request taken only while it is asked",
        "audit/handover.py",
        "filter(pk=request_id, state=State.ASKED)",
        "filter(pk=request_id)",
        f"{SCHEDULE}::test_what_is_asked_for_is_taken_once_and_not_when_it_was_withdrawn",
    ),
    Guard(
        "operations: a request withdrawn only while it is asked",
        "audit/handover.py",
        "filter(pk=row.pk, state=State.ASKED)",
        "filter(pk=row.pk)",
        f"{SCHEDULE}::test_what_is_taken_just_before_it_would_be_withdrawn_is_not_withdrawn",
    ),
    Guard(
        "operations: requests ended for workers that are gone alone",
        "audit/handover.py",
        "if Process.holding(row).is_gone() or row.asked_at < now - DIES:",
        "if True:",
        f"{SCHEDULE}::test_only_requests_whose_worker_is_gone_are_ended",
    ),
    Guard(
        "operations: a request ended once",
        "audit/handover.py",
        "taken = RunRequest.objects.filter(pk=row.pk, state=State.TAKEN)",
        "taken = RunRequest.objects.filter(pk=row.pk)",
        f"{SCHEDULE}::test_a_worker_that_is_taken_for_dead_just_as_it_ends_has_the_last_word",
    ),
    Guard(
        "operations: a claim by a key that is not known is one",
        "audit/safetynet.py",
        "if ahead := [each for each in unknown if each[0] > head]:",
        "if ahead := []:",
        f"{SAFETYNET}::test_where_it_cannot_be_said_whether_the_log_was_rolled_back_nothing_is_chained"
        "[a key is not known]",
    ),
    Guard(
        "operations: a clock that is refused is a look that was not",
        "audit/safetynet.py",
        'doubts.exclude(kind=Kind.CLOCK, subject="log").exists()',
        "doubts.exclude(kind=Kind.CLOCK).exists()",
        f"{SAFETYNET}::test_where_it_cannot_be_said_whether_the_log_was_rolled_back_nothing_is_chained"
        "[a clock is refused]",
    ),
    Guard(
        "operations: what this look has found, whatever another has cleared",
        "audit/safetynet.py",
        "return DOUBTS.isdisjoint(finding.kind for finding in found)",
        "return True",
        f"{SAFETYNET}::test_where_it_cannot_be_said_whether_the_log_was_rolled_back_nothing_is_chained"
        "[another net]",
    ),
    Guard(
        "operations: what may end any look over only where none was cut short",
        "audit/alarms.py",
        "settle(subject, common.values(), whole=all_whole)",
        "settle(subject, common.values())",
        "audit/tests/test_alarms.py::"
        "test_where_looks_are_cut_short_none_of_what_may_end_any_is_over",
    ),
    Guard(
        "operations: what was found to be gone looked for once more",
        "audit/safetynet.py",
        "still = [key for key in gone if after.get(key)]",
        "still = gone",
        f"{SAFETYNET}::test_an_object_that_goes_with_its_row_while_it_looks_is_no_alarm",
    ),
    Guard(
        "operations: a day that is over given up",
        "audit/daily.py",
        "        _close_earlier(job, now)\n",
        "",
        f"{SCHEDULE}::test_a_day_that_is_over_is_given_up_unless_somebody_is_at_it[1]",
    ),
    Guard(
        "operations: that it is over told after that it was",
        "audit/notices.py",
        "if unsent.filter(alarm=notice.alarm, channel=notice.channel, pk__lt=notice.pk).exists():",
        "if False:",
        "audit/tests/test_notices.py::test_that_it_is_over_is_never_told_before_that_it_was",
    ),
    Guard(
        "operations: a verification stopped with a worker's child",
        "dezky/celery.py",
        "on_sigterm.append(signal.signal(signal.SIGTERM, signal.default_int_handler))",
        "pass",
        f"{SCHEDULE}::test_a_worker_that_is_stopped_ends_its_verification_and_another_one_does_it"
        "[with its children]",
    ),
    Guard(
        "operations: no signal slept over",
        "audit/management/entrance.py",
        "self._poll.register(signals, select.POLLIN)",
        "pass",
        "audit/tests/test_entrance.py::"
        "test_a_signal_ends_waiting_also_where_it_does_not_interrupt_the_read",
    ),
    Guard(
        "operations: a message acknowledged when its task has ended",
        "dezky/celery.py",
        "task_acks_late=True,",
        "task_acks_late=False,",
        f"{SCHEDULE}::test_a_message_is_kept_until_its_task_has_ended",
    ),
    Guard(
        "operations: two logs apart in one broker",
        "dezky/celery.py",
        '"global_keyprefix": f"dezky-audit:{origin[:16]}:",',
        '"global_keyprefix": "dezky-audit:",',
        f"{SCHEDULE}::test_two_logs_that_share_a_broker_get_no_message_of_each_other",
    ),
    Guard(
        "operations: a wrong configuration ends a worker",
        "dezky/celery.py",
        "raise SystemExit(str(error)) from None",
        "raise",
        "dezky/tests/test_startup.py::test_of_what_is_wrong_a_worker_or_beat_ends[worker]",
    ),
    Guard(
        "operations: a worker's answer that is too old",
        "audit/conditions.py",
        "not since <= row.at <= ",
        "not row.at <= ",
        f"{SCHEDULE}::test_an_answer_of_a_worker_that_is_too_old_is_none",
    ),
    Guard(
        "operations: keys forgotten of purged events alone",
        "audit/prune.py",
        "state=ArchiveBatch.State.PURGED, last",
        "last",
        f"{SCHEDULE}::test_keys_are_forgotten_of_old_events_that_were_purged",
    ),
    Guard(
        "operations: keys forgotten of old events alone",
        "audit/prune.py",
        ", last_recorded_at__lt=cutoff",
        "",
        f"{SCHEDULE}::test_keys_are_forgotten_of_old_events_that_were_purged",
    ),
    Guard(
        "operations: nothing forgotten by a clock that is not the bucket's",
        "audit/prune.py",
        "if ahead is None or abs(ahead) > CLOCK_OFF:",
        "if False:",
        f"{SCHEDULE}::test_nothing_is_forgotten_by_a_clock_that_is_not_the_bucket_s[7]",
    ),
    Guard(
        "operations: an alarm opened once",
        "audit/alarms.py",
        "if row := alarms.pop(kind, None):",
        "if row := None:",
        f"{ALARMS}::test_one_is_opened_once_refreshed_while_found_and_cleared_when_not",
    ),
    Guard(
        "operations: an alarm cleared only by a look to the end",
        "audit/alarms.py",
        "for row in alarms.values() if whole else ():",
        "for row in alarms.values():",
        f"{ALARMS}::test_a_look_that_could_not_look_clears_nothing",
    ),
    Guard(
        "operations: one cause of several looks told once",
        "audit/alarms.py",
        "if finding.kind in COMMON:",
        "if False:",
        f"{ALARMS}::test_one_cause_that_ends_several_looks_is_told_once_whichever_meets_it_first",
    ),
    Guard(
        "operations: an alarm, its messages and its event in one transaction",
        "audit/alarms.py",
        "    with log.write_transaction(DEFAULT_DB_ALIAS):\n        alarms =",
        "    if True:\n        alarms =",
        f"{ALARMS}::test_row_messages_and_event_are_written_together_or_not_at_all[audit_notice]",
    ),
    Guard(
        "operations: a message claimed by its sender",
        "audit/notices.py",
        "filter(pk=notice.pk, sent_at=None, tries=notice.tries)",
        "filter(pk=notice.pk)",
        f"{NOTICES}::test_two_senders_at_once_send_each_once",
    ),
    Guard(
        "operations: a message given up after three days",
        "audit/notices.py",
        "Q(event=Event.OPENED, alarm__opened_at__gt=since)",
        "Q(event=Event.OPENED)",
        f"{NOTICES}::test_what_could_not_be_sent_for_three_days_is_given_up",
    ),
    Guard(
        "operations: a signature over id, time and body",
        "audit/notices.py",
        'signed = b".".join([name.encode(), seconds.encode(), body])',
        "signed = body",
        f"{NOTICES}::test_each_is_told_once_by_each_way",
    ),
    Guard(
        "operations: the first to find a database's alarm names it",
        "audit/lastresort.py",
        "json.dumps(fresh), nx=True)",
        "json.dumps(fresh))",
        f"{LASTRESORT}::test_a_locked_database_is_told_once_kept_and_written_down_later",
    ),
    Guard(
        "operations: the mark of who is telling it",
        "audit/lastresort.py",
        'if broker.set(mark, "", nx=True, ex=SENDING) and _tell',
        "if _tell",
        f"{LASTRESORT}::test_a_locked_database_is_told_once_kept_and_written_down_later",
    ),
    Guard(
        "operations: the mark that it was told",
        "audit/lastresort.py",
        "if broker.get(_mark(way, kept)) == TOLD}",
        "}",
        f"{LASTRESORT}::test_what_was_never_told_is_told_when_the_database_is_back",
    ),
    Guard(
        "operations: no look at what a run is at work on",
        "audit/safetynet.py",
        "if holder := guard.holder():",
        'if holder := "":',
        f"{SAFETYNET}::test_rows_below_the_floor_are_an_alarm_unless_a_run_is_at_work[5]",
    ),
    Guard(
        "operations: an object that another one superseded is no alarm",
        "audit/safetynet.py",
        " and not _is_superseded(key)",
        "",
        f"{SAFETYNET}::test_objects_that_no_row_knows_are_an_alarm",
    ),
    Guard(
        "operations: no event of ours while the log may be rolled back",
        "audit/tasks.py",
        "if safetynet.is_in_order(found):",
        "if True:",
        f"{SAFETYNET}::test_a_claim_of_the_bucket_that_the_log_does_not_bear_out_is_an_alarm",
    ),
    Guard(
        "operations: a chunk counted where nobody else has",
        "audit/tally.py",
        "if counted() != before:",
        "if False:",
        "audit/tests/test_tally.py::test_two_at_once_count_each_event_once",
    ),
    Guard(
        "operations: a verification that died says nothing",
        "audit/models/trust.py",
        "return self.outcome == self.Outcome.UNVERIFIABLE and bool(ended)",
        "return False",
        f"{CONDITIONS}::test_a_verification_that_says_nothing_neither_opens_nor_clears[report0]",
    ),
    Guard(
        "operations: what the one before has found stands",
        "audit/conditions.py",
        "if died:\n        raise NotNowError",
        "if False:\n        raise NotNowError",
        f"{CONDITIONS}::test_a_verification_that_says_nothing_neither_opens_nor_clears[report1]",
    ),
    Guard(
        "operations: clearly more room before an alarm is over",
        "audit/conditions.py",
        "(CLEARLY_MORE if told else 1)",
        "1",
        f"{CONDITIONS}::test_a_little_more_room_is_no_end_of_an_alarm_and_clearly_more_is",
    ),
    Guard(
        "operations: a full disk told from a bucket that is away",
        "audit/failures.py",
        "(storage.FullError, Kind.FULL),\n",
        "\n",
        f"{CONDITIONS}::test_what_is_grave_about_a_run_is_an_alarm_of_its_own",
    ),
    Guard(
        "operations: figures for who shows the token",
        "audit/monitoring/access.py",
        ' == "bearer" and same',
        ' == "bearer"',
        f"{METRICS}::test_figures_are_for_who_shows_the_token",
    ),
    Guard(
        "operations: a token that is none opens nothing",
        "audit/monitoring/access.py",
        "return bool(token) and scheme",
        "return scheme",
        f"{READINESS}::test_reasons_are_for_who_shows_the_token",
    ),
    Guard(
        "operations: reasons for who shows the token",
        "audit/monitoring/health.py",
        "if access.shows_token(request):",
        "if True:",
        f"{READINESS}::test_reasons_are_for_who_shows_the_token",
    ),
    Guard(
        "operations: no proxy's header of a peer that is not trusted",
        "dezky/proxies.py",
        "meta.pop(name, None)",
        "pass",
        f"{PROXIES}::test_of_a_peer_that_is_not_trusted_no_such_header_is_left[203.0.113.1]",
    ),
    Guard(
        "operations: nothing believed beyond the first that is not trusted",
        "dezky/proxies.py",
        "        if not trusted.has(address):\n            break\n",
        "",
        f"{PROXIES}::test_the_client_is_the_first_from_the_right_that_is_no_proxy_of_ours"
        "[10.0.0.1-203.0.113.9, 192.0.2.8-192.0.2.8]",
    ),
    Guard(
        "operations: no secret in a line",
        "dezky/logging.py",
        "return self._pattern.sub(SECRET, text)",
        "return text",
        f"{LOGGING}::test_no_secret_is_in_a_line_wherever_it_comes_from[json]",
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
    if done.returncode == 0:
        return "GREEN"
    # The exit code alone says the same of a tree that does not load.
    return "red" if b"\nFAILED " in done.stdout else "NOT RUN"


if __name__ == "__main__":
    sys.exit(main())
