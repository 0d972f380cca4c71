"""Property tests try the same examples on every run, and keep no notes between runs.

One archived log is made for each process that tests, for scenes to be copies of.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import configuration, settings

from . import environment
from .attacks import Archived, Scene, archived_site
from .simulator import Template
from .starter import Starter

configuration.set_hypothesis_home_dir(environment.FOLDER)
settings.register_profile(
    "dezky", derandomize=True, deadline=None, max_examples=100, database=None
)
settings.load_profile("dezky")


@pytest.fixture(scope="session")
def archived(
    s3: str, template: Template, start: Starter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archived]:
    """Make the archived log."""
    with archived_site(tmp_path_factory.mktemp("archived"), template, start) as made:
        yield made


@pytest.fixture
def scene(archived: Archived, tmp_path: Path, django_db_blocker: Any) -> Iterator[Scene]:
    """Set up a copy of the archived log to attack."""
    made = Scene(tmp_path, archived, django_db_blocker)
    yield made
    made.tidy()
