"""Fixtures of all tests: real servers, real database files, a fresh place in the bucket."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from audit import log
from audit.tests import environment, redis_server, servers
from audit.tests.redis_server import RedisServer
from audit.tests.servers import Server
from audit.tests.simulator import SMALL_BATCH_EVENTS, SMALL_EVENTS, Site, Template
from audit.tests.starter import Starter, starter
from dezky import celery_app


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
    """Collect the static files, as a deployment does: pages name them by their digests.

    The servers that tests start have the settings' own folder, which must be there.
    """
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    with override_settings(STATIC_ROOT=f"{environment.FOLDER}/static-{os.getpid()}"):
        call_command("collectstatic", interactive=False, verbosity=0)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_lookout() -> None:
    """Let the test process itself look at no bucket when it appends: tests have one each."""
    log.lookout.use(None)


@pytest.fixture(scope="session", autouse=True)
def no_worker() -> None:
    """Do what the test process itself asks of a worker at once, within it, by Celery's own switch.

    What must be shown of workers, of the broker and of the schedule is shown with real ones.
    """
    celery_app.conf.update(task_always_eager=True, task_eager_propagates=True)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run SeaweedFS, a real S3 server."""
    with servers.seaweedfs(tmp_path_factory.mktemp("s3"), settings.AUDIT_COLD_BUCKET) as server:
        yield server


@pytest.fixture(scope="session")
def juicefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the JuiceFS gateway, a real S3 server of another kind."""
    with servers.juicefs(tmp_path_factory.mktemp("juicefs"), settings.AUDIT_COLD_BUCKET) as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Run a real Redis server, which tests may kill and must start again."""
    with redis_server.running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def s3(seaweedfs: Server) -> Iterator[str]:
    """Let the settings name a real S3 server from now on; yields its endpoint."""
    os.environ["AUDIT_COLD_ENDPOINT"] = endpoint = seaweedfs.endpoint
    cold: Any = settings.STORAGES["cold"]
    options = {**cold["OPTIONS"], "endpoint_url": endpoint}
    storages = {**settings.STORAGES, "cold": {**cold, "OPTIONS": options}}
    with override_settings(AUDIT_COLD_ENDPOINT=endpoint, STORAGES=storages):
        yield endpoint


@pytest.fixture
def cold(s3: str, settings: Any) -> str:
    """Give the test a prefix of its own in the bucket."""
    settings.AUDIT_COLD_PREFIX = f"test/{uuid.uuid4()}"
    return str(settings.AUDIT_COLD_PREFIX)


@pytest.fixture(scope="session")
def template(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Make a migrated database with a history once, for sites to copy."""
    return Template.make(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def small(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Make a history that takes no time to archive."""
    return Template.make(tmp_path_factory.mktemp("small"), SMALL_EVENTS)


@pytest.fixture(scope="session")
def start() -> Iterator[Starter]:
    """Start commands quickly: each is a process of its own all the same."""
    with starter() as process:
        yield process


@pytest.fixture
def large_site(s3: str, template: Template, start: Starter, tmp_path: Path) -> Iterator[Site]:
    """Set up a deployment of its own: database files, a prefix, processes."""
    with Site(tmp_path, template, start) as deployment:
        yield deployment


@pytest.fixture
def site(large_site: Site) -> Site:
    """Set up the usual one; a module to which size is nothing has a small one by this name."""
    return large_site


@pytest.fixture
def small_site(small: Template, start: Starter, tmp_path: Path) -> Iterator[Site]:
    """Set up a deployment with few events, of which two batches are due."""
    with Site(tmp_path, small, start) as deployment:
        deployment.env |= {
            "AUDIT_BATCH_MAX_EVENTS": str(SMALL_BATCH_EVENTS),
            "DRIVER_DELETE_CHUNK": str(SMALL_BATCH_EVENTS // 2),
        }
        yield deployment
