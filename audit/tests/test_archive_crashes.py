"""Kill a run at every boundary, with SIGKILL from outside; the next run finishes its work.

Each case names what the design's crash table says is left behind, and after the next run an
independent reader finds every event exactly once and the chain whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from audit.watcher import Step

from .simulator import SMALL_BATCH_EVENTS, Site
from .sweep import sweep


@dataclass(frozen=True)
class Left:
    """What a dead run leaves of its first batch."""

    state: str | None
    objects: int
    hot: str  # whole, part or gone
    floor: int = 0


NOTHING = Left(None, 0, "whole")
PLANNED = Left("planned", 0, "whole")
JSONL = Left("planned", 1, "whole")
BOTH = Left("planned", 2, "whole")
STORED = Left("stored", 2, "whole")
FLOOR = Left("stored", 2, "whole", SMALL_BATCH_EVENTS)
PART = Left("stored", 2, "part", SMALL_BATCH_EVENTS)
GONE = Left("stored", 2, "gone", SMALL_BATCH_EVENTS)
PURGED = Left("purged", 2, "gone", SMALL_BATCH_EVENTS)

CASES = {
    # where it dies: what is left
    f"step:{Step.LEASED}": NOTHING,
    f"step:{Step.FENCED}": NOTHING,
    f"step:{Step.LISTED}": NOTHING,
    'sql:INSERT INTO "audit_archivebatch"': NOTHING,
    f"step:{Step.RANGE_FIXED}": PLANNED,
    f"step:{Step.ENCODED}": PLANNED,
    f"step:{Step.JSONL_NAMED}": PLANNED,
    "send:PutObject": PLANNED,
    "body:PutObject": PLANNED,
    f"step:{Step.JSONL_SENT}": JSONL,
    f"step:{Step.MANIFEST_NAMED}": JSONL,
    "send:PutObject:2": JSONL,
    f"step:{Step.MANIFEST_SENT}": BOTH,
    "send:HeadObject": BOTH,
    f"step:{Step.CONFIRMED}": BOTH,
    'sql:"archived_at" =': BOTH,
    f"step:{Step.RECORDED}": STORED,
    'sql:"floor_seq" =': STORED,
    f"step:{Step.FLOOR_RAISED}": FLOOR,
    'sql:DELETE FROM "audit_auditevent"': FLOOR,
    f"step:{Step.CHUNK_DELETED}": PART,
    f"step:{Step.ROWS_DELETED}": GONE,
    'sql:"purged_at" =': GONE,
    f"step:{Step.PURGED}": PURGED,
}
# For each thing that can be left, one death: within a transaction or a request, where there is.
ONE_FOR_EACH = [
    'sql:INSERT INTO "audit_archivebatch"',
    "body:PutObject",
    f"step:{Step.JSONL_SENT}",
    'sql:"archived_at" =',
    'sql:"floor_seq" =',
    'sql:DELETE FROM "audit_auditevent"',
    f"step:{Step.CHUNK_DELETED}",
    'sql:"purged_at" =',
    f"step:{Step.PURGED}",
]


@pytest.fixture
def site(small_site: Site) -> Site:
    """Have few events: more would show nothing else."""
    return small_site


def left(site: Site) -> Left:
    batches = site.batches()
    first = set(range(1, SMALL_BATCH_EVENTS + 1))
    here = first & site.hot_seqs()
    return Left(
        state=batches[0][2] if batches else None,
        objects=sum(f"/{1:020}-" in key for key in site.objects()),
        hot="whole" if here == first else "part" if here else "gone",
        floor=site.floor(),
    )


def kill_at(site: Site, where: str) -> None:
    """Run the archive in a process of its own and kill it right there."""
    run = site.driver("archive", f"--pause={where}")
    run.wait_for("^paused")
    assert run.kill() == -9


def check_whole(site: Site, before: list[bytes]) -> None:
    """Check with the independent reader that every record is there once, and as it was."""
    assert site.read_log().records == before
    states = {state for _, _, state in site.batches()}
    assert states == {"purged"}
    oldest = min(site.hot_seqs())
    assert oldest == site.floor() + 1 == max(end for _, end, _ in site.batches()) + 1


@pytest.mark.parametrize("where", sweep(CASES, always=ONE_FOR_EACH))
def test_a_run_killed_there_loses_nothing_and_the_next_one_finishes(
    site: Site, where: str
) -> None:
    before = site.template.records
    kill_at(site, where)

    assert left(site) == CASES[where]
    assert site.read_log().records == before  # whole even before anybody mends it

    answer = site.archive()
    assert (answer["outcome"], answer["exit"], answer["error"]) == ("archived", 0, None)
    check_whole(site, before)
    outcomes = site.rows("SELECT outcome FROM audit_archiverun ORDER BY id")
    assert outcomes == [("interrupted",), ("archived",)]


@pytest.mark.parametrize(
    "where", ['sql:UPDATE "audit_lease"', 'sql:INSERT INTO "audit_archiverun"', 'sql:"fence" =']
)
def test_a_run_killed_while_it_takes_the_lease_leaves_nothing_behind(
    site: Site, where: str
) -> None:
    before = site.template.records
    kill_at(site, where)
    assert left(site) == NOTHING
    assert site.archive()["outcome"] == "archived"
    check_whole(site, before)


def test_a_run_killed_when_it_has_done_all_but_release_its_lease_leaves_nothing_to_do(
    site: Site,
) -> None:
    before = site.template.records
    kill_at(site, 'sql:DELETE FROM "audit_ownevent":2')  # its outcome is in the log
    check_whole(site, before)
    assert site.archive()["outcome"] == "nothing_due"
    outcomes = site.rows("SELECT outcome FROM audit_archiverun ORDER BY id")
    assert outcomes == [("archived",), ("nothing_due",)]
    check_whole(site, before)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize(
    "table",
    sweep(["audit_auditevent", "audit_eventkey", "audit_logstate"], always=["audit_auditevent"]),
)
def test_a_run_killed_while_it_writes_its_own_events_has_them_once_in_the_end(
    site: Site, nth: int, table: str
) -> None:
    verb = "UPDATE" if table == "audit_logstate" else "INSERT INTO"
    # The fence and the floors of two batches are written to the same row.
    nth += {1: 1, 2: 3}[nth] if verb == "UPDATE" else 0
    kill_at(site, f'sql:{verb} "{table}":{nth}')
    assert site.archive()["outcome"] in {"archived", "nothing_due"}
    check_whole(site, site.template.records)
    events = [(event["action"], event["target"]["id"]) for event in site.own_events()]
    assert sorted(events) == [
        ("archive_ended", "1"),
        ("archive_ended", "2"),
        ("archive_requested", ""),
        ("archive_requested", ""),
    ]


SPLIT = [
    f"step:{Step.FENCED}",
    f"step:{Step.RANGE_FIXED}",
    f"step:{Step.MANIFEST_SENT}",
    f"step:{Step.RECORDED}",
    'sql:"floor_seq" =',
    f"step:{Step.FLOOR_RAISED}",
    f"step:{Step.CHUNK_DELETED}",
    f"step:{Step.ROWS_DELETED}",
    f"step:{Step.PURGED}",
]
# Where the two databases say different things.
APART = ['sql:"floor_seq" =', f"step:{Step.FLOOR_RAISED}", f"step:{Step.CHUNK_DELETED}"]


@pytest.mark.parametrize("where", sweep(SPLIT, always=APART))
def test_the_same_holds_where_the_log_has_a_database_of_its_own(site: Site, where: str) -> None:
    site.split()
    before = site.template.records
    kill_at(site, where)
    assert left(site) == CASES[where]
    assert site.read_log().records == before
    assert site.archive()["outcome"] == "archived"
    check_whole(site, before)


@pytest.mark.parametrize("step", [Step.JSONL_SENT, Step.MANIFEST_SENT, Step.RECORDED])
def test_a_run_killed_in_its_second_batch_keeps_the_first(site: Site, step: Step) -> None:
    before = site.template.records
    kill_at(site, f"step:{step}:2")
    assert site.batches()[0] in {(1, SMALL_BATCH_EVENTS, state) for state in ("stored", "purged")}
    assert site.archive()["outcome"] == "archived"
    check_whole(site, before)


@pytest.mark.parametrize("step", [Step.ADOPTED, Step.FLOOR_RAISED, Step.CHUNK_DELETED])
def test_a_run_killed_while_it_finishes_the_past_loses_nothing(site: Site, step: Step) -> None:
    before = site.template.records
    kill_at(site, f"step:{Step.MANIFEST_SENT}")
    kill_at(site, f"step:{step}")
    answer = site.archive()
    assert answer["outcome"] == "archived"
    check_whole(site, before)


def test_killed_again_and_again_at_each_step_it_still_gets_done(site: Site) -> None:
    before = site.template.records
    for step in Step:
        run = site.driver("archive", f"--pause=step:{step}")
        run.wait_for("^(paused|outcome)")
        run.kill()
    site.archive()
    check_whole(site, before)
