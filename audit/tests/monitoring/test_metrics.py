"""The figures, against a real log with a run, a verification and checkpoints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from audit import archive, log, tally, verify
from audit.models import Alarm, ArchiveRun, Checkpoint, Heartbeat, SourceCount
from audit.monitoring import figures
from audit.request import Request
from audit.tests.doors import DUE, KEPT, history, verification
from audit.tests.factories import drafts
from audit.verify import Asked
from audit.watcher import Watcher

from .conftest import HEADERS, TOKEN

ROOT = Path(__file__).parents[3]
Sample = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """What Prometheus reads of one answer."""

    def __init__(self, client: Client) -> None:
        answer = client.get("/metrics", headers=HEADERS)
        assert answer.status_code == 200, answer.content
        self.families = list(text_string_to_metric_families(answer.content.decode()))
        self.samples: dict[Sample, float] = {}
        for family in self.families:
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, key
                self.samples[key] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """Return a figure of ours."""
        return self.samples[f"dezky_audit_{name}", frozenset(labels.items())]

    def all(self, name: str) -> dict[str, float]:
        """Return the samples of a figure of ours that has one label, by that."""
        found = [key for key in self.samples if key[0] == f"dezky_audit_{name}"]
        return {value: self.samples[key] for key in found for _, value in key[1]}

    def failed(self) -> set[str]:
        """Return the looks that failed."""
        return {look for look, number in self.all("scrape_errors").items() if number}


def close(stamp: float) -> bool:
    """Say whether a time is about now."""
    return abs(stamp - datetime.now(UTC).timestamp()) < 60


# Who may ask ---------------------------------------------------------------------------------


def test_figures_are_for_who_shows_the_token(client: Client, settings: Any) -> None:
    # Whoever may not is refused before the database is asked.
    settings.METRICS_TOKEN = ""
    answer = client.get("/metrics", headers={"Authorization": "Bearer "})
    assert answer.status_code == 403
    assert answer.content.decode().startswith("METRICS_TOKEN is not set")
    settings.METRICS_TOKEN = TOKEN
    shown: list[Any] = [
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer \xff"},
    ]
    for headers in shown:
        answer = client.get("/metrics", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in answer.content.decode()
    assert client.post("/metrics", headers=HEADERS).status_code == 405


# Values --------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_a_new_log_has_figures_too(client: Client) -> None:
    scrape = Scrape(client)
    assert scrape.failed() == set()
    assert set(scrape.all("scrape_errors")) == set(figures.LOOKS)
    assert (scrape("head_seq"), scrape("events_overdue"), scrape("oldest_hot_age_seconds")) == (
        0,
        0,
        0,
    )
    assert set(scrape.all("alarms_open")) == set(Alarm.Kind.values)
    assert not any(scrape.all("alarms_open").values())
    names = {key[0] for key in scrape.samples}
    assert "dezky_audit_last_run_success" not in names
    assert "dezky_audit_schedule_heartbeat_timestamp_seconds" not in names
    answer = client.get("/metrics", headers=HEADERS)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "no-store" in answer.headers["Cache-Control"]
    assert answer.headers["Content-Security-Policy"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("cold", "token")
def test_figures_of_a_log_with_a_run_and_a_verification(client: Client, settings: Any) -> None:
    history()
    tally.count()
    before = Scrape(client)
    assert before.all("events") == {"hot": DUE + KEPT, "cold": 0}
    assert before("events_overdue") == DUE
    assert abs(before("oldest_hot_age_seconds") - timedelta(days=100).total_seconds()) < 60
    settings.AUDIT_GRACE_DAYS = 20
    assert Scrape(client)("events_overdue") == 0
    settings.AUDIT_HOT_RETENTION_DAYS = 10**6
    assert Scrape(client)("events_overdue") == 0
    settings.AUDIT_GRACE_DAYS, settings.AUDIT_HOT_RETENTION_DAYS = 2, 90

    result = archive.run(
        Request(ArchiveRun.Trigger.COMMAND, "ada", "here", override=True), Watcher()
    )
    assert result.outcome == "archived"
    asked = Asked(ArchiveRun.Trigger.COMMAND, "ada", "here", level="manifests", processes=1)
    assert verify.verify(asked).report.outcome == "ok"
    tally.count()

    scrape = Scrape(client)
    assert scrape.failed() == set()
    head = log.current_state().head_seq
    assert (scrape("head_seq"), scrape("floor_seq")) == (head, DUE)
    assert scrape("highest_archived_seq") == DUE
    assert scrape.all("events") == {"hot": head - DUE, "cold": DUE}
    assert (scrape("events_overdue"), scrape("unresolved_verifications")) == (0, 0)
    assert scrape.all("events_recorded_total") == {"platform": DUE + KEPT, "dezky": 2}
    runs = {key: value for key, value in scrape.samples.items() if "archive_runs" in key[0]}
    assert len(runs) == 4 * 5
    assert sum(runs.values()) == 1
    assert scrape("archive_runs_total", trigger="command", outcome="archived") == 1
    assert scrape("last_run_success") == 1
    assert close(scrape("last_run_end_timestamp_seconds"))
    assert close(scrape("last_successful_run_timestamp_seconds"))
    assert scrape.all("last_run_phase_seconds") == ArchiveRun.objects.get().seconds
    assert scrape.all("last_run_phase_seconds")
    assert scrape.all("batches") == {"planned": 0, "stored": 0, "purged": 1}
    sizes = scrape.all("cold_bytes")
    assert 0 < sizes["compressed"] < sizes["uncompressed"]
    assert scrape.all("last_verification_ok") == {"manifests": 1}
    assert close(scrape("last_verification_timestamp_seconds", level="manifests"))
    assert close(scrape("last_checkpoint_timestamp_seconds"))
    assert (scrape("checkpoints_pending"), scrape("archive_enabled")) == (0, 0)


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_figures_of_what_is_wrong(client: Client, settings: Any) -> None:
    now = datetime.now(UTC)
    settings.ARCHIVE_ENABLED = True
    ArchiveRun.objects.create(
        trigger="beat",
        token=1,
        holder="here",
        started_at=now - timedelta(hours=2),
        finished_at=now - timedelta(hours=1),
        cutoff=now,
        outcome="failed",
    )
    ArchiveRun.objects.create(trigger="beat", token=2, holder="here", started_at=now, cutoff=now)
    verification(outcome="ok", finished_at=now - timedelta(days=9), level="manifests")
    verification(outcome="tampered", finished_at=now - timedelta(days=1), level="full")
    for subject, cleared in (("a", None), ("b", None), ("c", now)):
        Alarm.objects.create(
            kind="gap",
            subject=subject,
            message="It is missing.",
            opened_at=now,
            last_seen_at=now,
            cleared_at=cleared,
        )
    Heartbeat.objects.create(name="schedule", at=now - timedelta(minutes=7))
    Heartbeat.objects.create(name="safety_net", at=now - timedelta(minutes=9))
    for index, state in ((1, "published"), (2, "pending")):
        Checkpoint.objects.create(
            index=index,
            seq=0,
            link="00",
            root="00",
            at=now - timedelta(hours=5),
            sha256=str(index),
            document=b"",
            state=state,
            published_at=now if state == "published" else None,
        )
    for how in ("error", "stopped"):  # these looked at nothing, or not to the end
        verification(outcome="unverifiable", finished_at=now, report={how: "so it was"})
    scrape = Scrape(client)
    assert scrape.failed() == set()
    assert scrape("archive_enabled") == 1
    assert scrape("last_run_success") == 0
    ended = now - timedelta(hours=1)
    assert scrape("last_run_end_timestamp_seconds") == pytest.approx(ended.timestamp())
    names = {name for name, _ in scrape.samples}
    assert "dezky_audit_last_successful_run_timestamp_seconds" not in names
    assert scrape("archive_runs_total", trigger="beat", outcome="failed") == 1
    # A full one looked at as much as one of the manifests, and came later.
    assert scrape.all("last_verification_ok") == {"manifests": 0, "full": 0}
    day = (now - timedelta(days=1)).timestamp()
    assert scrape.all("last_verification_timestamp_seconds") == {
        "manifests": pytest.approx(day),
        "full": pytest.approx(day),
    }
    assert scrape("unresolved_verifications") == 2
    assert {kind for kind, number in scrape.all("alarms_open").items() if number} == {"gap"}
    assert scrape("alarms_open", kind="gap") == 2
    assert scrape("checkpoints_pending") == 1
    beat = scrape("schedule_heartbeat_timestamp_seconds")
    net = scrape("safety_net_timestamp_seconds")
    assert (round(now.timestamp() - beat), round(now.timestamp() - net)) == (420, 540)


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_sources_have_so_many_series_at_most(client: Client) -> None:
    many = {f"source-{number:03}": 1_000 - number for number in range(60)}
    odd = {"": 5_000, 'a "quoted"\nname': 4_000, "other": 3_000, tally.OTHER: 9_000}
    SourceCount.objects.bulk_create(
        SourceCount(source=source, events=events) for source, events in {**many, **odd}.items()
    )
    found = Scrape(client).all("events_recorded_total")
    assert len(found) <= figures.MOST_SOURCES + 1
    assert sum(found.values()) == sum({**many, **odd}.values())
    assert (found["(none)"], found['a "quoted"\nname']) == (5_000, 4_000)
    assert found["other"] > 12_000
    assert (found["source-000"], "source-059" in found) == (1_000, False)


@contextmanager
def without(table: str) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO away")
        try:
            yield
        finally:
            cursor.execute(f"ALTER TABLE away RENAME TO {table}")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("token")
def test_a_look_that_fails_leaves_the_others(client: Client) -> None:
    log.append(drafts(3))
    with without("audit_alarm"):
        scrape = Scrape(client)
        assert scrape.failed() == {"alarms"}
        assert scrape.all("alarms_open") == {}
        assert scrape("head_seq") == 3
    with without("audit_archivebatch"):
        assert Scrape(client).failed() == {"log", "ledger"}
    assert Scrape(client).failed() == set()


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_figures_cost_no_more_for_a_longer_log(
    client: Client, django_assert_max_num_queries: Any
) -> None:
    log.append(drafts(3), now=datetime.now(UTC) - timedelta(days=200))
    log.append(drafts(500))
    with django_assert_max_num_queries(60):
        Scrape(client)


# Django's own --------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.usefixtures("token")
def test_requests_are_counted_by_view_and_nothing_a_caller_chooses(client: Client) -> None:
    paths = ["/healthz", "/no-such-path-1", "/no-such-path-2?secret", "/audit/archives/runs/77123"]
    for path in paths:
        client.get(path)
    client.generic("MADEUP", "/healthz")
    Scrape(client)  # which the next one counts
    scrape = Scrape(client)
    values = {value for _, labels in scrape.samples for _, value in labels}
    assert {"healthz", "<unnamed view>", "<invalid method>"} <= values
    for value in values:
        assert not re.search(r"no-such|secret|77123|MADEUP", value), value
    by_view = {
        dict(labels)["view"]
        for name, labels in scrape.samples
        if name == "django_http_responses_total_by_status_view_method_total"
    }
    assert {"healthz", "metrics", "<unnamed view>"} <= by_view


MULTIPLE = """
import os, django
django.setup()
from django.test import Client
for _ in range({times}):
    assert Client().get("/healthz").status_code == 200
page = Client().get("/metrics", headers={{"Authorization": "Bearer t"}}).content.decode()
print(next(line for line in page.splitlines() if 'status_view' in line and '"healthz"' in line))
"""


def test_several_processes_are_added_up(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "dezky.settings",
        "METRICS_TOKEN": "t",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "ALLOWED_HOSTS": "testserver",
    }
    said = []
    for times in (2, 3):
        command = [sys.executable, "-c", MULTIPLE.format(times=times)]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(float(done.stdout.split()[-1]))
    assert said == [2, 5]
