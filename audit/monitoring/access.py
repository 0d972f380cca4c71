"""Who may see more than whether all is well: whoever shows METRICS_TOKEN."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.http import HttpRequest


def is_set() -> bool:
    """Say whether there is a token at all."""
    return bool(settings.METRICS_TOKEN)


def shows_token(request: HttpRequest) -> bool:
    """Say whether a request carries the token, compared in constant time."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    token = str(settings.METRICS_TOKEN)
    # A header's bytes arrive as Latin-1, and a token may be anything: compared as bytes.
    same = secrets.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    return bool(token) and scheme.lower() == "bearer" and same
