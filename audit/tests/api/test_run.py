"""A run over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audit import guard
from audit.models import ArchiveBatch, ArchiveRun, AuditEvent, Lease
from audit.tests.doors import DUE, browser, everything, history, own_events, user

from .conftest import ARCHIVES, EMPTY, RUN, Program

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.usefixtures("cold")
def test_a_run_archives_and_says_where_it_can_be_looked_at(program: Program) -> None:
    history()
    answer = program.post()
    run = ArchiveRun.objects.get()
    url = f"{ARCHIVES}/runs/{run.pk}"
    assert answer.status_code == 202
    assert answer.json() == {"run": run.pk, "url": url, "outcome": "archived"}
    assert answer.headers["Location"] == url
    found = program.get(url)
    assert (found["outcome"], found["events"], found["batches"]) == ("archived", DUE, 1)
    assert (found["requested_by"], found["requested_from"]) == ("ada", "127.0.0.1")
    page = program.get(ARCHIVES)
    assert page["highest_archived_seq"] == DUE
    assert page["results"][0]["state"] == "purged"


@pytest.mark.usefixtures("cold")
def test_that_it_was_asked_for_and_how_it_ended_is_in_the_log(program: Program) -> None:
    history()
    program.post()
    asked, ended = own_events()
    assert (asked["action"], ended["action"]) == ("archive_requested", "archive_ended")
    for event in (asked, ended):
        assert event["source"] == "dezky"
        assert event["actor"] == {"id": "", "ip": "127.0.0.1", "name": "ada"}
        assert (event["data"]["trigger"], event["data"]["from"]) == ("api", "127.0.0.1")
    run = ArchiveRun.objects.get()
    assert (run.request_seq, run.outcome_seq) == (asked["seq"], ended["seq"])


@pytest.mark.usefixtures("cold")
@pytest.mark.parametrize(
    "more",
    [
        {"data": "{}", "content_type": "application/json"},
        {"data": " {} ", "content_type": "application/json; charset=utf-8"},
        {"data": "", "content_type": "application/json"},
        {"data": "", "content_type": "text/plain"},
    ],
    ids=str,
)
def test_an_empty_body_may_have_any_form(program: Program, more: dict[str, Any]) -> None:
    answer = program.post(**more)
    assert (answer.status_code, answer.json()["outcome"]) == (202, "nothing_due")


@pytest.mark.usefixtures("cold")
def test_a_session_runs_with_its_csrf_token(program: Program) -> None:
    session = browser(program.account)
    session.get("/admin/login/")  # whoever is logged in and no staff gets its form again
    token = session.cookies["csrftoken"].value
    assert session.post(RUN, **EMPTY, headers={"X-CSRFToken": token}).status_code == 202
    assert ArchiveRun.objects.get().requested_by == "ada"


@pytest.mark.usefixtures("cold")
def test_it_does_not_ask_for_archive_enabled(program: Program, settings: Any) -> None:
    settings.ARCHIVE_ENABLED = False
    assert program.post().json()["outcome"] == "nothing_due"


@pytest.mark.usefixtures("cold")
def test_a_busy_archive_names_its_holder(program: Program) -> None:
    history()
    holder = guard.Process.current().label
    with guard.lease():
        answer = program.post()
    assert answer.status_code == 409
    said = answer.json()
    assert (said["outcome"], said["holder"]) == ("busy", holder)
    assert said["detail"].startswith(f"Another run holds the lease: {holder}, since 20")
    assert not ArchiveRun.objects.exists()
    program.post()  # a run that has looked at the bucket writes them
    asked, ended = own_events()[:2]
    assert (asked["action"], ended["data"]["outcome"]) == ("archive_requested", "busy")
    assert ended["data"]["error"] == said["detail"]


def test_a_run_that_failed_has_its_page(program: Program) -> None:
    history()
    AuditEvent.objects.filter(seq=3).delete()
    answer = program.post()
    assert (answer.status_code, answer.json()["outcome"]) == (202, "failed")
    assert program.get(answer.headers["Location"])["error"]
    assert not ArchiveBatch.objects.exists()


def test_a_run_that_could_not_begin_says_why(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    def fail(**values: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(Lease.objects, "get_or_create", fail)
    answer = program.post()
    assert answer.status_code == 503
    assert "stayed locked" in answer.json()["detail"]
    assert answer.json()["outcome"] == "failed"


# What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ('{"max_batches": 1}', "application/json", 400),
        ('{"": null}', "application/json", 400),
        ("[]", "application/json", 400),
        ("null", "application/json", 400),
        ('"x"', "application/json", 400),
        ("{", "application/json", 400),
        (b"\xff", "application/json", 400),
        ("[" * 4_000, "application/json", 400),
        (" " * 4_097, "application/json", 413),
        (json.dumps({"x": "y" * 100_000}), "application/json", 413),
        ("a=1", "application/x-www-form-urlencoded", 415),
        ("{}", "text/plain", 415),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_body_that_says_something_is_refused(
    program: Program, body: str | bytes, kind: str, status: int
) -> None:
    history()
    before = everything()
    answer = program.post(data=body, content_type=kind)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["detail"]
    assert everything() == before


def test_get_runs_nothing(program: Program) -> None:
    history()
    session = browser(user("bela", "run_archive"))
    before = everything()
    for url in (RUN, f"{RUN}?x=1"):
        assert program.request("get", url).status_code == 405
        assert session.get(url).status_code == 405
    assert everything() == before
