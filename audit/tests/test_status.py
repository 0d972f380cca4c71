"""The state of the log: said in every case, never an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from audit import log, status
from audit.models import ArchiveBatch, ArchiveRun, AuditEvent, LogState

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
