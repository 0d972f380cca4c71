"""What all tests of the console need."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from .console import Console


@pytest.fixture(autouse=True)
def plain_static_files(settings: Any) -> None:
    """Name static files as they are: the tests collect none."""
    backend = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": backend}


@pytest.fixture
def console(client: Client, db: None) -> Console:
    """Open the console as a superuser."""
    client.force_login(User.objects.create_superuser("operator"))
    return Console(client)
