"""The ledger and the runs in the console."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from audit.models import ArchiveBatch, ArchiveRun
from audit.tests.factories import ledger_row

from .console import Console, changelist, nothing_can_be_changed, page_of, staff

pytestmark = pytest.mark.django_db
BATCHES, RUNS = changelist("archivebatch"), changelist("archiverun")
NOON = datetime(2026, 3, 4, 12, 0, 0, 789_000, tzinfo=UTC)


def run(token: int = 1, **members: Any) -> ArchiveRun:
    values: dict[str, Any] = {
        "trigger": "command",
        "requested_by": "ada",
        "token": token,
        "holder": "host, process 1",
        "started_at": NOON,
        "cutoff": NOON - timedelta(days=90),
    }
    return ArchiveRun.objects.create(**{**values, **members})


# Lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("url", "empty"), [(BATCHES, "0 batches"), (RUNS, "0 archive runs")])
def test_an_empty_list_loads(console: Console, url: str, empty: str) -> None:
    assert empty in console.page(url).text


def test_batches_come_newest_first_in_every_state(console: Console) -> None:
    ledger_row(1, 1_000, "purged", bytes_compressed=2_048, archived_at=NOON, purged_at=NOON)
    ledger_row(1_001, 2_000, "stored")
    ledger_row(2_001, 3_000, "planned")
    text = console.page(BATCHES).text
    places = [text.index(part) for part in ("2,001–3,000", "1,001–2,000", "1–1,000")]
    assert places == sorted(places)
    for part in ("Planned", "Stored", "Purged", "2.0\xa0KB", "2026-03-04 12:00:00.789"):
        assert part in text


def test_batches_are_found_by_seq_and_by_object(console: Console) -> None:
    ledger_row(1, 10, jsonl_key="audit/v1/one.jsonl.gz")
    ledger_row(11, 20, jsonl_key="audit/v1/two.jsonl.gz", manifest_sha256="ab" * 32)
    for wanted in ("11", "20", "two.jsonl", "abab"):
        text = console.page(BATCHES, q=wanted).text
        assert "1 batch" in text
        assert "11–20" in text


def test_batches_are_filtered_by_state(console: Console) -> None:
    ledger_row(1, 10, "purged")
    ledger_row(11, 20)
    assert 'href="?state__exact=stored"' in console.page(BATCHES).html
    text = console.page(BATCHES, state__exact="stored").text
    assert "11–20" in text
    assert "1–10" not in text


def test_runs_come_newest_first_with_how_they_ended(console: Console) -> None:
    first = run(outcome="archived", events=12_345, finished_at=NOON + timedelta(seconds=90))
    second = run(2, outcome="failed", error="The bucket is full: " + "x" * 1_000)
    third = run(3)
    text = console.page(RUNS).text
    places = [text.index(f"run {item.pk}") for item in (third, second, first)]
    assert places == sorted(places)
    for part in ("12,345", "90.0 s", "ada", "Failed", "Archived", "running", "The bucket is full"):
        assert part in text
    assert "x" * 500 not in text


def test_runs_are_filtered_by_outcome_and_found_by_error(console: Console) -> None:
    run(outcome="archived", requested_by="ada")
    run(2, outcome="failed", requested_by="bela", error="The bucket is full.")
    assert 'href="?outcome__exact=failed"' in console.page(RUNS).html
    for query in ({"outcome__exact": "failed"}, {"q": "is full"}, {"q": "bela"}):
        text = console.page(RUNS, **query).text
        assert "1 archive run" in text
        assert "bela" in text


# Pages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["planned", "stored", "purged"])
def test_a_batch_s_page_shows_where_it_is_and_what_was_signed(
    console: Console, state: str
) -> None:
    row = ledger_row(1, 1_000, state, run=run())
    text = console.page(page_of("archivebatch", row.pk)).text
    assert "1–1,000" in text
    assert state.title() in text
    for value in (row.start_link, row.root, row.jsonl_key, row.manifest_key, row.manifest_sha256):
        assert value in text


def test_a_run_s_page_shows_everything_that_is_known_of_it(console: Console) -> None:
    row = run(
        outcome="interrupted",
        error="Stopped <b>on request</b>.",
        notes="first note\nsecond <script>note</script>",
        kept="seq 5–9: recorded after the cutoff",
        seconds={"encode": 1.5, "upload": 0.25},
        finished_at=NOON + timedelta(seconds=2),
        bytes_compressed=3_000_000,
    )
    text = console.page(page_of("archiverun", row.pk)).text
    for part in (
        "Interrupted",
        "Stopped <b>on request</b>.",
        "first note",
        "second <script>note</script>",
        "seq 5–9: recorded after the cutoff",
        "encode: 1.500 s",
        "upload: 0.250 s",
        "2.9\xa0MB",
        "2026-03-04 12:00:00.789",
        "host, process 1",
    ):
        assert part in text


def test_a_run_that_still_runs_has_a_page(console: Console) -> None:
    text = console.page(page_of("archiverun", run(phase="encode").pk)).text
    assert "running" in text
    assert "encode" in text


# Evidence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["planned", "stored", "purged"])
def test_nobody_can_add_change_or_delete_a_batch(console: Console, state: str) -> None:
    row = ledger_row(1, 10, state)
    before = ArchiveBatch.objects.values().get()
    nothing_can_be_changed(console, "archivebatch", row.pk)
    assert ArchiveBatch.objects.values().get() == before


def test_nobody_can_add_change_or_delete_a_run(console: Console) -> None:
    row = run()
    before = ArchiveRun.objects.values().get()
    nothing_can_be_changed(console, "archiverun", row.pk)
    assert ArchiveRun.objects.values().get() == before


@pytest.mark.parametrize("model", ["archivebatch", "archiverun"])
def test_staff_sees_them_with_the_permission_only(client: Client, model: str) -> None:
    pk = ledger_row(1, 10).pk if model == "archivebatch" else run().pk
    reader = staff(client)
    for url in (changelist(model), page_of(model, pk)):
        assert reader.status("get", url) == 403
    client.logout()
    from django.contrib.auth.models import User

    User.objects.all().delete()
    reader = staff(client, f"view_{model}", f"change_{model}", f"delete_{model}", f"add_{model}")
    nothing_can_be_changed(reader, model, pk)


@pytest.mark.parametrize("model", ["logstate", "eventkey", "lease"])
def test_what_keeps_the_log_together_has_no_page_at_all(console: Console, model: str) -> None:
    assert console.status("get", f"/admin/audit/{model}/") == 404


def test_the_first_page_and_the_history_run_nothing_inline(console: Console) -> None:
    row = ledger_row(1, 10)
    console.page("/admin/")
    console.page("/admin/audit/")
    console.page(page_of("archivebatch", row.pk).replace("/change/", "/history/"))
