"""Verifying the log over HTTP."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from audit import log, verify
from audit.guard import Process
from audit.models import AuditEvent, VerificationRun
from audit.tests.doors import DUE, GONE, KEPT, browser, everything, history, user, verification

from .conftest import EMPTY, RUN, Program, issue

pytestmark = pytest.mark.django_db(transaction=True)
VERIFY = "/audit/verify"
JSON = "application/json"
HANDBOOK = Path(__file__).parents[3] / "docs/operate.md"
cold = pytest.mark.usefixtures("cold")


@pytest.fixture
def auditor() -> Program:
    """Run under the name of somebody who may verify the log, and do nothing else."""
    return issue(user("cleo", "verify_log"))


def ask(program: Program, body: Any = "") -> Any:
    data = body if isinstance(body, str) else json.dumps(body)
    return program.request("post", VERIFY, data=data, content_type=JSON)


# How it is -----------------------------------------------------------------------------------


def test_before_the_first_one_there_is_none(auditor: Program) -> None:
    assert auditor.get(VERIFY) == {
        "last": None,
        "last_full": None,
        "unresolved": [],
        "running": [],
        "checkpoint": None,
        "highest_archived_seq": 0,
        "oldest_hot_seq": None,
        "notes": [],
    }


@cold
def test_it_says_how_the_last_one_ended_and_where_things_lie(
    auditor: Program, program: Program
) -> None:
    history()
    program.post()  # a run, which makes a checkpoint
    run = ask(auditor).json()["run"]
    found = auditor.get(VERIFY)
    assert (found["highest_archived_seq"], found["oldest_hot_seq"]) == (DUE, DUE + 1)
    assert (found["last"]["run"], found["last"]["outcome"]) == (run, "ok")
    assert found["last"] == auditor.get(f"{VERIFY}/runs/{run}")
    newest = log.newest_checkpoint()
    assert newest is not None
    point = found["checkpoint"]
    assert (point["index"], point["seq"], point["state"]) == (*newest[:2], "published")
    assert point["at"].endswith("Z")


@cold
def test_one_that_runs_does_not_hide_how_the_last_one_ended(auditor: Program) -> None:
    ended = ask(auditor).json()["run"]
    running = verification(trigger="command")
    one_batch = verification(trigger="command", batch_seq=1, outcome="ok")
    found = auditor.get(VERIFY)
    assert (found["last"]["run"], found["running"]) == (ended, [running.pk])
    assert auditor.get(f"{VERIFY}/runs/{running.pk}")["outcome"] == "running"
    assert auditor.get(f"{VERIFY}/runs/{one_batch.pk}")["batch_seq"] == 1


@cold
def test_one_of_the_manifests_hides_nothing_that_a_full_one_has_found(auditor: Program) -> None:
    bad = ended(
        outcome="tampered",
        report={"problems": [{"kind": "tampered", "seq": 3, "object": "a.gz", "message": "Bad."}]},
    )
    assert ask(auditor).json()["outcome"] == "ok"
    found = auditor.get(VERIFY)
    assert (found["last"]["outcome"], found["last"]["level"]) == ("ok", "manifests")
    assert found["last_full"] == auditor.get(f"{VERIFY}/runs/{bad.pk}")
    assert found["unresolved"] == [
        {
            "run": bad.pk,
            "level": "full",
            "outcome": "tampered",
            "finished_at": found["last_full"]["finished_at"],
            "problem": "a.gz: Bad.",
        }
    ]
    assert ask(auditor, {"level": "full"}).json()["outcome"] == "ok"
    assert auditor.get(VERIFY)["unresolved"] == []


def test_the_last_full_one_is_of_the_whole_log_and_has_ended(auditor: Program) -> None:
    full = ended(outcome="ok")
    ended(outcome="ok", batch_seq=1)
    ended(outcome="ok", level="manifests")
    verification(trigger="command")
    found = auditor.get(VERIFY)
    assert found["last_full"]["run"] == full.pk
    assert found["last_full"]["finished_at"].endswith("Z")


def ended(**members: Any) -> VerificationRun:
    return verification(trigger="command", finished_at=datetime.now(UTC), **members)


@pytest.mark.parametrize(
    ("outcome", "level", "days", "good"),
    [
        ("ok", "full", 7, True),
        ("ok", "full", 9, False),
        ("ok", "manifests", 0, False),
        ("gap", "full", 0, False),
        ("unverifiable", "full", 0, False),
    ],
)
def test_the_handbook_s_monitoring_goes_red(
    auditor: Program, outcome: str, level: str, days: int, good: bool
) -> None:
    program_of = re.search(r"jq -es '(.*?)'", HANDBOOK.read_text(encoding="utf-8"), re.DOTALL)
    jq = shutil.which("jq")
    assert program_of is not None
    if jq is None:
        pytest.skip("there is no jq here")
    at = datetime.now(UTC) - timedelta(days=days)
    verification(trigger="command", outcome=outcome, level=level, finished_at=at)
    ended(outcome="ok", level="manifests")  # which puts right what it looks at alone
    for text, green in ((json.dumps(auditor.get(VERIFY)), good), ("", False), ("{}", False)):
        done = subprocess.run(
            [jq, "-es", program_of[1]], input=text.encode(), capture_output=True, check=False
        )
        assert (done.returncode == 0) == green, done.stderr


def test_one_that_is_not_there_is_not_found(auditor: Program) -> None:
    for number in ("1", str(2**70)):
        answer = auditor.request("get", f"{VERIFY}/runs/{number}")
        assert answer.status_code == 404
        assert answer.json()["detail"] == f"There is no verification {number}."


# A new one -----------------------------------------------------------------------------------


@cold
@pytest.mark.parametrize(
    ("body", "level"),
    [
        ("", "manifests"),
        ({}, "manifests"),
        *((({"level": level}), level) for level in ("manifests", "full")),
    ],
    ids=str,
)
def test_it_verifies_and_says_where_the_report_is(auditor: Program, body: Any, level: str) -> None:
    history()
    before = everything()
    answer = ask(auditor, body)
    row = VerificationRun.objects.get()
    url = f"{VERIFY}/runs/{row.pk}"
    assert (answer.status_code, answer.headers["Location"]) == (202, url)
    assert answer.json() == {"run": row.pk, "url": url, "outcome": "ok", "level": level}
    report = auditor.get(url)
    assert (report["outcome"], report["level"], report["problems"]) == ("ok", level, [])
    assert (report["events"], report["first_seq"], report["last_seq"]) == (
        DUE + KEPT,
        1,
        DUE + KEPT,
    )
    assert (report["trigger"], report["requested_by"]) == ("api", "cleo")
    assert (report["requested_from"], report["holder"]) == (
        "127.0.0.1",
        Process.current().label,
    )
    after = everything()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"audit.RunRequest", "audit.VerificationRun"}


@cold
def test_what_is_wrong_is_in_the_report(auditor: Program) -> None:
    history()
    AuditEvent.objects.filter(seq=3).delete()
    AuditEvent.objects.filter(seq=9).update(record=b"{}")
    answer = ask(auditor)
    assert (answer.status_code, answer.json()["outcome"]) == (202, "tampered")
    report = auditor.get(answer.json()["url"])
    first, *_ = report["problems"]
    assert (first["kind"], first["seq"]) == ("gap", 3)
    assert set(first) == {"kind", "seq", "object", "message"}
    assert report["error"] is None


def test_a_bucket_that_does_not_answer_is_no_verdict(auditor: Program, settings: Any) -> None:
    settings.STORAGES = unreachable(settings.STORAGES)
    history()
    answer = ask(auditor)
    assert (answer.status_code, answer.json()["outcome"]) == (202, "unverifiable")


def unreachable(storages: dict[str, Any]) -> dict[str, Any]:
    cold = storages["cold"]
    options = {**cold["OPTIONS"], "endpoint_url": "http://127.0.0.1:9"}
    return {**storages, "cold": {**cold, "OPTIONS": options}}


@cold
def test_a_session_verifies_with_its_csrf_token_and_not_without(auditor: Program) -> None:
    session = browser(auditor.account)
    assert session.get(VERIFY).status_code == 200
    answer = session.post(VERIFY, **EMPTY)
    assert (answer.status_code, VerificationRun.objects.count()) == (403, 0)
    assert answer.json()["detail"].startswith("CSRF Failed")
    session.get("/admin/login/")
    token = session.cookies["csrftoken"].value
    assert session.post(VERIFY, **EMPTY, headers={"X-CSRFToken": token}).status_code == 202


def test_a_failure_of_the_program_is_no_verdict(
    auditor: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(verify._Verification, "go", fail)
    answer = ask(auditor)
    assert answer.status_code == 500
    assert "RuntimeError: a fault" in answer.json()["detail"]
    assert "says nothing about the log" in answer.json()["detail"]
    assert VerificationRun.objects.get().outcome == "unverifiable"


def test_one_that_cannot_be_written_down_does_not_begin(
    auditor: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**values: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(VerificationRun.objects, "create", fail)
    answer = ask(auditor)
    assert answer.status_code == 503
    assert "stayed locked" in answer.json()["detail"]


# One at a time -------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", ["api", "console"])
def test_while_one_of_http_is_at_work_another_is_refused(auditor: Program, trigger: str) -> None:
    other = verification(trigger=trigger)
    answer = ask(auditor)
    assert answer.status_code == 409
    said = answer.json()
    assert (said["outcome"], said["run"]) == ("busy", other.pk)
    assert said["url"] == f"{VERIFY}/runs/{other.pk}"
    assert said["detail"].startswith(f"Verification {other.pk} is at work, asked for by ada at 20")
    assert VerificationRun.objects.get() == other


@cold
@pytest.mark.parametrize(
    ("kind", "closed"),
    [("command", False), ("gone", True), ("an hour old", False), ("a day old", True)],
)
def test_what_is_not_at_work_over_http_holds_nobody_up(
    auditor: Program, kind: str, closed: bool
) -> None:
    now = datetime.now(UTC)
    members: dict[str, dict[str, Any]] = {
        "command": {"trigger": "command"},
        "gone": GONE,
        "an hour old": {"started_at": now - timedelta(minutes=61), "host": "another"},
        "a day old": {"started_at": now - timedelta(hours=25), "host": "another"},
    }
    other = verification(**members[kind])
    assert ask(auditor).status_code == 202
    other.refresh_from_db()
    assert other.outcome == ("unverifiable" if closed else "")
    if closed:
        report = auditor.get(f"{VERIFY}/runs/{other.pk}")
        assert report["error"].startswith(f"Its process ({other.holder}) ended without a word")


# What is refused -----------------------------------------------------------------------------


def test_looking_is_for_those_who_may_verify_and_for_those_who_may_archive(
    auditor: Program, program: Program
) -> None:
    row = verification()
    reader = issue(user("bela", "view_verificationrun", "view_archiverun", is_staff=True))
    for url in (VERIFY, f"{VERIFY}/runs/{row.pk}"):
        assert auditor.request("get", url).status_code == 200
        assert program.request("get", url).status_code == 200
        answer = reader.request("get", url)
        assert answer.status_code == 403
        assert "'audit.verify_log' or 'audit.run_archive'" in answer.json()["detail"]
        assert Client().get(url).status_code == 401


def test_verifying_is_for_those_who_may_verify_alone(auditor: Program, program: Program) -> None:
    history()
    before = everything()
    answer = ask(program)
    assert (answer.status_code, answer.json()["detail"]) == (
        403,
        "This needs the permission 'audit.verify_log'.",
    )
    assert Client().post(VERIFY, **EMPTY).status_code == 401
    for method, url in (("post", RUN), ("get", "/audit/archives")):
        answer = auditor.request(method, url)
        assert "'audit.run_archive'" in answer.json()["detail"]
        assert answer.status_code == 403
    assert everything() == before


@pytest.mark.parametrize(
    ("url", "allowed"), [(VERIFY, "GET, POST, HEAD"), (f"{VERIFY}/runs/1", "GET, HEAD")]
)
def test_a_wrong_method_is_refused(url: str, allowed: str, auditor: Program) -> None:
    for method in ("post", "put", "patch", "delete", "options"):
        if method.upper() not in allowed:
            answer = auditor.request(method, url)
            assert answer.status_code == 405
            assert sorted(answer.headers["Allow"].split(", ")) == sorted(allowed.split(", "))


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ('{"level": "everything"}', JSON, 400),
        ('{"level": ["full"]}', JSON, 400),
        ('{"level": null}', JSON, 400),
        ('{"level": "full", "batch": 1}', JSON, 400),
        ('{"": null}', JSON, 400),
        ("[]", JSON, 400),
        ('"full"', JSON, 400),
        ("{", JSON, 400),
        (" " * 4_097, JSON, 413),
        ("level=full", "application/x-www-form-urlencoded", 415),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_body_that_says_something_else_is_refused(
    auditor: Program, body: str, kind: str, status: int
) -> None:
    before = everything()
    answer = auditor.request("post", VERIFY, data=body, content_type=kind)
    assert answer.status_code == status
    assert answer.json()["detail"]
    assert everything() == before


def test_get_verifies_nothing(auditor: Program) -> None:
    auditor.get(f"{VERIFY}?level=full")
    assert not VerificationRun.objects.exists()
