"""Every reason for which the product is not ready, caused for real."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from audit import checkpoints, log
from audit.models import ArchiveBatch, Checkpoint, Heartbeat
from audit.monitoring import looks, readiness
from audit.monitoring.looks import Looks, reason_of
from audit.monitoring.readiness import Check
from audit.tests.factories import drafts
from audit.tests.redis_server import RedisServer
from audit.tests.simulator import Site

from .conftest import HEADERS, Probe

NAMES = {"database", "hot", "broker", "bucket", "keys", "worker"}


NO_REASON = dict.fromkeys(NAMES, "")
LOOK = """
import json
from audit.monitoring import looks
from audit.monitoring.looks import Looks, reason_of
from audit.monitoring.readiness import checks
looks.PATIENCE = 30
print(json.dumps({name: reason_of(found) for name, found in Looks(checks()).results().items()}))
"""


# The answer ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("ready")
def test_where_all_works_it_says_so_and_only_that(client: Client) -> None:
    log.append(drafts(3))
    checkpoints.make()
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "checks": {name: {"ok": True} for name in NAMES}}
    assert "no-store" in answer.headers["Cache-Control"]
    told = client.get("/readyz", headers=HEADERS).json()["checks"]
    assert {name: check["reason"] for name, check in told.items()} == NO_REASON
    assert all(0 <= check["seconds"] < looks.PATIENCE for check in told.values())
    head = client.head("/readyz")
    assert (head.status_code, head.content) == (200, b"")
    assert client.post("/readyz").status_code == 405


@pytest.mark.usefixtures("ready")
def test_reasons_are_for_who_shows_the_token(client: Client, settings: Any) -> None:
    settings.REDIS_URL = ""
    shown: list[Any] = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}]
    for headers in shown:
        answer = client.get("/readyz", headers=headers)
        assert answer.status_code == 503
        assert answer.json()["status"] == "failed"
        assert answer.json()["checks"]["broker"] == {"ok": False}
    assert client.get("/readyz", headers=HEADERS).json()["checks"]["broker"]["reason"]
    settings.METRICS_TOKEN = ""
    for headers in [{"Authorization": "Bearer "}, {"Authorization": "Bearer"}, {}]:
        answer = client.get("/readyz", headers=headers)
        assert answer.json()["checks"]["broker"] == {"ok": False}


def test_alive_is_alive_whatever_else_is_not(client: Client, settings: Any) -> None:
    # No database: pytest lets none be touched here.
    settings.REDIS_URL = settings.AUDIT_COLD_BUCKET = settings.AUDIT_SIGNING_KEY = ""
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "no-store" in answer.headers["Cache-Control"]
    assert answer.headers["Content-Security-Policy"]
    head = client.head("/healthz")
    assert (head.status_code, head.content) == (200, b"")
    assert client.post("/healthz").status_code == 405
    assert client.get("/healthz/").status_code == 404
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get("/healthz").status_code == 200
    assert Client().get("/admin/").status_code == 301


# The reasons ---------------------------------------------------------------------------------


def test_a_database_that_stays_locked(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LOCK_SECONDS", 0.2)
    with closing(sqlite3.connect(connection.settings_dict["NAME"])) as other:
        other.execute("BEGIN IMMEDIATE")
        reason = probe.reason("database")
        other.rollback()
    assert "stayed locked by another process" in reason
    assert probe.reasons() == {}


def test_a_database_that_is_not_up_to_date(probe: Probe) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM django_migrations WHERE app = 'audit' AND name >= '0003'")
        rows = cursor.fetchall()
        cursor.execute("DELETE FROM django_migrations WHERE app = 'audit' AND name >= '0003'")
        try:
            reason = probe.reason("database")
        finally:
            cursor.executemany("INSERT INTO django_migrations VALUES (%s, %s, %s, %s)", rows)
    assert f"{len(rows)} migrations to come, the first audit.0003" in reason
    assert reason.endswith("Run manage.py migrate.")


def test_a_table_that_is_not_there(probe: Probe) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_logstate RENAME TO away")
        try:
            reason = probe.reason("hot")
        finally:
            cursor.execute("ALTER TABLE away RENAME TO audit_logstate")
    assert reason == (
        "The database is not up to date (no such table: audit_logstate): run manage.py migrate."
    )


def test_hot_where_it_is_another_database(small_site: Site) -> None:
    def look() -> dict[str, str]:
        done = small_site.manage("shell", "-v0", "-c", LOOK)
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = json.loads(done.stdout)
        assert set(found) == NAMES
        return {name: why for name, why in found.items() if why}

    small_site.split()
    assert set(look()) == {"broker", "worker"}
    with closing(sqlite3.connect(small_site.hot_database)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "stayed locked by another process" in look()["hot"]
        other.rollback()
        other.execute("DELETE FROM django_migrations WHERE app = 'audit' AND name >= '0003'")
        other.commit()
    found = look()
    assert set(found) == {"hot", "broker", "worker"}
    assert found["hot"].endswith("Run manage.py migrate --database hot.")


def test_a_log_that_was_rolled_back(probe: Probe) -> None:
    log.append(drafts(3))
    now = datetime.now(UTC)
    ArchiveBatch.objects.create(
        start_seq=1, end_seq=9, event_count=9, start_link="00", planned_at=now
    )
    assert "hot was rolled back" in probe.reason("hot")


def test_a_broker_that_is_gone_or_never_was(
    probe: Probe, redis: RedisServer, settings: Any
) -> None:
    redis.kill()
    try:
        gone = probe.reason("broker")
    finally:
        redis.start()
    assert gone.startswith("The broker does not answer (ConnectionError)")
    assert probe.reasons() == {}
    settings.REDIS_URL = redis.url.replace(redis.password, "wrong-password")
    wrong = probe.reason("broker")
    assert "refuses the password" in wrong
    assert "wrong-password" not in wrong
    settings.REDIS_URL = "http://:secret@127.0.0.1"
    none = probe.reason("broker")
    assert "is no URL of a Redis" in none
    assert "secret" not in none
    settings.REDIS_URL = ""
    assert "REDIS_URL is not set" in probe.reason("broker")


def test_a_broker_that_is_silent(
    probe: Probe, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "BROKER_SECONDS", 0.2)
    with silent() as port:
        settings.REDIS_URL = f"redis://:secret@127.0.0.1:{port}/0"
        reason = probe.reason("broker")
    assert reason.startswith("The broker does not answer (TimeoutError)")
    assert "secret" not in reason


@contextmanager
def silent() -> Iterator[int]:
    """Take connections, and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def cold_at(settings: Any, **options: Any) -> None:
    cold = settings.STORAGES["cold"]
    settings.STORAGES = {
        **settings.STORAGES,
        "cold": {**cold, "OPTIONS": {**cold["OPTIONS"], **options}},
    }


def test_a_bucket_that_is_not_there_or_lets_nobody_in(probe: Probe, settings: Any) -> None:
    right = settings.STORAGES["cold"]["OPTIONS"]
    cold_at(settings, secret_key="not-the-secret")
    wrong = probe.reason("bucket")
    assert "the secret key is wrong: correct AUDIT_COLD_SECRET_KEY" in wrong
    assert "not-the-secret" not in wrong
    cold_at(settings, **right)
    settings.AUDIT_COLD_BUCKET = "another-bucket"
    assert "the bucket does not exist" in probe.reason("bucket")
    settings.AUDIT_COLD_BUCKET = ""
    assert "AUDIT_COLD_BUCKET is not set" in probe.reason("bucket")
    settings.AUDIT_COLD_BUCKET = "dezky-audit"
    cold_at(settings, endpoint_url="127.0.0.1:1")
    assert "The bucket cannot be asked (ValueError)" in probe.reason("bucket")
    cold_at(settings, endpoint_url="http://127.0.0.1:9")
    gone = probe.reason("bucket")
    assert "no whole answer after 1 of 1 tries of up to 4 s (no connection)" in gone


def test_a_bucket_that_is_silent(
    probe: Probe, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "BUCKET_SECONDS", 1)
    with silent() as port:
        cold_at(settings, endpoint_url=f"http://127.0.0.1:{port}")
        reason = probe.reason("bucket")
    assert "no whole answer after 1 of 1 tries of up to 1 s (silence for that time)" in reason


def test_keys_that_are_gone_at_their_end_or_others(probe: Probe, settings: Any) -> None:
    log.append(drafts(3))
    checkpoints.make()
    key = settings.AUDIT_SIGNING_KEY
    settings.AUDIT_SIGNING_KEY = ""
    assert "No signing key is set" in probe.reason("keys")
    settings.AUDIT_SIGNING_KEY = "%%%"
    assert probe.reason("keys") == "AUDIT_SIGNING_KEY is not base64."
    settings.AUDIT_SIGNING_KEY = other = base64.b64encode(secrets.token_bytes(32)).decode()
    stranger = probe.reason("keys")
    assert "set AUDIT_SIGNING_KEYS so that it has that key, too" in stranger
    assert other not in stranger
    settings.AUDIT_SIGNING_KEY = ""
    settings.AUDIT_SIGNING_KEYS = f"hmac-sha256:k-old:{key}:until=2026-01-01"
    ended = probe.reason("keys")
    assert "The signing key k-old has come to its end, 2026-01-01" in ended
    assert key not in ended


def test_a_checkpoint_that_was_changed(probe: Probe) -> None:
    log.append(drafts(3))
    checkpoints.make()
    Checkpoint.objects.update(seq=2)
    assert "was changed" in probe.reason("keys")


def test_a_worker_that_is_not_heard_of(probe: Probe) -> None:
    now = datetime.now(UTC)
    Heartbeat.objects.update(at=now - timedelta(seconds=100))
    assert probe.reasons() == {}
    at = now - timedelta(minutes=4)
    Heartbeat.objects.update(at=at)
    late = probe.reason("worker")
    assert late.startswith(f"No heartbeat of the schedule since {at:%Y-%m-%d %H:%M:%S} UTC")
    assert "celery -A dezky worker -Q short" in late
    assert "celery -A dezky beat" in late
    Heartbeat.objects.update(at=now + timedelta(hours=1))
    assert "is yet to come: a clock was wrong" in probe.reason("worker")
    Heartbeat.objects.all().delete()
    Heartbeat.objects.create(name="safety_net", at=now)
    assert "No heartbeat of the schedule ever came" in probe.reason("worker")


# Whoever asks does not wait -----------------------------------------------------------------


@dataclass
class Hanging(Check):
    """A check that ends when the test lets it."""

    let_go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    times: int = 0

    def run(self) -> None:
        self.times += 1
        self.begun.release()
        self.let_go.wait()


@dataclass
class Fine(Check):
    def run(self) -> None:
        pass


@dataclass
class Broken(Check):
    def run(self) -> None:
        raise LookupError("a secret may be in here")


def test_a_check_that_hangs_holds_one_thread_however_many_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks, "PATIENCE", 0.1)
    monkeypatch.setattr(looks, "FRESH", 0)
    hanging = Hanging()
    asked = Looks({"hanging": hanging, "fine": Fine()})
    for _ in range(3):
        found = asked.results()
        assert reason_of(found["hanging"]).startswith("No answer within")
        assert found["fine"].error is None
    assert hanging.times == 1
    hanging.let_go.set()
    monkeypatch.setattr(looks, "PATIENCE", 30)
    assert asked.results()["hanging"].error is None
    assert asked.results()["hanging"].error is None
    assert hanging.times == 2


def test_those_who_ask_at_once_or_soon_after_get_one_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks, "FRESH", 600)
    hanging = Hanging()
    asked = Looks({"hanging": hanging})
    askers = [threading.Thread(target=asked.results) for _ in range(5)]
    for asker in askers:
        asker.start()
    assert hanging.begun.acquire(timeout=30)
    hanging.let_go.set()
    for asker in askers:
        asker.join()
    asked.results()
    assert hanging.times == 1


def test_what_a_check_did_not_think_of_is_logged_and_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = Looks({"broken": Broken()}).results()
    assert reason_of(found["broken"]) == "It failed (LookupError): see the log."
    assert "a secret may be in here" in caplog.text


def test_a_change_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "FRESH", 0)
    monkeypatch.setattr(looks, "PATIENCE", 0.1)
    hanging = Hanging()
    asked = Looks({"hanging": hanging})
    asked.results()
    asked.results()
    hanging.let_go.set()
    monkeypatch.setattr(looks, "PATIENCE", 30)
    asked.results()
    asked.results()
    assert [record.getMessage() for record in caplog.records] == [
        "Not ready (hanging): No answer within 0 s.",
        "Ready again (hanging).",
    ]


@pytest.mark.usefixtures("ready")
def test_much_hangs_at_once_and_the_answer_comes(
    client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "PATIENCE", 3.0)
    with silent() as port:
        settings.REDIS_URL = f"redis://127.0.0.1:{port}/0"
        cold_at(settings, endpoint_url=f"http://127.0.0.1:{port}")
        with closing(sqlite3.connect(connection.settings_dict["NAME"])) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            answer = client.get("/readyz", headers=HEADERS)
            other.rollback()
    assert time.monotonic() - began < 15  # each is waited for longer elsewhere
    failed = {name for name, check in answer.json()["checks"].items() if not check["ok"]}
    assert failed >= {"database", "broker", "bucket"}
