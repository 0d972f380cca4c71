"""Alarms: opened once, refreshed while found, cleared when looked at whole and not found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections

from audit import alarms, log, request, storage
from audit.alarms import Finding, Kind, Look, NotNowError
from audit.format.errors import GapError
from audit.format.keys import KeyringError
from audit.models import Alarm, ArchiveBatch, Notice, OwnEvent

from .doors import own_events
from .factories import drafts

pytestmark = pytest.mark.django_db(transaction=True)
FULL = Finding(Kind.FULL, "The disk is full: make room.")
GAP = Finding(Kind.GAP, "Seq 3 is missing: restore it.")
THREADS = 6


def look(*found: Finding | BaseException, name: str = "disk") -> Look:
    """Return a look that finds these, up to what is raised."""

    def finds() -> Iterator[Finding]:
        for item in found:
            if isinstance(item, BaseException):
                raise item
            yield item

    return Look(name, finds)


def opened() -> list[tuple[str, str, str]]:
    """Return kind, subject and message of what is open."""
    return sorted(alarms.open_alarms().values_list("kind", "subject", "message"))


def noted() -> list[str]:
    return [row.event["action"] for row in OwnEvent.objects.all()]


def test_one_is_opened_once_refreshed_while_found_and_cleared_when_not() -> None:
    assert alarms.go("all", [look(FULL)]) == [FULL]
    (first,) = Alarm.objects.all()
    before = datetime.now(UTC) - timedelta(hours=1)
    Alarm.objects.update(last_seen_at=before)
    alarms.go("all", [look(Finding(Kind.FULL, "Still full."))])
    (row,) = Alarm.objects.all()
    assert (row.pk, row.opened_at, row.is_open) == (first.pk, first.opened_at, True)
    assert (row.message, row.last_seen_at > before) == ("Still full.", True)
    assert noted() == ["alarm_opened"]
    # Another look finds nothing, and that says nothing about this one.
    alarms.go("all", [look(name="bucket")])
    assert len(opened()) == 1
    alarms.go("all", [look()])
    row.refresh_from_db()
    assert (row.is_open, opened()) == (False, [])
    assert noted() == ["alarm_opened", "alarm_cleared"]
    alarms.go("all", [look()])
    assert noted() == ["alarm_opened", "alarm_cleared"]
    # What comes again is another alarm.
    alarms.go("all", [look(FULL)])
    assert Alarm.objects.count() == 2
    assert noted() == ["alarm_opened", "alarm_cleared", "alarm_opened"]


def test_a_look_that_could_not_look_clears_nothing() -> None:
    alarms.go("all", [look(FULL)])
    unable = storage.UnavailableError("It does not answer: see that it is up.")
    (found,) = alarms.go("all", [look(unable)])
    assert found.kind is Kind.BUCKET
    assert [kind for kind, _, _ in opened()] == [Kind.BUCKET, Kind.FULL]
    # Not even where what ended it is a verdict: the rest was not looked at.
    alarms.go("all", [look(GapError("It is gone."))])
    assert [kind for kind, _, _ in opened()] == [Kind.FULL, Kind.GAP]
    # That it is not the time to look is no alarm at all.
    assert alarms.go("all", [look(NotNowError("A run is at work."))]) == []
    assert len(opened()) == 2
    alarms.go("all", [look()])
    assert opened() == []


def test_what_was_found_before_an_error_is_found() -> None:
    (first, second) = alarms.go("all", [look(FULL, OSError("no such folder"))])
    assert (first, second.kind) == (FULL, Kind.RUN_FAILED)
    assert [kind for kind, _, _ in opened()] == [Kind.FULL, Kind.RUN_FAILED]


def test_two_findings_of_a_kind_are_one_alarm_that_names_both() -> None:
    other = Finding(Kind.FULL, "The other disk is full, too.")
    alarms.go("all", [look(FULL, other)])
    assert opened() == [("full", "disk", f"{FULL.message} {other.message}")]
    alarms.go("all", [look(other)])
    assert opened() == [("full", "disk", other.message)]
    alarms.go("all", [look(Finding(Kind.FULL, "x" * 10_000))])
    assert len(opened()[0][2]) == alarms.MAX_MESSAGE


def test_one_cause_that_ends_several_looks_is_told_once_whichever_meets_it_first() -> None:
    down = storage.UnavailableError("It does not answer.")
    for first in (down, NotNowError("A run is at work."), None):
        looks = [look(*filter(None, [first])), look(GAP, down, name="objects")]
        assert [found.kind for found in alarms.go("safety net", looks)] == [Kind.GAP, Kind.BUCKET]
        assert [(kind, subject) for kind, subject, _ in opened()] == [
            ("bucket", "safety net"),
            ("gap", "objects"),
        ]
    assert Alarm.objects.count() == 2
    alarms.go("safety net", [look(), look(name="objects")])
    assert opened() == []


def test_where_looks_are_cut_short_none_of_what_may_end_any_is_over() -> None:
    unknown = KeyringError("No key signs.")
    alarms.go("safety net", [look(unknown)])
    for cut in (storage.UnavailableError("It does not answer."), ValueError("Nobody foresaw it.")):
        alarms.go("safety net", [look(cut)])
        assert ("key_missing", "safety net") in [(kind, by) for kind, by, _ in opened()]
    alarms.go("safety net", [look()])
    assert opened() == []


def test_what_ends_a_look_and_is_its_own_business_is_told_of_each() -> None:
    gap = GapError("It is gone.")
    assert len(alarms.go("all", [look(gap), look(gap, name="residue")])) == 2
    assert [(kind, subject) for kind, subject, _ in opened()] == [
        ("gap", "disk"),
        ("gap", "residue"),
    ]


def at_once(does: Callable[[], Any]) -> None:
    """Do it in several threads that start together."""
    barrier, failures = threading.Barrier(THREADS), list[BaseException]()

    def work() -> None:
        try:
            barrier.wait()
            does()
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_several_that_find_the_same_at_once_open_and_clear_one(settings: Any) -> None:
    settings.AUDIT_ALARM_EMAILS = ["ada@example.org"]
    at_once(lambda: alarms.go("all", [look(FULL)]))
    assert Alarm.objects.count() == len(opened()) == 1
    at_once(lambda: alarms.go("all", [look()]))
    assert (Alarm.objects.count(), opened()) == (1, [])
    assert sorted(Notice.objects.values_list("event", flat=True)) == ["cleared", "opened"]
    assert noted() == ["alarm_opened", "alarm_cleared"]


def test_one_that_somebody_else_has_just_opened_is_left_to_the_next_look() -> None:
    """As on an engine whose writers do not queue: here a row comes in just before the insert."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER other BEFORE INSERT ON audit_alarm WHEN NEW.last_seen_at IS NOT "
            "'2026-01-01 00:00:00' BEGIN INSERT INTO audit_alarm (kind, subject, message, "
            "opened_at, last_seen_at) VALUES (NEW.kind, NEW.subject, 'theirs', NEW.opened_at, "
            "'2026-01-01 00:00:00'); END"
        )
        try:
            assert alarms.go("all", [look(FULL), look(GAP, name="log")]) == [FULL, GAP]
        finally:
            cursor.execute("DROP TRIGGER other")
    assert opened() == []  # both were rolled back together; nothing half written
    assert noted() == []
    alarms.go("all", [look(FULL)])
    assert len(opened()) == 1


@pytest.mark.parametrize("table", ["audit_notice", "audit_ownevent"])
def test_row_messages_and_event_are_written_together_or_not_at_all(
    table: str, settings: Any
) -> None:
    settings.AUDIT_ALARM_EMAILS = ["ada@example.org"]
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TRIGGER fails BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        try:
            alarms.go("all", [look(FULL)])
        finally:
            cursor.execute("DROP TRIGGER fails")
    assert (opened(), Notice.objects.count(), noted()) == ([], 0, [])
    alarms.go("all", [look(FULL)])
    assert (len(opened()), Notice.objects.count(), len(noted())) == (1, 1, 1)


def test_both_reach_the_log_as_events() -> None:
    log.append(drafts(2))
    alarms.go("all", [look(FULL)])
    request.chain()
    alarms.go("all", [look()])
    request.chain()
    request.chain()
    row = Alarm.objects.get()
    first, second = own_events()
    for event, action, outcome in (
        (first, "alarm_opened", "failure"),
        (second, "alarm_cleared", "success"),
    ):
        assert (event["action"], event["outcome"]) == (action, outcome)
        assert event["actor"]["name"] == "watch"
        expected = {"alarm": row.pk, "kind": "full", "subject": "disk", "message": FULL.message}
        assert {name: event["data"][name] for name in expected} == expected
    assert noted() == []


def test_while_the_log_is_rolled_back_its_events_wait() -> None:
    log.append(drafts(2))
    ahead = ArchiveBatch.objects.create(
        start_seq=1, end_seq=9, event_count=9, start_link="00", planned_at=datetime.now(UTC)
    )
    alarms.go("all", [look(FULL)])
    with pytest.raises(log.RolledBackError):
        request.chain()
    assert (own_events(), noted()) == ([], ["alarm_opened"])
    ahead.delete()
    alarms.go("all", [look()])
    request.chain()
    assert [event["action"] for event in own_events()] == ["alarm_opened", "alarm_cleared"]


def test_a_database_that_takes_nothing_raises() -> None:
    alarms.go("all", [look(FULL)])
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = ON")
    try:
        with pytest.raises(DatabaseError):
            alarms.go("all", [look(GAP)])
        with pytest.raises(DatabaseError):
            alarms.go("all", [look()])
        alarms.go("all", [look(name="another")])  # has nothing to write
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA query_only = OFF")
    assert opened() == [("full", "disk", FULL.message)]
    assert noted() == ["alarm_opened"]
