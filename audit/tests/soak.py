"""Soak: a site that runs unattended for minutes, while its parts are killed, stopped and cut off.

    scripts/soak.sh --minutes N [--seed S] [--keep]

Broker, workers, beat and a real S3 server; three processes ingest all the time. The schedule does
its work by itself: its guards are told every few seconds that the next day has come, so that
archive and verification are done again and again. Meanwhile, one at a time and at random: a
worker with its children, beat, a process that ingests, or the broker is killed and comes back; a
worker or one that ingests is stopped for seconds and woken; the bucket fails for seconds. Now
and then all is left in peace for a while. An operator archives and verifies beside. A lie is
whatever does not hold then:

- What was acknowledged is in the log once, at the seq that was told, and the chain is whole from
  seq 1 to the head over both tiers, as the independent reader sees it.
- No verification finds tampering or a gap, none cannot look while nothing is broken, and no alarm
  speaks of what never was.
- No run fails while nothing is broken, and none of anything that only a restore would mend.
- No part ends by itself. The schedule works again after whatever has hit it, and all of it ends
  when it is told to.
- Once nothing is broken any more, a run archives all that there is, a full verification is ok,
  and every alarm is cleared within a minute.

It ends with "ok, N events" and exit code 0, or with the first lie, the seed, what came before it
and where the evidence is, and exit code 1. The same seed chooses the same mishaps; the moments at
which they hit are the machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import redis

from . import endurance, reader
from .endurance import FALSE_ALARM, Child, LieError, Server, Session, check_events, must, say
from .fault_proxy import FaultProxy, lose_answer, stall
from .redis_server import RedisServer, running
from .stack import Part, Stack

LEASE_SECONDS = 20
PATIENCE = 180
LINE_EVERY, LOOK_EVERY, DAY_EVERY, NET_EVERY = 30, 5, 8, 20
VERIFY_EVERY, OPERATOR_EVERY = 25, 35
VERIFIED_DAYS = 8  # from one day on which the schedule verifies to the next
SETTLES = timedelta(seconds=5)  # for so long after a mishap what it broke may still be found
CALM_EVERY, CALM_SECONDS = 8, 30  # so often nothing is broken for so long
ALARMS_CLEAR_SECONDS = 60
SILENT_SECONDS = 240
IDLE_SECONDS = 90
FIRST_DAY = datetime(2026, 11, 24, tzinfo=UTC)
ENTRIES = ("heartbeat", "watch", "checkpoint", "archive", "verify", "prune")
WORKERS = (("long", 2), ("short", 1))
NEVER = ("tampering", "gap", "append_refused", "unknown_objects", "key_missing", "clock", "full")
FAULTS = {**endurance.FAULTS, "stall": stall, "lose the answer": lose_answer}

Mishap = Generator[float]  # it gives the seconds until it goes on


@dataclass
class Beside:
    """A command that an operator has begun."""

    child: Child
    began: datetime
    judge: Callable[[dict[str, Any], datetime], None]


class Soak(Session):
    """One session."""

    writers_wanted, each, every = 3, 30, "0.3"
    batch_events, busy_seconds, recent_lines = 1_000, 5, 40

    def __init__(
        self, folder: Path, seed: int, server: Server, proxy: FaultProxy, broker: RedisServer
    ) -> None:
        os.environ["REDIS_URL"] = broker.url  # else what migrates warns that there is none
        super().__init__(folder, seed, server, proxy)
        self.broker = broker
        self.days = 0
        self.broken: list[tuple[datetime, datetime | None]] = []  # when something was
        self.judged_run = 0
        self.judged: set[int] = set()  # verifications: they may end in another order
        self.calm = 0  # of both, what was done while nothing was broken
        self.beside: list[Beside] = []
        self.site.env.update(
            AUDIT_CHECKPOINT_MINUTES="1",
            AUDIT_COLD_TIMEOUT_SECONDS="3",
            AUDIT_COLD_ATTEMPTS="2",
            AUDIT_LEASE_SECONDS=str(LEASE_SECONDS),
        )
        self.stack = Stack(self.site, broker)
        self.workers: list[Part] = []
        self.killed: Part | None = None  # the part that was killed last

    # Processes -------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Start everything."""
        self.next_day()
        self.workers = [self.stack.worker(*each) for each in WORKERS]
        self.beat = self.stack.beat(*ENTRIES)
        self.start_writers()

    def hear_writer(self, line: str) -> None:
        """Pass over what it logs of a bucket that fails."""
        if "not known yet" not in line:
            super().hear_writer(line)

    def next_day(self) -> None:
        """Let the schedule's guards find that the next day has come."""
        hour = 5 if self.days % VERIFIED_DAYS == VERIFIED_DAYS - 1 else 3
        day = FIRST_DAY + timedelta(days=self.days, hours=hour)
        self.days += 1
        self.stack.at(f"{day:%Y-%m-%dT%H:%M:%S}")

    def look_for_what_must_not_be(self) -> None:
        """Ask for the safety net, which looks too seldom for us by itself."""
        try:
            self.stack.send("audit.safety_net")
        except (OSError, redis.RedisError) as error:
            must(self.is_broken(), f"The broker takes nothing, and nothing is broken: {error}")
        except Exception as error:  # the broker's client has errors of its own kinds
            must(self.is_broken(), f"Nothing can be sent: {error!r}")

    def command(self, judge: Callable[[dict[str, Any], datetime], None], *arguments: str) -> None:
        """Begin a command beside all else."""
        self.note(" ".join(arguments))
        child = self.start("manage.py", *arguments, "--json")
        self.beside.append(Beside(child, datetime.now(UTC), judge))

    def judge_beside(self) -> None:
        """Judge the commands that have ended."""
        for each in [each for each in self.beside if each.child.ended]:
            self.beside.remove(each)
            each.judge(answer_of(each.child), each.began)
        for each in self.beside:
            age = datetime.now(UTC) - each.began
            must(age.total_seconds() < PATIENCE, f"It hangs: {each.child.popen.args!r}")

    def judge_archive(self, answer: dict[str, Any], began: datetime) -> None:
        """Judge what an operator's run has said."""
        outcome, error = answer["outcome"], answer["error"]
        self.note(f"archive_now: {outcome} {error or ''}")
        self.outcomes[f"archive_now {outcome}"] += 1
        if outcome not in {"archived", "nothing_due", "busy"}:
            self.judge_failure(f"archive_now ({outcome})", str(error), began)

    def judge_verify(self, answer: dict[str, Any], began: datetime) -> None:
        """Judge what a verification beside has said."""
        outcome = answer["outcome"]
        self.note(f"verify_audit: {outcome}")
        self.outcomes[f"verify_audit {outcome}"] += 1
        good = outcome == "ok" or (outcome == "unverifiable" and self.was_broken(began))
        must(good, f"verify_audit says: {json.dumps(answer)[:3000]}")

    def judge_failure(self, what: str, error: str, began: datetime) -> None:
        """See that something was broken, and that nobody speaks of what never was."""
        must(self.was_broken(began), f"{what} failed of nothing: {error}")
        must(not FALSE_ALARM.search(error), f"{what} gives a false alarm: {error}")

    # What is broken --------------------------------------------------------------------------

    def breaks(self) -> None:
        """Write down that something is broken from now on."""
        self.broken.append((datetime.now(UTC), None))

    def mended(self) -> None:
        """Write down that nothing is broken any more."""
        self.broken[-1] = (self.broken[-1][0], datetime.now(UTC))

    def is_broken(self) -> bool:
        """Say whether something is broken, or was a moment ago."""
        return self.was_broken(datetime.now(UTC))

    def was_broken(self, began: datetime, ended: datetime | None = None) -> bool:
        """Say whether something was broken in a span, or soon before it."""
        return any(
            (over is None or over + SETTLES > began) and (ended is None or since < ended)
            for since, over in self.broken
        )

    # Mishaps ---------------------------------------------------------------------------------

    def kill_worker(self) -> Mishap:
        """Kill a worker with its children; another one comes after a while."""
        number = self.random.randrange(len(WORKERS))
        self.killed = self.workers[number]
        self.killed.kill()
        self.did("kills", f"killed the worker for {WORKERS[number][0]}")
        yield self.random.choice((0, 1, 4))
        self.workers[number] = self.stack.worker(*WORKERS[number])

    def kill_beat(self) -> Mishap:
        """Kill beat; another one comes after a while."""
        self.killed = self.beat
        self.killed.kill()
        self.did("kills", "killed beat")
        yield self.random.choice((0, 1, 4))
        self.beat = self.stack.beat(*ENTRIES)

    def kill_writer(self) -> Mishap:
        """Kill a process that ingests, and start another."""
        self.replace_writer()
        yield 0

    def kill_broker(self) -> Mishap:
        """Kill the broker, and start it again."""
        self.broker.kill()
        self.did("kills", "killed the broker")
        yield self.random.choice((0, 2, 8))
        self.broker.start()

    def stop_worker(self) -> Mishap:
        """Stop a worker with its children, now and then past a run's lease, and wake it."""
        part = self.workers[self.random.randrange(len(WORKERS))]
        os.killpg(part.process.pid, signal.SIGSTOP)
        self.did("stalls", f"stopped {part.log.name}")
        yield self.random.choice((1, 3, 8, LEASE_SECONDS + 5))
        os.killpg(part.process.pid, signal.SIGCONT)

    def stop_writer(self) -> Mishap:
        """Stop a process that ingests, and wake it."""
        writer = self.random.choice(self.writers)
        writer.popen.send_signal(signal.SIGSTOP)
        self.did("stalls", "stopped a writer")
        yield self.random.choice((1, 3, 8))
        writer.popen.send_signal(signal.SIGCONT)

    def fault(self) -> Mishap:
        """Let the bucket fail."""
        name = self.random.choice(list(FAULTS))
        verbs = ("PUT", "HEAD", "GET", "LIST") if "stor" not in name else ("PUT",)
        for verb in self.random.sample(verbs, self.random.randint(1, len(verbs))):
            self.proxy.fault(FAULTS[name], verb)
            self.note(f"fault: {name}, {verb}")
        self.counts["faults"] += 1
        yield self.random.choice((2, 5, 12))
        self.proxy.lift()

    # Checks ----------------------------------------------------------------------------------

    def look(self) -> None:
        """Check what can be seen at a glance."""
        self.check_writers()
        for part in (*self.workers, self.beat):
            alive = part is self.killed or part.process.poll() is None
            must(alive, f"{part.log.name} has ended by itself: {part.said()[-2000:]}")
        for error in self.proxy.errors:
            self.note(
                f"proxy: {error!r}"
            )  # of a process that was killed or stopped amid a request
        self.proxy.errors.clear()
        self.judge_rows()

    def judge_rows(self) -> None:
        """Judge alarms, runs and verifications by their rows."""
        wrong = [
            row
            for row in self.site.rows("SELECT kind, subject, message FROM audit_alarm")
            if row[0] in NEVER
        ]
        must(not wrong, f"A false alarm: {wrong[:3]}")
        for number, trigger, outcome, error, began, ended in self.site.rows(
            "SELECT id, trigger, outcome, error, started_at, finished_at FROM audit_archiverun "
            "WHERE id > ? AND outcome != '' ORDER BY id",
            self.judged_run,
        ):
            self.judged_run = number
            self.calm += not self.was_broken(at(began), at(ended))
            self.outcomes[f"run {outcome}"] += 1
            if outcome not in {"archived", "nothing_due"}:
                self.note(f"run {number} by {trigger}: {outcome} {error}")
                must(
                    self.was_broken(at(began), at(ended)),
                    f"Run {number} was {outcome}, and nothing was broken: {error}",
                )
            if outcome not in {"archived", "nothing_due", "interrupted"}:
                self.judge_failure(f"Run {number} ({outcome})", error, at(began))
        for number, outcome, report, began, ended in self.site.rows(
            "SELECT id, outcome, report, started_at, finished_at FROM audit_verificationrun "
            "WHERE finished_at NOT NULL ORDER BY id"
        ):
            if number in self.judged:
                continue
            self.judged.add(number)
            self.calm += not self.was_broken(at(began), at(ended))
            self.outcomes[f"verified {outcome}"] += 1
            good = outcome == "ok" or (
                outcome == "unverifiable" and self.was_broken(at(began), at(ended))
            )
            must(good, f"Verification {number} ({outcome}) says: {report[:3000]}")

    def line(self) -> None:
        """Say how it goes."""
        head, floor, archived = self.site.rows(
            "SELECT head_seq, floor_seq, (SELECT coalesce(max(end_seq), 0) "
            "FROM audit_archivebatch WHERE state != 'planned') FROM audit_logstate"
        )[0]
        open_alarms = [kind for kind, _, is_open in self.stack.alarms() if is_open]
        silent = self.silent_seconds()
        pages = sum(
            file.stat().st_size for file in self.site.folder.glob(f"{self.site.database.name}*")
        )
        name, memory = biggest()
        told = sorted((self.counts + self.outcomes).items())
        say(
            f"{self.seconds:5.0f} s: {len(self.acknowledged):,} acknowledged, "
            f"head {head:,}, archived {archived:,}, hot {head - floor:,}; "
            + ", ".join(f"{name} {number}" for name, number in told if name != "writers")
            + f"; heartbeat {silent:.0f} s ago; open {open_alarms or 'none'}; "
            f"database {pages / 1024**2:.0f} MB; biggest {name} {memory:,} MB"
        )
        must(silent < SILENT_SECONDS, f"The schedule has not worked for {silent:.0f} s.")
        idle = self.idle_seconds()
        must(idle < IDLE_SECONDS, f"No run was begun by schedule for {idle:.0f} s.")

    def silent_seconds(self) -> float:
        """Return how long ago the schedule was last known to work."""
        beats = self.stack.beats()
        if not beats:
            return self.seconds
        return (datetime.now(UTC) - at(beats)).total_seconds()

    def idle_seconds(self) -> float:
        """Return how long ago the schedule has begun a run."""
        query = "SELECT max(started_at) FROM audit_archiverun WHERE trigger = 'beat'"
        newest = self.site.rows(query)[0][0]
        if not newest:
            return self.seconds
        return (datetime.now(UTC) - at(newest)).total_seconds()

    # All of it -------------------------------------------------------------------------------

    def go_on_for(self, minutes: float) -> None:
        """Do mishaps for so many minutes, then see that all is as it should be."""
        mishaps = {
            self.kill_worker: 20,
            self.kill_beat: 8,
            self.kill_writer: 12,
            self.kill_broker: 8,
            self.stop_worker: 14,
            self.stop_writer: 10,
            self.fault: 28,
        }
        self.start_all()
        jobs: list[tuple[float, Callable[[], object]]] = [
            (DAY_EVERY, self.next_day),
            (LOOK_EVERY, self.look),
            (LINE_EVERY, self.line),
            (NET_EVERY, self.look_for_what_must_not_be),
            (VERIFY_EVERY, self.verify_beside),
            (OPERATOR_EVERY, lambda: self.command(self.judge_archive, "archive_now")),
        ]
        turns = [self.began + every for every, _ in jobs]
        mishap: Mishap | None = None
        turn = self.began + 10  # when all has started
        while (now := time.monotonic()) < self.began + 60 * minutes or mishap is not None:
            for number, (every, job) in enumerate(jobs):
                if now >= turns[number]:
                    turns[number] = now + every
                    job()
            self.judge_beside()
            if now >= turn:
                if mishap is None:
                    (chosen,) = self.random.choices(list(mishaps), list(mishaps.values()))
                    mishap = chosen()
                    self.breaks()
                pause = next(mishap, None)
                if pause is None:
                    self.mended()
                    mishap, pause = None, self.random.uniform(1, 6)
                    if len(self.broken) % CALM_EVERY == 0:
                        self.note("calm")
                        pause = CALM_SECONDS
                turn = time.monotonic() + pause
            time.sleep(0.1)
        self.end()

    def verify_beside(self) -> None:
        """Begin a verification, every third of them full."""
        self.counts["asked"] += 1
        level = "full" if self.counts["asked"] % 3 == 0 else "manifests"
        self.command(self.judge_verify, "verify_audit", f"--level={level}", "--processes=1")

    def end(self) -> None:
        """Let nothing be broken any more, and see that all comes right."""
        self.note("the end begins")
        self.end_writers()
        give_up = time.monotonic() + 2 * PATIENCE
        while self.beside:
            self.judge_beside()
            time.sleep(0.1)
        self.look()
        answer = self.site.archive()
        while answer["outcome"] == "busy" and time.monotonic() < give_up:
            time.sleep(1)
            answer = self.site.archive()
        must(answer["outcome"] in {"archived", "nothing_due"}, f"The last run says: {answer}")
        newest = max(self.acknowledged.values())
        archived = answer["highest_archived_seq"]
        must(archived >= newest, f"The last run left {archived} to {newest} in hot.")
        self.command(self.judge_last_verify, "verify_audit", "--level=full")
        while self.beside:
            self.judge_beside()
            time.sleep(0.1)
        self.see_alarms_cleared()
        self.line()
        self.stop_all()
        self.judge_rows()
        must(self.calm or len(self.broken) < CALM_EVERY, "Nothing was done while all was well.")
        self.check_fully()

    def judge_last_verify(self, answer: dict[str, Any], began: datetime) -> None:
        """Judge the last verification: nothing is broken any more."""
        must(answer["outcome"] == "ok", f"The last one says: {json.dumps(answer)[:3000]}")

    def see_alarms_cleared(self) -> None:
        """Wait until no alarm is open."""
        self.look_for_what_must_not_be()
        give_up = time.monotonic() + ALARMS_CLEAR_SECONDS
        query = "SELECT kind, subject, message FROM audit_alarm WHERE cleared_at IS NULL"
        asked = time.monotonic()
        while found := self.site.rows(query):
            must(time.monotonic() < give_up, f"Still open: {found}")
            if time.monotonic() > asked + LOOK_EVERY:
                self.look_for_what_must_not_be()
                asked = time.monotonic()
            time.sleep(0.2)

    def stop_all(self) -> None:
        """Tell beat and workers to stop; see that they do."""
        for part in (self.beat, *self.workers):
            part.process.terminate()
        for part in (self.beat, *self.workers):
            try:
                part.process.wait(PATIENCE)
            except subprocess.TimeoutExpired as error:
                raise LieError(f"{part.log.name} does not stop: {part.said()[-2000:]}") from error

    def check_fully(self) -> None:
        """Read everything with the independent reader."""
        try:
            log = self.site.read_whole_log()
        except reader.WrongError as error:
            raise LieError(f"The independent reader says: {error}") from error
        check_events(map(json.loads, log.records), self.acknowledged)
        for number, outcome in self.site.rows("SELECT id, outcome FROM audit_archiverun"):
            must(outcome, f"Run {number} was never closed.")

    def close(self) -> None:
        """End every process."""
        for part in self.stack.parts:
            part.kill()
        super().close()


def at(text: str) -> datetime:
    """Return a time as SQLite has it."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def answer_of(child: Child) -> dict[str, Any]:
    """Return what a command has answered; it may have logged before."""
    child.popen.wait(PATIENCE)
    answers = [line for line in child.lines if line.startswith("{")]
    must(answers, f"{child.popen.args!r} said: {child.lines[-20:]}")
    answer: dict[str, Any] = json.loads(answers[-1])
    return answer


def biggest() -> tuple[str, int]:
    """Return name and MB of the biggest of the processes that were started."""
    parents, sizes, names = dict[int, int](), dict[int, int](), dict[int, str]()
    for folder in Path("/proc").glob("[1-9]*"):
        try:
            words = (folder / "cmdline").read_text(errors="replace").split("\0")
            status = (folder / "status").read_text()
        except OSError:
            continue
        found = dict(re.findall(r"^(PPid|VmRSS):\s+(\d+)", status, re.MULTILINE))
        if "VmRSS" in found and "python" in words[0] and "local_s3" not in words[1]:
            pid = int(folder.name)
            parents[pid], sizes[pid] = int(found["PPid"]), int(found["VmRSS"]) // 1024
            names[pid] = next((word for word in words if word in KNOWN), words[-1][:20])
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    ours.remove(os.getpid())
    pid = max(ours, key=sizes.__getitem__, default=0)
    return names.get(pid, "none"), sizes.get(pid, 0)


KNOWN = {"worker", "beat", "append", "archive_now", "verify_audit"}


def main() -> int:
    """Take the arguments and go; return the exit code."""
    parser = argparse.ArgumentParser(prog="soak.sh", description=(__doc__ or "")[:98])
    parser.add_argument("--minutes", type=float, required=True, metavar="N")
    return endurance.run(parser, go)


def go(arguments: argparse.Namespace, folder: Path, server: Server, proxy: FaultProxy) -> bool:
    """Go on for so long; say how it ended, and return whether it ended well."""
    (folder / "redis").mkdir()
    with running(folder / "redis") as broker:
        soak = Soak(folder, arguments.seed, server, proxy, broker)
        # Whatever ends it, there is evidence to keep.
        whole = endurance.endure(soak, partial(soak.go_on_for, arguments.minutes), Exception)
        if whole:
            say(f"ok, {len(soak.acknowledged):,} events")
        proxy.errors.clear()
    return whole


if __name__ == "__main__":
    sys.exit(main())
