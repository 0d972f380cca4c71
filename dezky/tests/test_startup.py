"""A server serves nothing while its configuration is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from dezky.celery import prepare_or_exit
from dezky.startup import refuse_misconfiguration

ROOT = Path(__file__).parents[2]


def test_with_all_that_is_needed_it_starts() -> None:
    refuse_misconfiguration()


def test_with_several_things_wrong_it_names_each_with_what_to_do(settings: Any) -> None:
    settings.AUDIT_ORIGIN = ""
    settings.AUDIT_HOT_RETENTION_DAYS = -1
    with pytest.raises(ImproperlyConfigured) as caught:
        refuse_misconfiguration()
    assert "audit.E003" in str(caught.value)
    assert "audit.E006" in str(caught.value)
    assert "HINT: " in str(caught.value)


@pytest.mark.parametrize("entrance", ["dezky.wsgi", "dezky.asgi"])
@pytest.mark.parametrize("origin", ["", "dezky-test"])
def test_both_entrances_ask(entrance: str, origin: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {entrance}"],
        cwd=ROOT,
        env={**os.environ, "AUDIT_ORIGIN": origin},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) == bool(origin)
    assert ("audit.E003" in done.stderr) != bool(origin)


@pytest.mark.parametrize("server", ["worker", "beat"])
def test_of_what_is_wrong_a_worker_or_beat_ends(server: str, settings: Any) -> None:
    """Of any other error that it meets then, Celery would write a line and go on."""
    settings.AUDIT_ORIGIN = ""
    with pytest.raises(SystemExit, match=r"audit\.E003"):
        prepare_or_exit(server)
