"""The settings as they were seen last: a change of them is an event in the log.

Whoever shortens the retention, or lets another key sign, changes what the log is worth. So each
server and each run compares the settings with those that the one before it saw, secrets by their
digests, and notes what is different. Event and row are one transaction: both or neither, and of
two that start at once, one. What is seen for the first time is remembered without an event.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error

from . import conf, guard, log, request
from .format.errors import AuditError
from .format.keys import KeyringError
from .format.record import MAX_INTEGER
from .models import SeenSettings
from .result import sentence

CHANGED = "settings_changed"
KEYRING = "keyring"
MAX_TEXT = 500
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

logger = logging.getLogger(__name__)


def notice(requested_from: str) -> None:
    """Compare the settings with those seen last; note what changed, and remember it.

    `requested_from` says who looks, such as `web`. Never raises: a database that takes nothing
    must not keep a server from starting.
    """
    try:
        found = _found()
        seen = SeenSettings.objects.filter(pk=1).first()
        # Most of the time there is nothing to write, and so no turn at the database to wait for.
        if seen is None or seen.values != found:
            _compare(found, requested_from)
    except (AuditError, Error) as error:
        logger.warning(
            "The settings could not be compared with those seen before; the next start does: %s",
            sentence(error),
        )


def _compare(found: dict[str, Any], requested_from: str) -> None:
    now = datetime.now(UTC)
    with log.write_transaction(DEFAULT_DB_ALIAS):
        SeenSettings.objects.get_or_create(pk=1, defaults={"values": found, "seen_at": now})
        seen = SeenSettings.objects.select_for_update().get(pk=1)
        changes = _changes(seen.values, found)
        if not changes:
            return
        request.note(
            f"{uuid.uuid4()}:{CHANGED}",
            now,
            action=CHANGED,
            target={"type": "settings"},
            outcome="success",
            data={
                "changes": changes,
                "from": f"{requested_from}: {guard.Process.current().label}",
            },
        )
        seen.values, seen.seen_at = found, now
        seen.save()


def _changes(before: Any, after: dict[str, Any]) -> dict[str, Any]:
    """Return what is different, by name; None stands for what was or is not there."""
    known = before if isinstance(before, dict) else {}
    return {
        name: {"before": known.get(name), "after": after.get(name)}
        for name in sorted(known.keys() | after.keys())
        if name not in known or name not in after or known[name] != after[name]
    }


def _found() -> dict[str, Any]:
    """Return the settings and the keyring, without secrets, as JSON holds them."""
    found = {name: _plain(value) for name, value in conf.fingerprint().items()}
    try:
        found[KEYRING] = conf.keyring().describe()
    except KeyringError:
        found[KEYRING] = None  # a system check says why
    return found


def _plain(value: Any) -> Any:
    """Return a value as JSON and a record hold it, the same one in any process."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return int(value)
    if isinstance(value, Mapping):
        return _text(sorted(f"{name}={_plain(item)}" for name, item in value.items()))
    if isinstance(value, set | frozenset):
        return _text(sorted(str(_plain(item)) for item in value))
    if isinstance(value, list | tuple):
        return _text([_plain(item) for item in value])
    return _text(value)


def _text(value: Any) -> str:
    """Return a bounded text without what differs from process to process, or is no Unicode."""
    text = ADDRESS.sub("", str(value)).encode("utf-8", "replace").decode()
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}… (SHA-256 {sha256(text.encode()).hexdigest()})"
