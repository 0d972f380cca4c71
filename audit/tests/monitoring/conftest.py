"""What all tests of probes and figures need: everything works, until a test takes it away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client

from audit.models import Heartbeat
from audit.monitoring import health, looks
from audit.monitoring.looks import Looks
from audit.monitoring.readiness import checks
from audit.tests.redis_server import RedisServer

PATIENCE = 30.0  # so that a busy machine does not decide
TOKEN = "figures-for-those-who-know"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def token(settings: Any) -> str:
    """Set METRICS_TOKEN."""
    settings.METRICS_TOKEN = TOKEN
    return TOKEN


@pytest.fixture
def ready(
    redis: RedisServer,
    cold: str,
    token: str,
    transactional_db: None,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Let everything work, and nothing be known of what was looked at before."""
    settings.REDIS_URL = redis.url
    Heartbeat.objects.create(name="schedule", at=datetime.now(UTC))
    monkeypatch.setattr(health, "looks", Looks(checks()))
    monkeypatch.setattr(looks, "PATIENCE", PATIENCE)


class Probe:
    """Asks `/readyz`, as somebody who knows the token."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def reasons(self) -> dict[str, str]:
        """Return what is not ok, and why, of a fresh look."""
        health.looks = Looks(checks())
        answer = self._client.get("/readyz", headers=HEADERS)
        told = answer.json()["checks"]
        assert all(bool(check["reason"]) != check["ok"] for check in told.values())
        found = {name: check["reason"] for name, check in told.items() if not check["ok"]}
        assert (answer.status_code, answer.json()["status"]) == (
            (503, "failed") if found else (200, "ok")
        )
        return found

    def reason(self, name: str) -> str:
        """Return why one check fails; it must be the only one."""
        found = self.reasons()
        assert set(found) == {name}, found
        return found[name]


@pytest.fixture
def probe(client: Client, ready: None) -> Probe:
    """Probe a deployment in which everything works."""
    return Probe(client)
