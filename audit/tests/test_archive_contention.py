"""Several processes at once: ingest beside ingest, beside a run, beside somebody who stalls."""

from __future__ import annotations

import json
import re
import signal

import pytest

from .simulator import Process, Site

WRITERS = 4
CALLS = 12
EACH = 25


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
    "where", ['sql:INSERT INTO "audit_auditevent":6', 'sql:INSERT INTO "audit_eventkey":6']
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


@pytest.mark.parametrize("step", ["range fixed", "recorded", "floor raised", "rows deleted"])
def test_a_run_stalled_there_and_overtaken_changes_nothing_when_it_wakes(
    site: Site, step: str
) -> None:
    before = site.template.records
    # One batch, so that no lane is amid a transaction while another has paused.
    stalled = site.driver("archive", f"--pause=step:{step}", "--max-batches=1")
    stalled.wait_for("^paused")
    stalled.signal(signal.SIGSTOP)
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
def test_a_signal_stops_a_run_after_the_current_step(site: Site, number: signal.Signals) -> None:
    before = site.template.records
    command = site.start("archive_now", "--json")
    site.wait_until("SELECT count(*) FROM audit_archivebatch")
    command.signal(number)
    line = command.finish(code=1)[-1]
    answer = json.loads(line)
    assert answer["outcome"] == "interrupted"
    assert answer["error"].startswith("Stopped on request after the step ")
    assert site.rows("SELECT outcome FROM audit_archiverun") == [("interrupted",)]
    assert site.read_log().records == before
    assert site.archive()["outcome"] == "archived"
    assert site.read_log().records == before
