"""A change of the settings is an event in the log, once, without any secret."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.utils import InterfaceError

from audit import conf, log, sightings
from audit.format.errors import UnverifiableError
from audit.format.keys import generate, parse
from audit.format.manifest import Manifest
from audit.format.names import Kind, ObjectName
from audit.format.signing import Keyring
from audit.models import OwnEvent, SeenSettings

from .simulator import Site

ROOT = Path(__file__).parents[2]
WSGI = "import dezky.wsgi"
# As uvicorn does it: loaded where the server's loop runs.
ASGI = """
import asyncio

async def load():
    import dezky.asgi

asyncio.run(load())
"""


def digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()[:16]


def changed(site: Site) -> list[dict[str, Any]]:
    """Return the data of each change that the log has."""
    query = (
        "SELECT record FROM hot.audit_auditevent WHERE action = 'settings_changed' ORDER BY seq"
    )
    return [json.loads(row[0])["data"] for row in site.rows(query)]


def noted(site: Site) -> list[dict[str, Any]]:
    """Return the data of each change that is on its way into the log."""
    rows = site.rows("SELECT event FROM audit_ownevent ORDER BY id")
    return [json.loads(row[0])["data"] for row in rows]


def web(site: Site, code: str = WSGI) -> subprocess.Popen[str]:
    """Start what a web server loads."""
    return subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        cwd=ROOT,
        env=site.env,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for its end; return what it said on standard error."""
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return err


# Runs --------------------------------------------------------------------------------------


def test_the_first_sighting_is_no_event_and_the_same_settings_are_none(site: Site) -> None:
    site.archive("--max-batches=1")
    site.archive("--max-batches=1")
    assert changed(site) == noted(site) == []
    assert len(site.rows("SELECT id FROM audit_seensettings")) == 1


def test_another_retention_is_one_event_with_before_and_after(site: Site) -> None:
    site.archive("--max-batches=1")
    site.env["AUDIT_HOT_RETENTION_DAYS"] = "60"
    site.archive("--max-batches=1")
    site.archive("--max-batches=1")
    (data,) = changed(site)
    assert data["changes"] == {
        "AUDIT_DEDUP_DAYS": {"after": 90, "before": 120},  # retention + 30
        "AUDIT_HOT_RETENTION_DAYS": {"after": 60, "before": 90},
    }
    assert re.fullmatch(r"archive, by command: .+, process \d+", data["from"])
    (event,) = (event for event in site.own_events() if event["action"] == "settings_changed")
    assert (event["outcome"], event["target"]["type"]) == ("success", "settings")


def test_a_look_at_the_plan_notes_nothing(site: Site) -> None:
    site.archive("--max-batches=1")
    site.env["AUDIT_CONFIRM"] = "read"
    before = site.dump()
    assert site.archive("--dry-run")["outcome"] == "planned"
    assert site.dump() == before


def test_a_run_that_fails_leaves_the_change_to_the_next_one(site: Site) -> None:
    site.archive("--max-batches=1")
    good = site.env["AUDIT_COLD_SECRET_KEY"]
    site.env["AUDIT_COLD_SECRET_KEY"] = "wrong"
    assert site.archive()["outcome"] == "failed"
    assert changed(site) == []
    site.env["AUDIT_COLD_SECRET_KEY"] = good
    assert site.archive("--max-batches=1")["outcome"] == "archived"
    assert [data["changes"] for data in changed(site)] == [
        {"AUDIT_COLD_SECRET_KEY": {"after": digest(after), "before": digest(before)}}
        for before, after in ((good, "wrong"), ("wrong", good))
    ]


# Rotation of keys --------------------------------------------------------------------------


def manifests(site: Site) -> list[bytes]:
    """Return each manifest's bytes, in the order of their ranges."""
    found = {
        name: data
        for key, data in site.objects().items()
        if (name := ObjectName.parse(key.rpartition("/")[2])) and name.kind is Kind.MANIFEST
    }
    return [data for _, data in sorted(found.items())]


def test_rotation_never_restarts_the_chain_and_is_an_event_of_it(site: Site) -> None:
    site.archive("--max-batches=1")
    secret = site.env["AUDIT_SIGNING_KEY"]
    old = Keyring.of(secret)
    name = old.signers[0].key_id
    new, text = generate("ed25519", "e-new")
    keys = f"{text}\nhmac-sha256:{name}:{secret}:until=2099-12-31"
    site.env |= {"AUDIT_SIGNING_KEY": "", "AUDIT_SIGNING_KEYS": keys}
    assert site.archive("--max-batches=1")["outcome"] == "archived"

    first, second = manifests(site)
    ring = Keyring.of("", keys)
    before, after = (Manifest.from_bytes(data, ring) for data in (first, second))
    assert (before.signed_by, after.signed_by) == ((f"hmac-sha256:{name}",), ("ed25519:e-new",))
    assert after.previous_manifest_sha256 == sha256(first).hexdigest()
    assert (after.start_seq, after.start_link) == (before.end_seq + 1, before.end_link)
    # What an auditor gets verifies the second and says of the first that a key is missing.
    auditor = Keyring.to_verify(str(new.public))
    assert Manifest.from_bytes(second, auditor) == after
    with pytest.raises(UnverifiableError):
        Manifest.from_bytes(first, auditor)
    with pytest.raises(UnverifiableError):
        Manifest.from_bytes(second, old)

    (data,) = changed(site)
    assert data["changes"] == {
        "AUDIT_SIGNING_KEY": {"after": "", "before": digest(secret)},
        "AUDIT_SIGNING_KEYS": {"after": digest(keys), "before": ""},
        "keyring": {
            "after": [
                {"algorithm": "ed25519", "id": "e-new", "role": "signs first", "until": None},
                {
                    "algorithm": "hmac-sha256",
                    "id": name,
                    "role": "verifies only",
                    "until": "2099-12-31",
                },
            ],
            "before": [
                {"algorithm": "hmac-sha256", "id": name, "role": "signs first", "until": None}
            ],
        },
    }
    assert_no_secret(site, secret, text.rpartition(":")[2], site.env["AUDIT_COLD_SECRET_KEY"])


def assert_no_secret(site: Site, *secrets: str) -> None:
    """Look for secrets in the whole database, in each form in which they could be there."""
    dump = "\n".join(site.dump())
    for secret in secrets:
        for form in (secret, secret.encode().hex(), secret.encode().hex().upper()):
            assert form not in dump
        with suppress(ValueError):
            raw = base64.b64decode(secret, validate=True).hex()
            assert raw not in dump.lower()


def test_a_retired_key_that_is_left_away_stops_the_run_and_is_an_event_all_the_same(
    site: Site,
) -> None:
    site.archive("--max-batches=1")
    _, text = generate("ed25519", "e-new")
    good = site.env["AUDIT_SIGNING_KEY"]
    site.env |= {"AUDIT_SIGNING_KEY": "", "AUDIT_SIGNING_KEYS": text}
    answer = site.archive("--max-batches=1")
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert "of which no key is known" in answer["error"]
    site.env |= {"AUDIT_SIGNING_KEY": good, "AUDIT_SIGNING_KEYS": ""}
    assert site.archive("--max-batches=1")["outcome"] == "archived"
    assert [list(data["changes"]) for data in changed(site)] == [
        ["AUDIT_SIGNING_KEY", "AUDIT_SIGNING_KEYS", "keyring"]
    ] * 2
    assert len(manifests(site)) == 2


def test_co_signed_either_key_is_enough(site: Site) -> None:
    secret = site.env["AUDIT_SIGNING_KEY"]
    old = Keyring.of(secret)
    new, text = generate("ed25519", "e-new")
    own = f"hmac-sha256:{old.signers[0].key_id}:{secret}"
    site.env |= {"AUDIT_SIGNING_KEY": "", "AUDIT_SIGNING_KEYS": f"{text},+{own}"}
    assert site.archive("--max-batches=1")["outcome"] == "archived"
    (data,) = manifests(site)
    for ring in (old, Keyring.to_verify(str(new.public)), Keyring([], [parse(own)[0][0]])):
        assert len(Manifest.from_bytes(data, ring).signed_by) == 2


# Servers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_a_web_server_notes_it_when_it_starts_and_the_next_run_writes_it(
    site: Site, code: str
) -> None:
    assert ended(web(site, code)) == ""
    assert noted(site) == []
    site.env["AUDIT_CONFIRM"] = "read"
    for _ in range(2):
        assert ended(web(site, code)) == ""
    (data,) = noted(site)
    assert data["changes"] == {"AUDIT_CONFIRM": {"after": "read", "before": "head"}}
    assert data["from"].startswith("web: ")
    assert changed(site) == []
    site.archive("--max-batches=1")
    assert changed(site) == [data]
    assert noted(site) == []


def test_several_servers_that_start_at_once_note_it_once(site: Site) -> None:
    ended(web(site))
    site.env["AUDIT_CONFIRM"] = "read"
    for process in [web(site) for _ in range(4)]:
        assert ended(process) == ""
    assert len(noted(site)) == 1


def test_a_server_starts_where_the_database_was_not_migrated(site: Site) -> None:
    site.env["DATABASE_URL"] = f"sqlite:///{site.folder}/new.sqlite3"
    err = ended(web(site))
    assert err.count("\n") == 1
    assert "The settings could not be compared" in err
    assert "is not up to date (no such table: audit_seensettings): run manage.py migrate" in err


def test_a_server_starts_where_the_database_stays_locked(site: Site) -> None:
    ended(web(site))
    site.env["DATABASE_URL"] += "?timeout=1"
    site.env["AUDIT_CONFIRM"] = "read"
    with closing(sqlite3.connect(site.database)) as sql:
        sql.execute("BEGIN IMMEDIATE")
        err = ended(web(site))
    assert err.count("\n") == 1
    assert "The database stayed locked by another process" in err
    assert noted(site) == []
    ended(web(site))
    assert len(noted(site)) == 1


def test_a_server_with_the_same_settings_waits_for_no_writer(site: Site) -> None:
    ended(web(site))
    with closing(sqlite3.connect(site.database)) as sql:
        sql.execute("BEGIN IMMEDIATE")
        assert ended(web(site)) == ""


# Within one process ------------------------------------------------------------------------

database = pytest.mark.django_db(transaction=True)


def changes() -> list[Any]:
    return [row.event["data"]["changes"] for row in OwnEvent.objects.all()]


@database
def test_both_are_written_or_neither(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sightings.notice("web")
    before = SeenSettings.objects.get().values
    settings.AUDIT_CONFIRM = "read"

    def fail(self: SeenSettings) -> None:
        assert OwnEvent.objects.count() == 1
        raise OperationalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(SeenSettings, "save", fail)
        sightings.notice("web")
    assert changes() == []
    assert SeenSettings.objects.get().values == before
    sightings.notice("web")
    assert changes() == [{"AUDIT_CONFIRM": {"after": "read", "before": "head"}}]


@database
@pytest.mark.parametrize("first", [True, False], ids=["first sighting", "a change"])
def test_of_two_that_found_it_at_the_same_moment_one_notes_it(settings: Any, first: bool) -> None:
    if not first:
        sightings.notice("web")
    settings.AUDIT_CONFIRM = "read"
    found = sightings._found()
    barrier = threading.Barrier(2)

    def compare() -> None:
        try:
            barrier.wait()
            sightings._compare(found, "web")
        finally:
            connection.close()

    threads = [threading.Thread(target=compare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(changes()) == (0 if first else 1)
    assert SeenSettings.objects.get().values == found


@database
def test_a_setting_that_is_new_or_gone_is_a_change(settings: Any) -> None:
    sightings.notice("web")
    settings.AUDIT_NEW = 1
    sightings.notice("web")
    del settings.AUDIT_NEW
    sightings.notice("web")
    assert changes() == [
        {"AUDIT_NEW": {"after": 1, "before": None}},
        {"AUDIT_NEW": {"after": None, "before": 1}},
    ]


class Thing:
    """Something whose text is another one in each process."""


ODD = [
    {"b", "a"},
    {"b": {"y", "x"}, "a": 1},
    [1, (2.5, None), {"a": Path("/srv")}],
    float("nan"),
    float("-inf"),
    2**60,
    -(2**53),
    b"\xff",
    timedelta(days=1),
    "lone \udcff surrogate",
    "x" * 300_000,
    ["x"] * 100_000,
    [[[[[[[[[["deep"]]]]]]]]]],
    Thing(),
    [Thing()],
    len,
]


@database
@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_a_value_that_is_no_json_is_noted_all_the_same(
    settings: Any, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sightings.notice("web")
    settings.AUDIT_ODD = value
    sightings.notice("web")
    sightings.notice("web")
    assert len(changes()) == 1
    (odd,) = changes()
    assert list(odd) == ["AUDIT_ODD"]
    assert len(odd["AUDIT_ODD"]["after"]) < 1_000
    assert " at 0x" not in odd["AUDIT_ODD"]["after"]
    assert caplog.records == []


@database
def test_two_long_values_that_begin_alike_are_a_change(settings: Any) -> None:
    settings.AUDIT_ODD = "x" * 1_000 + "a"
    sightings.notice("web")
    settings.AUDIT_ODD = "x" * 1_000 + "b"
    sightings.notice("web")
    assert len(changes()) == 1


@database
def test_a_secret_that_is_no_unicode_has_a_digest_too(settings: Any) -> None:
    sightings.notice("web")
    settings.AUDIT_COLD_SECRET_KEY = "\udcff"
    sightings.notice("web")
    assert list(changes()[0]) == ["AUDIT_COLD_SECRET_KEY"]


@database
def test_a_keyring_that_cannot_be_used_is_not_described(settings: Any) -> None:
    sightings.notice("web")
    settings.AUDIT_SIGNING_KEYS = "x"
    sightings.notice("web")
    (found,) = changes()
    assert found["keyring"]["after"] is None
    assert set(found) == {"AUDIT_SIGNING_KEYS", "keyring"}


@database
def test_a_row_that_somebody_has_edited_is_no_obstacle() -> None:
    sightings.notice("web")
    SeenSettings.objects.update(values=["x"])
    sightings.notice("web")
    assert set(changes()[0]) == {*conf.fingerprint(), "keyring"}


@database
@pytest.mark.parametrize(
    "error", [OperationalError("x"), InterfaceError("x"), log.BusyError("It stayed locked.")]
)
def test_a_database_that_fails_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(sightings, "_compare", fail)
    sightings.notice("web")
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert record.getMessage().startswith("The settings could not be compared with those seen")


def test_every_secret_among_the_settings_is_known_as_one() -> None:
    text = (ROOT / "dezky" / "settings.py").read_text(encoding="utf-8")
    secrets = set(re.findall(r'env\.secret\("((?:AUDIT|ARCHIVE)_\w+)"\)', text))
    assert secrets == conf.SECRETS
    assert os.environ["AUDIT_SIGNING_KEY"] not in str(conf.fingerprint())


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://s3.example.eu:9000/path", "https://s3.example.eu:9000/path"),
        ("https://user:pass-word@s3.example.eu", "https://s3.example.eu"),
        ("https://user:pass-@-word@s3.example.eu", "https://s3.example.eu"),
        ("https://user:pass-/-word@s3.example.eu", "https://s3.example.eu"),
        ("user:pass-word@s3.example.eu", "s3.example.eu"),
        ("user:pass-word@https://s3.example.eu", "https://s3.example.eu"),
        ("", ""),
    ],
)
def test_the_endpoint_is_never_shown_with_a_user(settings: Any, given: str, shown: str) -> None:
    """A system check refuses it; what starts without one shows it no more than the others."""
    settings.AUDIT_COLD_ENDPOINT = given
    assert conf.cold_endpoint() == conf.fingerprint()["AUDIT_COLD_ENDPOINT"] == shown
