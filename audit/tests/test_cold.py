"""A batch's two objects on the real S3 server: what is believed, and what is read."""

from __future__ import annotations

import io
from hashlib import md5, sha256
from typing import Any

import pytest

from audit import cold as cold_objects
from audit import conf, storage
from audit.cold import Sent
from audit.format.errors import TamperedError
from audit.format.names import Kind, ObjectName
from audit.storage import Digests

DATA = b"what was sent"


def digests(data: bytes) -> Digests:
    return Digests(len(data), md5(data, usedforsecurity=False).digest(), sha256(data).hexdigest())


def send(cold: str, data: bytes = DATA) -> Sent:
    return cold_objects.send(f"{cold}/object", io.BytesIO(data), digests(data), Kind.JSONL)


def with_lying_digest(sent: Sent) -> Sent:
    """Return what was sent as if other bytes of the same MD5 and length had been meant.

    No service stores other bytes under the right ETag; this is what one would look like.
    """
    lie = Digests(sent.digests.length, sent.digests.md5, sha256(b"other bytes").hexdigest())
    return Sent(sent.key, lie, sent.ours)


def test_what_was_just_sent_is_confirmed_by_length_and_etag(cold: str) -> None:
    sent = send(cold)
    assert sent.ours
    cold_objects.confirm(sent)
    cold_objects.confirm(with_lying_digest(sent))  # not read: the ETag is our MD5


def test_with_confirm_read_even_what_was_just_sent_is_read(cold: str, settings: Any) -> None:
    sent = send(cold)
    settings.AUDIT_CONFIRM = "read"
    cold_objects.confirm(sent)
    with pytest.raises(TamperedError, match="holds other bytes than its name says"):
        cold_objects.confirm(with_lying_digest(sent))


def test_what_this_run_did_not_send_is_read(cold: str) -> None:
    send(cold)
    found = send(cold)
    assert not found.ours
    cold_objects.confirm(found)
    with pytest.raises(TamperedError, match="holds other bytes than its name says"):
        cold_objects.confirm(with_lying_digest(found))


def test_a_manifest_is_read_only_under_its_own_digest(cold: str) -> None:
    """Right bytes under another name, or under a name that the ledger gives another digest."""
    data = b"{}"
    for name, asked in (
        (ObjectName.of(Kind.MANIFEST, 1, 2, sha256(b"other").hexdigest()), None),
        (ObjectName.of(Kind.MANIFEST, 1, 2, sha256(data).hexdigest()), sha256(b"x").hexdigest()),
    ):
        key = name.key(conf.cold_prefix())
        storage.put_once(key, io.BytesIO(data), digests(data), "application/json")
        with pytest.raises(TamperedError, match="holds other bytes than its name or the ledger"):
            cold_objects.read_manifest(key, asked)
