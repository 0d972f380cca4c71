"""What tests of the doors need: somebody who may, what there is to do, and what came of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.test import Client

from audit import log
from audit.guard import Process
from audit.models import AuditEvent, VerificationRun

from .factories import drafts

DUE, KEPT = 30, 5


def history() -> None:
    """Append what is due, and what is not."""
    now = datetime.now(UTC)
    log.append(drafts(DUE), now=now - timedelta(days=100))
    log.append(drafts(KEPT), now=now - timedelta(days=1))


def user(name: str, *permissions: str, **members: Any) -> User:
    """Make an account with these permissions and no others."""
    account = User.objects.create_user(name, **members)
    account.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    assert account.user_permissions.count() == len(permissions)
    return account


def browser(account: User) -> Client:
    """Return a browser with this account's session, whose forms need their CSRF token."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(account)
    return client


def own_events() -> list[dict[str, Any]]:
    """Return the archive's own events in hot."""
    rows = AuditEvent.objects.filter(source="dezky").order_by("seq")
    return [json.loads(log.as_bytes(row.record)) for row in rows]


def everything() -> dict[str, list[Any]]:
    """Return all rows of all tables."""
    models = apps.get_models()
    return {
        model._meta.label: list(model._default_manager.order_by("pk").values_list())
        for model in models
    }


def verification(**members: Any) -> VerificationRun:
    """Write down a verification that is at work, in this process and over HTTP unless told."""
    me = Process.current()
    values: dict[str, Any] = {
        "trigger": "api",
        "requested_by": "ada",
        "level": "full",
        "holder": me.label,
        "host": me.host,
        "pid": me.pid,
        "pid_started": me.started,
        "started_at": datetime.now(UTC),
    }
    return VerificationRun.objects.create(**{**values, **members})


GONE = {"pid_started": "1", "holder": "here, process 1"}  # its number is another process's now
