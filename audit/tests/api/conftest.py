"""Programs with tokens, as the HTTP interface sees them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from audit.api.models import Token
from audit.tests.doors import user

ARCHIVES, RUN = "/audit/archives", "/audit/archive/run"
EMPTY: dict[str, Any] = {"data": "", "content_type": "application/json"}


@dataclass(frozen=True)
class Program:
    """A program that holds a token; its client keeps no session and no CSRF token."""

    account: User
    token: Token
    secret: str

    def request(self, method: str, url: str, **more: Any) -> Any:
        """Send a request."""
        client = Client(enforce_csrf_checks=True)
        headers = {"Authorization": f"Bearer {self.secret}"}
        return getattr(client, method)(url, headers=headers, **more)

    def get(self, url: str) -> Any:
        """Return the JSON of an address that must answer."""
        answer = self.request("get", url)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def post(self, **more: Any) -> Any:
        """Ask for a run, with an empty body unless one is given."""
        return self.request("post", RUN, **{**EMPTY, **more})


def issue(account: User, days: float = 1) -> Program:
    """Give an account a token."""
    token, secret = Token.objects.create(account, expiry=timedelta(days=days))
    return Program(account, token, secret)


@pytest.fixture
def program(db: None) -> Program:
    """Run under the name of somebody who may run the archive."""
    return issue(user("ada", "run_archive"))
