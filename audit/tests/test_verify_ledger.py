"""Attacks on the ledger and on the checkpoints, their rows and their objects."""

# ruff: noqa: S608  # an attack is SQL, and its values are the test's own
from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from audit import verify

from .attacks import COLD, KEYS, ONE, TWO, Scene, assert_found

Attack = Callable[[Scene], Any]
SIGNED = COLD + 2 + 25
ZEROS = f"'{'0' * 64}'"


def sql(*statements: str) -> Attack:
    return lambda scene: scene.run(*statements)


def row(what: str, start: int = 21) -> Attack:
    return sql(f"UPDATE audit_archivebatch SET {what} WHERE start_seq = {start}")


LEDGER: dict[str, tuple[Attack, str, int | None, str]] = {
    "its start edited": (
        row("start_seq = 22, event_count = 19"),
        "tampered",
        22,
        "overlaps another one",
    ),
    "its end edited": (row("end_seq = 39, event_count = 19"), "tampered", 21, "its end_seq"),
    "the newest one's end edited": (
        row("end_seq = 90, event_count = 50", 41),
        "tampered",
        41,
        "its end_seq",
    ),
    "its first link edited": (row(f"start_link = {ZEROS}"), "tampered", 21, "its start_link"),
    "its last link edited": (row(f"end_link = {ZEROS}"), "tampered", 21, "its end_link"),
    "its root edited": (row(f"root = {ZEROS}"), "tampered", 21, "its root"),
    "its frontier edited": (row("frontier = '[]'"), "tampered", 21, "its frontier"),
    "its frontier another value": (row("frontier = 'true'"), "tampered", 21, "its frontier"),
    "its object's name edited": (row("jsonl_key = 'x'"), "tampered", 21, "its jsonl_key"),
    "its object's digest edited": (
        row(f"jsonl_sha256 = {ZEROS}"),
        "tampered",
        21,
        "its jsonl_sha256",
    ),
    "its manifest's name edited": (row("manifest_key = 'x'"), "tampered", 21, "its manifest_key"),
    "its manifest's digest edited": (
        row(f"manifest_sha256 = {ZEROS}"),
        "tampered",
        21,
        "another one than the ledger's",
    ),
    "its size edited": (row("bytes_compressed = 1"), "tampered", 21, "its bytes_compressed"),
    "its text's size edited": (
        row("bytes_uncompressed = 1"),
        "tampered",
        21,
        "bytes_uncompressed",
    ),
    "its time edited": (
        row("last_recorded_at = '2026-01-01 00:00:00'"),
        "tampered",
        21,
        "its last_recorded_at",
    ),
    "its time no time": (
        row("last_recorded_at = '2026-02-30 00:00:00'"),
        "tampered",
        21,
        "does not belong",
    ),
    "its end no number": (
        row("end_seq = 'x', event_count = 0 - 21 + 1"),
        "tampered",
        None,
        "these are no seqs",
    ),
    "its state put back": (
        row("state = 'planned', purged_at = NULL"),
        "gap",
        21,
        "row is missing",
    ),
    "the oldest row removed": (
        sql("DELETE FROM audit_archivebatch WHERE start_seq = 1"),
        "gap",
        1,
        "Batch 1–20 is in the bucket and gone from hot, and its row is missing",
    ),
    "a row removed": (
        sql("DELETE FROM audit_archivebatch WHERE start_seq = 21"),
        "gap",
        21,
        "Batch 21–40 is in the bucket",
    ),
    "the newest row removed": (
        sql("DELETE FROM audit_archivebatch WHERE start_seq = 41"),
        "gap",
        41,
        "Batch 41–60 is in the bucket",
    ),
    "all rows removed": (sql("DELETE FROM audit_archivebatch"), "gap", 41, "Batch 41–60 is in"),
    "a row over another one": (
        sql(
            "CREATE TEMP TABLE copy AS SELECT * FROM audit_archivebatch WHERE start_seq = 21",
            "UPDATE copy SET id = 99, start_seq = 25, end_seq = 45, event_count = 21",
            "INSERT INTO audit_archivebatch SELECT * FROM copy",
        ),
        "tampered",
        25,
        "overlaps another one",
    ),
    "a row of a batch that never was": (
        sql(
            "CREATE TEMP TABLE copy AS SELECT * FROM audit_archivebatch WHERE start_seq = 41",
            f"UPDATE copy SET id = 99, start_seq = 61, end_seq = 80, manifest_sha256 = {ZEROS}",
            "INSERT INTO audit_archivebatch SELECT * FROM copy",
        ),
        "tampered",
        61,
        "batches were purged up to seq 80",
    ),
}


@pytest.mark.parametrize("name", LEDGER)
def test_what_was_done_to_the_ledger_is_found_and_named(scene: Scene, name: str) -> None:
    attack, outcome, seq, words = LEDGER[name]
    attack(scene)
    assert_found(scene.verify(verify.MANIFESTS), outcome, seq, words)


def test_neighbouring_rows_removed_are_named_one_by_one(scene: Scene) -> None:
    scene.run("DELETE FROM audit_archivebatch")
    problems = scene.verify(verify.MANIFESTS).report.problems
    assert [problem.seq for problem in problems if "row is missing" in problem.message] == [
        1,
        21,
        41,
    ]


# Checkpoints -------------------------------------------------------------------------------


def other_link(scene: Scene) -> bytes:
    return sha256(scene.checkpoint(3).link).digest()


def remove_and_call_pending(scene: Scene) -> None:
    """One after it is published, so that it was, too, whatever its row says."""
    scene.remove(scene.point_key(2))
    scene.run(
        """UPDATE audit_checkpoint SET state = 'pending', published_at = NULL WHERE "index" = 2"""
    )


POINTS: dict[str, tuple[Attack, str, int | None, str]] = {
    "two of one seq with different links": (
        lambda scene: scene.add_checkpoint(3, link=other_link(scene)),
        "tampered",
        SIGNED,
        "and checkpoint 3 are both signed for seq 87 and have different links",
    ),
    "two of one seq with different links, objects alone": (
        lambda scene: scene.add_checkpoint(3, row=False, link=other_link(scene)),
        "tampered",
        SIGNED,
        "different links",
    ),
    "two of one index": (
        lambda scene: scene.add_checkpoint(2, row=False, link=other_link(scene), seq=SIGNED),
        "tampered",
        None,
        "checkpoints of index 3 are signed",
    ),
    "one ahead of the log": (
        lambda scene: scene.add_checkpoint(3, seq=500),
        "tampered",
        500,
        "is signed for seq 500, but the log ends at seq 92",
    ),
    "one of another root": (
        lambda scene: scene.add_checkpoint(3, seq=SIGNED, root=other_link(scene)),
        "tampered",
        SIGNED,
        "different links",
    ),
    "one that goes back": (
        lambda scene: scene.add_checkpoint(3, seq=5),
        "tampered",
        5,
        "goes back behind checkpoint 3",
    ),
    "one of another log": (
        lambda scene: scene.add_checkpoint(3, row=False, origin="other"),
        "tampered",
        SIGNED,
        "is of another log, 'other'",
    ),
    "one that leaves out an index": (
        lambda scene: scene.add_checkpoint(3, index=5),
        "tampered",
        SIGNED,
        "leaves out an index after checkpoint 3",
    ),
    "one whose predecessor is missing": (
        lambda scene: scene.add_checkpoint(3, index=5, previous_sha256="0" * 64),
        "gap",
        SIGNED,
        "Checkpoint 4 is missing",
    ),
    "its object removed": (
        lambda scene: scene.remove(scene.point_key(2)),
        "gap",
        COLD + 2,
        "The object of checkpoint 2",
    ),
    "the newest one's object removed": (
        lambda scene: scene.remove(scene.point_key(3)),
        "gap",
        SIGNED,
        "The object of checkpoint 3",
    ),
    "its row removed": (
        sql('DELETE FROM audit_checkpoint WHERE "index" = 2'),
        "gap",
        COLD + 2,
        "Checkpoint 2 is in the bucket, and its row is missing",
    ),
    "all rows removed": (
        sql("DELETE FROM audit_checkpoint"),
        "gap",
        SIGNED,
        "Checkpoint 3 is in the bucket, and its row is missing",
    ),
    "its row's seq edited": (
        sql('UPDATE audit_checkpoint SET seq = 7 WHERE "index" = 2'),
        "tampered",
        7,
        "its columns are not the signed ones",
    ),
    "its row's link edited": (
        sql(f'UPDATE audit_checkpoint SET link = {ZEROS} WHERE "index" = 2'),
        "tampered",
        COLD + 2,
        "its columns are not the signed ones",
    ),
    "its row's root edited": (
        sql(f'UPDATE audit_checkpoint SET root = {ZEROS} WHERE "index" = 2'),
        "tampered",
        COLD + 2,
        "its columns are not the signed ones",
    ),
    "its row's digest edited": (
        sql(f'UPDATE audit_checkpoint SET sha256 = {ZEROS} WHERE "index" = 2'),
        "tampered",
        COLD + 2,
        "its columns are not the signed ones",
    ),
    "its row's index edited": (
        sql('UPDATE audit_checkpoint SET "index" = 9 WHERE "index" = 2'),
        "tampered",
        COLD + 2,
        "its columns are not the signed ones",
    ),
    "its row's time edited": (
        sql("""UPDATE audit_checkpoint SET at = '2026-01-01 00:00:00' WHERE "index" = 2"""),
        "tampered",
        COLD + 2,
        "its columns are not the signed ones",
    ),
    "its row's time no time": (
        sql("""UPDATE audit_checkpoint SET at = '2026-02-30 00:00:00' WHERE "index" = 2"""),
        "tampered",
        None,
        "does not belong",
    ),
    "its row's seq no number": (
        sql("""UPDATE audit_checkpoint SET seq = 'x' WHERE "index" = 2"""),
        "tampered",
        None,
        "does not belong",
    ),
    "its row's document edited": (
        sql("""UPDATE audit_checkpoint SET document = x'7b7d' WHERE "index" = 2"""),
        "tampered",
        COLD + 2,
        "was changed",
    ),
    "its row's frontier edited": (
        sql("""UPDATE audit_checkpoint SET frontier = '["00"]' WHERE "index" = 2"""),
        "tampered",
        COLD + 2,
        "its frontier does not make its signed root",
    ),
    "its object removed and its row called pending": (
        remove_and_call_pending,
        "gap",
        COLD + 2,
        "is missing from the bucket",
    ),
    "its object's bytes edited": (
        lambda scene: scene.put(scene.point_key(2), b"{}"),
        "tampered",
        COLD + 2,
        "holds other bytes than its name says",
    ),
}


@pytest.mark.parametrize("name", POINTS)
def test_what_was_done_to_a_checkpoint_is_found_and_named(scene: Scene, name: str) -> None:
    attack, outcome, seq, words = POINTS[name]
    attack(scene)
    found = scene.verify()
    assert_found(found, outcome, seq, words)
    assert all(line.lower().count("row of ") <= 1 for line in found.report.lines())


def test_a_checkpoint_removed_as_row_and_object_is_missing_between_its_neighbours(
    scene: Scene,
) -> None:
    scene.run('DELETE FROM audit_checkpoint WHERE "index" IN (1, 2)')
    scene.remove(scene.point_key(1), scene.point_key(2))
    found = scene.verify()
    assert_found(found, "gap", None, "Checkpoint 1 is missing")
    assert_found(found, "gap", None, "Checkpoint 2 is missing")
    assert [problem.kind for problem in found.report.problems] == ["gap", "gap"]


def test_one_that_waits_and_was_overtaken_by_one_in_the_bucket_is_no_tampering(
    scene: Scene,
) -> None:
    """It was signed on top of restored rows while the bucket could not be asked."""
    scene.run('DELETE FROM audit_checkpoint WHERE "index" > 1')
    scene.add_checkpoint(1, obj=False, at=scene.checkpoint(3).at)
    scene.run(
        """UPDATE audit_checkpoint SET state = 'pending', published_at = NULL WHERE "index" = 2"""
    )
    found = scene.verify()
    assert {problem.kind for problem in found.report.problems} == {"gap"}  # the rows of 2 and 3
    assert any("Not published, the bucket has another" in note for note in found.report.notes)


def test_a_key_that_ended_before_it_signed_is_said_to_have_ended(scene: Scene) -> None:
    scene.keys = f"{ONE}:until=2026-01-01,+{TWO}:until=2026-01-01"
    found = scene.verify()
    assert_found(found, "tampered", COLD + 2, "until in AUDIT_SIGNING_KEYS is too early")
    assert not any("was changed" in problem.message for problem in found.report.problems)


def test_a_checkpoint_signed_for_another_log_than_cold_holds_is_found(scene: Scene) -> None:
    """Who has a key can sign anything; the log itself says otherwise."""
    other = scene.checkpoint(1)
    scene.run('DELETE FROM audit_checkpoint WHERE "index" > 1')
    scene.remove(scene.point_key(2), scene.point_key(3))
    scene.add_checkpoint(1, seq=other.seq + 5, link=sha256(b"other").digest())
    assert_found(scene.verify(), "tampered", other.seq + 5, "does not have the link")


def test_a_checkpoint_without_a_known_key_is_unverifiable(scene: Scene) -> None:
    scene.keys = KEYS.replace(f"{ONE},+{TWO},", "")
    found = scene.verify()
    assert_found(found, "unverifiable", SIGNED, "of which no key is known")
    assert {problem.kind for problem in found.report.problems} == {"unverifiable"}


def test_one_of_two_keys_is_enough(scene: Scene) -> None:
    for keys in (ONE, TWO):
        scene.keys = keys
        assert scene.verify(verify.MANIFESTS).report.outcome == "ok"
