"""`manage.py demo_events`: a believable history, and never beside a real one."""

from __future__ import annotations

import io
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from audit import log
from audit.management.commands.demo_events import COMPANIES, KINDS
from audit.models import AuditEvent, EventKey, LogState
from tenants.models import Tenant

from .factories import drafts, ledger_row

pytestmark = pytest.mark.django_db


def demo(*args: str) -> str:
    out = io.StringIO()
    call_command("demo_events", *args, stdout=out)
    return out.getvalue()


def records() -> list[dict[str, Any]]:
    rows = AuditEvent.objects.order_by("seq").values_list("record", flat=True)
    return [json.loads(bytes(record)) for record in rows]


def test_as_many_events_as_asked_for_are_appended() -> None:
    said = demo("--count=203", "--days=30", "--tenants=3")
    assert said == "203 demo events of 3 tenants over 30 days appended\n"
    assert [record["seq"] for record in records()] == list(range(1, 204))
    assert LogState.objects.get().head_seq == 203


def test_the_history_spans_the_days_up_to_now_and_is_recorded_in_order() -> None:
    demo("--count=300", "--days=100")
    times = [row.recorded_at for row in AuditEvent.objects.order_by("seq")]
    now = datetime.now(UTC)
    assert now - timedelta(days=101) < times[0] < now - timedelta(days=80)
    assert now - timedelta(days=10) < times[-1] <= now
    assert all(one <= other for one, other in pairwise(times))


def test_nothing_is_recorded_before_it_occurred() -> None:
    demo("--count=100")
    assert all(record["occurred_at"] <= record["recorded_at"] for record in records())


def test_the_events_are_what_the_sources_send() -> None:
    demo("--count=400", "--tenants=2")
    found = records()
    assert {record["tenant"] for record in found} == {"alder", "birch"}
    assert {record["source"] for record in found} == {kind[1] for kind in KINDS}
    assert {(record["source"], record["action"], record["outcome"]) for record in found} <= {
        kind[1:] for kind in KINDS
    }
    assert Counter(record["outcome"] for record in found)["failure"] > 0
    assert len({record["external_id"] for record in found}) == 400
    assert all(record["actor"]["name"].endswith(".example") for record in found)
    assert all(record["actor"]["ip"].startswith("192.0.2.") for record in found)


def test_the_tenants_of_the_events_are_made() -> None:
    demo("--count=10", "--tenants=3")
    assert list(Tenant.objects.values_list("slug", "mail_domain")) == [
        ("alder", "alder.example"),
        ("birch", "birch.example"),
        ("cedar", "cedar.example"),
    ]
    for tenant in Tenant.objects.all():
        tenant.full_clean()


def test_a_tenant_that_is_there_is_left_as_it_is() -> None:
    Tenant.objects.create(slug="alder", name="Kept", subdomain="kept")
    demo("--count=10", "--tenants=1")
    tenant = Tenant.objects.get()
    assert (tenant.name, tenant.subdomain) == ("Kept", "kept")


def test_another_seed_makes_another_history_and_the_same_seed_the_same() -> None:
    histories = []
    for seed in ("7", "7", "8"):
        demo("--count=30", f"--seed={seed}")
        histories.append([(r["action"], r["external_id"], r["actor"]) for r in records()])
        for model in (AuditEvent, EventKey, LogState):
            model._default_manager.all().delete()
    assert histories[0] == histories[1] != histories[2]


# Beside a real log -------------------------------------------------------------------------


def test_a_log_that_is_not_empty_gets_no_demo_events() -> None:
    log.append(drafts(3))
    with pytest.raises(CommandError, match="not empty, it ends at seq 3: no demo events") as error:
        demo("--count=10")
    assert error.value.returncode == 1
    assert AuditEvent.objects.count() == 3
    assert not Tenant.objects.exists()


def test_a_log_whose_events_were_all_purged_is_not_empty_either() -> None:
    log.append(drafts(3))
    AuditEvent.objects.all().delete()
    with pytest.raises(CommandError, match="not empty"):
        demo("--count=10")


def test_a_log_that_is_not_empty_is_no_failure_where_that_is_asked_for() -> None:
    log.append(drafts(3))
    said = demo("--count=10", "--if-empty")
    assert said == "The log is not empty, it ends at seq 3: no demo events were added.\n"
    assert AuditEvent.objects.count() == 3


def test_an_empty_log_is_filled_where_that_is_asked_for() -> None:
    assert demo("--count=10", "--if-empty").startswith("10 demo events")


def test_a_log_that_was_rolled_back_gets_no_demo_events() -> None:
    ledger_row(1, 5)
    with pytest.raises(CommandError, match="state is missing though the log is not empty"):
        demo("--count=10", "--if-empty")
    assert not AuditEvent.objects.exists()


# Usage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["count", "days", "tenants"])
@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5", ""])
def test_numbers_must_be_whole_and_from_1_up(option: str, value: str) -> None:
    with pytest.raises(CommandError, match=f"argument --{option}: .* not a whole number from 1"):
        demo(f"--{option}={value}")


def test_no_more_tenants_can_be_asked_for_than_there_are_names() -> None:
    with pytest.raises(CommandError, match="At most 12 tenants can be made up") as error:
        demo("--count=1", f"--tenants={len(COMPANIES) + 1}")
    assert error.value.returncode == 2
    demo("--count=1", f"--tenants={len(COMPANIES)}")


def test_no_more_days_can_be_asked_for_than_a_century_has() -> None:
    for days in ("36501", "9999999999999"):
        with pytest.raises(CommandError, match="At most 36,500 days can be made up") as error:
            demo("--count=1", f"--days={days}")
        assert error.value.returncode == 2
    demo("--count=1", "--days=36500")
