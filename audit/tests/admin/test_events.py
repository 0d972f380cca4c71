"""Events in the console: shown whole, harmless, and never to be changed."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from audit import log
from audit.admin.events import BoundedPaginator
from audit.models import AuditEvent, LogState
from audit.tests.factories import draft, drafts
from tenants.models import Tenant

from .console import Console, Page, changelist, nothing_can_be_changed, page_of, staff

pytestmark = pytest.mark.django_db
LIST = changelist("auditevent")
NOON = datetime(2026, 3, 4, 12, 0, 0, 789_000, tzinfo=UTC)


def seqs(page: Page) -> list[int]:
    """Return the seqs that a list shows, in their order."""
    return [int(seq) for seq in re.findall(r"/auditevent/(\d+)/change/", page.html)]


def shown_record(page: Page) -> str:
    match = re.search(r"<pre[^>]*>(.*?)</pre>", page.html, re.S)
    assert match is not None
    return html.unescape(match[1])


# The list ----------------------------------------------------------------------------------


def test_an_empty_log_has_an_empty_list(console: Console) -> None:
    page = console.page(LIST)
    assert seqs(page) == []
    assert "0 events" in page.text
    assert not LogState.objects.exists()


def test_the_newest_events_come_first(console: Console) -> None:
    log.append(drafts(120))
    assert seqs(console.page(LIST)) == list(range(120, 70, -1))
    assert seqs(console.page(LIST, p="3")) == list(range(20, 0, -1))


def test_a_row_says_who_did_what_when(console: Console) -> None:
    event = draft(
        "ocis",
        actor={"id": "a-1", "name": "Ada Lind"},
        action="file_read",
        outcome="success",
        tenant="alder",
    )
    log.append([event], now=NOON)
    text = console.page(LIST).text
    for part in ("2026-03-04 12:00:00.789", "alder", "Ada Lind", "file_read", "success", "ocis"):
        assert part in text


def test_an_unknown_tenant_is_flagged_and_a_known_one_is_not(console: Console) -> None:
    Tenant.objects.create(slug="alder", name="Alder")
    log.append([draft(tenant="alder")])
    assert "(unknown)" not in console.page(LIST).text
    assert "(unknown)" not in console.page(page_of("auditevent", 1)).text
    log.append([draft(tenant="nobody"), draft()])
    assert console.page(LIST).text.count("(unknown)") == 1
    assert "nobody (unknown)" in console.page(LIST).text
    assert "nobody (unknown)" in console.page(page_of("auditevent", 2)).text
    assert "(unknown)" not in console.page(page_of("auditevent", 3)).text


def test_a_page_asks_few_questions_however_many_tenants_it_shows(
    console: Console, django_assert_max_num_queries: Any
) -> None:
    log.append([draft(tenant=f"tenant-{number}") for number in range(60)])
    with django_assert_max_num_queries(9):
        console.page(LIST)


@pytest.mark.parametrize("wanted", ["alder", "a-7"])
def test_events_are_found_by_the_whole_name_of_a_tenant_or_id_of_an_actor(
    console: Console, wanted: str
) -> None:
    log.append(
        [
            draft(tenant="alder", actor={"id": "a-7"}),
            draft(tenant="alder-2", actor={"id": "a-77"}),
            draft(tenant="ALDER", actor={"id": "A-7"}),
        ]
    )
    assert seqs(console.page(LIST, q=wanted)) == [1]
    assert seqs(console.page(LIST, q=wanted[:-1])) == []


@pytest.mark.parametrize("column", ["tenant", "actor_id"])
def test_a_search_uses_the_index_that_is_there_for_it(column: str) -> None:
    assert AuditEvent._meta.indexes
    found = AuditEvent.objects.filter(**{f"{column}__exact": "x"}).order_by("-seq")
    assert f"USING INDEX event_{column.removesuffix('_id')}_seq" in found.explain()


def test_events_are_filtered_by_outcome(console: Console) -> None:
    log.append([draft(outcome=outcome) for outcome in ("success", "failure", "unknown")])
    assert seqs(console.page(LIST, outcome="failure")) == [2]
    assert seqs(console.page(LIST, outcome="nonsense")) == []


@pytest.mark.parametrize(
    "query", [{"q": "\0"}, {"q": "'\"; --"}, {"p": "x"}, {"o": "99"}, {"p": "1000000"}]
)
def test_a_strange_query_breaks_nothing(console: Console, query: dict[str, str]) -> None:
    log.append(drafts(1))
    assert console.status("get", LIST, **query) in {200, 302}


def test_rows_at_or_below_the_floor_are_no_part_of_the_log(console: Console) -> None:
    log.append(drafts(4))
    LogState.objects.update(floor_seq=2)
    assert seqs(console.page(LIST)) == [4, 3]
    assert console.status("get", page_of("auditevent", 2)) == 302
    assert console.status("get", page_of("auditevent", 3)) == 200


def test_a_log_that_was_rolled_back_is_shown_with_what_is_wrong(console: Console) -> None:
    log.append(drafts(2))
    LogState.objects.all().delete()
    page = console.page(LIST)
    assert seqs(page) == [2, 1]
    assert "state is missing though the log is not empty" in page.text


def test_rows_are_counted_no_further_than_anyone_pages(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    log.append(drafts(30))
    monkeypatch.setattr("audit.admin.events.COUNTED", 20)
    paginator = BoundedPaginator(AuditEvent.objects.order_by("-seq"), 10)
    with django_assert_num_queries(1):
        assert (paginator.count, paginator.num_pages) == (20, 2)


# An event's page ---------------------------------------------------------------------------


def test_a_record_is_shown_indented_and_whole(console: Console) -> None:
    data = {"z": [1, 2.5, None, True], "name": "Müller \U0001f512", "a": {"b": "x" * 5_000}}
    log.append([draft(data=data, actor="Ada", target="t", external_id="e-1")], now=NOON)
    page = console.page(page_of("auditevent", 1))
    stored = json.loads(bytes(AuditEvent.objects.get().record))
    assert json.loads(shown_record(page)) == stored
    assert '\n  "action": "tested",\n' in shown_record(page)
    assert "Müller \U0001f512" in shown_record(page)
    for part in ("2026-01-02 03:04:05.678", "2026-03-04 12:00:00.789", "Ada", "e-1"):
        assert part in page.text
    assert AuditEvent.objects.get().link in page.text


HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(1) style='x'>"


def test_a_record_is_shown_as_text_whatever_it_holds(console: Console) -> None:
    log.append(
        [
            draft(
                HOSTILE,
                actor={"name": HOSTILE, "id": HOSTILE, "ip": HOSTILE},
                target=HOSTILE,
                tenant=HOSTILE,
                action=HOSTILE,
                external_id=HOSTILE,
                data={HOSTILE: HOSTILE},
            )
        ]
    )
    page = console.page(page_of("auditevent", 1))  # which fails on anything inline
    assert json.loads(shown_record(page))["data"] == {HOSTILE: HOSTILE}
    for shown in (page, console.page(LIST), console.page(LIST, q=f'"{HOSTILE}"')):
        assert "<script>alert" not in shown.html
        assert "<img src=x" not in shown.html
        assert HOSTILE in shown.text


BROKEN = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe{",
    "not JSON": b"{<script>",
    "a number": b"17",
    "NaN": b'{"a":NaN}',
    "a lone surrogate": b'{"a":"\\ud800"}',
    "too deep": b"[" * 100_000,
    "too large a number": b'{"a":' + b"9" * 10_000 + b"}",
    "NUL": b"\0\0",
}


@pytest.mark.parametrize("record", BROKEN.values(), ids=BROKEN)
def test_a_record_that_somebody_broke_is_shown_as_it_is(console: Console, record: bytes) -> None:
    log.append(drafts(1))
    AuditEvent.objects.update(record=record)
    page = console.page(page_of("auditevent", 1))
    assert record.decode("utf-8", "backslashreplace")[:30].strip() in page.text.replace(
        "\\\\", "\\"
    )
    assert seqs(console.page(LIST)) == [1]


def test_an_event_of_any_time_is_shown(console: Console) -> None:
    log.append(
        [draft(occurred_at="0001-01-01T00:00:00Z"), draft(occurred_at="9999-12-31T23:59:59.999Z")]
    )
    assert "0001-01-01 00:00:00.000" in console.page(page_of("auditevent", 1)).text
    assert "9999-12-31 23:59:59.999" in console.page(page_of("auditevent", 2)).text


@pytest.mark.parametrize("pk", ["0", "99", "-1", "x", str(2**70), "1_0"])
def test_an_event_that_is_not_there_leads_back(console: Console, pk: str) -> None:
    log.append(drafts(1))
    assert console.status("get", page_of("auditevent", pk)) in {302, 404}


# Evidence ----------------------------------------------------------------------------------


def rows() -> list[Any]:
    return list(AuditEvent.objects.order_by("seq").values_list())


def test_nobody_can_add_change_or_delete_an_event(console: Console) -> None:
    log.append(drafts(3))
    before = rows()
    nothing_can_be_changed(console, "auditevent", 2)
    assert rows() == before


def test_staff_without_the_permission_sees_nothing(client: Client) -> None:
    log.append(drafts(1))
    reader = staff(client)
    for url in (LIST, page_of("auditevent", 1)):
        assert reader.status("get", url) == 403
    assert reader.status("get", page_of("auditevent", 1).replace("change", "history")) == 403


def test_staff_with_the_permission_sees_everything_and_changes_nothing(client: Client) -> None:
    log.append(drafts(2))
    before = rows()
    permissions = [f"{verb}_auditevent" for verb in ("view", "add", "change", "delete")]
    reader = staff(client, *permissions)
    assert seqs(reader.page(LIST)) == [2, 1]
    nothing_can_be_changed(reader, "auditevent", 1)
    assert rows() == before


def test_who_is_not_logged_in_is_asked_to(client: Client) -> None:
    log.append(drafts(1))
    answer = client.get(page_of("auditevent", 1), secure=True)
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/admin/login/")


def test_the_page_of_the_log_in_runs_nothing_inline(client: Client) -> None:
    assert "Dezky audit" in Console(client).page("/admin/login/").text
