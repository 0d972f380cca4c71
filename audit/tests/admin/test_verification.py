"""Verifications in the console: to read, and to begin."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from audit import verify
from audit.models import AuditEvent, VerificationRun
from audit.tests.doors import DUE, KEPT, browser, everything, history, user, verification

from .console import Console, Page, changelist, nothing_can_be_changed, page_of, staff

pytestmark = pytest.mark.django_db(transaction=True)
LIST = changelist("verificationrun")
NOW = "/admin/audit/verificationrun/verify-now/"
BUTTON = "Verify now"
MAY = ("verify_log", "view_verificationrun", "view_checkpoint", "view_auditevent")
HOSTILE = '<script>alert("x")</script>'
cold = pytest.mark.usefixtures("cold")

REPORT: dict[str, Any] = {
    "first_seq": 1,
    "last_seq": 12_345,
    "root": "ab" * 32,
    "manifests": {"valid": 1, "total": 2},
    "objects": {"valid": 1, "total": 1},
    "checkpoints": {"valid": 7, "total": 7},
    "problems": [
        {"kind": "gap", "seq": 1_025, "object": None, "message": "Seq 1,025 is missing."},
        {"kind": "tampered", "seq": None, "object": HOSTILE, "message": f"{HOSTILE} is wrong."},
    ],
    "more_problems": 4_000,
    "notes": ["first note", HOSTILE],
    "more_notes": 3_000,
    "checks": ["?: (audit.E002) No signing key."],
    "oldest_hot_seq": 10_026,
    "highest_archived_seq": 10_025,
}


@pytest.fixture
def operator() -> Client:
    """Be a member of staff who may verify the log, and is no superuser."""
    return browser(user("ada", *MAY, is_staff=True))


def press(client: Client, **data: Any) -> Any:
    """Send the page's form as its button does; follow where that leads."""
    page = client.get(NOW)
    assert page.status_code == 200
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())
    assert token
    return client.post(NOW, {"csrfmiddlewaretoken": token[1], **data}, follow=True)


def text(answer: Any) -> str:
    assert answer.status_code == 200
    page = Page(answer.content.decode())
    assert page.inline == []
    return page.text


# To read -------------------------------------------------------------------------------------


def test_an_empty_list_loads(console: Console) -> None:
    assert "0 verifications" in console.page(LIST).text


def test_the_list_has_the_newest_first_and_tells_good_from_bad_in_words(console: Console) -> None:
    rows = [
        verification(outcome="ok", events=12_345),
        verification(outcome="unverifiable", trigger="command"),
        verification(outcome="tampered", report=REPORT),
        verification(outcome="gap", report={"error": "No batch holds seq 5."}),
        verification(),
    ]
    page = console.page(LIST)
    shown = re.findall(r">verification (\d+)<", page.html)
    assert shown == [str(row.pk) for row in reversed(rows)]
    for part in ("✓ ok", "? unverifiable", "✗ tampered", "✗ gap", "… running", "12,345"):
        assert part in page.text
    assert f"4,002: {HOSTILE} is wrong." in page.text  # the first of the worst kind
    assert "No batch holds seq 5." in page.text


def test_they_are_found_by_who_asked_and_by_what_the_report_says(console: Console) -> None:
    verification(outcome="tampered", report=REPORT, requested_by="bela")
    verification(outcome="ok", level="manifests")
    for query in (
        {"q": "bela"},
        {"q": "is missing"},
        {"outcome__exact": "tampered"},
        {"level__exact": "full"},
    ):
        shown = console.page(LIST, **query).text
        assert "1 verification\n" in shown
        assert "✗ tampered" in shown


def test_a_page_shows_each_problem_on_its_line_and_all_that_is_known(console: Console) -> None:
    row = verification(
        outcome="tampered", report=REPORT, events=99, batch_seq=17, requested_from="10.0.0.7"
    )
    row.finished_at = row.started_at + timedelta(seconds=90)
    row.save()
    page = console.page(page_of("verificationrun", row.pk))  # which fails on anything inline
    for part in (
        f"tampered (verification {row.pk}, full): 99 events verified, 4,002 problems",
        "gap, seq 1,025",
        "Seq 1,025 is missing.",
        f"tampered, {HOSTILE}",
        "and 4,000 more, which were only counted",
        "and 3,000 more, which were only counted",
        "the batch that holds seq 17, and the checkpoints",
        "1–12,345",
        "1 of 2 manifests",
        "1 of 1 object",
        "7 of 7 checkpoints",
        "ab" * 32,
        "first note",
        "(audit.E002) No signing key.",
        "highest archived seq 10,025, oldest hot seq 10,026",
        "10.0.0.7",
        row.holder,
        "90.0 s",
    ):
        assert part in page.text
    assert page.html.count("<li><strong>") == 2
    assert "<script>alert" not in page.html


@pytest.mark.parametrize("report", [{}, {"error": "It died."}, {"highest_archived_seq": None}])
@pytest.mark.parametrize("outcome", ["", "unverifiable"])
def test_one_that_has_no_report_has_a_page(
    console: Console, report: dict[str, Any], outcome: str
) -> None:
    row = verification(outcome=outcome, report=report)
    shown = console.page(page_of("verificationrun", row.pk)).text
    assert (outcome or "running") in shown
    assert report.get("error", "") in shown


def test_nobody_can_add_change_or_delete_one(console: Console) -> None:
    row = verification(outcome="tampered", report=REPORT)
    before = VerificationRun.objects.values().get()
    nothing_can_be_changed(console, "verificationrun", row.pk)
    assert VerificationRun.objects.values().get() == before


@pytest.mark.parametrize("may", [False, True])
def test_staff_sees_them_with_the_permission_only(client: Client, may: bool) -> None:
    row = verification()
    reader = staff(client, *(["view_verificationrun", "change_verificationrun"] if may else []))
    for url in (LIST, page_of("verificationrun", row.pk)):
        assert reader.status("get", url) == (200 if may else 403)


# To begin ------------------------------------------------------------------------------------


def test_it_has_its_address() -> None:
    assert reverse("admin:audit_verify_now") == NOW


def test_the_page_says_what_there_is_and_changes_nothing(operator: Client) -> None:
    history()
    before = everything()
    shown = text(operator.get(NOW))
    for part in (f"{DUE + KEPT}", "none yet", "oldest hot seq 1", "0 events", "0 batches"):
        assert part in shown
    assert "Look at this" not in shown
    assert everything() == before


@cold
@pytest.mark.parametrize("level", ["manifests", "full"])
def test_the_button_verifies_and_leads_to_the_report(operator: Client, level: str) -> None:
    history()
    answer = press(operator, level=level)
    row = VerificationRun.objects.get()
    assert answer.redirect_chain == [(page_of("verificationrun", row.pk), 302)]
    line = f"k (verification {row.pk}, {level}): {DUE + KEPT} events verified, 0 problems"
    shown = text(answer)
    assert f"O{line}" in shown
    assert f"o{line}" in shown  # the page's own
    assert '<li class="success">' in answer.content.decode()
    assert (row.trigger, row.requested_by, row.requested_from) == ("console", "ada", "127.0.0.1")
    assert f"✓ ok\n      {level}" in text(operator.get(NOW))


@cold
def test_bad_news_is_said_and_stays_on_the_page(operator: Client) -> None:
    history()
    AuditEvent.objects.filter(seq=3).delete()
    answer = press(operator, level="manifests")
    assert '<li class="error">' in answer.content.decode()
    row = VerificationRun.objects.get()
    assert row.outcome == "gap"
    for url in (NOW, "/admin/"):
        shown = text(operator.get(url))
        assert "✗ gap" in shown
        assert f"Look at this: Verification {row.pk} (gap, manifests): Seq 3 is missing" in shown


@cold
def test_whoever_may_not_read_reports_hears_what_was_found() -> None:
    history()
    AuditEvent.objects.filter(seq=3).delete()
    answer = press(browser(user("bela", "verify_log", is_staff=True)), level="full")
    assert answer.redirect_chain == [(NOW, 302)]
    shown = text(answer)
    assert "Gap (verification " in shown
    assert "Gap: Seq 3 is missing" in shown
    assert "verificationrun/1/change" not in answer.content.decode()


@pytest.mark.parametrize("data", [{}, {"level": ""}, {"level": "everything"}], ids=str)
def test_without_a_level_nothing_is_verified(operator: Client, data: dict[str, str]) -> None:
    assert "Choose how much is to be read" in text(press(operator, **data))
    assert not VerificationRun.objects.exists()


def test_while_another_is_at_work_the_button_is_disabled_and_presses_nothing(
    operator: Client,
) -> None:
    assert "disabled" not in operator.get(NOW).content.decode()
    other = verification(requested_by="bela")
    html = operator.get(NOW).content.decode()
    assert "A verification is at work:" in html
    assert re.search(rf'<input type="submit"[^>]*value="{BUTTON}" disabled>', html)
    shown = text(press(operator, level="full"))
    assert f"Verification {other.pk} is at work, asked for by bela at 20" in shown
    assert VerificationRun.objects.get() == other


def test_a_failure_of_the_program_is_no_verdict(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(verify._Verification, "go", fail)
    answer = press(operator, level="full")
    assert answer.redirect_chain == [(NOW, 302)]
    assert "This program failed (RuntimeError: a fault): that says nothing" in text(answer)


# What is refused ------------------------------------------------------------------------------


def refused(client: Client, method: str, **data: Any) -> int:
    """Return the status of a request that must leave everything as it was."""
    before = everything()
    answer = getattr(client, method)(NOW, data)
    assert everything() == before
    return int(answer.status_code)


def test_a_post_without_its_csrf_token_is_refused(operator: Client) -> None:
    assert refused(operator, "post", level="full") == 403
    operator.get(NOW)  # the cookie alone is not enough
    assert refused(operator, "post", level="full", csrfmiddlewaretoken="x" * 64) == 403


def test_get_verifies_nothing(operator: Client) -> None:
    assert refused(operator, "get", level="full", post="yes") == 200


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options"])
def test_other_methods_are_refused(method: str) -> None:
    client = Client()
    client.force_login(user("ada", *MAY, is_staff=True))
    answer = getattr(client, method)(NOW)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


def test_whoever_may_run_the_archive_alone_may_not_verify() -> None:
    client = Client()
    client.force_login(user("bela", "run_archive", *MAY[1:], is_staff=True))
    for method in ("get", "post", "delete"):
        assert refused(client, method) == 403
    reader = Console(client)
    for url in ("/admin/", LIST):
        assert f'href="{NOW}"' not in reader.page(url).html


def test_who_is_no_staff_and_who_is_nobody_are_led_to_the_login() -> None:
    stranger, somebody = Client(), Client()
    somebody.force_login(user("bela", *MAY))
    for client in (stranger, somebody):
        for method in ("get", "post"):
            assert refused(client, method) == 302


@pytest.mark.parametrize("url", ["/admin/", LIST])
def test_it_is_offered_to_those_who_may(url: str, operator: Client) -> None:
    assert f'href="{NOW}"' in Console(operator).page(url).html
