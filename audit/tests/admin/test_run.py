"""Run archive now, from the console."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from audit import guard
from audit.models import ArchiveBatch, ArchiveRun, AuditEvent, LogState, RunRequest
from audit.tests.doors import DUE, KEPT, browser, everything, history, own_events, user
from audit.tests.factories import ledger_row
from dezky import celery_app

from .console import Console, Page, changelist, page_of

pytestmark = pytest.mark.django_db(transaction=True)
PLAN = "/admin/audit/archiverun/archive-now/"
BUTTON = "Run archive now"
MAY = ("run_archive", "view_archiverun", "view_archivebatch", "view_auditevent")


@pytest.fixture
def operator() -> Client:
    """Be a member of staff who may run the archive, and is no superuser."""
    return browser(user("ada", *MAY, is_staff=True))


def press(client: Client, url: str = PLAN, **data: Any) -> Any:
    """Send the form of a page as its button does; follow where that leads."""
    page = client.get(PLAN)
    assert page.status_code == 200
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())
    assert token
    return client.post(url, {"csrfmiddlewaretoken": token[1], **data}, follow=True)


def text(answer: Any) -> str:
    assert answer.status_code == 200
    page = Page(answer.content.decode())
    assert page.inline == []
    return page.text


# The plan ----------------------------------------------------------------------------------


def test_it_has_its_address() -> None:
    assert reverse("admin:audit_archive_now") == PLAN


def test_the_plan_says_what_a_run_would_do_and_changes_nothing(
    operator: Client, settings: Any
) -> None:
    settings.AUDIT_BATCH_MAX_EVENTS = 20
    settings.AUDIT_COLD_ENDPOINT = "https://s3.example.eu"
    history()
    before = everything()
    shown = text(operator.get(PLAN))
    for part in (
        f"Due: {DUE} events in 2 batches.",
        "1–20",
        f"21–{DUE}",
        f"Stays in hot: seq {DUE + 1}–{DUE + KEPT}: recorded at or after",
        "events stay in hot for 90 days",
        "dezky-audit/audit/v1",
        "at https://s3.example.eu",
        "Tier boundary: highest archived seq none, oldest hot seq 1",
    ):
        assert part in shown
    assert "Look at this" not in shown
    assert everything() == before


def test_the_plan_of_an_empty_log_is_that_nothing_is_due(operator: Client) -> None:
    before = everything()
    shown = text(operator.get(PLAN))
    assert "Nothing is due." in shown
    assert everything() == before
    assert not LogState.objects.exists()


def test_the_plan_tells_of_unfinished_work(operator: Client) -> None:
    history()
    ledger_row(1, 10, "planned", start_link="00" * 32)
    assert "batch 1–10 (planned) was begun and will be done again" in text(operator.get(PLAN))


def test_a_plan_that_cannot_be_made_says_why(operator: Client) -> None:
    history()
    AuditEvent.objects.filter(seq=3).delete()
    shown = text(operator.get(PLAN))
    assert "Look at this: Seq 3 is missing from the hot database" in shown
    assert "None can be made" in shown


def test_while_another_run_works_the_button_is_disabled_and_says_who(operator: Client) -> None:
    with guard.lease():
        html = operator.get(PLAN).content.decode()
    assert f"A run is at work:</strong> {guard.Process.current().label}" in html
    assert re.search(rf'<input type="submit"[^>]*value="{BUTTON}" disabled>', html)
    assert "disabled" not in operator.get(PLAN).content.decode()


def test_a_long_plan_is_shortened(operator: Client, settings: Any) -> None:
    settings.AUDIT_BATCH_MAX_EVENTS = 1
    from audit.admin import run_now

    history()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_now, "SHOWN", 10)
        assert f"and {DUE - 10} more" in text(operator.get(PLAN))


# The run -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("cold")
def test_the_button_runs_and_leads_to_the_run_s_page(operator: Client) -> None:
    history()
    answer = press(operator)
    run = ArchiveRun.objects.get()
    assert answer.redirect_chain == [(page_of("archiverun", run.pk), 302)]
    shown = text(answer)
    line = f"rchived (run {run.pk}): {DUE} events in 1 batch"
    assert f"A{line}; tier boundary: highest archived seq {DUE}, oldest hot seq {DUE + 1}" in shown
    assert f"a{line}" in shown  # the run's own line
    for part in ("ada", "127.0.0.1", "Console", "none: all that is due"):
        assert part in shown
    for seq in (run.request_seq, run.outcome_seq):
        assert f"seq {seq}" in shown
    assert ArchiveBatch.objects.get().state == "purged"


@pytest.mark.usefixtures("cold")
def test_that_it_was_asked_for_and_how_it_ended_is_in_the_log(operator: Client) -> None:
    history()
    press(operator)
    asked, ended = own_events()
    assert (asked["action"], ended["action"]) == ("archive_requested", "archive_ended")
    for event in (asked, ended):
        assert event["source"] == "dezky"
        assert event["actor"] == {"id": "", "ip": "127.0.0.1", "name": "ada"}
        assert (event["data"]["trigger"], event["data"]["from"]) == ("console", "127.0.0.1")
    assert (ended["outcome"], ended["data"]["events"]) == ("success", DUE)


@pytest.mark.usefixtures("cold")
def test_it_does_not_ask_for_archive_enabled(operator: Client, settings: Any) -> None:
    settings.ARCHIVE_ENABLED = False
    press(operator)
    run = ArchiveRun.objects.get()
    assert (run.outcome, run.override) == ("nothing_due", True)


def test_a_run_that_failed_says_why_on_its_page(operator: Client) -> None:
    history()
    AuditEvent.objects.filter(seq=3).delete()
    shown = text(press(operator))
    run = ArchiveRun.objects.get()
    assert f"Failed (run {run.pk}): 0 events in 0 batches" in shown
    assert run.error
    assert run.error in shown


@pytest.mark.usefixtures("cold")
def test_a_busy_one_leads_back_to_the_plan_and_names_the_holder(operator: Client) -> None:
    history()
    with guard.lease():
        answer = press(operator)
    assert answer.redirect_chain == [(PLAN, 302)]
    shown = text(answer)
    assert f"Another run holds the lease: {guard.Process.current().label}, since 20" in shown
    assert not ArchiveRun.objects.exists()
    press(operator)  # a run that has looked at the bucket writes them
    assert [event["data"].get("outcome") for event in own_events()][:2] == [None, "busy"]


@pytest.mark.timeout(25)  # by the worker's own patience with Redis it would be a minute
@pytest.mark.parametrize("how", ["refuses", "accepts and is silent"])
def test_where_the_broker_does_not_answer_the_plan_says_that_nothing_was_begun(
    operator: Client, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    history()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if how == "refuses":
            server.close()
        monkeypatch.setitem(celery_app.conf, "task_always_eager", False)
        monkeypatch.setitem(celery_app.conf, "broker_url", f"redis://127.0.0.1:{port}/0")
        answer = press(operator)
        if how != "refuses":  # it was asked once, and not again and again
            server.setblocking(False)
            server.accept()[0].close()
            with pytest.raises(BlockingIOError):
                server.accept()
    assert answer.redirect_chain == [(PLAN, 302)]
    assert "The broker does not answer, so no worker can be asked: nothing was begun." in text(
        answer
    )
    assert RunRequest.objects.get().state == "withdrawn"
    assert not ArchiveRun.objects.exists()


def test_whoever_may_run_but_not_look_at_runs_is_led_back_to_the_plan() -> None:
    history()
    AuditEvent.objects.filter(seq=3).delete()
    answer = press(browser(user("bela", "run_archive", is_staff=True)))
    assert answer.redirect_chain == [(PLAN, 302)]
    assert "Failed (run " in text(answer)


def test_a_run_s_page_shows_its_limits(operator: Client) -> None:
    from .test_archive import run

    row = run(max_batches=2, through_seq=12_345, requested_from="host", request_seq=1_234)
    shown = text(operator.get(page_of("archiverun", row.pk)))
    for part in (
        f"running (run {row.pk}): 0 events in 0 batches",
        "at most 2 batches, through seq 12,345, whatever its age",
        "seq 1,234",
        "not in the log yet",
    ):
        assert part in shown


# What is refused ----------------------------------------------------------------------------


def refused(client: Client, method: str, **data: Any) -> int:
    """Return the status of a request that must leave everything as it was."""
    before = everything()
    answer = getattr(client, method)(PLAN, data)
    assert everything() == before
    return int(answer.status_code)


def test_get_runs_nothing_whatever_it_asks_for(operator: Client) -> None:
    history()
    before = everything()
    for query in ({}, {"action": "archive_now"}, {"post": "yes"}):
        assert operator.get(PLAN, query).status_code == 200
        assert operator.get(changelist("archivebatch"), query).status_code in {200, 302}
    assert everything() == before


def test_a_post_without_its_csrf_token_is_refused(operator: Client) -> None:
    history()
    assert refused(operator, "post") == 403
    operator.get(PLAN)  # the cookie alone is not enough
    assert refused(operator, "post") == 403
    assert refused(operator, "post", csrfmiddlewaretoken="x" * 64) == 403


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options"])
def test_other_methods_are_refused(method: str) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    answer = getattr(client, method)(PLAN)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


def test_staff_without_the_permission_is_refused() -> None:
    history()
    client = Client()
    client.force_login(user("bela", *MAY[1:], is_staff=True))
    assert refused(client, "get") == refused(client, "post") == 403
    assert refused(client, "delete") == 403


def test_who_is_no_staff_and_who_is_nobody_are_led_to_the_login() -> None:
    history()
    stranger, somebody = Client(), Client()
    somebody.force_login(user("bela", *MAY))
    for client in (stranger, somebody):
        for method in ("get", "post"):
            assert refused(client, method) == 302
        assert client.post(PLAN).headers["Location"] == f"/admin/login/?next={PLAN}"


# Where it is offered -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["/admin/", changelist("archivebatch"), changelist("archiverun")], ids=str
)
def test_it_is_offered_to_those_who_may(url: str, operator: Client) -> None:
    link = f'href="{PLAN}"'
    assert link in Console(operator).page(url).html
    reader = browser(user("bela", *MAY[1:], is_staff=True))
    html = Console(reader).page(url).html
    assert link not in html
    assert BUTTON not in html


def test_the_action_leads_to_the_plan_and_runs_nothing(operator: Client) -> None:
    history()
    row = ledger_row(1, 10, "planned")
    before = everything()
    url = changelist("archivebatch")
    html = operator.get(url).content.decode()
    assert '<option value="archive_now">' in html
    assert "delete_selected" not in html
    chosen = {"action": "archive_now", "index": "0", "_selected_action": str(row.pk)}
    answer = press(operator, url, **chosen)
    assert answer.redirect_chain == [(PLAN, 302)]
    assert "A run takes all that is due, whatever was selected." in text(answer)
    after = everything()
    assert {name for name in after if after[name] != before[name]} <= {"sessions.Session"}


def test_the_action_needs_its_csrf_token(operator: Client) -> None:
    row = ledger_row(1, 10)
    chosen = {"action": "archive_now", "index": "0", "_selected_action": str(row.pk)}
    assert operator.post(changelist("archivebatch"), chosen).status_code == 403


def test_the_action_is_not_there_for_others() -> None:
    row = ledger_row(1, 10)
    client = Client()
    client.force_login(user("bela", "view_archivebatch", is_staff=True))
    chosen = {"action": "archive_now", "index": "0", "_selected_action": str(row.pk)}
    answer = client.post(changelist("archivebatch"), chosen)
    assert answer.headers.get("Location") != PLAN
    assert 'name="action"' not in client.get(changelist("archivebatch")).content.decode()
