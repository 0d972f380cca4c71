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

from .simulator import SMALL_EVENTS, Site
from .sweep import sweep

ANOTHER_KEY = base64.b64encode(b"another key, of thirty-two bytes").decode()
NOWHERE = "http://127.0.0.1:9"
READ_FIRST = 'sql:FROM "audit_logstate"'  # where a checkpoint has just seen where the log ends


@pytest.fixture
def site(small_site: Site) -> Site:
    """Have few events: more would show nothing else."""
    return small_site


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
    assert rows(site) == [(1, SMALL_EVENTS, "pending"), (2, SMALL_EVENTS, "pending")]
    text = site.manage("checkpoint_now")
    assert text.returncode == 3
    assert b"pending: checkpoint 3 of seq 240" in text.stdout
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
        "Dropped unpublished, the bucket has another of its index: checkpoint 2 of seq 249",
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


# What others put into the bucket -------------------------------------------------------------


def put(site: Site, data: bytes, index: int, seq: int = 1, digest: str = "") -> str:
    """Put an object under the name of a checkpoint; return its key."""
    name = CheckpointName.of(index, seq, digest or sha256(data).hexdigest())
    site.bucket.Object(name.key(site.prefix)).put(Body=data)
    return name.key(site.prefix)


def put_signed(site: Site, key: str = "", **changes: Any) -> str:
    """Put the newest checkpoint with changes, signed by the site's key or another one."""
    own = site.env["AUDIT_SIGNING_KEY"]
    ((data,),) = site.rows('SELECT document FROM audit_checkpoint ORDER BY "index" DESC LIMIT 1')
    old = Checkpoint.from_bytes(data, Keyring([HmacKey.from_base64(own)]))
    ring = Keyring([HmacKey.from_base64(key or own)])
    new = replace(old, **changes, signed_by=tuple(ring.signed_by))
    return put(site, new.to_bytes(ring), new.index, new.seq)


@pytest.mark.parametrize("what", ["other bytes", "too large", "another log", "many", "at many"])
def test_what_is_no_checkpoint_of_this_log_stops_neither_checkpoints_nor_runs(
    site: Site, what: str
) -> None:
    publish(site)
    mine = site.checkpoints()
    match what:
        case "other bytes":
            put(site, b"{}", 3, digest="0" * 16)
        case "too large":
            put(site, b"x" * 70_000, 3)
        case "another log":
            put_signed(site, origin="another", index=3, seq=10**6)
        case "many":
            for number in range(19):
                put(site, b"{}", 3, digest=f"{number:016x}")
        case "at many":
            for number in range(25):
                put(site, b"{}", 3 + number)
    foreign = site.checkpoints().keys() - mine.keys()
    answer = publish(site)
    assert (answer["index"], refusals(site)) == (3, 0)
    notes = [note for note in answer["notes"] if note.startswith("Not adopted: ")]
    assert all(any(key in note for key in foreign) for note in notes[:20])
    assert len(notes) == (21 if what == "at many" else len(foreign))
    if what == "at many":
        assert notes[20] == "Not adopted: 5 more objects in the bucket."
    assert site.archive("--max-batches=1")["outcome"] == "archived"
    site.bucket.delete_objects(Delete={"Objects": [{"Key": key} for key in foreign]})
    publish(site)
    assert_one_chain(site, 5)


def test_one_that_is_gone_when_it_is_read_stops_nothing(site: Site) -> None:
    publish(site)
    key = put(site, b"{}", 3)
    run = site.driver("checkpoint", "--pause=send:HeadObject")
    run.wait_for("^paused")
    site.bucket.Object(key).delete()
    run.go_on()
    (line,) = (line for line in run.finish() if line.startswith("made "))
    assert line.startswith(f'made 3 {SMALL_EVENTS} True ["Not adopted: GET {key} at ')
    assert_one_chain(site, 3)


@pytest.mark.parametrize("what", ["unknown key", "one between", "too many"])
def test_nothing_is_signed_on_top_of_what_may_be_newer_and_runs_go_on(
    site: Site, what: str
) -> None:
    """A run needs no new checkpoint for what is signed already."""
    publish(site)
    match what:
        case "unknown key":
            key = put_signed(site, ANOTHER_KEY, index=9)
            error = f"{key} is signed by hmac-sha256:k-"
        case "one between":
            key = put_signed(site, index=4, previous_sha256="ab" * 32)
            error = f"{key} comes after checkpoint 2: those between are missing: nothing is signed"
        case "too many":
            for number in range(21):
                put(site, b"{}", 3, digest=f"{number:016x}")
            error = (
                "21 objects of checkpoint 3 are in the bucket, and none of the first 20 is good"
            )
    answer = make(site)
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert answer["error"].startswith(error)
    assert refusals(site) == (what == "one between")
    answer = site.archive("--max-batches=1")
    assert (answer["outcome"], answer["error"]) == ("archived", None)
    assert any(note.startswith(f"Not adopted: {error}") for note in answer["notes"])
    assert any(note.startswith(f"No checkpoint was made: {error}") for note in answer["notes"])
    assert [index for index, *_ in rows(site)] == [1, 2]


def test_one_of_an_unknown_key_hides_none_that_is_signed_beyond_the_head(site: Site) -> None:
    publish(site)
    put_signed(site, ANOTHER_KEY, index=3)
    key = put_signed(site, index=4, seq=SMALL_EVENTS + 1)
    for answer in (make(site), site.archive()):
        assert (answer["outcome"], answer["exit"]) == ("refused", 1)
        assert answer["error"].startswith(f"{key} in the bucket is signed for seq 241, but")


def test_another_one_of_an_unknown_key_beside_one_that_waits_is_not_published_over(
    site: Site,
) -> None:
    site.start_empty()
    publish(site)
    edit(site, "UPDATE audit_checkpoint SET state = 'pending', published_at = NULL")
    put_signed(site, ANOTHER_KEY)
    answer = make(site)
    assert (answer["outcome"], answer["exit"]) == ("failed", 1)
    assert "set AUDIT_SIGNING_KEYS so that it has that key, too" in answer["error"]
    assert rows(site) == [(1, 0, "pending")]


def test_one_signed_by_a_clock_that_was_ahead_is_followed_at_its_time(site: Site) -> None:
    """None goes back: the next would be refused by all that read it."""
    publish(site)
    newest = max(site.checkpoints().items())[1]
    ahead = "2099-01-01T00:00:00.000Z"
    put_signed(site, index=3, at=ahead, previous_sha256=sha256(newest).hexdigest())
    for index in (4, 5):
        answer = publish(site)
        assert (answer["index"], answer["at"]) == (index, ahead)
    assert_one_chain(site, 5)


def test_other_bytes_that_come_in_its_place_are_seen(site: Site) -> None:
    """Between the answer that it is there and the look at what is there."""
    site.start_empty()
    run = site.driver("checkpoint", "--pause=send:GetObject")
    run.wait_for("^paused")
    ((key, data),) = site.checkpoints().items()
    site.bucket.Object(key).put(Body=bytes(len(data)))
    run.go_on()
    assert f"{key} holds other bytes than its name says" in run.finish()[-1]
    assert rows(site) == [(1, 0, "pending")]


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
        assert site.archive(f"--through-seq={SMALL_EVENTS + 1}")["outcome"] == "archived"
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
                f"{max(site.checkpoints())} in the bucket is signed for seq 243, but the hot "
                "database ends at seq 240: hot was rolled back. Restore it from its newest "
                "backup."
            )
            assert f"No checkpoint was made: {answer['error']}" in answer["stderr"]
            assert refusals(site) == 1
    assert "in the bucket is signed for seq 24" in (error := ingest(site, code=1))
    assert "hot was rolled back. Nothing is appended; restore it from its newest backup" in error
    assert site.archive()["outcome"] == "refused"
    assert rows(site) == [(1, SMALL_EVENTS, "pending")]
    assert site.rows("SELECT max(seq) FROM audit_auditevent") == [(SMALL_EVENTS,)]


@pytest.mark.parametrize("what", ["checkpoint", "manifest"])
def test_junk_in_the_bucket_does_not_hide_what_it_claims(site: Site, what: str) -> None:
    """However much of it looks newer."""
    old = copy(site.database, site.folder / "old")
    ingest(site)
    publish(site)
    if what == "manifest":
        assert site.archive(f"--through-seq={SMALL_EVENTS + 1}")["outcome"] == "archived"
        site.bucket.objects.filter(Prefix=f"{site.prefix}/checkpoints/").delete()
    for number in range(25):
        name = f"{site.prefix}/{number + 9_000:020d}-{number + 9_000:020d}-{'0' * 16}"
        if what == "manifest":
            site.bucket.Object(f"{name}.manifest.json").put(Body=b"{}")
        else:
            put(site, b"{}", 900 + number, digest="0" * 16)
    junk = "In the bucket, 25 checkpoints or manifests are not to be believed and claim nothing"
    assert ingest(site).count(junk) == 1
    copy(old, site.database)
    error = ingest(site, code=1)
    assert "in the bucket is signed for seq 24" in error
    assert (
        "hot was rolled back. Nothing is appended; restore it from its newest backup; if that "
        "object is wrong, keep it under another name and restart this process."
    ) in error
    assert error.count(junk) == 1
    assert site.rows("SELECT max(seq) FROM audit_auditevent") == [(SMALL_EVENTS,)]


def test_a_log_that_was_restored_as_a_whole_and_continued_is_refused(site: Site) -> None:
    """It reaches beyond what the bucket claims, and is another one."""
    old = copy(site.database, site.folder / "old")
    ingest(site)
    publish(site)
    copy(old, site.database)
    prefix, site.env["AUDIT_COLD_PREFIX"] = site.prefix, f"{site.prefix}-elsewhere"
    ingest(site, 5)
    site.env["AUDIT_COLD_PREFIX"] = prefix
    error = ingest(site, code=1)
    assert (
        f"{max(site.checkpoints())} in the bucket is signed for seq 243, which the hot "
        "database, at seq 245, does not have as it was: hot was rolled back."
    ) in error
    assert site.rows("SELECT max(seq) FROM audit_auditevent") == [(SMALL_EVENTS + 5,)]


def test_what_another_log_has_in_the_bucket_is_no_claim_of_this_one(site: Site) -> None:
    publish(site)
    put_signed(site, origin="another", index=99, seq=10**6)
    ingest(site)
    assert site.rows("SELECT max(seq) FROM audit_auditevent") == [(SMALL_EVENTS + 3,)]


def test_a_bucket_that_does_not_answer_holds_no_ingest_up(site: Site) -> None:
    """What it claims is not known then; it is asked again while the process lives."""
    site.env["AUDIT_COLD_ENDPOINT"] = NOWHERE
    began = time.monotonic()
    error = ingest(site)
    assert time.monotonic() - began < 30
    assert site.rows("SELECT head_seq FROM audit_logstate") == [(SMALL_EVENTS + 3,)], error


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
        assert "but a checkpoint is signed for seq 243: hot was rolled back" in answer["error"]
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
                f"INSERT INTO hot.audit_{table} SELECT * FROM other.audit_{table}"  # noqa: S608  # our own names
            )
    words = (
        "Seq 242 in the hot database is not the one for which checkpoint 2 is signed: the log "
        "was rolled back and continued, or changed. Nothing is appended; keep the database as it "
        "is, and restore it from its newest backup."
    )
    assert words in ingest(site, code=1)
    answer = site.archive()
    assert (answer["outcome"], answer["error"]) == ("refused", words)
    answer = make(site)
    assert (answer["outcome"], answer["exit"]) == ("refused", 1)
    assert "Seq 242 in the hot database is not the one for which" in answer["error"]
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
    "frontier",
    sweep(
        ["[]", "null", '{"a":1}', '["x"]', f'["{"ab" * 32}"]', "edited"],
        always=["null", "edited"],
    ),
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
    assert answer["error"].startswith("The checkpoint 1 of seq 240 is signed by hmac-sha256:k-")
    assert "set AUDIT_SIGNING_KEYS so that it has that key, too" in answer["error"]
    assert rows(site) == [(1, SMALL_EVENTS, "published")]
    assert refusals(site) == 0


def test_what_goes_on_being_wrong_is_one_event_in_the_log(site: Site) -> None:
    edit(site, "UPDATE audit_auditevent SET record = x'7b7d' WHERE seq = 239")
    edit(site, "UPDATE audit_checkpoint SET frontier = '[]'")
    for _ in range(4):
        answer = make(site)
        assert (answer["outcome"], answer["exit"]) == ("failed", 1)
        assert "Seq 239 in the hot database was changed" in answer["error"]
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
    assert made[-1]["seq"] == SMALL_EVENTS + 6
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
    run = site.driver("archive", f"--through-seq={SMALL_EVENTS}", "--pause=step:purged")
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
