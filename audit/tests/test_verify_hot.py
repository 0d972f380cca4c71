"""Attacks on the hot database: each is found, by its name and with its seq.

Whoever can write to the database can recompute every link, but cannot sign.
"""

# ruff: noqa: S608  # an attack is SQL, and its values are the test's own
from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audit import checkpoints, verify
from audit.format.errors import AuditError
from audit.log import RolledBackError

from .attacks import COLD, COLUMNS, Scene, assert_found

Attack = Callable[[Scene], Any]
FIRST = COLD + 1
HEAD = COLD + 2 + 25 + 5
SIGNED = HEAD - 5


def swap(scene: Scene) -> None:
    scene.run(
        "UPDATE audit_auditevent SET seq = 0 WHERE seq = 70",
        "UPDATE audit_auditevent SET seq = 70 WHERE seq = 71",
        "UPDATE audit_auditevent SET seq = 71 WHERE seq = 0",
    )


def cut_and_continue(scene: Scene) -> None:
    """Remove the newest rows, and write others in their place, up to the same seq and further."""
    for seq in range(80, HEAD + 1):
        scene.edit(seq, action="made up")
    scene.rechain(80)


def go_back_in_time(scene: Scene) -> None:
    scene.edit(HEAD - 1, recorded_at="2026-01-01T00:00:00.000Z")
    scene.rechain(HEAD - 1)


def sql(*statements: str) -> Attack:
    return lambda scene: scene.run(*statements)


def event(what: str, seq: int = 70) -> Attack:
    return sql(f"UPDATE audit_auditevent SET {what} WHERE seq = {seq}")


def state(what: str) -> Attack:
    return sql(f"UPDATE audit_logstate SET {what}")


def edited(seq: int, rechain_from: int = 0, to: int | None = None) -> Attack:
    def attack(scene: Scene) -> None:
        scene.edit(seq, action="made up")
        if rechain_from:
            scene.rechain(rechain_from, to)

    return attack


ZEROS = f"'{'0' * 64}'"
CHANGED = "Keep the database as it is, and compare with a backup."

ATTACKS: dict[str, tuple[Attack, str, int | None, str]] = {
    "a record edited": (edited(70), "tampered", 70, "does not lead"),
    "a byte of a record edited": (
        event("record = CAST(replace(record, 'tested', 'tasted') AS BLOB)"),
        "tampered",
        70,
        "does not lead",
    ),
    "a record that is none any more": (event("record = x'7b7d'"), "tampered", 70, "no record"),
    "a record that is empty": (event("record = x''"), "tampered", 70, "no record"),
    "a record that is a text": (event("record = 'gone'"), "tampered", 70, "no record"),
    "a record edited, its link recomputed": (edited(70, 70, 70), "tampered", 71, "does not lead"),
    "a record edited, every later link recomputed, and the state": (
        edited(70, 70),
        "tampered",
        SIGNED,
        "does not have the link for which checkpoint 3 is signed",
    ),
    "a link edited": (event(f"link = {ZEROS}"), "tampered", 70, "does not lead"),
    "a link in capitals": (event("link = upper(link)"), "tampered", 70, "does not lead"),
    "a link that is none": (event("link = 'none'"), "tampered", 70, "does not lead"),
    "a row removed from the middle": (
        sql("DELETE FROM audit_auditevent WHERE seq = 70"),
        "gap",
        70,
        "Seq 70 is missing",
    ),
    "two rows removed in different places": (
        sql("DELETE FROM audit_auditevent WHERE seq IN (70, 80)"),
        "gap",
        80,
        "Seq 80 is missing",
    ),
    "the first row removed": (
        sql(f"DELETE FROM audit_auditevent WHERE seq = {FIRST}"),
        "gap",
        FIRST,
        "is missing",
    ),
    "the last row removed": (
        sql(f"DELETE FROM audit_auditevent WHERE seq = {HEAD}"),
        "gap",
        HEAD,
        "is missing",
    ),
    "all rows removed": (
        sql("DELETE FROM audit_auditevent"),
        "gap",
        FIRST,
        f"Seq {FIRST}–{HEAD} are missing",
    ),
    "two rows swapped": (swap, "tampered", 70, "its record says that it is seq 71"),
    "a second copy of a record in the place of another": (
        event("record = (SELECT record FROM audit_auditevent WHERE seq = 70)", 71),
        "tampered",
        71,
        "its record says that it is seq 70",
    ),
    "a row between two others": (
        sql(
            "INSERT INTO audit_auditevent SELECT 70.5, record, link, recorded_at, occurred_at, "
            "source, tenant, actor, actor_id, action, target, outcome, external_id "
            "FROM audit_auditevent WHERE seq = 70"
        ),
        "tampered",
        70,
        "no whole number",
    ),
    "a row beyond the head": (
        sql(
            "INSERT INTO audit_auditevent SELECT 1000, record, link, recorded_at, occurred_at, "
            "source, tenant, actor, actor_id, action, target, outcome, external_id "
            "FROM audit_auditevent WHERE seq = 70"
        ),
        "tampered",
        1000,
        "beyond the log's head",
    ),
    "a row whose seq is a text": (
        sql(
            "INSERT INTO audit_auditevent SELECT 'x', record, link, recorded_at, occurred_at, "
            "source, tenant, actor, actor_id, action, target, outcome, external_id "
            "FROM audit_auditevent WHERE seq = 70"
        ),
        "tampered",
        None,
        "Seq x is in the hot database beyond",
    ),
    "the tail cut and continued": (cut_and_continue, "tampered", SIGNED, "made anew"),
    "an event recorded before the one before it": (
        go_back_in_time,
        "tampered",
        HEAD - 1,
        "goes back behind the one before it",
    ),
    # The log's state
    "the head raised": (state("head_seq = head_seq + 3"), "gap", HEAD + 1, "are missing"),
    "the head lowered": (state("head_seq = head_seq - 3"), "tampered", HEAD - 3, "another link"),
    "the head lowered, with the link and time of its row": (
        state(
            f"head_seq = {SIGNED - 1}, "
            f"head_link = (SELECT link FROM audit_auditevent WHERE seq = {SIGNED - 1}), "
            f"head_recorded_at = "
            f"(SELECT recorded_at FROM audit_auditevent WHERE seq = {SIGNED - 1})"
        ),
        "tampered",
        SIGNED,
        "its end was cut off",
    ),
    "the head below cold": (
        state("head_seq = 40, floor_seq = 40"),
        "tampered",
        41,
        "hot was rolled back",
    ),
    "the head's link edited": (state(f"head_link = {ZEROS}"), "tampered", HEAD, "another link"),
    "the head's time edited": (
        state("head_recorded_at = '2026-01-01 00:00:00'"),
        "tampered",
        HEAD,
        "another time",
    ),
    "the head's time removed": (
        state("head_recorded_at = NULL"),
        "tampered",
        HEAD,
        "another time",
    ),
    "the floor raised": (state("floor_seq = floor_seq + 5"), "gap", COLD + 1, "Hot was purged"),
    "the floor lowered into a batch": (state("floor_seq = 50"), "tampered", 50, "amid a batch"),
    "the floor lowered to a batch's end, with its link": (
        state(
            "floor_seq = 40, "
            "floor_link = (SELECT end_link FROM audit_archivebatch WHERE end_seq = 40)"
        ),
        "tampered",
        41,
        "batches were purged up to seq 60",
    ),
    "the floor lowered to nothing": (state("floor_seq = 0"), "tampered", 1, "purged up to seq 60"),
    "the floor's link edited": (state(f"floor_link = {ZEROS}"), "tampered", COLD, "for its floor"),
    "the origin edited": (state("origin = 'other'"), "tampered", None, "of another log, 'other'"),
    "the state removed": (sql("DELETE FROM audit_logstate"), "gap", None, "state is missing"),
    "a head that is no number": (state("head_seq = 'x'"), "tampered", None, "does not belong"),
    "a floor that is no number": (state("floor_seq = 1.5"), "tampered", None, "does not belong"),
    "a head's time that is none": (
        state("head_recorded_at = '2026-02-30 00:00:00'"),
        "tampered",
        None,
        "does not belong",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_found_and_named_at_either_level(scene: Scene, name: str) -> None:
    attack, outcome, seq, words = ATTACKS[name]
    attack(scene)
    assert_found(scene.verify(verify.MANIFESTS), outcome, seq, words)


def test_a_row_in_hot_again_is_residue_and_one_that_differs_from_cold_is_named(
    scene: Scene,
) -> None:
    scene.run(
        f"ATTACH '{scene.archived.old['unarchived']}' AS old",
        "INSERT INTO audit_auditevent SELECT * FROM old.audit_auditevent WHERE seq IN (30, 31)",
    )
    assert scene.verify().report.outcome == "ok"
    scene.edit(30, action="made up")
    place = scene.key(21).rpartition("/")[2]
    assert_found(scene.verify(), "tampered", 30, "differs between the hot database and", place)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((column, "'2026-01-01 00:00:00'") for column in COLUMNS),
        ("recorded_at", "'noon'"),
        ("occurred_at", "'2026-02-30 00:00:00'"),
        ("recorded_at", "5"),
        ("occurred_at", "''"),
        ("actor", "CAST(x'ff' AS TEXT)"),
        ("tenant", "upper(tenant)"),
    ],
)
def test_a_column_that_does_not_say_what_its_record_says_is_named(
    scene: Scene, column: str, value: str
) -> None:
    scene.run(f"UPDATE audit_auditevent SET {column} = {value} WHERE seq = 70")
    found = scene.verify(verify.MANIFESTS)
    assert_found(found, "tampered", 70, f"its column {column} does not say what its record says")
    assert len(found.report.problems) == 1


def test_what_no_checkpoint_covers_yet_can_be_made_anew_and_is_all_that_can(scene: Scene) -> None:
    """So checkpoints are made each hour, and kept elsewhere."""
    scene.edit(SIGNED + 1, action="made up")
    scene.rechain(SIGNED + 1)
    assert scene.verify().report.outcome == "ok"
    with scene.inside():
        checkpoints.make(ask_bucket=False)
    scene.edit(SIGNED + 1, action="made up again")
    scene.rechain(SIGNED + 1)
    assert scene.verify(verify.MANIFESTS).report.outcome == "tampered"


def test_a_row_that_is_stored_and_not_purged_is_held_against_its_object(scene: Scene) -> None:
    scene.run(
        f"ATTACH '{scene.archived.old['unarchived']}' AS old",
        "INSERT INTO audit_auditevent SELECT * FROM old.audit_auditevent WHERE seq > 40",
        "UPDATE audit_archivebatch SET state = 'stored', purged_at = NULL WHERE start_seq = 41",
        "UPDATE audit_logstate SET floor_seq = 40, "
        "floor_link = (SELECT end_link FROM audit_archivebatch WHERE end_seq = 40)",
    )
    assert scene.verify().report.outcome == "ok"
    scene.run("UPDATE audit_auditevent SET actor = 'nobody' WHERE seq = 45")
    found = scene.verify()
    assert_found(found, "tampered", 45, "a column in hot that its record does not say: actor")
    scene.edit(50, action="made up")
    found = scene.verify()
    assert_found(found, "tampered", 50, "differs between the hot database and the object")
    assert found.report.problems[-1].object == scene.key(41).rpartition("/")[2]


# Restored from an older copy ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("copy", "outcome", "words"),
    [
        ("signed", "ok", ""),  # what came after the last checkpoint is gone; nobody can know it
        ("archived", "tampered", f"is signed for seq {SIGNED}, but the log ends at seq 62"),
        ("unarchived", "tampered", "but the log ends at seq 60"),
    ],
)
def test_a_database_restored_as_a_whole_is_found_by_what_the_bucket_has(
    scene: Scene, copy: str, outcome: str, words: str
) -> None:
    scene.restore(copy)
    found = scene.verify()
    if outcome == "ok":
        assert found.report.outcome == "ok"
        return
    assert_found(found, outcome, SIGNED, words)
    gaps = [problem.message for problem in found.report.problems if problem.kind == "gap"]
    assert any("Checkpoint 3 is in the bucket, and its row is missing" in text for text in gaps)


def refused(scene: Scene) -> None:
    """See that nothing is taken into such a log, and nothing signed for it."""
    before = scene.head
    with pytest.raises(RolledBackError):
        scene.append()
    with scene.inside(), pytest.raises((RolledBackError, AuditError)):
        checkpoints.make()
    assert scene.head == before


def test_a_log_that_was_cut_is_not_continued(scene: Scene) -> None:
    scene.run("DELETE FROM audit_auditevent WHERE seq > 80")
    scene.rechain(70)
    assert scene.head == 80
    assert_found(scene.verify(), "tampered", SIGNED, "its end was cut off")
    refused(scene)


def test_a_log_that_was_cut_and_continued_is_not_continued(scene: Scene) -> None:
    cut_and_continue(scene)
    refused(scene)


@pytest.mark.parametrize("copy", ["archived", "unarchived"])
def test_a_log_that_was_restored_is_neither_continued_nor_signed(scene: Scene, copy: str) -> None:
    scene.restore(copy)
    with scene.inside(), pytest.raises(AuditError, match="rolled back"):
        checkpoints.make()


def test_a_clock_that_was_set_back_sets_no_event_back(scene: Scene) -> None:
    before = scene.one("SELECT head_recorded_at FROM audit_logstate")
    (seq,) = scene.append(now=datetime.now(UTC) - timedelta(days=900))
    assert scene.one("SELECT recorded_at FROM audit_auditevent WHERE seq = ?", seq) == before
    assert scene.one("SELECT head_recorded_at FROM audit_logstate") == before
    assert scene.verify().report.outcome == "ok"
