"""The first page: what is wrong, since when and whether people were told; then all the rest."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from audit import alarms, checkpoints, conditions, log, status
from audit.models import (
    Alarm,
    ArchiveRun,
    Checkpoint,
    CheckpointRefusal,
    Heartbeat,
    LogState,
    Notice,
)
from audit.tests.doors import browser, user, verification
from audit.tests.factories import drafts, ledger_row
from audit.tests.watching import only

from .console import Console, changelist, page_of
from .test_alarms import ago, alarm, day, notice
from .test_archive import run

pytestmark = pytest.mark.django_db(transaction=True)
FIRST = "/admin/"


@pytest.fixture(autouse=True)
def roomy(settings: Any) -> None:
    """Let whatever this disk has be enough."""
    settings.AUDIT_MIN_FREE_MB = 1


def alarmed(console: Console) -> list[str]:
    """Return what stands out on the page, in its order."""
    page = console.page(FIRST)
    parts = page.html.split('<p class="audit-problem" role="alert"><strong>')[1:]
    return [part.split("</p>")[0] for part in parts]


def test_open_alarms_come_first_with_since_when_and_who_was_told(console: Console) -> None:
    row = alarm("unknown_objects", message="An object <b>nobody</b> knows.")
    alarm("full", cleared_at=datetime.now(UTC))
    notice(row, sent_at=ago(hours=1))
    notice(row, "webhook", tries=2)
    Notice.objects.create(alarm=row, channel="email", event="cleared", next_try_at=ago(hours=1))
    run(outcome="failed", error="The bucket is full.")
    first, second = alarmed(console)
    for part in (
        f'Alarm: <a href="{page_of("alarm", row.pk)}">unknown objects</a>.',
        "An object &lt;b&gt;nobody&lt;/b&gt; knows.",
        f"Since {row.opened_at:%Y-%m-%d %H:%M:%S} UTC, last seen {row.last_seen_at:%Y-%m-%d}",
        f"; told by e-mail at {ago(hours=1):%Y-%m-%d %H:%M:%S} UTC, not yet told by webhook (2 t",
    ):
        assert part in first
    assert second == "Look at this:</strong> The last run (Failed): The bucket is full."
    Notice.objects.all().delete()
    assert "; nobody was told" in alarmed(console)[0]


@pytest.mark.usefixtures("cold")
def test_what_an_alarm_tells_is_not_told_again(console: Console) -> None:
    """Each is caused, then found by the look that alarms."""
    long_ago = datetime.now(UTC) - timedelta(days=1)
    log.append(drafts(3))
    checkpoints.make()
    log.append(drafts(1))
    checkpoints.make(ask_bucket=False)
    Checkpoint.objects.filter(state="pending").update(at=long_ago)
    CheckpointRefusal.objects.create(error="Seq 4 was changed.", since=long_ago, last=long_ago)
    problem = {"kind": "gap", "seq": 2, "object": "x.jsonl.gz", "message": "Seq 2 is missing."}
    verification(outcome="gap", report={"problems": [problem], "more_problems": 3})
    run(outcome="failed", error="The bucket is full.", failure="full")
    before = status.read().problems
    assert len(before) == len(alarmed(console)) == 4
    subjects = {"run", "verification", "checkpoint", "checkpoints"}
    alarms.go("all", only(conditions.LOOKS, *subjects))
    assert {row.subject for row in Alarm.objects.all()} == subjects
    assert (status.read().problems, status.read().untold) == (before, [])
    assert len(alarmed(console)) == 4
    said = [part.partition(":")[0] for part in alarmed(console)]
    assert said == ["Grave alarm"] * 2 + ["Alarm"] * 2


def test_what_an_alarm_of_the_same_thing_does_not_tell_is_told(console: Console) -> None:
    log.append(drafts(3))
    ledger_row(1, 1, state="planned")
    ledger_row(2, 2, state="planned")
    run(outcome="interrupted")
    alarm("unfinished", message="batch 1–1 (planned) was planned and is not stored: run it.")
    first, second = alarmed(console)
    assert first.startswith("Alarm: ")
    assert "batch 2–2 (planned) is not finished" in second


def test_all_is_well_is_said_calmly(console: Console, settings: Any) -> None:
    settings.REDIS_URL, settings.ARCHIVE_ENABLED = "redis://127.0.0.1:9/0", True
    now = datetime.now(UTC)
    Heartbeat.objects.create(name="schedule", at=now)
    day(run=run(outcome="archived").pk)
    assert alarmed(console) == []
    page = console.page(FIRST)
    for part in (
        "✓ none is open",
        f"✓ answered at {now:%H:%M:%S} UTC",
        f"✓ archived today (run {ArchiveRun.objects.get().pk}); again tomorrow from 03:00 UTC",
        "Nightly verification",
        "Safety net",
        "✓ archived",
        "What the schedule did on each day",
    ):
        assert part in page.text
    assert changelist("dayguard") in page.html
    settings.REDIS_URL, settings.ARCHIVE_ENABLED = "", False
    assert "– nothing runs by itself: REDIS_URL is not set" in console.page(FIRST).text


def test_what_there_is_none_of_and_what_is_not_known_are_words(console: Console) -> None:
    assert "Oldest hot seqnone" in console.page(FIRST).text.replace("\n", "").replace("  ", "")
    with connection.schema_editor() as editor:
        editor.delete_model(LogState)
    try:
        text = console.page(FIRST).text
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(LogState)
    assert text.count("not known") == 3
    assert "None" not in text.replace("None available", "")


@pytest.mark.parametrize("may", [False, True])
def test_links_are_for_those_who_may_follow_them(may: bool) -> None:
    row = alarm()
    rights = ["view_alarm", "view_dayguard"] if may else ["view_checkpoint"]
    reader = Console(browser(user("bela", *rights, is_staff=True)))
    html = reader.page(FIRST).html
    assert "Seq 7 is missing." in html
    assert (page_of("alarm", row.pk) in html) == may
    assert (f'<a href="{changelist("dayguard")}">What the' in html) == may
    assert (f'<a href="{changelist("alarm")}">All alarms' in html) == may


@pytest.mark.parametrize("right", ["run_archive", "verify_log", "view_archivebatch"])
def test_whoever_has_one_right_sees_the_state_and_no_link_that_fails(right: str) -> None:
    row = ledger_row(1, 1, state="planned", run=run())
    reader = Console(browser(user("bela", right, is_staff=True)))
    page = reader.page(FIRST)
    assert "State of the log" in page.text
    assert "permission to view or edit anything" not in page.text
    seen, pages = set(), [FIRST]
    if right == "view_archivebatch":
        pages.append(page_of("archivebatch", row.pk))
    while pages:
        url = pages.pop()
        seen.add(url)
        links = re.findall(r'href="(/admin/[^"?#]*)"', reader.page(url).html)
        pages += set(links) - seen - set(pages)
    assert len(seen) > 1


def test_where_nobody_looks_that_no_alarm_is_open_is_no_good_news(console: Console) -> None:
    assert "– none is open, and nobody looks" in console.page(FIRST).text


def test_what_nobody_can_change_has_no_history_of_changes(console: Console) -> None:
    assert "History" not in console.page(page_of("alarm", alarm().pk)).text


def test_whoever_may_see_nothing_of_the_log_sees_no_alarm(client: Client) -> None:
    alarm()
    client.force_login(user("bela", is_staff=True))
    assert "Seq 7 is missing." not in client.get(FIRST, secure=True).content.decode()
