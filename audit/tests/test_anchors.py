"""A range is archived only where its links are those that were signed, in it and after it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from audit.anchors import Anchors
from audit.format.chain import leaf_hash, next_link
from audit.format.checkpoint import Checkpoint
from audit.format.errors import TamperedError

from .simulator import Site, Template
from .starter import Starter

BATCH, FIRST, SECOND = 15, 10, 20  # seqs; both are signed, the first within a batch


def checkpoint(index: int, seq: int, link: bytes) -> Checkpoint:
    return Checkpoint("log", index, seq, link, b"r" * 32, "", None if index == 1 else "x", ())


def links(*seqs: int) -> list[bytes]:
    return [b"%032d" % seq for seq in seqs]


# By themselves -----------------------------------------------------------------------------


def test_links_are_held_against_each_that_is_signed() -> None:
    anchors = Anchors(checkpoint(n, seq, *links(seq)) for n, seq in enumerate((3, 7, 7, 12), 1))
    assert anchors.last == 12
    assert [anchors.within(first, 3) for first in (1, 4, 5, 8, 10, 13)] == [
        *(True, False, True, False, True, False)
    ]
    anchors.hold(1, links(*range(1, 13)))
    anchors.hold(4, links(4, 5, 6))
    anchors.hold(13, links(13))
    with pytest.raises(TamperedError, match=r"Seq 7 .* not the one to which checkpoint 3 is"):
        anchors.hold(6, links(6, 8, 8))


def test_two_that_are_signed_for_one_seq_and_contradict_each_other_are_an_error() -> None:
    with pytest.raises(TamperedError, match="Checkpoint 2 and checkpoint 1 are both signed"):
        Anchors([checkpoint(1, 5, *links(5)), checkpoint(2, 5, *links(6))])


def test_without_any_nothing_is_held() -> None:
    anchors = Anchors()
    assert (anchors.last, anchors.within(1, 10**9)) == (0, False)
    anchors.hold(1, links(1))


# In a run ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def signed_twice(
    s3: str, template: Template, start: Starter, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, bytes]]:
    """Make a log of 30 events with checkpoints of 10 and 20, once; return it and the objects."""
    with Site(tmp_path_factory.mktemp("signed"), template, start) as site:
        site.start_empty()
        for end in (FIRST, SECOND, 30):
            assert site.ingest(10).returncode == 0
            assert end > SECOND or site.manage("checkpoint_now").returncode == 0
        return site.database, site.checkpoints()


@pytest.fixture
def log(site: Site, signed_twice: tuple[Path, dict[str, bytes]]) -> Site:
    """Give the test a copy of that log, which is archived in batches of 15."""
    database, objects = signed_twice
    site.start_empty(AUDIT_BATCH_MAX_EVENTS=str(BATCH))
    shutil.copy(database, site.database)
    for key, data in objects.items():
        site.bucket.Object(f"{site.prefix}/checkpoints/{key.rpartition('/')[2]}").put(Body=data)
    return site


def tamper(site: Site, seq: int, last: int) -> None:
    """Change a record, and recompute every link from it up to `last`; the head's if it is that."""
    with site.sql() as db:
        db.execute(
            "UPDATE audit_auditevent SET record = CAST(replace(record, 'tested', 'forged') AS "
            "BLOB) WHERE seq = ?",
            [seq],
        )
        (text,) = db.execute(
            "SELECT link FROM audit_auditevent WHERE seq = ?", [seq - 1]
        ).fetchone()
        link = bytes.fromhex(text)
        made = []
        for found, record in db.execute(
            "SELECT seq, record FROM audit_auditevent WHERE seq BETWEEN ? AND ? ORDER BY seq",
            [seq, last],
        ):
            link = next_link(link, leaf_hash(record))
            made.append((link.hex(), found))
        db.executemany("UPDATE audit_auditevent SET link = ? WHERE seq = ?", made)
        db.execute("UPDATE audit_logstate SET head_link = ? WHERE head_seq = ?", made[-1])


def stops(site: Site, outcome: str, *words: str, batches: int = 0) -> None:
    """See that a run stops, now and again, and that nothing of what follows leaves hot."""
    for _ in range(2):
        answer = site.archive("--through-seq=30")
        assert (answer["outcome"], answer["exit"]) == (outcome, 1)
        for word in words:
            assert word in answer["error"]
        purged = [state for *_, state in site.batches()].count("purged")
        assert purged == batches
        assert site.hot_seqs() == set(range(batches * BATCH + 1, 31))
        assert len(site.objects()) == 2 * batches


def test_what_leads_through_all_that_is_signed_is_archived(log: Site) -> None:
    answer = log.archive("--through-seq=30")
    assert (answer["outcome"], len(answer["batches"])) == ("archived", 2)
    assert len(log.read_log().records) == 30


def test_a_range_is_held_against_a_checkpoint_within_it(log: Site) -> None:
    tamper(log, 5, SECOND - 1)
    stops(
        log,
        "failed",
        "Seq 10 in the hot database was changed, or one before it: its link is not the one to "
        "which checkpoint 1 is signed. The archive stops and deletes nothing.",
    )


def test_a_range_is_held_against_the_next_checkpoint_after_it(log: Site) -> None:
    """Its own links are good, and those that follow, up to the one that is signed."""
    tamper(log, 12, SECOND - 1)
    stops(log, "failed", "Seq 20 in the hot database was changed: its record does not lead")


def test_what_was_recomputed_up_to_the_head_is_refused_at_once(log: Site) -> None:
    tamper(log, 12, 30)
    stops(log, "refused", "Seq 20 in the hot database is not the one for which checkpoint 2 is")


def test_rows_of_checkpoints_that_were_removed_come_back_from_the_bucket(log: Site) -> None:
    tamper(log, 12, 30)
    with log.sql() as db:
        db.execute("DELETE FROM audit_checkpoint")
    stops(log, "refused", "Seq 20 in the hot database is not the one for which checkpoint 2 is")


def test_what_is_signed_only_after_the_newest_one_is_signed_as_it_is(log: Site) -> None:
    """Before it could be signed nobody can say what it was: hence a checkpoint every hour."""
    tamper(log, 25, 30)
    answer = log.archive("--through-seq=30")
    assert answer["outcome"] == "archived"


@pytest.mark.parametrize("removed", ["", "audit_checkpoint"])
def test_a_run_makes_one_first_where_none_comes_after_the_range(log: Site, removed: str) -> None:
    """Before it sends anything."""
    if removed:
        with log.sql() as db:
            db.execute("DELETE FROM audit_checkpoint")
        log.bucket.objects.filter(Prefix=f"{log.prefix}/checkpoints/").delete()
    run = log.driver("archive", "--through-seq=30", "--pause=step:range fixed")
    run.wait_for("^paused")
    # The event of the request is the 31st.
    seqs = [10, 20, 31] if not removed else [31]
    assert [seq for (seq,) in log.rows("SELECT seq FROM audit_checkpoint ORDER BY 1")] == seqs
    assert log.objects() == {}
    run.go_on()
    assert run.finish()[-1] == "outcome archived: None"


def test_one_that_comes_after_the_range_is_enough(log: Site) -> None:
    run = log.driver("archive", f"--through-seq={SECOND}", "--pause=step:range fixed")
    run.wait_for("^paused")
    assert log.rows("SELECT count(*) FROM audit_checkpoint") == [(2,)]
    run.kill()


def test_where_none_can_be_made_first_nothing_is_archived(log: Site) -> None:
    """What comes after the newest one does not lead to the head."""
    tamper(log, 25, 28)
    stops(log, "failed", "Seq 29 in the hot database was changed: its record does not lead")


def newest(site: Site) -> tuple[int, str, int]:
    """Return seq and state of the newest checkpoint, and the head."""
    (row,) = site.rows(
        "SELECT seq, state, head_seq FROM audit_checkpoint, hot.audit_logstate "
        'ORDER BY "index" DESC LIMIT 1'
    )
    return (row[0], row[1], row[2])


def test_after_every_run_there_is_one_at_the_head_with_the_events_of_the_run(log: Site) -> None:
    for argument, outcome in (
        (f"--through-seq={FIRST}", "archived"),
        (f"--through-seq={FIRST}", "nothing_due"),
        ("--through-seq=99", "failed"),
    ):
        answer = log.archive(argument)
        assert (answer["outcome"], answer["notes"]) == (outcome, [])
        seq, state, head = newest(log)
        assert (seq, state) == (head, "published")
        assert log.own_events()[-1]["data"]["request"]
        assert log.own_events()[-1]["seq"] == head


def test_after_a_run_that_the_bucket_stopped_it_waits(log: Site) -> None:
    log.env["AUDIT_COLD_ENDPOINT"] = "http://127.0.0.1:9"
    assert log.archive()["outcome"] == "failed"
    assert newest(log) == (30, "pending", 30)


def test_after_a_run_that_was_killed_there_is_none_and_the_next_run_makes_one(log: Site) -> None:
    run = log.driver("archive", f"--through-seq={SECOND}", "--pause=step:purged")
    run.wait_for("^paused")
    run.kill()
    assert newest(log)[0] == SECOND
    assert log.archive(f"--through-seq={SECOND}")["outcome"] == "archived"
    seq, state, head = newest(log)
    assert (seq, state) == (head, "published")


def test_after_a_run_that_refused_a_rolled_back_log_none_is_signed(log: Site) -> None:
    """Nor where only the manifests in the bucket know: the checkpoints there are removed."""
    old = log.folder / "old"
    shutil.copy(log.database, old)
    assert log.archive("--through-seq=30")["outcome"] == "archived"
    log.bucket.objects.filter(Prefix=f"{log.prefix}/checkpoints/").delete()
    log.start_empty()
    shutil.copy(old, log.database)
    with log.sql() as db:
        db.execute("DELETE FROM audit_auditevent WHERE seq > 25")
        db.execute(
            "UPDATE audit_logstate SET head_seq = 25, head_link = "
            "(SELECT link FROM audit_auditevent WHERE seq = 25)"
        )
    answer = log.archive()
    assert answer["outcome"] == "refused"
    assert answer["error"].startswith("The bucket holds seq 30 in ")
    assert log.rows("SELECT max(seq) FROM audit_checkpoint") == [(SECOND,)]
    assert log.checkpoints() == {}
