"""The settings that an environment makes, each loaded anew in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import json
from dezky import settings
names = (name for name in dir(settings) if name.isupper())
print(json.dumps({name: getattr(settings, name) for name in names}, default=str))
"""
BARE = {"PATH": os.environ["PATH"], "DEZKY_ENV_FILE": ""}


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env={**BARE, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def load(**env: str) -> dict[str, Any]:
    done = run("-c", CODE, **env)
    assert done.returncode == 0, done.stderr
    settings: dict[str, Any] = json.loads(done.stdout)
    return settings


# Cookies and HTTPS -------------------------------------------------------------------------

SECURE = [
    "SESSION_COOKIE_SECURE",
    "CSRF_COOKIE_SECURE",
    "SECURE_SSL_REDIRECT",
    "SECURE_HSTS_INCLUDE_SUBDOMAINS",
    "SECURE_HSTS_PRELOAD",
]


@pytest.mark.parametrize(
    "hosts", ["127.0.0.1", "127.0.0.1,localhost,[::1]", " localhost , 127.0.0.1 "]
)
def test_on_loopback_only_cookies_work_over_plain_http(hosts: str) -> None:
    settings = load(ALLOWED_HOSTS=hosts)
    assert [settings[name] for name in SECURE] == [False] * 5
    assert settings["SECURE_HSTS_SECONDS"] == 0


@pytest.mark.parametrize(
    "hosts", ["audit.example.eu", "127.0.0.1,audit.example.eu", "*", "", "localhost.example.eu"]
)
def test_anywhere_else_cookies_are_secure_and_https_is_insisted_on(hosts: str) -> None:
    settings = load(ALLOWED_HOSTS=hosts)
    assert [settings[name] for name in SECURE] == [True] * 5
    assert settings["SECURE_HSTS_SECONDS"] == 365 * 24 * 3600


# Defaults ----------------------------------------------------------------------------------


def test_an_empty_environment_makes_the_documented_defaults() -> None:
    settings = load()
    assert settings["DEBUG"] is False
    assert settings["SECRET_KEY"] == ""
    assert settings["ALLOWED_HOSTS"] == []
    assert settings["AUDIT_HOT_RETENTION_DAYS"] == 90
    assert settings["AUDIT_DEDUP_DAYS"] == 120
    assert settings["AUDIT_BATCH_MAX_EVENTS"] == 102_400
    assert settings["AUDIT_BATCH_MAX_BYTES"] == 268_435_456
    assert settings["AUDIT_CONFIRM"] == "head"
    assert settings["AUDIT_LEASE_SECONDS"] == 60
    assert settings["AUDIT_COLD_PREFIX"] == "audit/v1"
    assert settings["AUDIT_COLD_SSE"] is False
    assert settings["ARCHIVE_ENABLED"] is False
    assert settings["ARCHIVE_RUN_HOUR_UTC"] == 3
    assert list(settings["DATABASES"]) == ["default"]
    assert settings["DATABASES"]["default"]["NAME"] == f"{ROOT}/var/dezky.sqlite3"


def test_what_was_seen_is_remembered_a_month_longer_than_events_stay_in_hot() -> None:
    assert load(AUDIT_HOT_RETENTION_DAYS="7")["AUDIT_DEDUP_DAYS"] == 37


def test_for_debugging_a_secret_and_hosts_are_made_up() -> None:
    settings = load(DEBUG="true")
    assert len(settings["SECRET_KEY"]) >= 50
    assert set(settings["ALLOWED_HOSTS"]) == {"127.0.0.1", "localhost", "[::1]"}


def test_the_policy_of_the_console_allows_nothing_inline() -> None:
    directives = load()["CONTENT_SECURITY_POLICY"]["DIRECTIVES"]
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == ["'self'"]
    assert directives["style-src"] == ["'self'"]
    assert "unsafe" not in str(directives)
    assert directives["frame-ancestors"] == ["'none'"]


# Where values come from --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "SECRET_KEY",
        "AUDIT_SIGNING_KEY",
        "AUDIT_SIGNING_KEYS",
        "AUDIT_COLD_ACCESS_KEY",
        "AUDIT_COLD_SECRET_KEY",
        "REDIS_URL",
    ],
)
def test_each_secret_may_come_from_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "secret"
    path.write_text("from-a-file\n")
    assert load(**{f"{name}_FILE": str(path)})[name] == "from-a-file"


def test_database_urls_may_come_from_files(tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "HOT_DATABASE_URL"):
        (tmp_path / name).write_text(f"sqlite:////srv/{name}.sqlite3\n")
    databases = load(
        DATABASE_URL_FILE=str(tmp_path / "DATABASE_URL"),
        HOT_DATABASE_URL_FILE=str(tmp_path / "HOT_DATABASE_URL"),
    )["DATABASES"]
    assert databases["default"]["NAME"] == "/srv/DATABASE_URL.sqlite3"
    assert databases["hot"]["NAME"] == "/srv/HOT_DATABASE_URL.sqlite3"


def test_an_env_file_is_read_and_the_real_environment_wins(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("AUDIT_ORIGIN=from-file\nAUDIT_COLD_BUCKET=from-file\n")
    settings = load(DEZKY_ENV_FILE=str(path), AUDIT_ORIGIN="from-environment")
    assert settings["AUDIT_ORIGIN"] == "from-environment"
    assert settings["AUDIT_COLD_BUCKET"] == "from-file"


def test_the_cold_store_is_the_one_that_was_named() -> None:
    settings = load(
        AUDIT_COLD_ENDPOINT="https://s3.example.eu",
        AUDIT_COLD_REGION="eu-central",
        AUDIT_COLD_BUCKET="audit",
        AUDIT_COLD_ACCESS_KEY="key",
        AUDIT_COLD_SECRET_KEY="secret",
    )
    cold = settings["STORAGES"]["cold"]
    assert cold["BACKEND"] == "audit.storage.ColdStorage"
    assert cold["OPTIONS"] == {
        "endpoint_url": "https://s3.example.eu",
        "region_name": "eu-central",
        "bucket_name": "audit",
        "access_key": "key",
        "secret_key": "secret",
    }


# What an operator sees when it is wrong ----------------------------------------------------


def test_a_secret_that_is_set_twice_ends_every_command_in_one_sentence(tmp_path: Path) -> None:
    done = run("manage.py", "check", SECRET_KEY="x", SECRET_KEY_FILE=str(tmp_path / "missing"))
    assert done.returncode == 1
    assert done.stderr == (
        "manage.py: Both SECRET_KEY and SECRET_KEY_FILE are set: remove one of them.\n"
    )


def test_a_number_that_is_none_ends_every_command_in_one_sentence() -> None:
    done = run("manage.py", "archive_now", AUDIT_LEASE_SECONDS="a minute")
    assert done.returncode == 1
    assert done.stderr.startswith("manage.py: AUDIT_LEASE_SECONDS is 'a minute', which is not")
    assert done.stderr.count("\n") == 1


def test_without_a_secret_key_nothing_starts() -> None:
    done = run("manage.py", "check")
    assert done.returncode == 1
    for number in ("E001", "E002", "E003", "E004"):
        assert f"(audit.{number})" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_web_server_serves_nothing_while_the_configuration_is_wrong() -> None:
    done = run("-c", "import dezky.wsgi", SECRET_KEY="x" * 50)
    assert done.returncode == 1
    assert "ImproperlyConfigured" in done.stderr
    assert "(audit.E001) SECRET_KEY is missing or weak" in done.stderr
