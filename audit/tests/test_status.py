"""The state of the log: said in every case, never an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from audit import checkpoints, log, request, status
from audit.format.errors import TamperedError
from audit.models import (
    ArchiveBatch,
    ArchiveRun,
    AuditEvent,
    Checkpoint,
    CheckpointRefusal,
    LogState,
    VerificationRun,
)

from .doors import GONE, user, verification
from .factories import drafts

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_a_new_log_has_nothing_and_nothing_is_wrong() -> None:
    found = status.read()
    assert (found.head_seq, found.highest_archived_seq, found.oldest_hot_seq) == (0, 0, None)
    assert (found.due, found.last_run, found.problems) == (0, None, [])
    assert not LogState.objects.exists()


def test_what_is_due_is_counted() -> None:
    log.append(drafts(3), now=NOW - timedelta(days=100))
    log.append(drafts(2), now=NOW - timedelta(days=10))
    found = status.read(NOW)
    assert (found.head_seq, found.oldest_hot_seq, found.due) == (5, 1, 3)


def test_a_missing_row_is_a_problem() -> None:
    log.append(drafts(3), now=NOW - timedelta(days=100))
    log.append(drafts(2), now=NOW)
    AuditEvent.objects.filter(seq=3).delete()
    (problem,) = status.read(NOW).problems
    assert problem.startswith("Seq 3 is missing from the hot database")


def test_a_log_rolled_back_is_a_problem() -> None:
    log.append(drafts(3))
    ArchiveBatch.objects.create(
        start_seq=1, end_seq=9, event_count=9, start_link="00", planned_at=NOW
    )
    (problem,) = status.read().problems
    assert "hot was rolled back" in problem


def test_the_error_of_the_last_run_is_a_problem_until_the_next() -> None:
    values: dict[str, Any] = {"trigger": "command", "holder": "x", "started_at": NOW}
    ArchiveRun.objects.create(
        token=1, cutoff=NOW, outcome="failed", error="The bucket is full.", **values
    )
    assert status.read().problems == ["The last run (Failed): The bucket is full."]
    ArchiveRun.objects.create(token=2, cutoff=NOW, outcome="nothing_due", **values)
    assert status.read().problems == []


# Checkpoints ---------------------------------------------------------------------------------


@pytest.fixture
def signed(cold: str) -> Checkpoint:
    """Sign a log of three events, in the bucket."""
    log.append(drafts(3))
    checkpoints.make()
    return Checkpoint.objects.get()


@pytest.mark.django_db(transaction=True)
def test_the_newest_checkpoint_is_there(signed: Checkpoint) -> None:
    assert (status.read().newest_checkpoint, status.read().problems) == (signed, [])
    log.append(drafts(2))
    assert status.read().newest_checkpoint == signed


@pytest.mark.django_db(transaction=True)
def test_one_that_waits_for_the_bucket_for_too_long_is_a_problem(signed: Checkpoint) -> None:
    row = checkpoints.make(ask_bucket=False)
    now = datetime.now(UTC)
    assert not row.published
    assert status.read(now + timedelta(minutes=119)).problems == []
    (problem,) = status.read(now + timedelta(minutes=121)).problems
    assert problem.startswith("1 checkpoint not published yet, signed since 20")
    checkpoints.make()
    assert status.read(now + timedelta(minutes=121)).problems == []


@pytest.mark.django_db(transaction=True)
def test_a_log_that_is_not_the_signed_one_is_a_problem(signed: Checkpoint) -> None:
    Checkpoint.objects.update(seq=9)
    (problem,) = status.read().problems
    assert "a checkpoint is signed for seq 9: hot was rolled back" in problem
    Checkpoint.objects.update(seq=2)
    (problem,) = status.read().problems
    assert problem.startswith("Seq 2 in the hot database is not the one for which checkpoint 1 is")


@pytest.mark.django_db(transaction=True)
def test_what_is_purged_while_it_is_looked_for_is_no_problem(
    signed: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(drafts(1))
    state = LogState.objects.get()
    AuditEvent.objects.filter(seq__lte=3).delete()
    LogState.objects.update(floor_seq=3, floor_link=signed.link)
    answers = [state]
    real = log.current_state
    monkeypatch.setattr(log, "current_state", lambda: answers.pop() if answers else real())
    assert status._state().floor_seq == 3


@pytest.mark.django_db(transaction=True)
def test_a_refused_checkpoint_is_a_problem_until_one_is_made_again(signed: Checkpoint) -> None:
    """However often it is refused, and whether or not the event of it is in the log by now."""
    log.append(drafts(2))
    record = AuditEvent.objects.get(seq=4).record
    AuditEvent.objects.filter(seq=4).update(record=b"{}")
    times = []
    for _ in range(3):
        with pytest.raises(TamperedError):
            checkpoints.make()
        refusal = CheckpointRefusal.objects.get()
        times.append((refusal.since, refusal.last))
        (problem,) = status.read().problems
        assert problem.startswith(
            f"No checkpoint is made since {refusal.since:%Y-%m-%d %H:%M:%S} UTC (last tried at "
            f"{refusal.last:%Y-%m-%d %H:%M:%S} UTC): Seq 4 in the hot database was changed"
        )
        request.chain()
    assert len({since for since, _ in times}) == 1
    assert [last for _, last in times] == sorted({last for _, last in times})
    assert str(refusal) == f"checkpoint refused, last at {refusal.last:%Y-%m-%d %H:%M:%S} UTC"
    AuditEvent.objects.filter(seq=4).update(record=record)
    checkpoints.make(ask_bucket=False)  # the bucket may have been the reason
    assert CheckpointRefusal.objects.get() == refusal
    checkpoints.make()
    assert not CheckpointRefusal.objects.exists()
    assert status.read().problems == []


@pytest.mark.django_db(transaction=True)
def test_what_it_was_refused_for_last_is_what_is_shown(signed: Checkpoint) -> None:
    log.append(drafts(2))
    for seq in (5, 4):
        AuditEvent.objects.filter(seq=seq).update(record=b"{}")
        with pytest.raises(TamperedError):
            checkpoints.make()
        (problem,) = status.read().problems
        assert f"Seq {seq} in the hot database was changed" in problem


# Verifications -------------------------------------------------------------------------------


def found_wrong(outcome: str = "tampered", level: str = "full", **members: Any) -> VerificationRun:
    problems = [
        {"kind": outcome, "seq": 7, "object": "x.jsonl.gz", "message": "Seq 7 is wrong."},
        {"kind": outcome, "seq": 8, "object": None, "message": "Seq 8 is wrong."},
    ]
    report = {"problems": problems, "more_problems": 1_000}
    return verification(outcome=outcome, level=level, report=report, **members)


def told() -> list[int]:
    """Return the verifications of which the problems tell."""
    return [int(problem.split()[1]) for problem in status.read().problems]


def test_the_last_one_of_the_whole_log_that_has_ended_is_there() -> None:
    row = verification(outcome="ok")
    verification()  # runs
    verification(outcome="ok", batch_seq=7)
    assert (status.read().last_verification, status.read().problems) == (row, [])


@pytest.mark.parametrize("outcome", ["tampered", "gap", "unverifiable"])
def test_one_that_is_not_ok_is_a_problem_until_the_next(outcome: str) -> None:
    row = found_wrong(outcome)
    assert status.read().problems == [
        f"Verification {row.pk} ({outcome}, full): x.jsonl.gz: Seq 7 is wrong. And 1,001 more."
    ]
    verification()  # runs
    verification(outcome="ok", batch_seq=7)
    assert told() == [row.pk]
    verification(outcome="ok")
    assert told() == []


def test_one_of_the_manifests_does_not_take_back_what_a_full_one_has_found() -> None:
    manifests = found_wrong(level="manifests")
    full = found_wrong("gap")
    assert told() == [full.pk]
    verification(outcome="ok", level="manifests")
    assert told() == [full.pk]
    again = found_wrong(level="manifests")
    assert told() == [again.pk, full.pk]
    verification(outcome="ok", level="full")
    assert told() == []
    assert manifests.outcome == "tampered"


def test_what_could_not_be_looked_at_does_not_hide_what_was_found() -> None:
    found = found_wrong()
    unknown = found_wrong("unverifiable", "manifests")
    assert told() == [unknown.pk, found.pk]
    verification(outcome="ok", level="manifests")
    assert told() == [found.pk]


def test_what_was_found_in_one_batch_counts_and_what_nobody_found_there_does_not() -> None:
    verification(outcome="unverifiable", batch_seq=99, report={"error": "No batch holds seq 99."})
    assert told() == []
    row = found_wrong(batch_seq=7)
    assert told() == [row.pk]
    assert status.read().last_verification is None


@pytest.mark.parametrize(
    "members",
    [GONE, {"host": "another", "started_at": datetime.now(UTC) - timedelta(hours=25)}],
    ids=["gone", "a day old"],
)
def test_one_that_died_is_a_problem(members: dict[str, Any]) -> None:
    verification()  # at work in this process
    row = verification(**members)
    (problem,) = status.read().problems
    assert problem.startswith(f"Verification {row.pk} says that it is running, but its process (")


@pytest.mark.django_db(transaction=True)
def test_a_database_without_its_tables_is_a_problem() -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(LogState)
    try:
        (problem,) = status.read().problems
        assert "run manage.py migrate" in problem
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(LogState)


def test_the_first_page_shows_it_to_whoever_may_see_the_log(client: Client) -> None:
    log.append(drafts(3), now=NOW - timedelta(days=100))
    client.force_login(User.objects.create_superuser("operator"))
    page = client.get("/admin/").content.decode()
    assert "State of the log" in page
    assert "dezky-test" in page


def test_the_first_page_shows_it_to_nobody_else(client: Client) -> None:
    client.force_login(User.objects.create_user("guest", is_staff=True))
    assert "State of the log" not in client.get("/admin/").content.decode()


@pytest.mark.django_db(transaction=True)
def test_the_first_page_tells_good_news_from_bad_in_words(
    client: Client, signed: Checkpoint
) -> None:
    client.force_login(User.objects.create_superuser("operator"))
    page = client.get("/admin/").content.decode()
    assert ("none yet" in page, "published" in page, "Look at this" in page) == (True, True, False)
    verification(outcome="ok")
    assert "✓ ok" in client.get("/admin/").content.decode()
    found_wrong()
    checkpoints.make(ask_bucket=False)
    page = client.get("/admin/").content.decode()
    assert "✗ tampered" in page
    assert "pending: waits for the bucket" in page
    assert "<strong>Look at this:</strong> Verification" in page


@pytest.mark.parametrize("permission", ["verify_log", "view_verificationrun", "view_checkpoint"])
def test_the_first_page_shows_it_to_whoever_works_with_verifications(
    client: Client, permission: str
) -> None:
    client.force_login(user("cleo", permission, is_staff=True))
    verification(outcome="ok")
    page = client.get("/admin/").content.decode()
    assert "✓ ok" in page
    assert ("verificationrun/" in page) == (permission != "view_checkpoint")
