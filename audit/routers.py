"""Which database holds what: the log in `hot`, everything else in `default`.

Without a second database both are one connection and this router decides nothing.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS

HOT_MODELS = frozenset({"auditevent", "logstate", "eventkey"})


def hot_alias() -> str:
    """Return the alias of the database that holds the log."""
    return "hot" if "hot" in settings.DATABASES else DEFAULT_DB_ALIAS


def alias_of(app_label: str, model_name: str | None) -> str:
    """Return the alias of the database that holds a model."""
    if app_label == "audit" and model_name in HOT_MODELS:
        return hot_alias()
    return DEFAULT_DB_ALIAS


class HotRouter:
    """Django's routing interface over `alias_of`."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        """Return the alias to read a model from."""
        return alias_of(model._meta.app_label, model._meta.model_name)

    db_for_write = db_for_read

    def allow_relation(self, obj1: Any, obj2: Any, **hints: Any) -> bool:
        """Allow relations inside one database only."""
        return self.db_for_read(type(obj1)) == self.db_for_read(type(obj2))

    def allow_migrate(
        self, db: str, app_label: str, model_name: str | None = None, **hints: Any
    ) -> bool:
        """Create each table in its own database and in no other."""
        return db == alias_of(app_label, model_name)
