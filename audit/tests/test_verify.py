"""A verification as a whole: what it says, beside what it runs, and that it changes nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit import bucket, checkpoints, hotwalk, rebuild, verify
from audit.coldwalk import ColdWalk, NoBatchError
from audit.format.names import Kind
from audit.ledgercheck import LedgerCheck
from audit.pointcheck import PointCheck
from audit.statecheck import StateCheck
from audit.verify import Asked, Verified
from audit.watcher import Step

from . import fault_proxy as proxies
from .attacks import BATCH, COLD, Scene, assert_found, inside, lines
from .fault_proxy import FaultProxy
from .servers import ROOT
from .simulator import PATIENCE, Process, Site, Template
from .starter import Starter
from .sweep import sweep

HEAD = COLD + 2 + 25 + 5
EVENTS = 60


# What it says ------------------------------------------------------------------------------


def answer(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_log_in_both_tiers_is_ok_and_all_of_it_was_looked_at(scene: Scene) -> None:
    done = scene.manage("verify_audit", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    found = answer(done)
    assert re.fullmatch(r"[0-9a-f]{64}", found.pop("root"))
    assert found == {
        "outcome": "ok",
        "events": HEAD,
        "first_seq": 1,
        "last_seq": HEAD,
        "manifests": {"valid": 3, "total": 3},
        "objects": {"valid": 3, "total": 3},
        "checkpoints": {"valid": 3, "total": 3},
        "problems": [],
        "more_problems": 0,
        "notes": [],
        "more_notes": 0,
        "level": "full",
        "run": 1,
        "oldest_hot_seq": COLD + 1,
        "highest_archived_seq": COLD,
        "checks": [],
    }
    outcome, events, finished, report, who = scene_row(scene)
    assert (outcome, events, bool(finished), bool(who)) == ("ok", HEAD, True, True)
    assert json.loads(report) == answer(done)


def scene_row(scene: Scene) -> Any:
    with scene.sql() as connection:
        return connection.execute(
            "SELECT outcome, events, finished_at, report, requested_by "
            "FROM audit_verificationrun ORDER BY id DESC"
        ).fetchone()


def test_a_person_reads_lines(scene: Scene) -> None:
    done = scene.manage("verify_audit", "--level=manifests")
    assert done.returncode == 0
    first, second, third = done.stdout.decode().splitlines()
    assert re.fullmatch(
        r"3/3 manifests valid, 3/3 objects valid, 3/3 checkpoints valid, 92 events, seq 1–92, "
        r"root [0-9a-f]{64}, 0 gaps",
        first,
    )
    assert second == "tier boundary: highest archived seq 60, oldest hot seq 61"
    assert third == "ok (verification 1)"


def test_each_problem_has_a_line_of_its_own_and_the_worst_names_the_run(scene: Scene) -> None:
    scene.remove(scene.key(1), scene.key(21))
    scene.run("DELETE FROM audit_auditevent WHERE seq IN (70, 80)")
    done = scene.manage("verify_audit")
    said = done.stdout.decode().splitlines()
    assert done.returncode == 3
    assert [line.partition(":")[0] for line in said[:4]] == ["gap"] * 4
    assert said[-1] == "gap (verification 1)"
    scene.run("UPDATE audit_auditevent SET actor = 'nobody' WHERE seq = 75")
    done = scene.manage("verify_audit")
    assert done.returncode == 1
    assert done.stdout.decode().splitlines()[-1] == "tampered (verification 2)"
    scene.keys = scene.keys.replace("k-one", "k-uno").replace("e-two", "e-due")
    done = scene.manage("verify_audit", "--json")
    assert answer(done)["outcome"] == "tampered"
    assert {problem["kind"] for problem in answer(done)["problems"]} == {
        "tampered",
        "gap",
        "unverifiable",
    }


def test_an_empty_log_is_ok(site: Site) -> None:
    site.start_empty()
    for args in ([], ["--level=manifests"]):
        done = site.manage("verify_audit", "--json", *args)
        assert done.returncode == 0
        assert (answer(done)["outcome"], answer(done)["events"]) == ("ok", 0)
    assert site.manage("checkpoint_now").returncode == 0
    done = site.manage("verify_audit")
    assert done.returncode == 0
    assert b", 1/1 checkpoints valid, 0 events, root e3b0c44298fc1c14" in done.stdout


def test_a_log_that_is_all_in_hot_is_ok(scene: Scene) -> None:
    scene.restore("unarchived")
    scene.prefix = f"site/{uuid.uuid4()}"
    found = scene.verify()
    assert (found.report.outcome, found.report.events) == ("ok", COLD)
    assert (found.highest_archived_seq, found.oldest_hot_seq) == (0, 1)


def test_a_log_of_which_hot_has_only_its_own_events_is_ok(scene: Scene) -> None:
    scene.restore("archived")
    scene.remove(scene.point_key(3))
    found = scene.verify()
    assert (found.report.outcome, found.report.events) == ("ok", COLD + 2)


def test_a_ledger_that_was_rebuilt_is_ok(scene: Scene) -> None:
    scene.run("DELETE FROM audit_archivebatch")
    assert scene.verify(verify.MANIFESTS).report.outcome == "gap"
    with scene.inside():
        done = rebuild.rebuild(requested_by="test", requested_from="here")
    assert (done.error, done.outcome) == (None, "rebuilt")
    found = scene.verify()
    assert (found.report.outcome, found.report.problems) == ("ok", [])


def test_one_batch_is_looked_at_alone(scene: Scene) -> None:
    scene.run("DELETE FROM audit_auditevent WHERE seq = 70")
    scene.remove(scene.key(1))
    done = scene.manage("verify_audit", "--batch=30", "--json")
    found = answer(done)
    assert done.returncode == 0
    assert (found["first_seq"], found["last_seq"], found["events"]) == (21, 40, 20)
    done = scene.manage("verify_audit", "--batch=5", "--json")
    assert (done.returncode, answer(done)["problems"][0]["seq"]) == (3, 1)


def test_several_processes_find_the_same(scene: Scene) -> None:
    scene.put(scene.key(21), scene.get(scene.key(21))[:-1])
    scene.remove(scene.key(41))
    one, two = (
        answer(scene.manage("verify_audit", "--json", f"--processes={number}"))
        for number in (1, 2)
    )
    assert [one.pop("run"), two.pop("run")] == [1, 2]
    assert one == two
    assert [problem["seq"] for problem in one["problems"]] == [21, 41]


def test_progress_goes_up_to_what_is_expected(scene: Scene) -> None:
    for level in (verify.FULL, verify.MANIFESTS):
        moved: list[int] = []
        expected: list[int] = []
        with scene.inside():
            verify.verify(Asked("command", "test", level=level), moved.append, expected.append)
        assert (sum(moved), expected) == (HEAD, [HEAD])


# It changes nothing ------------------------------------------------------------------------


def attack(scene: Scene) -> None:
    scene.edit(70, action="made up")
    scene.rechain(70)
    scene.run("DELETE FROM audit_archivebatch WHERE start_seq = 21")
    scene.run('DELETE FROM audit_checkpoint WHERE "index" = 2')
    scene.put(scene.key(1), b"x")
    scene.remove(scene.key(41, Kind.MANIFEST))


@pytest.mark.parametrize("attacked", [False, True], ids=["clean", "attacked"])
def test_it_changes_nothing(scene: Scene, attacked: bool) -> None:
    if attacked:
        attack(scene)
    site = scene.archived.site
    before = scene.dump(), site.objects(), site.checkpoints()
    for level in (verify.FULL, verify.MANIFESTS):
        assert scene.verify(level).report.outcome == ("tampered" if attacked else "ok")
        assert scene.verify(level, batch_seq=30).report.outcome
    assert (scene.dump(), site.objects(), site.checkpoints()) == before
    assert scene.one("SELECT count(*) FROM audit_verificationrun") == 4


# What is not in order ------------------------------------------------------------------------


def test_a_system_check_that_fails_keeps_nobody_from_looking(scene: Scene) -> None:
    done = scene.manage("verify_audit", AUDIT_HOT_RETENTION_DAYS="-1", AUDIT_DEDUP_DAYS="30")
    said = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert said[0].startswith("system check: audit.E006: AUDIT_HOT_RETENTION_DAYS is below zero.")
    assert said[-1].startswith("ok")
    assert scene.manage("checkpoint_now", AUDIT_HOT_RETENTION_DAYS="-1").returncode == 1


def test_a_keyring_that_is_broken_is_unverifiable(scene: Scene) -> None:
    scene.keys = "hmac-sha256:k-one:short"
    found = scene.verify()
    assert_found(found, "unverifiable", None, "Key 1 of 1 in AUDIT_SIGNING_KEYS is not base64.")
    assert found.report.events == 32  # hot can be walked, though nothing says that it is signed
    assert any("audit.E002" in line for line in found.checks)


def broken(database: Path) -> None:
    database.write_bytes(b"no database, but long enough to be taken for one " * 100)


def gone(database: Path) -> None:
    database.unlink()
    database.mkdir()


def emptied(database: Path) -> None:
    database.write_bytes(b"")


@pytest.mark.parametrize("harm", [broken, gone, emptied])
def test_a_database_that_cannot_be_read_leaves_cold_to_be_looked_at(
    scene: Scene, harm: Callable[[Path], None]
) -> None:
    harm(scene.database)
    found = scene.verify()
    assert_found(found, "unverifiable", None, "database")
    assert {problem.kind for problem in found.report.problems} == {"unverifiable"}
    assert (found.report.events, found.report.manifests.good) == (COLD, 3)
    assert found.report.notes[-1] == "This verification is written down nowhere but here."


def test_the_command_says_the_same_of_it(scene: Scene) -> None:
    emptied(scene.database)
    done = scene.manage("verify_audit")
    assert done.returncode == 2
    assert b"run manage.py migrate" in done.stdout
    assert b"Traceback" not in done.stderr


def test_a_database_that_is_held_is_unverifiable(scene: Scene) -> None:
    with closing(sqlite3.connect(scene.database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        found = scene.verify(verify.MANIFESTS)
    assert_found(found, "unverifiable", None, "stayed locked by another process")
    assert found.report.events == COLD


def test_a_database_that_another_writes_to_can_be_read(scene: Scene) -> None:
    scene.verify(verify.MANIFESTS)  # it is in WAL mode from now on
    with closing(sqlite3.connect(scene.database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        found = scene.verify(verify.MANIFESTS)
    assert found.report.outcome == "ok"
    assert found.report.notes == ["This verification is written down nowhere but here."]


# The command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["--level=all"],
        ["--batch=0"],
        ["--batch=x"],
        ["--processes=0"],
        ["--unknown"],
        ["surplus"],
        ["--force-color", "--no-color"],
        ["--settings=nowhere"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_no_verdict(scene: Scene, args: list[str]) -> None:
    # As a person types it: what manage.py makes of it belongs to it.
    if args == ["--settings=nowhere"]:
        done = subprocess.run(
            [sys.executable, "manage.py", "verify_audit", *args],
            cwd=ROOT,
            env=scene.env,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    else:
        done = scene.manage("verify_audit", *args)
    assert done.returncode == 2
    assert done.stderr
    assert scene.one("SELECT count(*) FROM audit_verificationrun") == 0


def test_settings_that_cannot_be_read_are_no_verdict(scene: Scene) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "verify_audit"],
        cwd=ROOT,
        env={**scene.env, "AUDIT_LEASE_SECONDS": "a minute"},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"manage.py: AUDIT_LEASE_SECONDS is 'a minute'")


@pytest.mark.parametrize("seq", [COLD + 1, 5_000])
def test_a_seq_that_no_batch_holds_is_wrong_usage(scene: Scene, seq: int) -> None:
    done = scene.manage("verify_audit", f"--batch={seq}", "--json")
    assert done.returncode == 2
    assert answer(done)["outcome"] == "unverifiable"
    assert answer(done)["error"].startswith(f"No batch holds seq {seq:,}")
    with scene.inside(), pytest.raises(NoBatchError):
        verify.verify(Asked("command", "test", batch_seq=seq))
    assert scene_row(scene)[0] == "unverifiable"


def test_a_terminal_that_knows_few_characters_is_told_what_was_found(scene: Scene) -> None:
    scene.remove(scene.key(21))
    done = subprocess.run(
        [sys.executable, "manage.py", "verify_audit"],
        cwd=ROOT,
        env={**scene.env, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert rb"seq 1\u201392" in done.stdout


def test_a_fault_of_this_program_is_no_verdict(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(hotwalk.HotWalk, "go", fail)
    with pytest.raises(ZeroDivisionError):
        scene.verify()
    outcome, events, finished, report, _ = scene_row(scene)
    assert (outcome, events, bool(finished)) == ("unverifiable", COLD, True)
    assert "It failed (ZeroDivisionError: on purpose)" in report


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped_says_so(scene: Scene, number: signal.Signals) -> None:
    starter = scene.archived.site.starter
    with FaultProxy(scene.archived.site.env["AUDIT_COLD_ENDPOINT"]) as proxy:
        proxy.fault(proxies.stall, "GET", ".gz", skip=1)
        env = {**scene.env, "AUDIT_COLD_ENDPOINT": proxy.endpoint}
        process = Process(["manage.py", "verify_audit", "--json"], env, starter)
        deadline = time.monotonic() + PATIENCE
        while proxy.count("GET", ".gz") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.signal(number)
        (said,) = process.finish(2)[-1:]
        assert json.loads(said) == {
            "outcome": "unverifiable",
            "error": "Stopped: nothing can be said about the log.",
        }
        process.kill()
    outcome, events, finished, report, _ = scene_row(scene)
    assert (outcome, events, bool(finished)) == ("unverifiable", BATCH, True)
    assert "Stopped on request" in report


# Beside a run --------------------------------------------------------------------------------


class Place(Site):
    """A deployment that archives all that it has in small batches, verified in this process."""

    def __init__(self, folder: Path, template: Template, start: Starter, blocker: Any) -> None:
        super().__init__(folder, template, start)
        self._blocker = blocker
        self.env.update(AUDIT_HOT_RETENTION_DAYS="0", AUDIT_BATCH_MAX_EVENTS=str(BATCH))

    def verify(self, level: str = verify.FULL) -> Verified:
        with inside(self._blocker, self.database, self.prefix):
            return verify.verify(Asked("command", "test", level=level))

    def assert_ok(self) -> Verified:
        found = self.verify()
        assert (found.report.outcome, found.report.problems) == ("ok", [])
        return found

    def busy(self, count: int = 30) -> None:
        """Take events in, and archive what there is."""
        name = str(uuid.uuid4())
        assert self.manage("ingest_events", "-", data=lines(name, count)).returncode == 0
        answered = self.archive()
        assert answered["outcome"] == "archived", answered


@pytest.fixture(scope="session")
def sixty(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Make a history that takes no time to archive."""
    return Template.make(tmp_path_factory.mktemp("sixty"), EVENTS)


@pytest.fixture
def place(
    sixty: Template, start: Starter, tmp_path: Path, django_db_blocker: Any
) -> Iterator[Place]:
    with Place(tmp_path, sixty, start, django_db_blocker) as deployment:
        yield deployment


STEPS = [
    Step.FENCED,
    Step.RANGE_FIXED,
    Step.JSONL_SENT,
    Step.MANIFEST_SENT,
    Step.RECORDED,
    Step.FLOOR_RAISED,
    Step.CHUNK_DELETED,
    Step.ROWS_DELETED,
    Step.PURGED,
]
# In neither tier as the ledger says, in both, and half.
ONE_EACH = [Step.MANIFEST_SENT, Step.RECORDED, Step.FLOOR_RAISED, Step.CHUNK_DELETED]


@pytest.mark.parametrize("nth", sweep([1, 2], always=[1]))
@pytest.mark.parametrize("step", sweep(STEPS, always=ONE_EACH))
def test_beside_a_run_that_stands_still_and_after_one_that_was_killed_it_is_ok(
    place: Place, step: Step, nth: int
) -> None:
    if nth == 2 and step is Step.FENCED:
        pytest.skip("comes once")
    run = place.driver("archive", f"--pause=step:{step}:{nth}")
    run.wait_for("^paused")
    assert place.assert_ok().report.events >= EVENTS
    run.kill()
    found = place.assert_ok()
    adopts = [note for note in found.report.notes if "the next run adopts it" in note]
    assert adopts or step is not Step.MANIFEST_SENT


def test_after_checkpoint_now_was_killed_before_its_object_was_sent_it_is_ok(
    place: Place,
) -> None:
    for where in ("send:PutObject", "send:PutObject:2"):
        run = place.driver("checkpoint", f"--pause={where}")
        run.wait_for("^paused")
        place.assert_ok()
        run.kill()
        place.assert_ok()
    pending = place.rows("SELECT count(*) FROM audit_checkpoint WHERE state = 'pending'")
    assert pending[0][0] > 0


def test_while_checkpoints_wait_for_the_bucket_it_is_ok(scene: Scene) -> None:
    with scene.inside():
        for _ in range(2):
            assert not checkpoints.make(ask_bucket=False).published
    found = scene.verify()
    assert (found.report.outcome, found.report.checkpoints.good) == ("ok", 5)


def test_where_the_log_has_a_database_of_its_own_it_is_ok_and_attacks_are_found(
    place: Place,
) -> None:
    place.split()
    place.busy()
    done = place.manage("verify_audit", "--json")
    assert (done.returncode, answer(done)["problems"]) == (0, [])
    events = answer(done)["events"]
    with place.sql() as connection:
        connection.execute(
            "DELETE FROM hot.audit_auditevent "
            "WHERE seq = (SELECT max(seq) FROM hot.audit_auditevent)"
        )
    done = place.manage("verify_audit", "--json")
    assert (done.returncode, answer(done)["problems"][0]["seq"]) == (3, events)
    place.hot_database.rename(place.folder / "aside.sqlite3")
    done = place.manage("verify_audit", "--json")
    assert done.returncode == 2
    assert len(answer(done)["problems"]) == 1
    assert answer(done)["manifests"]["total"] == len(place.batches())
    place.manage("migrate", "-v0", "--database=hot")
    done = place.manage("verify_audit", "--json")
    assert done.returncode == 3
    assert "log's state is missing" in answer(done)["problems"][0]["message"]


MOMENTS = {
    "the ledger": (LedgerCheck, "take"),
    "the bucket's names": (ColdWalk, "listed"),
    "the rows of checkpoints": (PointCheck, "take"),
    "cold": (ColdWalk, "go"),
    "the log's state": (StateCheck, "_state"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_happens_between_two_looks_is_no_alarm(
    place: Place, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run begins and ends, and more is taken in, right after each thing that is looked at."""
    place.busy()
    owner, look = MOMENTS[moment]
    before = getattr(owner, look)
    done: list[str] = []

    def then(self: Any, *args: Any) -> Any:
        found = before(self, *args)
        if not done:
            done.append(moment)
            place.busy()
            place.busy()
        return found

    monkeypatch.setattr(owner, look, then)
    found = place.assert_ok()
    assert done
    head = place.rows("SELECT head_seq FROM audit_logstate")[0][0]
    assert found.report.last_seq is not None
    assert found.report.events == found.report.last_seq <= head


def test_a_listing_that_passes_a_batch_just_before_it_is_there_is_no_alarm(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, times = bucket.Bucket.names, []

    def names(self: bucket.Bucket) -> list[str]:
        found = listed(self)
        times.append(len(found))
        unseen = f"{21:020d}-" if len(times) == 1 else "nothing"
        return [name for name in found if not name.startswith(unseen)]

    monkeypatch.setattr(bucket.Bucket, "names", names)
    scene.run("DELETE FROM audit_archivebatch WHERE start_seq = 21")  # as it was a moment before
    assert_found(scene.verify(), "gap", 21, "its row is missing in the ledger")
    assert len(times) == 2


@pytest.mark.parametrize("times", sweep([6, 20], always=[6]))
def test_a_log_that_nobody_touched_is_ok_while_all_goes_on_beside_it(
    place: Place, times: int
) -> None:
    names = ("one", "two")
    writers = [
        place.driver("append", f"--name={name}", "--calls=0", "--each=4", "--every=0.02")
        for name in names
    ]
    for writer in writers:
        writer.wait_for("^acknowledged")

    def where() -> tuple[int, int, int]:
        head, floor = place.rows("SELECT head_seq, floor_seq FROM audit_logstate")[0]
        return head, floor, place.rows("SELECT count(*) FROM audit_archiverun")[0][0]

    before, run, number = where(), place.driver("archive"), 0
    while number < times or where()[2] < before[2] + 3:
        number += 1
        found = place.verify(verify.FULL if number % 4 else verify.MANIFESTS)
        said = [problem.message for problem in found.report.problems]
        assert (number, said, found.report.exit_code) == (number, [], 0)
        assert found.report.events == found.report.last_seq
        if run._popen.poll() is not None:
            assert run.finish()[-1].startswith("outcome archived")
            run = place.driver("archive")
    after = where()
    assert after[0] > before[0] + 100
    assert after[1] > before[1] + BATCH
    done = place.manage("verify_audit", "--json")
    assert (done.returncode, answer(done)["problems"]) == (0, [])
    for writer in writers:
        assert writer._popen.poll() is None
        writer.kill()
    run.finish()
    place.assert_ok()


def test_beside_a_run_that_is_stopped_amid_a_step_it_is_ok(place: Place) -> None:
    run = place.driver("archive")
    for _ in range(4):
        time.sleep(0.15)
        if run._popen.poll() is not None:
            break
        os.kill(run._popen.pid, signal.SIGSTOP)
        try:
            place.assert_ok()
        finally:
            os.kill(run._popen.pid, signal.SIGCONT)
    run.finish()
    place.assert_ok()
