"""Several processes at once: ingest beside ingest, beside a run, beside somebody who stalls."""

from __future__ import annotations

import json
import re
import signal

import pytest

from audit.watcher import Step

from .driver import DELETE_CHUNK
from .simulator import Process, Site
from .sweep import sweep

WRITERS = 4
CALLS = 12
EACH = 25


@pytest.fixture
def site(small_site: Site) -> Site:
    """Have few events: more would show nothing else."""
    return small_site


def acknowledged(lines: list[str]) -> dict[str, int]:
    """Return {external id: seq} of what append acknowledged."""
    found = (re.fullmatch(r"acknowledged (\d+) (\S+)", line) for line in lines)
    return {match[2]: int(match[1]) for match in found if match}


def check_acknowledged(site: Site, answers: dict[str, int]) -> None:
    """Check that the log holds each acknowledged event once, at its seq, and nothing else."""
    log = site.read_log()
    in_log = {}
    for record in log.records:
        event = json.loads(record)
        assert event["external_id"] not in in_log
        in_log[event["external_id"]] = event["seq"]
    assert in_log == answers
    assert len(answers) == WRITERS * CALLS * EACH


def start_writers(site: Site, pause: str) -> tuple[Process, list[Process]]:
    """Start the writer that will stall, and the others."""
    stalling = site.driver(
        "append", "--name=w0", f"--calls={CALLS}", f"--each={EACH}", f"--pause={pause}"
    )
    stalling.wait_for("^paused")
    stalling.signal(signal.SIGSTOP)
    others = [
        site.driver("append", f"--name=w{number}", f"--calls={CALLS}", f"--each={EACH}")
        for number in range(1, WRITERS)
    ]
    return stalling, others


def wake(process: Process) -> list[str]:
    process.signal(signal.SIGCONT)
    process.go_on()
    return process.finish()


def test_a_writer_stalled_between_transactions_across_a_run_loses_nothing(site: Site) -> None:
    site.start_empty(AUDIT_HOT_RETENTION_DAYS="0", AUDIT_BATCH_MAX_EVENTS="100")
    stalling, others = start_writers(site, pause=f"call:append:{CALLS // 2}")

    purged = 0
    while purged < 3:  # runs go on beside the writers, until something was purged
        answer = site.archive()
        assert answer["outcome"] in {"archived", "nothing_due"}, answer
        purged += len(answer["batches"])
    lines = [line for process in others for line in process.finish()]
    site.archive()
    lines += wake(stalling)

    check_acknowledged(site, acknowledged(lines))
    assert not any(line.startswith("busy") for line in lines)
    assert site.archive()["outcome"] == "archived"  # what the stalled one wrote last
    check_acknowledged(site, acknowledged(lines))


@pytest.mark.parametrize(
    "where",
    sweep(
        ['sql:INSERT INTO "audit_auditevent":6', 'sql:INSERT INTO "audit_eventkey":6'],
        always=['sql:INSERT INTO "audit_eventkey":6'],
    ),
)
def test_a_writer_stalled_inside_a_transaction_holds_others_up_for_a_bounded_time(
    site: Site, where: str
) -> None:
    site.start_empty(
        AUDIT_HOT_RETENTION_DAYS="0", DATABASE_URL=f"sqlite:///{site.database}?timeout=1"
    )
    stalling, others = start_writers(site, pause=where)

    for process in others:
        busy = process.wait_for("^busy")
        assert "stayed locked by another process for 1 s: nothing was written" in busy.string
    answer = site.archive()
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert "stayed locked by another process" in answer["error"]
    assert site.batches() == []

    lines = wake(stalling)
    lines += [line for process in others for line in process.finish()]
    check_acknowledged(site, acknowledged(lines))
    assert site.archive()["outcome"] == "archived"
    check_acknowledged(site, acknowledged(lines))


def test_a_writer_killed_inside_a_transaction_leaves_nothing_half(site: Site) -> None:
    site.start_empty()
    writer = site.driver(
        "append", "--calls=5", f"--each={EACH}", '--pause=sql:INSERT INTO "audit_eventkey":5'
    )
    writer.wait_for("^paused")
    assert writer.kill() == -9
    assert len(site.read_log().records) == 4 * EACH
    again = site.driver("append", "--calls=5", f"--each={EACH}")
    answers = acknowledged(again.finish())
    assert len(site.read_log().records) == 5 * EACH  # four calls were duplicates
    assert sorted(answers.values()) == list(range(1, 5 * EACH + 1))


def test_a_second_run_is_busy_and_says_who_works_since_when(site: Site) -> None:
    first = site.driver("archive", "--pause=step:encoded")
    first.wait_for("^paused")
    answer = site.archive()
    assert (answer["outcome"], answer["exit"], answer["run"]) == ("busy", 3, None)
    assert re.search(r"process \d+, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", answer["error"])
    first.go_on()
    assert "outcome archived: None" in first.finish()
    assert site.rows("SELECT count(*) FROM audit_archiverun") == [(1,)]


def take_over(site: Site) -> dict[str, object]:
    """Let the stalled holder's lease run out, and run."""
    with site.sql() as connection:
        connection.execute("UPDATE audit_lease SET expires_at = '2000-01-01 00:00:00'")
    return site.archive()


def test_a_run_stalled_and_overtaken_records_nothing_when_it_wakes(site: Site) -> None:
    """The lease guards the ledger: the woken run finds its token gone."""
    before = site.template.records
    stalled = site.driver("archive", "--pause=step:confirmed")
    stalled.wait_for("^paused")
    stalled.signal(signal.SIGSTOP)
    assert take_over(site)["outcome"] == "archived"
    ledger = site.rows("SELECT * FROM audit_archivebatch ORDER BY id")
    lines = wake(stalled)
    assert "Lease 1 has expired or was taken over" in lines[-1]
    assert site.rows("SELECT * FROM audit_archivebatch ORDER BY id") == ledger
    assert site.read_log().records == before
    outcomes = site.rows("SELECT outcome FROM audit_archiverun ORDER BY id")
    assert outcomes == [("interrupted",), ("archived",)]


@pytest.mark.parametrize(
    "step",
    sweep(
        ["range fixed", "recorded", "floor raised", "rows deleted"],
        always=["recorded", "floor raised"],
    ),
)
def test_a_run_stalled_there_and_overtaken_changes_nothing_when_it_wakes(
    site: Site, step: str
) -> None:
    before = site.template.records
    stalled = stall(site, f"step:{step}")
    assert take_over(site)["outcome"] == "archived"
    state = site.rows("SELECT * FROM audit_archivebatch ORDER BY id"), site.hot_seqs()
    lines = wake(stalled)
    assert lines[-1].startswith("outcome failed: Lease 1 has expired or was taken over")
    assert (site.rows("SELECT * FROM audit_archivebatch ORDER BY id"), site.hot_seqs()) == state
    assert site.read_log().records == before


def test_a_run_whose_fence_is_passed_raises_no_floor(site: Site) -> None:
    """The fence guards hot, even where the lease in another database was restored or lost."""
    run = site.driver("archive", "--pause=step:recorded", "--max-batches=1")
    run.wait_for("^paused")
    with site.sql() as connection:
        connection.execute("UPDATE audit_logstate SET fence = fence + 1")
    run.go_on()
    assert run.finish()[-1].startswith("outcome failed: A newer run (lease 2) has begun")
    assert site.floor() == 0
    assert [state for *_, state in site.batches()] == ["stored"]


def test_an_overtaken_run_raises_no_floor_even_if_the_ledger_was_restored(site: Site) -> None:
    """The ledger's database is put back to when the stalled run held the lease: hot remembers."""
    site.split()
    stalled = site.driver("archive", "--pause=step:recorded")
    stalled.wait_for("^paused")
    stalled.signal(signal.SIGSTOP)
    with site.sql() as connection:
        lease = connection.execute("SELECT * FROM audit_lease").fetchone()
        batch = connection.execute("SELECT * FROM audit_archivebatch").fetchone()
    take_over(site)
    hot = site.hot_seqs()
    with site.sql() as connection:
        connection.execute("DELETE FROM audit_archivebatch WHERE start_seq > 1")
        for table, row in (("audit_lease", lease), ("audit_archivebatch", batch)):
            marks = ", ".join("?" * len(row))
            connection.execute(f"REPLACE INTO {table} VALUES ({marks})", row)  # noqa: S608  # our own names
    assert wake(stalled)[-1].startswith("outcome failed: A newer run (lease 2) has begun")
    assert site.hot_seqs() == hot


def test_a_lease_that_is_still_running_is_not_taken_from_an_unknown_host(site: Site) -> None:
    """Only a process of this machine can be known to be gone."""
    run = site.driver("archive", "--pause=step:encoded")
    run.wait_for("^paused")
    run.kill()
    with site.sql() as connection:
        connection.execute("UPDATE audit_lease SET host = 'elsewhere'")
    assert site.archive()["outcome"] == "busy"
    assert take_over(site)["outcome"] == "archived"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_after_the_current_step(
    large_site: Site, number: signal.Signals
) -> None:
    before = large_site.template.records
    command = large_site.start("archive_now", "--json")
    large_site.wait_until("SELECT count(*) FROM audit_archivebatch")
    command.signal(number)
    line = command.finish(code=1)[-1]
    answer = json.loads(line)
    assert answer["outcome"] == "interrupted"
    assert answer["error"].startswith("Stopped on request after the step ")
    assert large_site.rows("SELECT outcome FROM audit_archiverun") == [("interrupted",)]
    assert large_site.read_log().records == before
    assert large_site.archive()["outcome"] == "archived"
    assert large_site.read_log().records == before


# Stalled anywhere between two transactions --------------------------------------------------

BEFORE_THE_FLOOR = list(Step)[: list(Step).index(Step.FLOOR_RAISED)]
# Each follows a statement that is no part of a transaction: the run shows what it is at.
BETWEEN = [f'sql:"phase" =:{nth}' for nth in range(1, 6)]
PURGING = [f"step:{step}" for step in Step if step not in BEFORE_THE_FLOOR]


def stall(site: Site, where: str) -> Process:
    """Stop a run somewhere between two transactions, with no other thread amid one."""
    if where == f"step:{Step.ADOPTED}":
        killed = site.driver("archive", f"--pause=step:{Step.MANIFEST_SENT}")
        killed.wait_for("^paused")
        killed.kill()
    run = site.driver("archive", f"--pause={where}", "--max-batches=1")
    run.wait_for("^paused")
    if where in PURGING:  # in its lane, and the run waits for it
        site.wait_until("SELECT count(*) FROM audit_archiverun WHERE phase = 'purge'")
    run.signal(signal.SIGSTOP)
    return run


def expire_lease(site: Site) -> None:
    with site.sql() as connection:
        connection.execute("UPDATE audit_lease SET expires_at = '2000-01-01 00:00:00'")


def in_cold(site: Site) -> set[int]:
    """Return every seq that the ledger calls stored or purged."""
    found = (range(start, end + 1) for start, end, state in site.batches() if state != "planned")
    return {seq for seqs in found for seq in seqs}


def ledger(site: Site) -> list[object]:
    return site.rows("SELECT * FROM audit_archivebatch ORDER BY id")


def check_overtaken(site: Site, where: str) -> None:
    """Stall a run there, let another one begin, wake the first, and let the other one end.

    The other one has done nothing yet, so there is everything that could be done wrongly. While
    the first is stalled, others write, so it holds no lock there.
    """
    stalled = stall(site, where)
    beside = site.driver("append", "--name=beside", "--calls=3", "--each=5").finish()
    assert len(acknowledged(beside)) == 15
    assert not any(line.startswith("busy") for line in beside)
    expire_lease(site)
    other = site.driver("archive", f"--pause=step:{Step.FENCED}")
    other.wait_for("^paused")
    rows, hot, stored = ledger(site), site.hot_seqs(), in_cold(site)

    line = wake(stalled)[-1]

    if where == f"step:{Step.PURGED}":  # it had done all that it was asked for
        assert line == "outcome archived: None"
    else:
        assert re.match(r"outcome failed: Lease \d has expired or was taken over", line), line
    assert ledger(site) == rows
    gone = hot - site.hot_seqs()
    assert gone <= stored
    assert where in PURGING or not gone
    other.go_on()
    assert other.finish()[-1] == "outcome archived: None"
    assert site.read_log().records[: len(site.template.records)] == site.template.records
    assert {state for *_, state in site.batches()} == {"purged"}


EVERYWHERE = [*(f"step:{step}" for step in Step), *BETWEEN]
# Right before each thing that a run does which cannot be taken back, amid the last, and between.
BEFORE_IT_COUNTS = [
    f"step:{Step.RANGE_FIXED}",
    f"step:{Step.CONFIRMED}",
    f"step:{Step.RECORDED}",
    f"step:{Step.FLOOR_RAISED}",
    f"step:{Step.CHUNK_DELETED}",
    BETWEEN[2],
]


@pytest.mark.parametrize("where", sweep(EVERYWHERE, always=BEFORE_IT_COUNTS))
def test_a_run_overtaken_anywhere_by_one_that_has_only_begun_changes_nothing(
    site: Site, where: str
) -> None:
    check_overtaken(site, where)


@pytest.mark.parametrize(
    "step",
    sweep([Step.RECORDED, Step.FLOOR_RAISED, Step.ROWS_DELETED], always=[Step.RECORDED]),
)
def test_the_same_holds_where_the_log_has_a_database_of_its_own(site: Site, step: Step) -> None:
    site.split()
    check_overtaken(site, f"step:{step}")


def test_a_run_stalled_after_its_own_events_and_overtaken_has_them_once(site: Site) -> None:
    stalled = stall(site, 'sql:FROM "audit_ownevent":4')  # when it looks for more of them
    expire_lease(site)
    assert site.archive()["outcome"] == "archived"
    assert re.match(r"outcome failed: Lease 1 has expired", wake(stalled)[-1])
    actions = sorted((event["action"], event["target"]["id"]) for event in site.own_events())
    assert actions == [
        ("archive_ended", "1"),
        ("archive_ended", "2"),
        ("archive_requested", ""),
        ("archive_requested", ""),
    ]


def test_a_run_that_lists_the_bucket_after_it_was_overtaken_gives_no_false_alarm(
    site: Site,
) -> None:
    """What it finds beyond the head that it has read was archived since."""
    site.start_empty(AUDIT_HOT_RETENTION_DAYS="0")
    site.driver("append", "--name=before", "--each=5").finish()
    stalled = site.driver("archive", "--pause=send:ListObjects")
    stalled.wait_for("^paused")
    stalled.signal(signal.SIGSTOP)
    site.driver("append", "--name=since", "--each=5").finish()
    assert take_over(site)["outcome"] == "archived"
    line = wake(stalled)[-1]
    assert line.startswith("outcome failed: Lease 1 has expired or was taken over"), line


# Stalled inside a transaction ----------------------------------------------------------------

INSIDE = [
    'sql:INSERT INTO "audit_archivebatch"',
    'sql:"jsonl_sha256" =',
    'sql:"archived_at" =',
    'sql:"floor_seq" =',
    'sql:DELETE FROM "audit_auditevent"',
    'sql:"purged_at" =',
    'sql:INSERT INTO "audit_eventkey"',
]
# One that writes the ledger, one that writes the log, one that deletes from it.
ONE_OF_EACH_KIND = [
    'sql:"archived_at" =',
    'sql:"floor_seq" =',
    'sql:DELETE FROM "audit_auditevent"',
]


@pytest.mark.parametrize("where", sweep(INSIDE, always=ONE_OF_EACH_KIND))
def test_a_run_stalled_inside_a_transaction_holds_others_up_for_a_bounded_time(
    site: Site, where: str
) -> None:
    site.env["DATABASE_URL"] += "?timeout=1"
    stalled = site.driver("archive", f"--pause={where}", "--max-batches=1")
    stalled.wait_for("^paused")
    stalled.signal(signal.SIGSTOP)
    writer = site.driver("append", "--name=beside")
    busy = writer.wait_for("^busy")
    assert "stayed locked by another process for 1 s: nothing was written" in busy.string
    answer = site.archive()
    assert (answer["outcome"], answer["exit"], answer["run"]) == ("failed", 1, None)
    assert "stayed locked by another process for 1 s" in answer["error"]

    assert wake(stalled)[-1] == "outcome archived: None"
    assert len(acknowledged(writer.finish())) == 1
    assert site.archive()["outcome"] == "archived"
    assert site.read_log().records[:-1] == site.template.records


# How long anything is held -------------------------------------------------------------------


def test_no_transaction_of_a_run_does_more_than_one_chunk(large_site: Site) -> None:
    """What it holds the log's lock for is one row of the state, or one chunk of a purge."""
    lines = large_site.driver("archive", "--transactions").finish()
    assert lines[-1] == "outcome archived: None"
    transactions = [
        [tuple(part.split()) for part in line.removeprefix("transaction ").split(", ")]
        for line in lines
        if line.startswith("transaction ")
    ]
    deleted = []
    for transaction in transactions:
        written = {
            (verb, table): int(rows) for verb, table, rows in transaction if verb != "SELECT"
        }
        gone = written.pop(("DELETE", "audit_auditevent"), 0)
        if gone:
            assert written == {}, transaction
            deleted.append(gone)
        assert gone <= DELETE_CHUNK
        assert all(rows <= 2 for rows in written.values()), transaction  # its own events are two
        read = {table: rows for verb, table, rows in transaction if verb == "SELECT"}
        assert read.get("audit_auditevent", "1") == "1", transaction  # never a range of them
    last = max(end for _, end, _ in large_site.batches())
    assert sum(deleted) == last
    assert len(deleted) > len(large_site.batches())
    raised = [each for each in transactions if ("UPDATE", "audit_logstate", "1") in each]
    # the fence, the floors, its own events
    assert len(raised) == 1 + len(large_site.batches()) + 2


def test_ingest_goes_on_at_full_pace_all_through_a_run(site: Site) -> None:
    """What is written while the run is under way is acknowledged at once, before it ends."""
    writer = site.driver("append", "--name=beside", "--calls=0", "--each=3", "--every=0.01")
    writer.wait_for("^acknowledged")
    run = site.driver("archive", f"--pause=step:{Step.CHUNK_DELETED}")
    run.wait_for("^paused")
    for _ in range(60):
        writer.wait_for("^acknowledged")
    run.go_on()
    assert run.finish()[-1] == "outcome archived: None"
    for _ in range(60):
        writer.wait_for("^acknowledged")
    writer.kill()
    assert not any(line.startswith("busy") for line in writer.lines)
    places = {}
    for record in site.read_log().records[len(site.template.records) :]:
        event = json.loads(record)
        places[event["external_id"]] = event["seq"]
    assert acknowledged(writer.lines).items() <= places.items()


def test_a_holder_on_another_machine_is_overtaken_when_its_lease_has_run_out(site: Site) -> None:
    """Really run out: by the database's clock, nobody having touched the lease."""
    site.env["AUDIT_LEASE_SECONDS"] = "3"
    holder = site.driver("archive", f"--pause=step:{Step.ENCODED}")
    holder.wait_for("^paused")
    holder.kill()
    with site.sql() as connection:
        connection.execute("UPDATE audit_lease SET host = 'elsewhere'")
    ends = site.rows("SELECT expires_at FROM audit_lease")[0][0]
    while (line := site.driver("archive").finish()[-1]).startswith("outcome busy"):
        assert re.search(r"Another run holds the lease: .*, process \d+, since 20", line)
        assert site.rows("SELECT expires_at FROM audit_lease")[0][0] == ends
    assert line == "outcome archived: None"
    started = "SELECT min(acquired_at) FROM audit_lease WHERE token = 2"
    assert site.rows(started)[0][0] >= ends
    assert site.read_log().records == site.template.records
