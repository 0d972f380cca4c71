"""Alarms in the console, and what the schedule did on each day."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from audit.models import Alarm, DayGuard, Notice
from audit.tests.doors import verification

from .console import Console, changelist, nothing_can_be_changed, page_of, staff
from .test_archive import run

pytestmark = pytest.mark.django_db
ALARMS, DAYS = changelist("alarm"), changelist("dayguard")
NOW = datetime.now(UTC)
HOSTILE = '<script>alert("x")</script>'


def ago(**members: float) -> datetime:
    return NOW - timedelta(**members)


def alarm(kind: str = "gap", **members: Any) -> Alarm:
    values = {"message": "Seq 7 is missing.", "opened_at": ago(hours=2), "last_seen_at": NOW}
    return Alarm.objects.create(kind=kind, **{"subject": kind, **values, **members})


def notice(of: Alarm, channel: str = "email", event: str = "opened", **members: Any) -> Notice:
    values = {"tries": 1, "next_try_at": NOW, **members}
    return Notice.objects.create(alarm=of, channel=channel, event=event, **values)


def day(job: str = "archive", **members: Any) -> DayGuard:
    values = {"day": NOW.date(), "state": "done", "outcome": "archived", "tries": 1, **members}
    return DayGuard.objects.create(job=job, **values)


# Alarms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("url", "empty"), [(ALARMS, "0 alarms"), (DAYS, "0 days of the")])
def test_an_empty_list_loads(console: Console, url: str, empty: str) -> None:
    assert empty in console.page(url).text


def test_open_ones_come_first_then_the_newest_and_are_told_in_words(console: Console) -> None:
    rows = [
        alarm("clock", opened_at=ago(days=9)),
        alarm("full", opened_at=ago(days=2), cleared_at=ago(days=1)),
        alarm("broker", opened_at=ago(days=4), cleared_at=ago(hours=1)),
        alarm("tampering", message=f"{HOSTILE} {'x' * 500}"),
    ]
    page = console.page(ALARMS)  # which fails on anything inline
    order = re.findall(r"alarm/(\d+)/change/", page.html)
    assert order == [str(rows[place].pk) for place in (3, 0, 1, 2)]
    assert (page.html.count(">✗ open<"), page.html.count(">✓ cleared<")) == (2, 2)
    for part in ("Disk or quota full", "Seq 7 is missing.", HOSTILE, f"{ago(days=9):%Y-%m-%d %H}"):
        assert part in page.text
    assert "x" * 200 not in page.text


def test_they_are_filtered_and_found(console: Console) -> None:
    alarm()
    alarm("full", message="No room.", subject="room", cleared_at=NOW)
    page = console.page(ALARMS)
    for link in ("?state=open", "?state=cleared", "?kind=gap", "?kind=full"):
        assert f'href="{link}"' in page.html
    assert 'href="?kind=clock"' not in page.html  # there never was one
    for query, kind in (
        ({"state": "open"}, "Gap (gap), grave"),
        ({"state": "cleared"}, "Disk or quota full (full)"),
        ({"kind": "gap"}, "Gap (gap), grave"),
        ({"q": "no room"}, "Disk or quota full (full)"),
        ({"q": "room", "state": "cleared"}, "Disk or quota full (full)"),
    ):
        page = console.page(ALARMS, **query)
        assert "1 alarm\n" in page.text
        assert f'field-what">{kind}<' in page.html


def test_a_page_shows_everything_and_what_became_of_each_message(console: Console) -> None:
    row = alarm(message=f"{HOSTILE} is gone: restore it.", subject="objects")
    page = console.page(page_of("alarm", row.pk))
    assert "neither AUDIT_ALARM_EMAILS nor AUDIT_ALARM_WEBHOOK_URL was set" in page.text
    notice(row, sent_at=ago(hours=1))
    notice(row, "webhook", tries=3, error="The webhook answered with 500: see its log.")
    page = console.page(page_of("alarm", row.pk))
    for part in (
        "✗ open",
        f"{HOSTILE} is gone: restore it.",
        "objects",
        "docs/operate.md",
        f"✓ opened by e-mail: sent {ago(hours=1):%Y-%m-%d %H:%M:%S}",
        "… opened by webhook: not sent yet (3 tries), tried again from ",
        ": The webhook answered with 500: see its log.",
    ):
        assert part in page.text
    for value in (row.opened_at, row.last_seen_at):
        assert f"{value:%Y-%m-%d %H:%M:%S}" in page.text


def test_a_message_that_nobody_will_send_any_more_is_called_given_up(console: Console) -> None:
    row = alarm(opened_at=ago(days=4))
    notice(row, "webhook", tries=70, error="It did not answer.")
    url = page_of("alarm", row.pk)
    given_up = "✗ opened by webhook: not sent, and given up after 70 tries: It did not answer."
    assert given_up in console.page(url).text
    # That it has cleared is told anew, and so is what was left.
    Alarm.objects.update(cleared_at=ago(hours=1))
    notice(row, "webhook", "cleared", tries=0)
    text = console.page(url).text
    assert "✓ cleared" in text
    assert text.count("not sent yet") == 2


def test_nobody_can_add_change_or_delete_one(console: Console) -> None:
    row = alarm()
    notice(row)
    before = list(Alarm.objects.values()), list(Notice.objects.values())
    nothing_can_be_changed(console, "alarm", row.pk)
    assert (list(Alarm.objects.values()), list(Notice.objects.values())) == before


# Days ----------------------------------------------------------------------------------------


def test_days_come_newest_first_and_tell_good_from_bad_in_words(console: Console) -> None:
    first = day(day=NOW.date() - timedelta(days=1), state="failed", outcome="failed", tries=3)
    day(state="waiting", outcome="failed", tries=1, next_try_at=datetime(2040, 1, 1, tzinfo=UTC))
    day("verify", outcome="tampered")
    day("verify", day=NOW.date() - timedelta(days=1), outcome="ok")
    day(day=NOW.date() - timedelta(days=2), outcome="nothing_due", next_try_at=NOW)
    day("verify", day=NOW.date() - timedelta(days=2), state="running", outcome="")
    page = console.page(DAYS)
    states = re.findall(r"<strong [^>]*>(. \w+)</strong>", page.html)
    assert states == ["✗ waiting", "✗ done", "✗ failed", "✓ done", "✓ done", "… running"]
    for part in ("What the schedule did on each day", "nothing due", "2040-01-01 00:00:00.000"):
        assert part in page.text
    assert f"{NOW:%Y-%m-%d %H:%M}" not in page.text  # what is done is not tried again
    text = console.page(DAYS, state__exact="failed").text
    assert "1 day of the schedule\n" in text
    assert first.day.isoformat() in text


def test_a_day_leads_to_its_run_or_verification(console: Console) -> None:
    archive, verify = day(run=run().pk), day("verify", run=verification().pk, holder="vm, 7")
    for row, model in ((archive, "archiverun"), (verify, "verificationrun")):
        link = page_of(model, row.run)
        assert f'href="{link}"' in console.page(page_of("dayguard", row.pk)).html
        console.page(link)
    assert "vm, 7" in console.page(page_of("dayguard", verify.pk)).text


def test_who_may_not_see_runs_is_led_to_none(client: Client) -> None:
    row = day(run=run().pk)
    html = staff(client, "view_dayguard").page(page_of("dayguard", row.pk)).html
    assert page_of("archiverun", row.run) not in html
    assert f">{row.run}<" in html


def test_nobody_can_add_change_or_delete_a_day(console: Console) -> None:
    row = day()
    before = DayGuard.objects.values().get()
    nothing_can_be_changed(console, "dayguard", row.pk)
    assert DayGuard.objects.values().get() == before


# Who may -------------------------------------------------------------------------------------


@pytest.mark.parametrize("may", [False, True])
def test_staff_sees_them_with_the_permission_only(client: Client, may: bool) -> None:
    pages = [page_of("alarm", alarm().pk), page_of("dayguard", day(run=1).pk)]
    reader = staff(client, *(["view_alarm", "change_alarm", "view_dayguard"] if may else []))
    for url in (ALARMS, DAYS, *pages):
        assert reader.status("get", url) == (200 if may else 403)


@pytest.mark.parametrize("model", ["runrequest", "heartbeat", "notice", "sourcecount"])
def test_what_only_the_machinery_needs_has_no_page(console: Console, model: str) -> None:
    assert console.status("get", f"/admin/audit/{model}/") == 404
