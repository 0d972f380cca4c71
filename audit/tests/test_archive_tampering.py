"""Hot rows changed before they are archived: the run stops at that seq and deletes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

import pytest

from audit.format.chain import genesis_link, leaf_hash, next_link

from .simulator import SMALL_BATCH_EVENTS, Site

AT = 30  # in the first batch
Attack = Callable[[sqlite3.Connection], object]


@pytest.fixture
def site(small_site: Site) -> Site:
    """Have few events: more would show nothing else."""
    return small_site


def edit_record(db: sqlite3.Connection) -> None:
    db.execute(
        "UPDATE audit_auditevent SET record = replace(record, 'tenant', 'Tenant') WHERE seq = ?",
        [AT],
    )
    db.execute("UPDATE audit_auditevent SET record = CAST(record AS BLOB) WHERE seq = ?", [AT])


def edit_record_as_text(db: sqlite3.Connection) -> None:
    db.execute("UPDATE audit_auditevent SET record = 'text' WHERE seq = ?", [AT])


def edit_link_to_no_hex(db: sqlite3.Connection) -> None:
    db.execute("UPDATE audit_auditevent SET link = 'no link' WHERE seq = ?", [AT])


def edit_link(db: sqlite3.Connection) -> None:
    db.execute("UPDATE audit_auditevent SET link = ? WHERE seq = ?", ["ab" * 32, AT])


def edit_record_and_its_link(db: sqlite3.Connection) -> None:
    """Recompute the link of the changed record: the next one then does not follow."""
    (before,) = db.execute("SELECT link FROM audit_auditevent WHERE seq = ?", [AT - 2]).fetchone()
    record = b'{"seq":%d}' % (AT - 1)
    link = next_link(bytes.fromhex(before), leaf_hash(record)).hex()
    db.execute(
        "UPDATE audit_auditevent SET record = ?, link = ? WHERE seq = ?", [record, link, AT - 1]
    )


def remove(*seqs: int) -> Attack:
    def attack(db: sqlite3.Connection) -> None:
        db.executemany("DELETE FROM audit_auditevent WHERE seq = ?", [[seq] for seq in seqs])

    return attack


def swap(db: sqlite3.Connection) -> None:
    """Swap two rows as a whole, links and all."""
    for old, new in ((AT, -1), (AT + 20, AT), (-1, AT + 20)):
        db.execute("UPDATE audit_auditevent SET seq = ? WHERE seq = ?", [new, old])


def swap_records(db: sqlite3.Connection) -> None:
    rows = dict(
        db.execute(
            "SELECT seq, record FROM audit_auditevent WHERE seq IN (?, ?)", [AT, AT + 1]
        ).fetchall()
    )
    for seq, other in ((AT, AT + 1), (AT + 1, AT)):
        db.execute("UPDATE audit_auditevent SET record = ? WHERE seq = ?", [rows[other], seq])


ATTACKS: dict[str, tuple[Attack, str, int]] = {
    "record edited": (edit_record, "was changed", AT),
    "record edited as text": (edit_record_as_text, "was changed", AT),
    "link edited to what is no hash": (edit_link_to_no_hex, "was changed", AT),
    "link edited": (edit_link, "was changed", AT),
    "record and its link edited": (edit_record_and_its_link, "was changed", AT),
    "removed from the middle": (remove(AT), "is missing", AT),
    "first row removed": (remove(1), "is missing", 1),
    "last row of the batch removed": (
        remove(SMALL_BATCH_EVENTS),
        "is missing",
        SMALL_BATCH_EVENTS,
    ),
    "two rows swapped": (swap, "was changed", AT),
    "two records swapped": (swap_records, "was changed", AT),
}


def check_stops(site: Site, attack: Attack, word: str, seq: int) -> None:
    with site.sql() as connection:
        attack(connection)
    hot = site.hot_seqs()

    for _ in range(2):  # and again: nothing about it heals by itself
        answer = site.archive()
        assert (answer["outcome"], answer["exit"]) == ("failed", 1)
        assert f"eq {seq:,} " in answer["error"]
        assert word in answer["error"]
        assert "deletes nothing" in answer["error"]
        assert site.hot_seqs() == hot
        assert site.objects() == {}
        assert {state for *_, state in site.batches()} <= {"planned"}
    errors = site.rows("SELECT outcome, error FROM audit_archiverun")
    assert errors == [("failed", answer["error"])] * 2


@pytest.mark.parametrize("name", ATTACKS)
def test_the_run_stops_there_says_so_and_deletes_nothing(site: Site, name: str) -> None:
    check_stops(site, *ATTACKS[name])


def test_a_whole_frame_that_was_removed_is_missed(large_site: Site) -> None:
    check_stops(large_site, remove(*range(1, 1025)), "is missing", 1)


def rewrite_links(db: sqlite3.Connection) -> None:
    """Recompute every link and the head, as whoever can write to hot can.

    And remove what was signed, so that what stops a run is what the records are.
    """
    db.execute("DELETE FROM audit_checkpoint")
    recompute_links(db)


def recompute_links(db: sqlite3.Connection) -> None:
    (origin,) = db.execute("SELECT origin FROM audit_logstate").fetchone()
    link = genesis_link(origin)
    links = []
    for seq, record in db.execute("SELECT seq, record FROM audit_auditevent ORDER BY seq"):
        link = next_link(link, leaf_hash(record))
        links.append((link.hex(), seq))
    db.executemany("UPDATE audit_auditevent SET link = ? WHERE seq = ?", links)
    db.execute("UPDATE audit_logstate SET head_link = ?", [link.hex()])


def with_changes(**changes: object) -> bytes:
    """Return a whole record of seq 30 with members changed; None leaves one out."""
    party = {"id": "", "ip": "", "name": ""}
    members: dict[str, object] = {
        "action": "x",
        "actor": party,
        "data": {},
        "external_id": "",
        "id": "0" * 36,
        "occurred_at": "2026-01-01T00:00:00.000Z",
        "outcome": "success",
        "recorded_at": "%s",
        "seq": AT,
        "source": "platform",
        "target": {"id": "", "name": "", "type": ""},
        "tenant": "",
        "v": 1,
        **changes,
    }
    kept = {name: value for name, value in members.items() if value is not None}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "record",
    [
        with_changes(seq=30.0),
        with_changes(data={"n": 2**63}),
        with_changes(actor=None),
        with_changes(more=1),
        with_changes(target={"id": ""}),
        with_changes(v=2),
        b"no record",
        b'{"recorded_at":"2026-01-01T00:00:00.000Z","seq":17}',
        b'{"recorded_at":"1999-01-01T00:00:00.000Z","seq":30}',
        b'{"recorded_at":"today","seq":30}',
        b'{"recorded_at":30,"seq":30}',
        b'{"seq":30}',
        b'["seq"]',
        b'{"recorded_at":"%s","seq":30,"seq":30}',
        b'{"recorded_at":"%s", "seq":30}',
        b'{"recorded_at":"%s","seq":30}\r',
        b'{"seq":30,"recorded_at":"%s"}',
        b'{"data":' + b"[" * 40 + b"]" * 40 + b',"recorded_at":"%s","seq":30}',
        b'{"recorded_at":"2026-13-01T00:00:00.000Z","seq":30}',
        b'{"recorded_at":"%s",\n"seq":30}',
        b'{"data":"' + b"x" * 262_144 + b'","recorded_at":"%s","seq":30}',
    ],
)
def test_what_is_no_record_is_never_archived_even_if_every_link_was_recomputed(
    site: Site, record: bytes
) -> None:
    """The object would be chained and signed, and nobody could read it back."""
    with site.sql() as connection:
        (old,) = connection.execute(
            "SELECT record FROM audit_auditevent WHERE seq = ?", [AT]
        ).fetchone()
        time = json.loads(old)["recorded_at"].encode()
        connection.execute(
            "UPDATE audit_auditevent SET record = ? WHERE seq = ?",
            [record.replace(b"%s", time), AT],
        )
        rewrite_links(connection)
    hot = site.hot_seqs()
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert f"Seq {AT:,} in the hot database was changed" in answer["error"]
    assert site.hot_seqs() == hot
    assert site.objects() == {}


def test_a_first_record_without_a_time_is_never_archived(site: Site) -> None:
    """Nothing comes before it, so that its time goes back behind none."""
    record = json.loads(site.template.records[0])
    record["recorded_at"] = ""
    with site.sql() as connection:
        connection.execute(
            "UPDATE audit_auditevent SET record = ? WHERE seq = 1",
            [json.dumps(record, sort_keys=True, separators=(",", ":")).encode()],
        )
        rewrite_links(connection)
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "Seq 1 in the hot database was changed" in answer["error"]
    assert site.objects() == {}


def test_where_every_link_was_recomputed_what_was_signed_stops_everything(site: Site) -> None:
    """A record like any other, and every link leads to the head: only a signature says more."""
    with site.sql() as connection:
        edit_record(connection)
        recompute_links(connection)
    hot = site.dump()
    words = (
        "Seq 240 in the hot database is not the one for which checkpoint 1 is signed: the log "
        "was rolled back and continued, or changed. Nothing is appended; keep the database as it "
        "is, and restore it from its newest backup."
    )
    for _ in range(2):
        answer = site.archive()
        assert (answer["outcome"], answer["exit"], answer["error"]) == ("refused", 1, words)
    ingest = site.manage(
        "ingest_events", "-", data=b'{"occurred_at":"2026-01-01T00:00:00Z","action":"x"}'
    )
    assert ingest.returncode == 1
    assert words in ingest.stderr.decode()
    assert site.objects() == site.checkpoints() == {}
    unchanged = ("audit_auditevent", "audit_checkpoint", "audit_archivebatch")
    assert [line for line in site.dump() if any(name in line for name in unchanged)] == [
        line for line in hot if any(name in line for name in unchanged)
    ]


def test_what_comes_before_the_tampered_batch_is_archived(site: Site) -> None:
    """As far as a checkpoint says that it is what was recorded."""
    site.start_empty()
    site.driver("append", "--each=20", "--at=2026-01-01").finish()
    assert site.manage("checkpoint_now").returncode == 0
    site.driver("append", "--name=more", "--each=20", "--at=2026-01-02").finish()
    assert site.manage("checkpoint_now").returncode == 0
    site.env["AUDIT_BATCH_MAX_EVENTS"] = "15"
    with site.sql() as connection:
        remove(23)(connection)
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "Seq 23 is missing" in answer["error"]
    assert site.batches() == [(1, 15, "purged")]
    assert min(site.hot_seqs()) == 16


def test_the_newest_due_row_removed_is_missed_too(site: Site) -> None:
    newest = site.archive("--dry-run")["batches"][-1]["end_seq"]
    with site.sql() as connection:
        remove(newest)(connection)
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert f"Seq {newest:,} is missing" in answer["error"]


def test_a_dry_run_finds_what_is_missing_too(site: Site) -> None:
    with site.sql() as connection:
        remove(AT)(connection)
    answer = site.archive("--dry-run")
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert f"Seq {AT:,} is missing" in answer["error"]


def test_hot_rolled_back_behind_the_ledger_is_refused(site: Site) -> None:
    newest = site.archive()["highest_archived_seq"]
    with site.sql() as connection:
        connection.execute("UPDATE audit_logstate SET floor_seq = 0, head_seq = 50")
        connection.execute("DELETE FROM audit_checkpoint")  # they say so, too
    answer = site.archive()
    assert (answer["outcome"], answer["exit"]) == ("refused", 1)
    assert f"but the ledger knows seq {newest}" in answer["error"]
    assert "hot was rolled back" in answer["error"]
    ingest = site.manage(
        "ingest_events", "-", data=b'{"occurred_at":"2026-01-01T00:00:00Z","action":"x"}'
    )
    assert ingest.returncode == 1
    assert f"but the ledger knows seq {newest}" in ingest.stderr.decode()


def test_a_ledger_row_whose_frontier_was_changed_stops_the_run(site: Site) -> None:
    assert site.archive("--max-batches=1")["outcome"] == "archived"
    with site.sql() as connection:
        connection.execute("UPDATE audit_archivebatch SET frontier = '[]'")
    answer = site.archive()
    assert answer["outcome"] == "failed"
    assert "The ledger's row of batch 1–" in answer["error"]
