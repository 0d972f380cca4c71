"""Which database holds what."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.db.models import Model

from audit.models import ArchiveBatch, ArchiveRun, AuditEvent, EventKey, Lease, LogState
from audit.routers import HOT_MODELS, HotRouter, hot_alias
from tenants.models import Tenant

ROOT = Path(__file__).parents[2]
HOT: list[type[Model]] = [AuditEvent, LogState, EventKey]
NOT_HOT: list[type[Model]] = [
    ArchiveBatch,
    ArchiveRun,
    Lease,
    Tenant,
    *apps.get_app_config("auth").get_models(),
    *apps.get_app_config("audit_api").get_models(),
]
ROUTER = HotRouter()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a second database, as far as the router is concerned."""
    monkeypatch.setitem(settings.DATABASES, "hot", {"ENGINE": "django.db.backends.dummy"})


def test_the_log_is_exactly_three_models() -> None:
    assert {model._meta.model_name for model in HOT} == HOT_MODELS


def test_with_one_database_everything_is_in_it() -> None:
    assert hot_alias() == "default"
    for model in (*HOT, *NOT_HOT):
        assert ROUTER.db_for_read(model) == ROUTER.db_for_write(model) == "default"
        name = model._meta.model_name
        assert ROUTER.allow_migrate("default", model._meta.app_label, name)


@pytest.mark.usefixtures("two")
def test_with_two_databases_the_log_is_in_hot() -> None:
    assert hot_alias() == "hot"
    for model in HOT:
        assert ROUTER.db_for_read(model) == ROUTER.db_for_write(model) == "hot"


@pytest.mark.usefixtures("two")
def test_with_two_databases_everything_else_is_in_default() -> None:
    for model in NOT_HOT:
        assert ROUTER.db_for_read(model) == ROUTER.db_for_write(model) == "default"


@pytest.mark.usefixtures("two")
def test_each_table_is_made_in_its_own_database_and_in_no_other() -> None:
    for models, own, other in ((HOT, "hot", "default"), (NOT_HOT, "default", "hot")):
        for model in models:
            place = (model._meta.app_label, model._meta.model_name)
            assert ROUTER.allow_migrate(own, *place)
            assert not ROUTER.allow_migrate(other, *place)


@pytest.mark.usefixtures("two")
def test_a_migration_that_names_no_model_runs_in_default_only() -> None:
    assert ROUTER.allow_migrate("default", "audit")
    assert not ROUTER.allow_migrate("hot", "audit")


@pytest.mark.usefixtures("two")
def test_rows_are_related_within_one_database_only() -> None:
    assert ROUTER.allow_relation(ArchiveBatch(), ArchiveRun())
    assert ROUTER.allow_relation(AuditEvent(), LogState())
    assert not ROUTER.allow_relation(AuditEvent(), ArchiveRun())


@pytest.mark.usefixtures("two")
def test_a_model_of_another_app_with_the_same_name_is_not_the_log() -> None:
    assert not ROUTER.allow_migrate("hot", "elsewhere", "auditevent")


# Two real databases ------------------------------------------------------------------------


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in rows}


def test_a_log_in_a_database_of_its_own_is_migrated_filled_and_read(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.sqlite3" for name in ("default", "hot")}
    env = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{paths['default']}",
        "HOT_DATABASE_URL": f"sqlite:///{paths['hot']}",
    }
    for command in (
        ["migrate", "-v0"],
        ["migrate", "-v0", "--database=hot"],
        ["demo_events", "--count=50", "--tenants=1"],
        ["archive_now", "--dry-run"],
    ):
        subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=env, check=True)
    log = {"audit_auditevent", "audit_logstate", "audit_eventkey"}
    assert tables(paths["hot"]) == {*log, "django_migrations", "sqlite_sequence"}
    assert not tables(paths["default"]) & log
    assert {"audit_archivebatch", "audit_lease", "tenants_tenant"} <= tables(paths["default"])
    with closing(sqlite3.connect(paths["hot"])) as hot:
        assert hot.execute("SELECT count(*) FROM audit_auditevent").fetchone() == (50,)
        assert hot.execute("SELECT head_seq FROM audit_logstate").fetchone() == (50,)
