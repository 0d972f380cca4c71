"""Torture: kills, stalls and faults at random while four processes ingest, until the first lie.

    scripts/torture.sh --kills N [--seed S] [--split] [--keep]

A site of its own, with a real S3 server, is ingested into all the time, and archived by one run
after the other. Each run, or a writer, or the server is killed, or the run is stopped past its
lease and woken, or the bucket answers wrongly, each at a random moment. A lie is whatever does
not hold then:

- What was acknowledged is in the log once, at the seq that was told, and the chain is whole from
  seq 1 to the head over both tiers, as the independent reader sees it.
- The ledger has no hole, and what it calls stored or purged is in the bucket, as it is named.
- The checkpoints are one chain of the log that there is, and none was refused; in the end the
  bucket has exactly what their rows say.
- An overtaken run changes no row of the ledger once it is woken.
- Nobody speaks of tampering, or of anything that only a restore would mend.
- In the end each run has its two events in the log, once.

It ends with "ok: …" and exit code 0, or with the first lie, the seed, what came before it and
where the evidence is, and exit code 1. The same seed chooses the same mishaps; the moments at
which they hit are the machine's.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from . import endurance, reader
from .endurance import (
    FALSE_ALARM,
    PATIENCE,
    Child,
    LieError,
    Server,
    Session,
    check_events,
    must,
    say,
)
from .fault_proxy import ALWAYS, FaultProxy, forget, lose_answer, other_etag, store_other_bytes

CHECK_EVERY = 10  # rounds from one full check to the next
OVERTAKEN = re.compile(r"outcome failed: (Lease \d+ has expired|A newer run|.*no longer)")
FAULTS = {
    **endurance.FAULTS,
    "lose the answer": lose_answer,
    "forget": forget,
    "another ETag": other_etag,
    "store other bytes": store_other_bytes,
}
REAL_ALARMS = {"forget", "store other bytes"}  # then the bucket does not hold what it should
HELD_UP = "stayed locked|outcome busy: Another run"
STATEMENTS = ("INSERT INTO", "UPDATE", "DELETE FROM", "SELECT")


class Torture(Session):
    """One session."""

    writers_wanted, each, every = 4, 3, "0.25"
    batch_events, busy_seconds, recent_lines = 40, 2, 12

    def __init__(
        self, folder: Path, seed: int, server: Server, proxy: FaultProxy, *, split: bool
    ) -> None:
        super().__init__(folder, seed, server, proxy, split=split)
        self.alarmed = False  # whether the bucket has not held what it should
        self.bodies: dict[tuple[str, str], bytes] = {}
        self.start_writers()

    # Processes -------------------------------------------------------------------------------

    def run(self, *arguments: str) -> Child:
        """Start a run of the archive."""
        return self.start("-m", "audit.tests.driver", "archive", *arguments)

    def command(self) -> Child:
        """Start a run by the operator's command."""
        return self.start("manage.py", "archive_now", "--json")

    def wait_a_moment(self, run: Child) -> None:
        """Wait until a run is somewhere, or has ended."""
        run.says(self.random.choice((1, 1, 2, 3, 5, 8, 13, 21, 34)))
        time.sleep(self.random.choice((0, 0, self.random.random() * 0.05)))

    def judge(self, run: Child, *, benign: str = "", alarmed: bool = False) -> str:
        """Return a run's last line once it has ended; raise where it should not say that.

        `benign`: what it may have failed of. `alarmed`: it may speak of tampering.
        """
        line = run.finish()
        if line.startswith("{"):
            answer = json.loads(line)
            line = f"outcome {answer['outcome']}: {answer['error']}"
        self.note(line)
        match = re.match(r"outcome (\w+): ", line)
        must(match, f"A run ended with: {run.lines[-20:]}")
        assert match is not None
        self.outcomes[match[1]] += 1
        if OVERTAKEN.match(line):
            must("overtaken" in benign, f"Nobody overtook a run that says: {line}")
        elif match[1] not in {"archived", "nothing_due"}:
            must(benign and re.search(benign, line), f"A run failed of nothing: {line}")
            must(alarmed or not FALSE_ALARM.search(line), f"A false alarm: {line}")
        return line

    # Mishaps -----------------------------------------------------------------------------------

    def kill_run(self) -> None:
        """Kill a run when it is somewhere."""
        run = self.run()
        self.wait_a_moment(run)
        self.killed(run)

    def kill_run_amid_statement(self) -> None:
        """Kill a run inside a transaction, or between two, after a random statement."""
        statement = self.random.choice(STATEMENTS)
        nth = self.random.randint(1, 60 if statement in {"SELECT", "UPDATE"} else 8)
        run = self.run(f"--pause=sql:{statement}:{nth}")
        run.wait_until(lambda: any(line.startswith("paused") for line in run.lines))
        self.killed(run)

    def kill_command(self) -> None:
        """Kill the operator's command at a random time."""
        run = self.command()
        time.sleep(self.random.random() * 1.5)
        self.killed(run)

    def killed(self, run: Child, benign: str = "") -> None:
        """Kill a run, unless it has ended."""
        if run.kill():
            self.did("kills", f"killed after {run.lines[-1:]}")
        else:
            self.judge(run, benign=benign)

    def kill_writer(self) -> None:
        """Kill a writer while a run goes on, and start another."""
        run = self.run()
        self.wait_a_moment(run)
        self.replace_writer()
        self.judge(run)

    def kill_server(self) -> None:
        """Kill the S3 server while a run goes on, and start it again."""
        run = self.run()
        self.wait_a_moment(run)
        must(self.server.child.kill(), f"The S3 server died: {self.server.child.lines[-20:]}")
        self.did("kills", "killed the S3 server")
        self.server.start()
        self.judge(run, benign="no (whole )?answer after|refused with")
        self.proxy.errors.clear()  # the server died on it

    def stall(self) -> None:
        """Stop a run past its lease, let another one go on, and wake it."""
        first = self.run()
        self.wait_a_moment(first)
        first.popen.send_signal(signal.SIGSTOP)
        self.did("stalls", f"stopped after {first.lines[-1:]}")
        expired = self.expire_lease()
        second = self.run()
        second_line = ""
        if self.random.random() < 0.3:
            self.wait_a_moment(second)
            self.killed(second, benign=HELD_UP)
        else:
            second_line = self.judge(second, benign=HELD_UP)
        overtaken = expired and second_line.startswith(("outcome archived", "outcome nothing_due"))
        ledger = self.ledger()
        first.popen.send_signal(signal.SIGCONT)
        self.note("woken")
        line = self.judge(first, benign="overtaken|stayed locked")
        if overtaken and line not in {"outcome archived: None", "outcome nothing_due: None"}:
            must(OVERTAKEN.match(line), f"An overtaken run says: {line}")
            must(ledger == self.ledger(), "A run that was overtaken changed the ledger.")

    def fault(self) -> None:
        """Let the bucket answer wrongly while a run goes on."""
        name = self.random.choice(list(FAULTS))
        verbs = ("PUT", "HEAD", "GET", "LIST") if "stor" not in name else ("PUT",)
        verb = "PUT" if name == "forget" else self.random.choice(verbs)
        key = "" if verb == "LIST" else self.random.choice(("", ".jsonl.gz", ".manifest.json"))
        times, skip = self.random.choice((1, 1, 2, ALWAYS)), self.random.choice((0, 0, 1, 2))
        self.note(f"fault: {name}, {verb} {key}, {times} times after {skip}")
        self.proxy.fault(FAULTS[name], verb, key, times=times, skip=skip)
        self.counts["faults"] += 1
        self.alarmed = self.alarmed or name in REAL_ALARMS
        self.judge(self.run(), benign=".", alarmed=name in REAL_ALARMS)
        self.proxy.lift()
        if name == "store other bytes":
            self.remove_other_bytes()
        if name in REAL_ALARMS:
            self.judge(self.run())  # which sends what is missing

    def remove_other_bytes(self) -> None:
        """Remove what the bucket was made to store wrongly, as a run has asked for."""
        believed = {
            row[key]
            for row in self.ledger()
            if row["state"] != "planned"
            for key in ("jsonl_key", "manifest_key")
        }
        for key, data in self.server.objects(self.site.prefix, self.bodies).items():
            if not is_named_by(key, data):
                must(key not in believed, f"{key} holds other bytes, and the ledger believes it.")
                self.note(f"removed {key}")
                self.server.bucket.Object(key).delete()

    def expire_lease(self) -> bool:
        """Let the lease run out, unless the database is locked: then its holder has stopped
        inside a transaction."""
        try:
            with (
                closing(sqlite3.connect(self.site.database, timeout=0.2)) as connection,
                connection,
            ):
                connection.execute(
                    "UPDATE audit_lease SET expires_at = '2000-01-01' WHERE expires_at NOT NULL"
                )
        except sqlite3.OperationalError:
            self.counts["stalls inside a transaction"] += 1
            return False
        return True

    # Checks ------------------------------------------------------------------------------------

    def ledger(self) -> list[dict[str, Any]]:
        """Return every row of the ledger."""
        with closing(sqlite3.connect(self.site.database, timeout=PATIENCE)) as connection:
            connection.row_factory = sqlite3.Row
            query = "SELECT * FROM audit_archivebatch ORDER BY start_seq"
            return [dict(row) for row in connection.execute(query)]

    def check_quickly(self) -> None:
        """Check what can be seen at a glance."""
        self.check_writers()
        with self.lock:
            newest = max(self.acknowledged.values(), default=0)
        ledger = self.ledger()
        with closing(sqlite3.connect(self.site.hot_database, timeout=PATIENCE)) as hot:
            hot.execute("BEGIN")
            head, floor = hot.execute(
                "SELECT head_seq, floor_seq FROM audit_logstate"
            ).fetchone() or (0, 0)
            query = "SELECT min(seq), max(seq), count(*) FROM audit_auditevent WHERE seq > ?"
            rows = hot.execute(query, [floor]).fetchone()
            oldest = hot.execute("SELECT min(seq) FROM audit_auditevent").fetchone()[0]
        must(newest <= head, f"Seq {newest} was acknowledged, the head is {head}.")
        expected = (floor + 1, head, head - floor) if head > floor else (None, None, 0)
        must(rows == expected, f"Hot has {rows} above floor {floor}, the head is {head}.")
        end, order = 0, ["purged", "stored", "planned"]
        for row in ledger:
            must(row["start_seq"] == end + 1, f"A hole in the ledger before {row}")
            must(row["state"] in order, f"The ledger's states are out of order at {row}")
            order = order[order.index(row["state"]) :]
            if row["state"] == "planned":
                order = []
            end = row["end_seq"]
        must(end <= head, f"The ledger ends at {end}, the head is {head}.")
        in_cold = [row for row in ledger if row["state"] != "planned"]
        archived = in_cold[-1]["end_seq"] if in_cold else 0
        must(floor <= archived, f"The floor is {floor}, cold ends at {archived}.")
        purged = max((row["end_seq"] for row in ledger if row["state"] == "purged"), default=0)
        must(oldest is None or oldest > purged, f"Seq {oldest} is in hot, purged to {purged}.")
        names = {item.key for item in self.server.bucket.objects.filter(Prefix=self.site.prefix)}
        for row in in_cold:
            for key in (row["jsonl_key"], row["manifest_key"]):
                must(key in names, f"{key} is {row['state']} and not in the bucket.")

    def check_fully(self) -> list[dict[str, Any]]:
        """Read everything with the independent reader; return the events in their order."""
        with self.lock:
            acknowledged = dict(self.acknowledged)
        snapshot = self.folder / "snapshot.sqlite3"
        snapshot.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(self.site.hot_database, timeout=PATIENCE)) as source,
            closing(sqlite3.connect(snapshot)) as copy,
        ):
            source.backup(copy)
        objects = self.server.objects(self.site.prefix, self.bodies)
        for key, data in objects.items():
            must(is_named_by(key, data), f"{key} holds other bytes.")
        env = self.site.env
        try:
            log = reader.read_all(
                objects,
                self.site.prefix,
                base64.b64decode(env["AUDIT_SIGNING_KEY"]),
                env["AUDIT_ORIGIN"],
                snapshot,
            )
        except reader.WrongError as error:
            raise LieError(f"The independent reader says: {error}") from error
        events = [json.loads(record) for record in log.records]
        check_events(events, acknowledged)
        for row in self.ledger():
            if row["state"] != "planned":
                must(row["end_link"] == log.links[row["end_seq"]].hex(), f"The link of {row}")
                for kind in ("jsonl", "manifest"):
                    digest = sha256(objects[row[f"{kind}_key"]]).hexdigest()
                    must(digest == row[f"{kind}_sha256"], f"The digest of {row}")
        rows = self.site.rows('SELECT "index", seq, link FROM audit_checkpoint ORDER BY 1')
        for place, (index, seq, link) in enumerate(rows, 1):
            must(index == place, f"Checkpoint {index} is in the place of {place}.")
            if seq < len(log.links):  # else it was made meanwhile
                must(link == log.links[seq].hex(), f"Checkpoint {index} is of another log.")
        return events

    def check_at_the_end(self) -> None:
        """End the writers, archive the rest, and check everything."""
        self.end_writers()
        for _ in range(2):
            self.judge(self.run())
        events = self.check_fully()
        found = Counter(event["external_id"] for event in events if event["source"] == "dezky")
        for number, request, outcome in self.site.rows(
            "SELECT id, request, outcome FROM audit_archiverun ORDER BY id"
        ):
            must(outcome, f"Run {number} was never closed.")
            for action in ("archive_requested", "archive_ended"):
                count = found[f"{request}:{action}"]
                must(count == 1, f"Run {number} ({outcome}) has {count} events {action}.")
        refused = [event for event in events if event["action"] == "checkpoint_refused"]
        must(self.alarmed or not refused, f"A false alarm: {refused}")
        signed = {
            f"{self.site.prefix}/checkpoints/{index:012d}-{seq:020d}-{digest[:16]}.json"
            for index, seq, digest in self.site.rows(
                "SELECT \"index\", seq, sha256 FROM audit_checkpoint WHERE state = 'published'"
            )
        }
        must(
            len(signed) == self.site.rows("SELECT count(*) FROM audit_checkpoint")[0][0],
            "A checkpoint waits.",
        )
        objects = self.server.objects(self.site.prefix, self.bodies)
        there = {key for key in objects if "/checkpoints/" in key}
        must(signed == there, f"Not in rows and bucket alike: {signed ^ there}")
        self.check_quickly()

    # All of it ---------------------------------------------------------------------------------

    def go_on_until(self, kills: int) -> None:
        """Do mishaps until there were so many kills."""
        mishaps = {
            self.kill_run: 40,
            self.kill_run_amid_statement: 20,
            self.kill_command: 10,
            self.kill_writer: 8,
            self.kill_server: 6,
            self.stall: 16,
            self.fault: 16,
        }
        while self.counts["kills"] < kills:
            self.counts["rounds"] += 1
            (mishap,) = self.random.choices(list(mishaps), list(mishaps.values()))
            self.note(f"round {self.counts['rounds']}: {mishap.__name__}")
            mishap()
            self.check_quickly()
            if self.counts["rounds"] % CHECK_EVERY == 0:
                self.check_fully()
        self.check_at_the_end()

    def tell(self) -> None:
        """Say what was done, and how it ended."""
        say(", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items())))
        say(
            f"ok: {self.counts['kills']} kills, {self.counts['stalls']} stalls, "
            f"{self.counts['faults']} faults, "
            f"{len(self.acknowledged):,} events in {self.seconds:.0f} s"
        )


def is_named_by(key: str, data: bytes) -> bool:
    """Say whether an object's bytes are those that its name promises."""
    return sha256(data).hexdigest()[:16] == key.rpartition("-")[2].partition(".")[0]


def main() -> int:
    """Take the arguments and go; return the exit code."""
    parser = argparse.ArgumentParser(prog="torture.sh", description=(__doc__ or "")[:96])
    parser.add_argument("--kills", type=int, required=True, metavar="N", help="end after N kills")
    parser.add_argument("--split", action="store_true", help="the log in a database of its own")
    return endurance.run(parser, go)


def go(arguments: argparse.Namespace, folder: Path, server: Server, proxy: FaultProxy) -> bool:
    """Do so many kills; return whether it ended well."""
    torture = Torture(folder, arguments.seed, server, proxy, split=arguments.split)
    whole = endurance.endure(torture, partial(torture.go_on_until, arguments.kills))
    if whole:
        torture.tell()
    return whole


if __name__ == "__main__":
    sys.exit(main())
