"""A run's or verification's page: it follows what is at work, and only that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from audit import guard
from audit.models import ArchiveRun, VerificationRun
from audit.tests.doors import GONE, browser, user, verification

from .console import Console, page_of
from .test_archive import run

pytestmark = pytest.mark.django_db(transaction=True)
REFRESH = '<meta http-equiv="refresh" content="3">'
SAYS = "This page loads itself again every 3 seconds until it has ended."
PLAN = "/admin/audit/archiverun/archive-now/"
VERIFY = "/admin/audit/verificationrun/verify-now/"


def test_a_run_s_page_follows_it_while_its_lease_is_held(console: Console) -> None:
    with guard.lease():
        row = run(phase="upload", events=12_345, batches=1, started_at=datetime.now(UTC))
        url = page_of("archiverun", row.pk)
        page = console.page(url)  # which fails on anything inline
        assert REFRESH in page.html.split("</head>")[0]
        for part in (
            "At work for ",
            " s, in phase “upload”: 12,345 events in 1 batch so far.",
            SAYS,
        ):
            assert part in page.text
        ArchiveRun.objects.update(phase="confirm", events=23_456, batches=2)
        moved = console.page(url)
        assert "in phase “confirm”: 23,456 events in 2 batches so far." in moved.text
        still = console.page(url, still="1")
        assert (REFRESH in still.html, SAYS in still.text) == (False, False)
        assert "At work for " in still.text
        assert f'href="{url}">Load this page again every 3 seconds' in still.html
    gone = console.page(url)  # it still says that it is running
    assert (REFRESH in gone.html, SAYS in gone.text, "At work" in gone.text) == (False,) * 3
    assert "Look at this: It says that it is running, but its process is gone" in gone.text


def test_a_run_s_page_stands_still_once_it_has_ended(console: Console) -> None:
    url = page_of("archiverun", run(outcome="failed", phase="upload").pk)
    with guard.lease():  # another's
        page = console.page(url)
    assert (REFRESH in page.html, "At work" in page.text) == (False, False)
    assert "✗ failed" in page.text
    assert "Look at this" not in page.text


def test_a_verification_s_page_follows_it_while_its_process_is_there(console: Console) -> None:
    url = page_of("verificationrun", verification().pk)
    page = console.page(url)
    assert REFRESH in page.html.split("</head>")[0]
    assert "At work for 0 s. This" in " ".join(page.text.split())
    assert SAYS in page.text
    for gone in (GONE, {"host": "another", "started_at": datetime.now(UTC) - timedelta(hours=25)}):
        page = console.page(page_of("verificationrun", verification(**gone).pk))
        assert REFRESH not in page.html
        assert "It says that it is running, but its process is gone" in page.text
    VerificationRun.objects.update(outcome="ok")
    page = console.page(url)
    assert (REFRESH in page.html, "Look at this" in page.text) == (False, False)


def test_the_pages_that_ask_for_one_say_that_a_worker_does_it() -> None:
    client = browser(user("ada", "run_archive", "verify_log", is_staff=True))
    for url in (PLAN, VERIFY):
        page = Console(client).page(url)
        assert "A worker runs it; its page shows " in page.text
        assert "loads until" not in page.text


@pytest.mark.parametrize("may", [False, True])
def test_the_plan_leads_to_the_run_that_is_at_work(client: Client, may: bool) -> None:
    rights = ["run_archive", *(["view_archiverun"] if may else [])]
    reader = Console(browser(user("ada", *rights, is_staff=True)))
    with guard.lease():
        url = page_of("archiverun", run().pk)
        assert (f'href="{url}"' in reader.page(PLAN).html) == may
    assert url not in reader.page(PLAN).html
