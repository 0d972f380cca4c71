"""Fixtures of all tests: real servers, real database files, a fresh place in the bucket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from audit.tests import environment
from audit.tests.simulator import Site, Template

ROOT = Path(__file__).parent


def pytest_sessionfinish() -> None:
    """Leave nothing behind."""
    shutil.rmtree(environment.FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """Test on a database file, as in production: WAL and its locks do not work in memory."""
    for alias, config in settings.DATABASES.items():
        config["TEST"]["NAME"] = f"{environment.FOLDER}/{alias}-{os.getpid()}.sqlite3"


@pytest.fixture(scope="session", autouse=True)
def static_files() -> Iterator[None]:
    """Collect the static files, as a deployment does: pages name them by their digests."""
    with override_settings(STATIC_ROOT=f"{environment.FOLDER}/static-{os.getpid()}"):
        call_command("collectstatic", interactive=False, verbosity=0)
        yield


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a real S3 server; yields its endpoint, which the settings name from then on."""
    folder = tmp_path_factory.mktemp("s3")
    with subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "scripts/local_s3.py"),
            f"--dir={folder}",
            "--port=0",
            f"--bucket={settings.AUDIT_COLD_BUCKET}",
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("ready "), f"the S3 server did not start: {line!r}"
        endpoint = line.split()[1]
        os.environ["AUDIT_COLD_ENDPOINT"] = endpoint
        cold: Any = settings.STORAGES["cold"]
        options = {**cold["OPTIONS"], "endpoint_url": endpoint}
        storages = {**settings.STORAGES, "cold": {**cold, "OPTIONS": options}}
        with override_settings(AUDIT_COLD_ENDPOINT=endpoint, STORAGES=storages):
            yield endpoint
        server.terminate()


@pytest.fixture
def cold(s3: str, settings: Any) -> str:
    """Give the test a prefix of its own in the bucket."""
    settings.AUDIT_COLD_PREFIX = f"test/{uuid.uuid4()}"
    return str(settings.AUDIT_COLD_PREFIX)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Make a migrated database with a history once, for sites to copy."""
    return Template.make(tmp_path_factory.mktemp("template"))


@pytest.fixture
def site(s3: str, template: Template, tmp_path: Path) -> Iterator[Site]:
    """Set up a deployment of its own: database files, a prefix, processes."""
    with Site(tmp_path, template) as deployment:
        yield deployment
