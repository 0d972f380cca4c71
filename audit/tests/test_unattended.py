"""What is done unattended, as the first page says it: in every state, by the rows alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audit import status, unattended
from audit.models import Alarm, DayGuard, Heartbeat

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 6, 1, 12, 3, 7, tzinfo=UTC)


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    """Let a broker be set, and the archive run at night."""
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    settings.ARCHIVE_ENABLED = True
    settings.ARCHIVE_RUN_HOUR_UTC = 3


def beat(name: str = "schedule", **before: int) -> None:
    at = NOON - timedelta(**before)
    Heartbeat.objects.update_or_create(name=name, defaults={"at": at, "holder": "vm, process 7"})


def day(job: str = "archive", **members: Any) -> None:
    DayGuard.objects.update_or_create(job=job, day=NOON.date(), defaults=members)


def said(name: str, now: datetime = NOON) -> str:
    """Return the line of a name, as the page has it."""
    (line,) = (line for line in unattended.look(now)[0] if line.name == name)
    return f"{line.sign} {line.text}"


def problems() -> list[str]:
    found = unattended.look(NOON)[1]
    assert status.read(NOON).problems == found
    return found


def test_without_a_broker_nothing_runs_which_is_wrong_where_something_should(
    settings: Any,
) -> None:
    settings.REDIS_URL, settings.ARCHIVE_ENABLED = "", False
    beat(seconds=5)
    lines, found = unattended.look(NOON)
    why = "nothing runs by itself: REDIS_URL is not set"
    assert [(line.name, line.sign, line.text) for line in lines] == [("Schedule", "–", why)]
    assert found == problems() == []
    settings.ARCHIVE_ENABLED = True
    assert problems() == [f"ARCHIVE_ENABLED is on, but {why}."]


def test_while_beat_broker_and_worker_work_it_says_when_they_did() -> None:
    beat(seconds=7)
    assert said("Schedule") == "✓ answered at 12:03:00 UTC"
    assert problems() == []
    beat(seconds=180)
    assert problems() == []


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (None, "no worker has answered yet: nothing runs by itself"),
        (
            {"seconds": 181},
            "no worker has answered since 2026-06-01 12:00:06 UTC: nothing runs by itself",
        ),
        (
            {"days": -1},
            "a worker answered at 2026-06-02 12:03:07 UTC, which is yet to come: a clock is wrong",
        ),
    ],
    ids=["never", "silent", "in the future"],
)
def test_that_no_worker_answers_is_a_problem(before: dict[str, Any] | None, text: str) -> None:
    if before:
        beat(**before)
    assert said("Schedule") == f"✗ {text}"
    sentence = text[0].upper() + text[1:]
    assert problems() == [f"{sentence}. See that beat and worker run, and what they log."]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (
            {"state": "done", "tries": 1, "outcome": "nothing_due", "run": 12},
            "✓ nothing due today (run 12); again tomorrow from 03:00 UTC",
        ),
        (
            {"state": "running", "claimed_at": NOON - timedelta(minutes=3), "holder": "vm, 7"},
            "… at work since 12:00 UTC: vm, 7",
        ),
        (
            {
                "state": "waiting",
                "tries": 2,
                "outcome": "failed",
                "run": 12,
                "next_try_at": NOON + timedelta(hours=1),
            },
            "✗ failed today (run 12), try 2 of 3, the next from 13:03 UTC",
        ),
        ({"state": "waiting", "outcome": "interrupted"}, "… interrupted today; due again"),
        ({"state": "waiting"}, "… not begun today; due again"),
        (
            {"state": "failed", "tries": 3, "outcome": "refused", "run": 12},
            "✗ refused today (run 12), 3 tries; again tomorrow from 03:00 UTC",
        ),
    ],
    ids=["done", "at work", "to be tried again", "interrupted", "not begun", "given up"],
)
def test_what_became_of_the_day_s_run(members: dict[str, Any], text: str) -> None:
    day(**members)
    DayGuard.objects.create(job="archive", day=NOON.date() - timedelta(days=1), state="failed")
    assert said("Nightly archive") == text


def test_what_has_not_begun_says_from_when_on_it_is_due(settings: Any) -> None:
    early = NOON.replace(hour=2)
    assert said("Nightly archive", early) == "… from 03:00 UTC today"
    assert said("Nightly archive") == "… due since 03:00, begins at 13:00 UTC"
    assert said("Nightly verification", early) == "… from 04:30 UTC today"
    settings.ARCHIVE_RUN_HOUR_UTC = 23
    assert said("Nightly verification") == "… from 23:30 UTC today"


def test_an_archive_that_is_off_says_so(settings: Any) -> None:
    settings.ARCHIVE_ENABLED = False
    day(state="done", outcome="archived")
    line = "– off: ARCHIVE_ENABLED is not set, so it runs when somebody asks"
    assert said("Nightly archive") == line


def test_a_verification_that_was_done_is_no_good_news_where_it_found_something() -> None:
    again = "; again tomorrow from 04:30 UTC"
    for outcome, sign in (("ok", "✓"), ("tampered", "✗"), ("gap", "✗")):
        day("verify", state="done", tries=1, outcome=outcome, run=3)
        line = f"{sign} {outcome} today (verification 3){again}"
        assert said("Nightly verification") == line


def test_the_safety_net_says_when_it_looked() -> None:
    assert said("Safety net") == "… has not looked yet"
    beat("safety_net", minutes=45)
    assert said("Safety net") == "✓ looked last at 11:18 UTC"
    row = Alarm.objects.create(
        kind="bucket", subject="safety net", message=".", opened_at=NOON, last_seen_at=NOON
    )
    assert said("Safety net") == "✗ looked at 11:18 UTC, and not to the end: see the alarm"
    row.delete()
    beat("safety_net", minutes=46)
    assert said("Safety net") == "✗ has not looked since 2026-06-01 11:17:07 UTC"
