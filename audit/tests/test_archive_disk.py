"""Disk and database: full, locked, gone. The run says so, and nothing is lost."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from .simulator import BATCH_EVENTS, Site
from .sweep import sweep
from .test_archive_contention import acknowledged
from .tiny_disk import fill, tiny_disk

PAGE_KIB = 4
FULL = "The database failed (database or disk is full): see that it is up and has room"
LOCKED = "stayed locked by another process"


def check_whole_and_archived(site: Site) -> None:
    """Check that nothing is lost, and that the next run, with nothing in its way, ends well."""
    assert site.read_log().records == site.template.records
    answer = site.archive()
    assert (answer["outcome"], answer["error"]) == ("archived", None)
    assert site.read_log().records == site.template.records
    assert {state for _, _, state in site.batches()} == {"purged"}


# The temporary folder ----------------------------------------------------------------------


def test_a_full_temporary_folder_stops_the_run_which_names_it(site: Site, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", 4 * PAGE_KIB) as disk:
        site.env["TMPDIR"] = str(disk)
        answer = site.archive()
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert answer["error"] == (
        f"There is no room in {disk}, where a batch is encoded before it is sent: free some, or "
        "set TMPDIR to a folder with room for one compressed batch. Nothing was lost."
    )
    assert site.batches() == [(1, BATCH_EVENTS, "planned")]
    assert site.objects() == {}
    del site.env["TMPDIR"]
    check_whole_and_archived(site)


def test_a_temporary_folder_that_is_too_small_for_a_later_batch_stops_the_run_there(
    site: Site, tmp_path: Path
) -> None:
    site.env["AUDIT_BATCH_MAX_EVENTS"] = "100"
    run = site.driver("archive", "--pause=step:range fixed")
    run.wait_for("^paused")
    run.kill()
    site.env["AUDIT_BATCH_MAX_EVENTS"] = str(BATCH_EVENTS)
    with tiny_disk(tmp_path / "disk", 8 * PAGE_KIB) as disk:
        site.env["TMPDIR"] = str(disk)
        answer = site.archive()
        assert answer["outcome"] == "failed"
        assert f"There is no room in {disk}" in answer["error"]
    assert site.batches() == [(1, 100, "purged"), (101, 100 + BATCH_EVENTS, "planned")]
    del site.env["TMPDIR"]
    check_whole_and_archived(site)


def test_a_batch_that_is_encoded_needs_no_more_room(site: Site, tmp_path: Path) -> None:
    """So small a one, too, that it could wait in a buffer until it is sent."""
    site.env["AUDIT_BATCH_MAX_EVENTS"] = "5"
    with tiny_disk(tmp_path / "disk", 4_096) as disk:
        site.env["TMPDIR"] = str(disk)
        run = site.driver("archive", "--pause=step:encoded", "--max-batches=1")
        run.wait_for("^paused")
        fill(disk)
        run.go_on()
        assert run.finish()[-1] == "outcome archived: None"
    del site.env["TMPDIR"], site.env["AUDIT_BATCH_MAX_EVENTS"]
    check_whole_and_archived(site)


def compressed(site: Site) -> list[int]:
    """Archive, return how large each batch is, and begin anew."""
    sizes = [batch["bytes_compressed"] for batch in site.archive()["batches"]]
    site.bucket.objects.filter(Prefix=f"{site.prefix}/").delete()
    site.start_full()
    return sizes


def test_room_for_one_compressed_batch_is_enough(site: Site, tmp_path: Path) -> None:
    """The second is encoded in its turn, since there is no room for both side by side."""
    sizes = compressed(site)
    assert len(sizes) == 2
    kib = -(-max(sizes) // (1024 * PAGE_KIB)) * PAGE_KIB
    assert sum(sizes) > 1024 * kib
    with tiny_disk(tmp_path / "disk", kib) as disk:
        site.env["TMPDIR"] = str(disk)
        answer = site.archive()
        assert (answer["outcome"], answer["error"]) == ("archived", None)
        assert [batch["bytes_compressed"] for batch in answer["batches"]] == sizes
    assert site.read_log().records == site.template.records


def test_less_room_than_for_one_compressed_batch_is_not(site: Site, tmp_path: Path) -> None:
    """So the room of the test above is what one batch takes, and no more."""
    kib = max(compressed(site)) // (1024 * PAGE_KIB) * PAGE_KIB
    with tiny_disk(tmp_path / "disk", kib) as disk:
        site.env["TMPDIR"] = str(disk)
        answer = site.archive()
        assert answer["outcome"] == "failed"
        assert f"There is no room in {disk}" in answer["error"]
    del site.env["TMPDIR"]
    check_whole_and_archived(site)


# A full database -----------------------------------------------------------------------------


@contextmanager
def full(site: Site, name: str) -> Iterator[None]:
    """Let a database grow no further: SQLite is as if its disk was full."""
    database = site.hot_database if name == "HOT_DATABASE_URL" else site.database
    with closing(sqlite3.connect(database)) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    before = site.env[name]
    pragmas = f"PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA max_page_count={pages}"
    site.env[name] = f"{before}?init_command={quote(pragmas)}"
    yield
    site.env[name] = before


def ingest_until_full(site: Site) -> list[str]:
    """Append one event after the other until no more can be; return those acknowledged."""
    lines = site.driver("append", "--calls=0").finish(code=1)
    assert "database or disk is full" in lines[-1]
    return list(acknowledged(lines))


@pytest.mark.parametrize("split", [False, True])
def test_a_full_log_is_archived_which_makes_room(site: Site, *, split: bool) -> None:
    """Its own first event may not fit; the purge frees pages, and then everything does."""
    if split:
        site.split()
        with site.sql() as connection:  # so that the run has to make a checkpoint first
            connection.execute("DELETE FROM main.audit_checkpoint")
    with full(site, "HOT_DATABASE_URL" if split else "DATABASE_URL"):
        given = ingest_until_full(site)
        answer = site.archive()
        assert (answer["outcome"], answer["error"]) == ("archived", None)
        assert acknowledged(site.driver("append", "--name=again").finish())
    records = site.read_log().records
    assert records[: len(site.template.records)] == site.template.records
    assert len(records) == len(site.template.records) + len(given) + 1
    assert sorted(event["action"] for event in site.own_events()) == [
        "archive_ended",
        "archive_requested",
    ]


def leave_no_room_for_a_run(site: Site) -> None:
    """Put short rows into the table of runs, up to where one more takes another page."""
    assert site.archive("--through-seq=1")["outcome"] == "archived"
    empty = dict.fromkeys(("request", "requested_by", "holder", "kept", "notes", "phase"), "''")
    given = {"token": "(SELECT max(token) + 1 FROM audit_archiverun)", "seconds": "'{}'", **empty}
    with site.sql() as connection:
        info = connection.execute("PRAGMA table_info(audit_archiverun)").fetchall()
        values = {name: given.get(name, name) for _, name, *_ in info if name != "id"}
        short = (
            f"INSERT INTO audit_archiverun ({', '.join(values)}) "  # noqa: S608  # our own names
            f"SELECT {', '.join(values.values())} FROM audit_archiverun WHERE id = 1"
        )
        pages = connection.execute("PRAGMA page_count").fetchone()
        grown = False
        while not grown:
            connection.execute("SAVEPOINT one")
            connection.execute(short)
            grown = connection.execute("PRAGMA page_count").fetchone() != pages
            if grown:
                connection.execute("ROLLBACK TO one")


@pytest.mark.parametrize("split", [False, True])
def test_a_full_ledger_lets_no_run_begin(site: Site, *, split: bool) -> None:
    if split:
        site.split()
    leave_no_room_for_a_run(site)
    with full(site, "DATABASE_URL"):
        answer = site.archive()
    assert (answer["outcome"], answer["exit"], answer["run"]) == ("failed", 1, None)
    assert answer["error"].startswith(FULL)
    assert site.batches() == [(1, 1, "purged")]
    check_whole_and_archived(site)


def test_a_ledger_that_fills_up_stops_the_run_where_it_is(site: Site) -> None:
    """The batches before are archived to their end."""
    site.split()
    site.env["AUDIT_BATCH_MAX_EVENTS"] = "200"
    with full(site, "DATABASE_URL"):
        answer = site.archive()
        assert (answer["outcome"], answer["exit"]) == ("failed", 1)
        assert answer["error"].startswith(FULL)
        assert {state for _, _, state in site.batches()[: len(answer["batches"])]} == {"purged"}
    check_whole_and_archived(site)


# A locked database ---------------------------------------------------------------------------


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold the database's write lock, as a stalled writer does."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def impatient(site: Site, *, split: bool) -> None:
    """Wait for a locked database for a second."""
    if split:
        site.split()
    for name in {"DATABASE_URL", "HOT_DATABASE_URL"} & site.env.keys():
        site.env[name] += "?timeout=1"


@pytest.mark.parametrize("split", [False, True])
def test_a_locked_log_stops_a_run_before_it_begins(site: Site, *, split: bool) -> None:
    impatient(site, split=split)
    with locked(site.hot_database):
        answer = site.archive()
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert LOCKED in answer["error"]
    assert site.batches() == []
    check_whole_and_archived(site)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "step", sweep(["range fixed", "recorded", "floor raised"], always=["recorded"])
)
def test_a_log_that_is_locked_amid_a_run_stops_it(site: Site, step: str, *, split: bool) -> None:
    impatient(site, split=split)
    run = site.driver("archive", f"--pause=step:{step}")
    run.wait_for("^paused")
    with locked(site.hot_database):
        run.go_on()
        last = run.finish()[-1]
    assert last.startswith("outcome failed: The database stayed locked by another process"), last
    check_whole_and_archived(site)


# A database that is gone -----------------------------------------------------------------------


def move(database: Path, target: Path) -> None:
    """Move an SQLite database with all that belongs to it."""
    for end in ("", "-wal", "-shm"):
        Path(f"{database}{end}").rename(f"{target}{end}")


def backup(source: Path, target: Path) -> None:
    """Copy a database, over the content of one that is open where there is one."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def take_away(site: Site, what: str, copy: Path) -> None:
    """Do to the log's database what an operator should not do while a process has it open."""
    if what == "restored":
        backup(copy, site.hot_database)
        return
    move(site.hot_database, site.folder / "aside.sqlite3")
    if what == "replaced":
        shutil.copy(copy, site.hot_database)


GONE = (
    "was removed or replaced while this process had it open",  # where that is looked at
    "The database is not up to date (no such table: ",  # SQLite made an empty file
    "Lease 1 has expired or was taken over",
    "A newer run (lease 0) has begun",
)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("what", "step"),
    [
        ("removed", "range fixed"),
        ("replaced", "recorded"),
        ("restored", "recorded"),
        *(
            pytest.param(what, step, marks=pytest.mark.slow)
            for what, step in (
                ("replaced", "leased"),
                ("removed", "recorded"),
                ("replaced", "range fixed"),
                ("restored", "range fixed"),
            )
        ),
    ],
)
def test_a_log_that_is_taken_away_amid_a_run_keeps_its_events(
    site: Site, what: str, step: str, *, split: bool
) -> None:
    """What is at the old place now was never touched, and the next run goes on from there."""
    if split:
        site.split()
    copy = site.folder / "copy.sqlite3"
    backup(site.hot_database, copy)
    run = site.driver("archive", f"--pause=step:{step}")
    run.wait_for("^paused")
    take_away(site, what, copy)
    run.go_on()
    last = run.finish()[-1]
    assert re.match("outcome (failed|refused): ", last), last
    assert any(words in last for words in GONE), last
    if what == "removed":
        backup(copy, site.hot_database)
    check_whole_and_archived(site)
