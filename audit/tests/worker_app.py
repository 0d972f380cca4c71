"""The project's Celery app with a schedule for tests: each entry every second.

    celery -A audit.tests.worker_app worker … | beat …

What the schedule's guards take for the time is what the file says that `TEST_CLOCK` names: it is
given to them, and nobody's own clock is touched (signatures would not be good by it).
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from celery.schedules import schedule
from django.conf import settings

from dezky import celery
from dezky.celery import SCHEDULE, app

ONLY = os.environ.get("TEST_SCHEDULE", "").split(",")

settings.SCHEDULE_CLOCK = f"{__name__}.now"
app.conf.beat_schedule = {
    name: {**entry, "schedule": schedule(1), "options": {"expires": 30}}
    for name, entry in SCHEDULE.items()
    if name in ONLY
}
app.conf.beat_max_loop_interval = 1
if seconds := os.environ.get("TEST_ANSWERED_WITHIN"):
    celery.ANSWERED_WITHIN = timedelta(seconds=float(seconds))


def now() -> datetime:
    """Return the time that the test has set."""
    return datetime.fromisoformat(Path(os.environ["TEST_CLOCK"]).read_text()).replace(tzinfo=UTC)
