"""Kills at random moments while others ingest: nothing that was acknowledged is lost.

`scripts/torture.sh` does this for longer, and worse.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest

from .simulator import Process, Site
from .sweep import sweep
from .test_archive_contention import acknowledged

WRITERS = 2
HEARD = 15  # acknowledgements of each writer from one kill to the next
MOST_LINES = 30  # of a run, after any of which it is killed
STATEMENTS = ("BEGIN", "SELECT", "INSERT INTO", "UPDATE", "DELETE FROM")


def kill_somewhere(site: Site, dice: random.Random) -> str:
    """Kill a run inside a random statement or after a random line, while it goes on.

    Returns where that was, or nothing where it had ended before.
    """
    where = f"sql:{dice.choice(STATEMENTS)}:{dice.randint(1, 60)}"
    run = site.driver("archive", f"--pause={where}")
    line = ""
    for _ in range(dice.randint(1, MOST_LINES)):
        line = run.wait_for("").string.strip()
        if line.startswith(("paused", "outcome")):
            break
    return line if run.kill() == -9 else ""


def check(site: Site, writers: list[Process], place: str) -> list[dict[str, Any]]:
    """Check that all that was acknowledged is there once, at its seq; return what there is."""
    events = [json.loads(record) for record in site.read_whole_log().records]
    counts = Counter(event["external_id"] for event in events)
    assert max(counts.values()) == 1, place
    places = {event["external_id"]: event["seq"] for event in events}
    for writer in writers:
        assert acknowledged(writer.lines).items() <= places.items(), place
    return events


@pytest.mark.parametrize("count", sweep([3, 20], always=[3]))
def test_after_kills_at_random_moments_every_event_is_there_once(
    small_site: Site, count: int
) -> None:
    site = small_site
    seed = random.randrange(10**9)  # noqa: S311  # dice  # pytest-randomly has seeded it
    dice = random.Random(seed)  # noqa: S311  # dice
    site.start_empty(AUDIT_HOT_RETENTION_DAYS="0", AUDIT_BATCH_MAX_EVENTS="20")
    writers = [
        site.driver("append", f"--name=w{number}", "--calls=0", "--each=2", "--every=0.05")
        for number in range(WRITERS)
    ]
    kills: list[str] = []
    while len(kills) < count:
        for writer in writers:
            for _ in range(HEARD):
                writer.wait_for("^acknowledged")  # they go on, whatever became of the run
        if place := kill_somewhere(site, dice):
            kills.append(place)
            check(site, writers, f"seed {seed}, killed at {kills}")
    for writer in writers:
        writer.kill()
        assert not any(line.startswith("busy") for line in writer.lines)

    answer = site.archive()
    assert (answer["outcome"], answer["error"]) == ("archived", None), seed
    events = check(site, writers, f"seed {seed}, at the end")
    own = Counter(event["external_id"] for event in events if event["source"] == "dezky")
    requests = [row[0] for row in site.rows("SELECT request FROM audit_archiverun")]
    assert requests
    expected = {
        f"{each}:archive_{what}": 1 for each in requests for what in ("requested", "ended")
    }
    assert own == expected, seed
