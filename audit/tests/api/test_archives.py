"""The ledger and the runs over HTTP."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from django.db import OperationalError

from audit import ledger, log
from audit.models import ArchiveRun, LogState
from audit.tests.doors import DUE, KEPT, everything, history
from audit.tests.factories import ledger_row

from .conftest import ARCHIVES, Program

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 4, 12, 0, 0, 789_999, tzinfo=UTC)
PART = "http://testserver"


def run(token: int = 1, **members: object) -> ArchiveRun:
    values = {
        "trigger": "api",
        "requested_by": "ada",
        "requested_from": "192.0.2.7",
        "token": token,
        "holder": "host, process 1",
        "started_at": NOON,
        "cutoff": NOON - timedelta(days=90),
    }
    return ArchiveRun.objects.create(**{**values, **members})


# The ledger --------------------------------------------------------------------------------


def test_an_empty_ledger_is_an_empty_page_with_the_tier_boundary(program: Program) -> None:
    before = everything()
    assert program.get(ARCHIVES) == {
        "highest_archived_seq": 0,
        "oldest_hot_seq": None,
        "problems": [],
        "next": None,
        "previous": None,
        "results": [],
    }
    assert everything() == before


def test_a_batch_has_the_ledger_s_fields(program: Program) -> None:
    row = ledger_row(
        1, 10, "purged", run=run(), last_recorded_at=NOON, archived_at=NOON, bytes_compressed=7
    )
    (batch,) = program.get(ARCHIVES)["results"]
    names = (
        "start_seq end_seq state event_count archived_at jsonl_key manifest_key manifest_sha256 "
        "jsonl_sha256 bytes_uncompressed bytes_compressed start_link end_link root "
        "last_recorded_at bucket planned_at purged_at run"
    )
    assert set(batch) == set(names.split())
    assert batch["archived_at"] == batch["last_recorded_at"] == "2026-03-04T12:00:00.789Z"
    assert (batch["start_seq"], batch["end_seq"], batch["event_count"]) == (1, 10, 10)
    assert (batch["state"], batch["bytes_compressed"], batch["run"]) == ("purged", 7, row.run_id)
    for name in ("jsonl_key", "manifest_key", "manifest_sha256", "jsonl_sha256", "root", "bucket"):
        assert batch[name] == getattr(row, name) != ""


def test_a_planned_batch_has_no_times_yet(program: Program) -> None:
    ledger_row(1, 10, "planned")
    (batch,) = program.get(ARCHIVES)["results"]
    assert batch["archived_at"] is batch["purged_at"] is batch["run"] is None
    assert batch["planned_at"].endswith("Z")


def test_batches_come_newest_first_page_by_page(program: Program) -> None:
    for first in range(1, 101, 10):
        ledger_row(first, first + 9)
    url, seen, pages = f"{ARCHIVES}?limit=3", [], []
    while url:
        page = program.get(url)
        pages.append(page)
        seen += [batch["start_seq"] for batch in page["results"]]
        url = (page["next"] or "").removeprefix(PART)
        if len(pages) == 2:
            ledger_row(101, 110)  # what comes meanwhile moves no page
    assert seen == list(range(91, 0, -10))
    assert [len(page["results"]) for page in pages] == [3, 3, 3, 1]
    back = program.get(pages[1]["previous"].removeprefix(PART))
    assert [batch["start_seq"] for batch in back["results"]] == [91, 81, 71]


def test_a_page_s_size_is_bounded(program: Program) -> None:
    for seq in range(1, 502):
        ledger_row(seq, seq, "planned")
    sizes = {"": 50, "?limit=100": 100, "?limit=9999999": 500, "?limit=0": 50, "?limit=x": 50}
    for query, size in sizes.items():
        assert len(program.get(ARCHIVES + query)["results"]) == size


@pytest.mark.parametrize(
    "cursor",
    [b"p=x", b"p=-1", b"p=\xff", "p=²".encode(), b"\xff", b"r=1&p=1.5"],
    ids=ascii,
)
def test_a_cursor_that_is_not_ours_is_not_found(program: Program, cursor: bytes) -> None:
    text = quote(base64.b64encode(cursor).decode())
    answer = program.request("get", f"{ARCHIVES}?cursor={text}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Invalid cursor"})


@pytest.mark.parametrize("seq", [0, 10**30])
def test_a_cursor_beyond_everything_is_a_page(program: Program, seq: int) -> None:
    ledger_row(1, 10)
    text = quote(base64.b64encode(b"p=%d" % seq).decode())
    assert len(program.get(f"{ARCHIVES}?cursor={text}")["results"]) == (1 if seq else 0)


def test_the_tier_boundary_comes_with_it(program: Program) -> None:
    history()
    page = program.get(ARCHIVES)
    assert (page["highest_archived_seq"], page["oldest_hot_seq"]) == (0, 1)
    LogState.objects.update(origin="another")
    page = program.get(ARCHIVES)
    assert page["highest_archived_seq"] is page["oldest_hot_seq"] is None
    (problem,) = page["problems"]
    assert "The tier boundary could not be read: This log's origin is" in problem


def test_a_database_that_fails_is_a_sentence_too(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise OperationalError("database is locked")

    from audit.api import views

    monkeypatch.setattr(views, "with_boundary", lambda result: fail())
    answer = program.request("get", ARCHIVES)
    assert answer.status_code == 503
    assert "stayed locked" in answer.json()["detail"]


# Runs --------------------------------------------------------------------------------------


def test_a_run_has_all_that_is_known_of_it(program: Program) -> None:
    row = run(
        outcome="interrupted",
        error="Stopped on request.",
        notes="first note\nsecond note",
        kept="seq 5–9: recorded after the cutoff",
        seconds={"encode": 1.5},
        finished_at=NOON + timedelta(seconds=2),
        events=30,
        batches=2,
        bytes_uncompressed=300,
        bytes_compressed=100,
        phase="upload",
        request="6f0c",
        override=True,
        max_batches=2,
        through_seq=99,
        request_seq=31,
        outcome_seq=32,
    )
    assert program.get(f"{ARCHIVES}/runs/{row.pk}") == {
        "run": row.pk,
        "outcome": "interrupted",
        "error": "Stopped on request.",
        "notes": ["first note", "second note"],
        "kept": "seq 5–9: recorded after the cutoff",
        "trigger": "api",
        "requested_by": "ada",
        "requested_from": "192.0.2.7",
        "request": "6f0c",
        "override": True,
        "max_batches": 2,
        "through_seq": 99,
        "request_seq": 31,
        "outcome_seq": 32,
        "started_at": "2026-03-04T12:00:00.789Z",
        "finished_at": "2026-03-04T12:00:02.789Z",
        "cutoff": "2025-12-04T12:00:00.789Z",
        "phase": "upload",
        "seconds": {"encode": 1.5},
        "events": 30,
        "batches": 2,
        "bytes_uncompressed": 300,
        "bytes_compressed": 100,
        "lease": 1,
        "holder": "host, process 1",
    }


def test_a_run_that_still_runs_says_so(program: Program) -> None:
    found = program.get(f"{ARCHIVES}/runs/{run(phase='encode').pk}")
    assert (found["outcome"], found["phase"], found["error"]) == ("running", "encode", None)
    assert found["finished_at"] is found["outcome_seq"] is None


@pytest.mark.parametrize("number", [0, 7, 10**30])
def test_a_run_that_nobody_knows_is_not_found(program: Program, number: int) -> None:
    answer = program.request("get", f"{ARCHIVES}/runs/{number}")
    assert (answer.status_code, answer.json()) == (404, {"detail": f"There is no run {number}."})


def test_looking_changes_nothing(program: Program) -> None:
    history()
    row = run(outcome="archived")
    before = everything()
    program.get(ARCHIVES)
    program.get(f"{ARCHIVES}/runs/{row.pk}")
    assert everything() == before
    assert (log.current_state().head_seq, ledger.highest_archived_seq()) == (DUE + KEPT, 0)
