"""Each misconfiguration has its id, fires when it should, and never otherwise."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, run_checks
from django.db import connection

from audit import checks
from audit.format.keys import generate
from dezky.env import Reader

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def broker(settings: Any) -> None:
    """Name a broker; whether it answers is nothing to a check."""
    settings.REDIS_URL = "redis://127.0.0.1:9/0"


def found() -> list[CheckMessage]:
    return [message for message in run_checks() if str(message.id).startswith("audit.")]


def test_a_good_configuration_has_no_findings() -> None:
    assert found() == []


ALL_DIFFERENT = base64.b64encode(bytes(range(32))).decode()
GOOD: list[tuple[str, Any]] = [
    ("SECRET_KEY", "abcde" * 10),
    ("AUDIT_SIGNING_KEY", ALL_DIFFERENT),
    ("AUDIT_ORIGIN", "x"),
    ("AUDIT_ORIGIN", "ü" * 200),
    ("AUDIT_COLD_ENDPOINT", "https://s3.example.eu"),
    ("AUDIT_COLD_PREFIX", "a"),
    ("AUDIT_COLD_PREFIX", "/a/b..c/d/"),
    ("AUDIT_HOT_RETENTION_DAYS", 0),
    ("ARCHIVE_RUN_HOUR_UTC", 0),
    ("ARCHIVE_RUN_HOUR_UTC", 23),
    ("AUDIT_BATCH_MAX_EVENTS", 1),
    ("AUDIT_BATCH_MAX_EVENTS", 10_000_000),
    ("AUDIT_BATCH_MAX_BYTES", 1),
    ("AUDIT_BATCH_MAX_BYTES", 4 * 1024**3),
    ("AUDIT_CONFIRM", "read"),
    ("AUDIT_LEASE_SECONDS", 40),
    ("AUDIT_DEDUP_DAYS", 90),
    ("AUDIT_GRACE_DAYS", 1),
    ("AUDIT_MIN_FREE_MB", 0),
    ("AUDIT_CHECKPOINT_MINUTES", 1),
    ("METRICS_TOKEN", "abcdefghij" * 2),
]
BAD: list[tuple[str, str, Any, str]] = [
    ("E020", "AUDIT_GRACE_DAYS", 0, "AUDIT_GRACE_DAYS is too small"),
    ("E020", "AUDIT_GRACE_DAYS", 3651, "AUDIT_GRACE_DAYS is more than 3650"),
    ("E021", "AUDIT_MIN_FREE_MB", -1, "AUDIT_MIN_FREE_MB is too small"),
    ("E022", "AUDIT_CHECKPOINT_MINUTES", 0, "AUDIT_CHECKPOINT_MINUTES is too small"),
    ("E024", "AUDIT_ALARM_WEBHOOK_URL", "https://x", "AUDIT_ALARM_WEBHOOK_SECRET is missing"),
    ("E025", "METRICS_TOKEN", "short", "METRICS_TOKEN has less than 20 characters"),
    ("E001", "SECRET_KEY", "", "SECRET_KEY is missing or weak"),
    ("E001", "SECRET_KEY", "abcdefghij" * 4, "SECRET_KEY is missing or weak"),
    ("E001", "SECRET_KEY", "abcd" * 20, "SECRET_KEY is missing or weak"),
    ("E002", "AUDIT_SIGNING_KEY", "", "AUDIT_SIGNING_KEY is missing"),
    ("E002", "AUDIT_SIGNING_KEY", "not base64!", "AUDIT_SIGNING_KEY is not base64"),
    ("E002", "AUDIT_SIGNING_KEY", "c2hvcnQ=", "AUDIT_SIGNING_KEY has 5 bytes, at least 32"),
    ("E002", "AUDIT_SIGNING_KEY", "A" * 44, "A signing key is weak: it hardly varies"),
    ("E003", "AUDIT_ORIGIN", "", "AUDIT_ORIGIN is missing"),
    ("E003", "AUDIT_ORIGIN", "x" * 201, "AUDIT_ORIGIN is missing, longer than 200"),
    ("E003", "AUDIT_ORIGIN", "a\nb", "AUDIT_ORIGIN"),
    ("E003", "AUDIT_ORIGIN", "a\udcff", "AUDIT_ORIGIN"),
    ("E004", "AUDIT_COLD_ENDPOINT", "", "not configured: AUDIT_COLD_ENDPOINT missing"),
    ("E004", "AUDIT_COLD_BUCKET", "", "not configured: AUDIT_COLD_BUCKET missing"),
    ("E004", "AUDIT_COLD_ACCESS_KEY", "", "not configured: AUDIT_COLD_ACCESS_KEY missing"),
    ("E004", "AUDIT_COLD_SECRET_KEY", "", "not configured: AUDIT_COLD_SECRET_KEY missing"),
    ("E004", "AUDIT_COLD_ENDPOINT", "localhost:9000", "AUDIT_COLD_ENDPOINT is not a URL"),
    ("E004", "AUDIT_COLD_ENDPOINT", "https://user:word@s3.example.eu", "has a user or a password"),
    ("E004", "AUDIT_COLD_ENDPOINT", "https://user@s3.example.eu", "has a user or a password"),
    ("E005", "AUDIT_COLD_PREFIX", "", "AUDIT_COLD_PREFIX '' is empty"),
    ("E005", "AUDIT_COLD_PREFIX", "/", "AUDIT_COLD_PREFIX '' is empty"),
    ("E005", "AUDIT_COLD_PREFIX", "a/../b", "AUDIT_COLD_PREFIX 'a/../b' is empty or has"),
    ("E005", "AUDIT_COLD_PREFIX", "..", "AUDIT_COLD_PREFIX '..'"),
    ("E005", "AUDIT_COLD_PREFIX", "a/./b", "AUDIT_COLD_PREFIX 'a/./b'"),
    ("E005", "AUDIT_COLD_PREFIX", "a//b", "AUDIT_COLD_PREFIX 'a//b'"),
    ("E006", "AUDIT_HOT_RETENTION_DAYS", -1, "AUDIT_HOT_RETENTION_DAYS is below zero"),
    ("E007", "ARCHIVE_RUN_HOUR_UTC", -1, "ARCHIVE_RUN_HOUR_UTC is not an hour of the day"),
    ("E007", "ARCHIVE_RUN_HOUR_UTC", 24, "ARCHIVE_RUN_HOUR_UTC is not an hour of the day"),
    ("E008", "AUDIT_BATCH_MAX_EVENTS", 0, "AUDIT_BATCH_MAX_EVENTS is not between 1 and"),
    ("E008", "AUDIT_BATCH_MAX_EVENTS", 10_000_001, "AUDIT_BATCH_MAX_EVENTS is not between 1"),
    ("E009", "AUDIT_BATCH_MAX_BYTES", 0, "AUDIT_BATCH_MAX_BYTES is not between 1 and"),
    ("E009", "AUDIT_BATCH_MAX_BYTES", 4 * 1024**3 + 1, "AUDIT_BATCH_MAX_BYTES is not between"),
    ("E010", "AUDIT_CONFIRM", "", "AUDIT_CONFIRM is ''"),
    ("E010", "AUDIT_CONFIRM", "HEAD", "AUDIT_CONFIRM is 'HEAD'"),
    ("E011", "AUDIT_LEASE_SECONDS", 39, "AUDIT_LEASE_SECONDS is below 40"),
    ("E012", "AUDIT_DEDUP_DAYS", 89, "AUDIT_DEDUP_DAYS is shorter than AUDIT_HOT_RETENTION_DAYS"),
    ("E017", "AUDIT_COLD_TIMEOUT_SECONDS", 0, "AUDIT_COLD_TIMEOUT_SECONDS is 0, which is not"),
    ("E017", "AUDIT_COLD_TIMEOUT_SECONDS", 601, "is not between 1 and 600"),
    ("E017", "AUDIT_COLD_ATTEMPTS", 0, "AUDIT_COLD_ATTEMPTS is 0, which is not between 1 and 10"),
    ("E017", "AUDIT_COLD_ATTEMPTS", 11, "AUDIT_COLD_ATTEMPTS is 11"),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_what_is_within_its_limits_has_no_finding(settings: Any, name: str, value: Any) -> None:
    setattr(settings, name, value)
    assert found() == []


@pytest.mark.parametrize(("number", "name", "value", "text"), BAD)
def test_what_is_not_has_exactly_one_finding_that_says_what_to_do(
    settings: Any, number: str, name: str, value: Any, text: str
) -> None:
    setattr(settings, name, value)
    (message,) = found()
    assert message.id == f"audit.{number}"
    assert text in message.msg
    assert message.hint
    assert message.is_serious()


def test_without_a_broker_there_is_a_warning_and_commands_work(settings: Any) -> None:
    settings.REDIS_URL = ""
    (message,) = found()
    assert (message.id, message.is_serious()) == ("audit.W026", False)


def test_addresses_without_a_mail_server_are_an_error(settings: Any) -> None:
    settings.AUDIT_ALARM_EMAILS = ["a@example.eu"]
    assert found() == []
    settings.EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"  # no EMAIL_URL
    (message,) = found()
    assert (message.id, message.is_serious()) == ("audit.E027", True)


@pytest.mark.parametrize("number", ["E001", "E002"])
def test_a_secret_need_not_be_strong_for_debugging(settings: Any, number: str) -> None:
    settings.DEBUG = True
    name = {"E001": "SECRET_KEY", "E002": "AUDIT_SIGNING_KEY"}[number]
    setattr(settings, name, "weak")
    (message,) = found()
    assert message.id == f"audit.{number}"
    assert not message.is_serious()


@pytest.mark.parametrize("name", ["SECRET_KEY", "AUDIT_SIGNING_KEY", "AUDIT_COLD_SECRET_KEY"])
def test_a_finding_never_shows_the_secret(settings: Any, name: str) -> None:
    settings.AUDIT_COLD_ENDPOINT = ""
    setattr(settings, name, "c2VjcmV0c2VjcmV0")
    assert "c2VjcmV0c2VjcmV0" not in str(found())


def test_every_missing_name_of_the_cold_store_is_named_at_once(settings: Any) -> None:
    settings.AUDIT_COLD_ENDPOINT = settings.AUDIT_COLD_BUCKET = ""
    (message,) = found()
    assert "AUDIT_COLD_ENDPOINT, AUDIT_COLD_BUCKET missing" in message.msg


# A keyring ---------------------------------------------------------------------------------

NEW, NEW_TEXT = generate("ed25519", "e-new")
OLD_TEXT = f"hmac-sha256:k-old:{ALL_DIFFERENT}"


def today(days: int = 0) -> str:
    """Return the end of a key that is good until today, or some days later."""
    return f":until={datetime.now(UTC).date() + timedelta(days=days)}"


def found_with(settings: Any, keys: str) -> list[CheckMessage]:
    """Return the findings with these keys in place of the one."""
    settings.AUDIT_SIGNING_KEY, settings.AUDIT_SIGNING_KEYS = "", keys
    return found()


@pytest.mark.parametrize(
    "keys",
    [
        NEW_TEXT,
        f"{NEW_TEXT},+{OLD_TEXT}",
        f"{NEW_TEXT},{OLD_TEXT}{today(-400)}",
        f"{NEW_TEXT}{today(99)},{OLD_TEXT}{today(3)}",
    ],
    ids=["one", "two that sign", "one that has ended", "one that ends soon"],
)
def test_a_keyring_whose_signers_are_good_for_a_while_has_no_finding(
    settings: Any, keys: str
) -> None:
    assert found_with(settings, keys) == []


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("# none yet", "AUDIT_SIGNING_KEY is missing, and so is AUDIT_SIGNING_KEYS."),
        ("x", "Key 1 of 1 in AUDIT_SIGNING_KEYS does not have the form"),
        (f"{NEW_TEXT},{OLD_TEXT}:until=soon", "Key 2 of 2 in AUDIT_SIGNING_KEYS does not end in"),
        (f"{NEW.public},{OLD_TEXT}", "e-new is a public key, which cannot sign"),
        (f"{NEW_TEXT},+hmac-sha256:k-1:{'A' * 44}", "A signing key is weak: it hardly varies."),
        (f"{NEW_TEXT},{NEW_TEXT}", "Two keys are called e-new"),
    ],
)
def test_a_keyring_that_cannot_be_used_is_one_finding(settings: Any, keys: str, text: str) -> None:
    (message,) = found_with(settings, keys)
    assert (message.id, message.is_serious()) == ("audit.E002", True)
    assert text in message.msg
    assert "audit_keys generate" in str(message.hint)
    for secret in (ALL_DIFFERENT, NEW_TEXT.rpartition(":")[2]):
        assert secret not in str(message)


def test_both_variables_at_once_are_one_finding(settings: Any) -> None:
    settings.AUDIT_SIGNING_KEYS = NEW_TEXT
    (message,) = found()
    assert message.id == "audit.E002"
    assert "AUDIT_SIGNING_KEY and AUDIT_SIGNING_KEYS are both set" in message.msg


def test_a_signer_that_has_come_to_its_end_is_an_error(settings: Any) -> None:
    for keys in (f"{NEW_TEXT}{today(-1)}", f"{NEW_TEXT},+{OLD_TEXT}{today(-1)}"):
        (message,) = found_with(settings, keys)
        assert (message.id, message.is_serious()) == ("audit.E018", True)
        assert "has come to its end" in message.msg
        assert "Put a new key before it" in str(message.hint)


@pytest.mark.parametrize("days", [0, 1, 30])
def test_a_signer_that_ends_soon_is_a_warning(settings: Any, days: int) -> None:
    (message,) = found_with(settings, f"{NEW_TEXT},+{OLD_TEXT}{today(days)}")
    assert (message.id, message.is_serious()) == ("audit.W019", False)
    assert "The signing key k-old comes to its end on" in message.msg
    assert found_with(settings, f"{NEW_TEXT}{today(31)}") == []


# Databases ---------------------------------------------------------------------------------


def with_hot(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> list[CheckMessage]:
    """Return what the checks of settings say of a second database."""
    monkeypatch.setitem(django_settings.DATABASES, "hot", config)
    return [*checks.check_engines(), *checks.check_sqlite_options()]


def test_djongo_is_refused_and_leads_to_mongodb(monkeypatch: pytest.MonkeyPatch) -> None:
    for config in (
        {"ENGINE": "djongo"},
        {"ENGINE": "django.db.backends.dummy", "UNSUPPORTED": "djongo"},
    ):
        (message,) = with_hot(monkeypatch, config)
        assert message.id == "audit.E013"
        assert message.msg.startswith("HOT_DATABASE_URL names djongo, which cannot hold the log")
        assert message.hint is not None
        assert "goes by a mongodb:// URL in HOT_DATABASE_URL" in message.hint


@pytest.mark.parametrize("scheme", ["mongodb", "mysql", "postgres", ""])
def test_an_engine_that_is_not_served_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("HOT_DATABASE_URL", f"{scheme}://host/name")
    (message,) = with_hot(monkeypatch, Reader().database("HOT_DATABASE_URL"))
    assert message.id == "audit.E014"
    assert message.msg.startswith(f"HOT_DATABASE_URL has the scheme '{scheme}'")


def test_the_variable_of_the_database_is_the_one_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {"ENGINE": "django.db.backends.dummy", "UNSUPPORTED": "djongo"}
    monkeypatch.setitem(django_settings.DATABASES, "default", config)
    (message,) = checks.check_engines()
    assert message.msg.startswith("DATABASE_URL names djongo")


def test_sqlite_as_we_configure_it_has_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOT_DATABASE_URL", "sqlite:////tmp/hot.sqlite3")
    assert with_hot(monkeypatch, Reader().database("HOT_DATABASE_URL")) == []


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({}, "journal_mode, synchronous, transaction_mode"),
        ({"init_command": "PRAGMA synchronous=FULL"}, "journal_mode"),
        ({"init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL"}, "synchronous"),
        (
            {
                "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;"
                "PRAGMA synchronous=OFF"
            },
            "synchronous",
        ),
        ({"transaction_mode": "DEFERRED"}, "transaction_mode"),
        ({"transaction_mode": None}, "transaction_mode"),
    ],
)
def test_sqlite_options_without_which_events_could_be_lost_are_missed(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], wrong: str
) -> None:
    monkeypatch.setenv("HOT_DATABASE_URL", "sqlite:////tmp/hot.sqlite3")
    config = Reader().database("HOT_DATABASE_URL")
    config["OPTIONS"] = {**config["OPTIONS"], **options} if options else {}
    (message,) = with_hot(monkeypatch, config)
    assert message.id == "audit.E015"
    assert message.msg == f"SQLite database 'hot' does not run as it must: {wrong}."


@pytest.mark.django_db(transaction=True)
def test_an_open_database_with_its_pragmas_in_force_has_no_finding() -> None:
    assert checks.check_sqlite_pragmas(databases=["default"]) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("pragma", "wrong"),
    [
        ("synchronous=NORMAL", "synchronous is 1"),
        ("synchronous=OFF", "synchronous is 0"),
        ("journal_mode=DELETE", "journal_mode is delete"),
    ],
)
def test_a_pragma_that_is_not_in_force_is_found_on_the_open_database(
    pragma: str, wrong: str
) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA {pragma}")
        (message,) = checks.check_sqlite_pragmas(databases=["default"])
    finally:
        connection.close()  # the next one begins with the right ones again
    assert message.id == "audit.E016"
    assert message.msg == f"SQLite database 'default' does not run as it must: {wrong}."
    assert checks.check_sqlite_pragmas(databases=["default"]) == []


def test_the_open_database_is_asked_only_where_a_command_asks_for_it() -> None:
    assert checks.check_sqlite_pragmas() == []


# As an operator sees them ------------------------------------------------------------------


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "dezky.settings", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_djongo_in_the_environment_ends_in_one_sentence_and_no_traceback(tmp_path: Path) -> None:
    done = run(
        "manage.py",
        "check",
        DATABASE_URL=f"sqlite:///{tmp_path}/db.sqlite3",
        HOT_DATABASE_URL="djongo://host/name",
    )
    assert done.returncode == 1
    assert "(audit.E013) HOT_DATABASE_URL names djongo" in done.stderr
    assert "mongodb://" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_cannot_be_opened_is_a_finding_and_no_error(tmp_path: Path) -> None:
    # In a process of its own, whose only database this is.
    code = (
        "import django; django.setup(); from audit import checks; "
        "print(*checks.check_sqlite_pragmas(databases=['default']))"
    )
    done = run("-c", code, DATABASE_URL=f"sqlite:///{tmp_path}/missing/db.sqlite3")
    assert "(audit.E016) SQLite database 'default' does not run as it must: unable" in done.stdout
