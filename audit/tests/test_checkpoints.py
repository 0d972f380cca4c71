"""Checkpoints: one chain of signed statements, in rows and bucket, of the log that there is."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from audit.format.checkpoint import Checkpoint
from audit.format.keys import HmacKey
from audit.format.names import CheckpointName
from audit.format.signing import Keyring

from .simulator import EVENTS, Site

ANOTHER_KEY = base64.b64encode(b"another key, of thirty-two bytes").decode()
NOWHERE = "http://127.0.0.1:9"
READ_FIRST = 'sql:FROM "audit_logstate"'  # where a checkpoint has just seen where the log ends


def make(site: Site) -> dict[str, Any]:
    """Run `checkpoint_now --json`; return its answer with the exit code under `exit`."""
    done = site.manage("checkpoint_now", "--json")
    assert done.stdout, done.stderr.decode()
    return {**json.loads(done.stdout), "exit": done.returncode, "stderr": done.stderr.decode()}


def publish(site: Site) -> dict[str, Any]:
    """Make one that must end well."""
    answer = make(site)
    assert (answer["outcome"], answer["exit"], answer["error"]) == ("published", 0, None), answer
    return answer


def ingest(site: Site, count: int = 3, code: int = 0) -> str:
    """Ingest new events; return what was said where that is refused."""
    done = site.ingest(count)
    assert done.returncode == code, done.stderr.decode()
    return done.stderr.decode()


def copy(database: Path, target: Path) -> Path:
    """Copy a database over the content of another, as a restore does."""
    with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return target


def edit(site: Site, statement: str, *values: object) -> None:
    with site.sql() as connection:
        connection.execute(statement, values)


def rows(site: Site) -> list[tuple[int, int, str]]:
    """Return (index, seq, state) of every row."""
    return site.rows('SELECT "index", seq, state FROM main.audit_checkpoint ORDER BY 1')


def assert_one_chain(site: Site, count: int) -> list[dict[str, Any]]:
    """See that rows and bucket hold the same, each following the one before; return them."""
    found = site.rows(
        'SELECT "index", seq, sha256, document, state FROM main.audit_checkpoint ORDER BY 1'
    )
    assert [(row[0], row[4]) for row in found] == [(n + 1, "published") for n in range(count)]
    expected = {
        f"{site.prefix}/checkpoints/{index:012d}-{seq:020d}-{digest[:16]}.json": data
        for index, seq, digest, data, _ in found
    }
    assert site.checkpoints() == expected
    whole = site.read_whole_log()
    inner = [json.loads(data)["checkpoint"] for _, _, _, data, _ in found]
    before = None
    for row, item in zip(found, inner, strict=True):
        assert sha256(row[3]).hexdigest() == row[2]
        assert (item["index"], item["seq"], item["previous_sha256"]) == (row[0], row[1], before)
        assert item["link"] == whole.links[item["seq"]].hex()
        assert item["root"] == whole.tree(0, item["seq"]).hex()
        before = row[2]
    assert sorted(item["seq"] for item in inner) == [item["seq"] for item in inner]
    return inner


def refusals(site: Site) -> int:
    """Return how many events of a refusal are noted, or in the log."""
    noted = site.rows(
        "SELECT count(*) FROM main.audit_ownevent WHERE external_id LIKE '%:checkpoint_refused'"
    )
    return int(noted[0][0]) + site.own_events_in_hot().count("checkpoint_refused")


# Made, waiting, published ------------------------------------------------------------------


def test_a_checkpoint_says_where_the_log_ends_and_each_follows_the_one_before(
    site: Site,
) -> None:
    site.start_empty()
    ingest(site, 5)
    first = publish(site)
    assert (first["index"], first["seq"], first["notes"]) == (1, 5, [])
    again = publish(site)  # nothing happened: that is worth saying, too
    assert (again["index"], again["seq"]) == (2, 5)
    ingest(site, 2)
    done = site.manage("checkpoint_now")
    assert done.returncode == 0
    assert done.stdout.decode().startswith("published: checkpoint 3 of seq 7, SHA-256 ")
    made = assert_one_chain(site, 3)
    assert [item["seq"] for item in made] == [5, 5, 7]
    assert {item["origin"] for item in made} == {site.env["AUDIT_ORIGIN"]}
    assert first["sha256"] == made[1]["previous_sha256"]
    assert (first["at"], first["key"]) == (made[0]["at"], min(site.checkpoints()))


@pytest.mark.parametrize("split", [False, True])
def test_an_empty_log_has_one_and_takes_its_first_event_all_the_same(
    site: Site, *, split: bool
) -> None:
    site.start_empty()
    if split:
        site.split()
    assert publish(site)["seq"] == 0
    assert site.archive()["outcome"] == "nothing_due"
    ingest(site, 1)
    publish(site)
    made = assert_one_chain(site, 3)
    assert [item["seq"] for item in made] == [0, 2, 3]


def test_while_the_bucket_does_not_answer_it_waits_and_is_published_later(site: Site) -> None:
    endpoint, site.env["AUDIT_COLD_ENDPOINT"] = site.env["AUDIT_COLD_ENDPOINT"], NOWHERE
    answer = make(site)
    assert (answer["outcome"], answer["exit"], answer["error"]) == ("pending", 3, None)
    assert answer["notes"][0].startswith("Not published yet: LIST ")
    assert rows(site) == [(1, EVENTS, "pending"), (2, EVENTS, "pending")]
    text = site.manage("checkpoint_now")
    assert text.returncode == 3
    assert b"pending: checkpoint 3 of seq 2,600" in text.stdout
    site.endpoint = site.env["AUDIT_COLD_ENDPOINT"] = endpoint
    assert site.checkpoints() == {}
    publish(site)
    assert_one_chain(site, 4)


def test_while_the_bucket_was_never_readable_none_is_made(site: Site) -> None:
    site.start_empty()
    ingest(site)
    site.env["AUDIT_COLD_ENDPOINT"] = NOWHERE
    answer = make(site)
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert answer["error"].startswith(
        "It was never known what the bucket holds, so no checkpoint is made yet. Not published "
        "yet: LIST "
    )
    assert answer["error"].endswith("Run archive_now or checkpoint_now when it can be read.")
    assert rows(site) == []
    done = site.manage("checkpoint_now")
    assert done.returncode == 1
    assert done.stdout.decode().strip() == "failed: nothing was signed"


def test_one_that_is_signed_and_cannot_be_confirmed_waits(site: Site) -> None:
    """It was signed, so nobody is told that nothing was."""
    site.start_empty()
    run = site.driver("checkpoint", "--pause=send:HeadObject")
    run.wait_for("^paused")
    site.bucket.Object(min(site.checkpoints())).delete()
    run.go_on()
    assert run.finish()[-1].startswith('made 1 0 False ["Not published yet: HEAD ')
    assert rows(site) == [(1, 0, "pending")]
    publish(site)
    assert_one_chain(site, 2)


# The bucket knows more ---------------------------------------------------------------------


def test_what_the_bucket_has_and_a_restored_ledger_has_not_is_adopted(site: Site) -> None:
    site.split()
    old = copy(site.database, site.folder / "old")
    for _ in range(3):
        ingest(site)
        publish(site)
    before = site.checkpoints()
    copy(old, site.database)
    endpoint, site.env["AUDIT_COLD_ENDPOINT"] = site.env["AUDIT_COLD_ENDPOINT"], NOWHERE
    assert make(site)["index"] == 2  # what the bucket has meanwhile is not known
    site.env["AUDIT_COLD_ENDPOINT"] = endpoint
    ingest(site)
    answer = publish(site)
    assert answer["index"] == 5
    assert answer["notes"] == [
        "Dropped unpublished, the bucket has another of its index: checkpoint 2 of seq 2,609",
        *(f"Adopted from the bucket: {key}" for key in sorted(before)[1:]),
    ]
    assert before.items() <= site.checkpoints().items()
    assert_one_chain(site, 5)


def test_a_run_adopts_them_too(site: Site) -> None:
    site.split()
    old = copy(site.database, site.folder / "old")
    publish(site)
    copy(old, site.database)
    run = site.driver("archive", "--pause=step:listed")
    run.wait_for("^paused")
    assert [index for index, *_ in rows(site)] == [1, 2]
    run.kill()


def forge(site: Site, links: dict[int, bytes]) -> None:
    """Sign every checkpoint of the bucket anew, some with other links, as a key's holder can."""
    ring = Keyring([HmacKey.from_base64(site.env["AUDIT_SIGNING_KEY"])])
    before = None
    for key, data in sorted(site.checkpoints().items()):
        site.bucket.Object(key).delete()
        old = Checkpoint.from_bytes(data, ring)
        new = replace(old, link=links.get(old.seq, old.link), previous_sha256=before)
        signed = new.to_bytes(ring)
        before = sha256(signed).hexdigest()
        name = CheckpointName.of(new.index, new.seq, before)
        site.bucket.Object(name.key(site.prefix)).put(Body=signed)


@pytest.mark.parametrize("seq", [0, 20, 40])
def test_an_adopted_one_of_what_was_purged_is_held_against_the_cold_tier(
    site: Site, seq: int
) -> None:
    """Amid a frame, at its end, and not at all."""
    site.start_empty(AUDIT_BATCH_MAX_EVENTS="30")
    for name in ("a", "b"):
        site.driver("append", f"--name={name}", "--each=20", "--at=2026-01-01").finish()
        publish(site)
    assert site.archive()["highest_archived_seq"] == 40
    edit(site, "DELETE FROM audit_checkpoint")
    if seq:
        forge(site, {seq: b"\xab" * 32})
        answer = make(site)
        assert (answer["outcome"], answer["exit"]) == ("failed", 1)
        index = seq // 20
        assert f"Seq {seq} in {site.prefix}/" in answer["error"]
        assert (
            f".jsonl.gz is not the one for which checkpoint {index} of seq {seq} is signed: "
            "nothing is signed on top of it. Find out which of the two was changed."
        ) in answer["error"]
        assert len(rows(site)) == 3
        assert refusals(site) == 1
    else:
        publish(site)
        assert_one_chain(site, 4)


# What is not the log that was signed ---------------------------------------------------------


@pytest.mark.parametrize("what", ["checkpoint", "manifest"])
def test_a_log_that_was_restored_as_a_whole_is_refused_for_what_the_bucket_alone_knows(
    site: Site, what: str
) -> None:
    """Its own rows are as old as it is; only the bucket has what came after."""
    old = copy(site.database, site.folder / "old")
    if what == "manifest":
        ingest(site)
        publish(site)
        assert site.archive(f"--through-seq={EVENTS + 1}")["outcome"] == "archived"
        site.bucket.objects.filter(Prefix=f"{site.prefix}/checkpoints/").delete()
    else:
        ingest(site)
        publish(site)
    copy(old, site.database)
    if what == "checkpoint":
        for _ in range(2):
            answer = make(site)
            assert (answer["outcome"], answer["exit"]) == ("refused", 1)
            assert answer["error"] == (
                f"{max(site.checkpoints())} in the bucket is signed for seq 2,603, but the hot "
                "database ends at seq 2,600: hot was rolled back. Restore it from its newest "
                "backup."
            )
            assert f"No checkpoint was made: {answer['error']}" in answer["stderr"]
            assert refusals(site) == 1
    assert "in the bucket is signed for seq 2,60" in (error := ingest(site, code=1))
    assert "hot was rolled back. Nothing is appended; restore it from its newest backup" in error
    assert site.archive()["outcome"] == "refused"
    assert rows(site) == [(1, EVENTS, "pending")]
    assert site.rows("SELECT max(seq) FROM audit_auditevent") == [(EVENTS,)]


def test_a_bucket_that_does_not_answer_holds_no_ingest_up(site: Site) -> None:
    """What it claims is not known then; it is asked again while the process lives."""
    site.env["AUDIT_COLD_ENDPOINT"] = NOWHERE
    began = time.monotonic()
    error = ingest(site)
    assert time.monotonic() - began < 30
    assert site.rows("SELECT head_seq FROM audit_logstate") == [(EVENTS + 3,)], error


def test_hot_rolled_back_behind_a_row_is_refused_and_noted_once_for_when_it_is_restored(
    site: Site,
) -> None:
    site.split()
    old = copy(site.hot_database, site.folder / "old")
    ingest(site)
    publish(site)
    new = copy(site.hot_database, site.folder / "new")
    copy(old, site.hot_database)
    for _ in range(2):
        answer = make(site)
        assert (answer["outcome"], answer["exit"]) == ("refused", 1)
        assert "but a checkpoint is signed for seq 2,603: hot was rolled back" in answer["error"]
        assert refusals(site) == 1
    copy(new, site.hot_database)
    publish(site)
    (event,) = site.own_events()
    assert (event["action"], event["outcome"]) == ("checkpoint_refused", "failure")
    assert event["data"] == {"error": answer["error"]}
    assert event["target"]["name"] == site.env["AUDIT_ORIGIN"]
    assert_one_chain(site, 3)


@pytest.mark.parametrize("split", [False, True])
def test_a_log_whose_tail_was_cut_and_continued_is_refused(site: Site, *, split: bool) -> None:
    """It reaches as far as before, and every link of it is good."""
    if split:
        site.split()
    continued = copy(site.hot_database, site.folder / "continued")
    ingest(site, 2)
    publish(site)
    elsewhere = {
        "DATABASE_URL": f"sqlite:///{continued}",
        "AUDIT_COLD_PREFIX": f"{site.prefix}-elsewhere",
    }
    env = {name: value for name, value in site.env.items() if name != "HOT_DATABASE_URL"}
    usual, site.env = site.env, env | elsewhere
    ingest(site, 3)
    site.env = usual
    with site.sql() as connection:
        connection.execute("ATTACH ? AS other", [str(continued)])
        for table in ("auditevent", "eventkey", "logstate"):
            connection.execute(f"DELETE FROM hot.audit_{table}")  # noqa: S608  # our own names
            connection.execute(
                f"INSERT INTO hot.audit_{table} SELECT * FROM other.audit_{table}"  # noqa: S608
            )
    words = (
        "Seq 2,602 in the hot database is not the one for which checkpoint 2 is signed: the log "
        "was rolled back and continued, or changed. Nothing is appended; keep the database as it "
        "is, and restore it from its newest backup."
    )
    assert words in ingest(site, code=1)
    answer = site.archive()
    assert (answer["outcome"], answer["error"]) == ("refused", words)
    answer = make(site)
    assert (answer["outcome"], answer["exit"]) == ("refused", 1)
    assert "Seq 2,602 in the hot database is not the one for which" in answer["error"]
    assert len(rows(site)) == 2
    assert site.objects() == {}


@pytest.mark.parametrize(
    "change",
    ["seq = seq - 1", f"link = '{'ab' * 32}'", f"root = '{'ab' * 32}'", "document = x'7b7d'"],
)
def test_nothing_is_signed_on_top_of_a_row_that_was_changed(site: Site, change: str) -> None:
    publish(site)
    edit(site, f'UPDATE audit_checkpoint SET {change} WHERE "index" = 2')  # noqa: S608  # our own
    answer = make(site)
    assert answer["exit"] == 1
    assert "checkpoint 2" in answer["error"]
    assert "was changed" in answer["error"] or "or changed" in answer["error"]
    assert len(rows(site)) == 2


@pytest.mark.parametrize(
    "frontier", ["[]", "null", '{"a":1}', '["x"]', f'["{"ab" * 32}"]', "edited"]
)
def test_a_frontier_that_does_not_make_the_signed_root_is_computed_anew(
    site: Site, frontier: str
) -> None:
    if frontier == "edited":
        ((text,),) = site.rows("SELECT frontier FROM audit_checkpoint")
        frontier = text.replace(text[2:4], "00" if text[2:4] != "00" else "11", 1)
    edit(site, "UPDATE audit_checkpoint SET frontier = ?", frontier)
    ingest(site)
    publish(site)
    assert_one_chain(site, 2)


def test_one_that_an_unknown_key_has_signed_is_followed_by_none(site: Site) -> None:
    site.env["AUDIT_SIGNING_KEY"] = ANOTHER_KEY
    answer = make(site)
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert answer["error"].startswith("The checkpoint 1 of seq 2,600 is signed by hmac-sha256:k-")
    assert "set AUDIT_SIGNING_KEYS so that it has that key, too" in answer["error"]
    assert rows(site) == [(1, EVENTS, "published")]
    assert refusals(site) == 0


def test_what_goes_on_being_wrong_is_one_event_in_the_log(site: Site) -> None:
    edit(site, "UPDATE audit_auditevent SET record = x'7b7d' WHERE seq = 2599")
    edit(site, "UPDATE audit_checkpoint SET frontier = '[]'")
    for _ in range(4):
        answer = make(site)
        assert (answer["outcome"], answer["exit"]) == ("failed", 1)
        assert "Seq 2,599 in the hot database was changed" in answer["error"]
        assert refusals(site) == 1
    assert site.own_events_in_hot() == ["checkpoint_refused"]


@pytest.mark.parametrize("split", [False, True])
def test_nothing_is_signed_of_a_database_file_that_is_gone(site: Site, *, split: bool) -> None:
    """What was put in its place does not hold it, and would be refused from then on."""
    if split:
        site.split()
    copied = copy(site.hot_database, site.folder / "copied")
    ingest(site)
    run = site.driver("checkpoint", f"--pause={READ_FIRST}")
    run.wait_for("^paused")
    site.hot_database.rename(site.folder / "aside.sqlite3")
    shutil.copy(copied, site.hot_database)
    run.go_on()
    assert "was removed or replaced while this process had it open" in run.finish()[-1]
    assert [index for index, *_ in rows(site)] == [1]
    ingest(site)


# Several at once, and killed -----------------------------------------------------------------


def test_two_that_make_them_at_once_make_one_chain(site: Site) -> None:
    both = [site.driver("checkpoint", "--calls=4") for _ in range(2)]
    for process in both:
        assert all(line.startswith("made ") for line in process.finish())
    publish(site)
    assert_one_chain(site, 10)


@pytest.mark.parametrize("where", [READ_FIRST, "send:ListObjects", "send:PutObject"])
def test_one_that_was_overtaken_goes_on_from_the_other(site: Site, where: str) -> None:
    ingest(site)
    slow = site.driver("checkpoint", f"--pause={where}")
    slow.wait_for("^paused")
    publish(site)
    ingest(site)
    publish(site)
    slow.go_on()
    (line,) = (line for line in slow.finish() if not line.startswith("paused"))
    assert line.startswith("made ")
    publish(site)
    made = assert_one_chain(site, 5)
    assert made[-1]["seq"] == EVENTS + 6
    assert refusals(site) == 0


@pytest.mark.parametrize("adopted", [False, True])
def test_one_beside_a_run_that_purges_what_it_reads_is_made_all_the_same(
    site: Site, *, adopted: bool
) -> None:
    """What it misses is no gap and nothing that was rolled back: it was archived meanwhile."""
    ingest(site, 1)
    if adopted:  # then the whole log is read, in chunks
        edit(site, "UPDATE audit_checkpoint SET frontier = '[]'")
    where = 'sql:FROM "audit_auditevent"' if adopted else READ_FIRST
    slow = site.driver("checkpoint", f"--pause={where}")
    slow.wait_for("^paused")
    site.env["AUDIT_BATCH_MAX_EVENTS"] = "20000"
    run = site.driver("archive", f"--through-seq={EVENTS}", "--pause=step:purged")
    run.wait_for("^paused")
    run.kill()
    slow.go_on()
    assert slow.finish()[-1].startswith("made 2 ")
    assert refusals(site) == 0
    publish(site)
    assert_one_chain(site, 3)


@pytest.mark.parametrize(
    "where",
    [
        'sql:INSERT INTO "audit_checkpoint"',
        "send:PutObject:2",
        "send:HeadObject:3",
        "send:GetObject:2",
        'sql:UPDATE "audit_checkpoint":2',
    ],
)
def test_killed_at_any_step_the_next_one_goes_on(site: Site, where: str) -> None:
    """The first request of each kind is for the one that waited."""
    ingest(site)
    run = site.driver("checkpoint", f"--pause={where}")
    run.wait_for("^paused")
    run.kill()
    answer = publish(site)
    assert answer["index"] == (2 if where.startswith("sql:INSERT") else 3)
    assert_one_chain(site, answer["index"])
