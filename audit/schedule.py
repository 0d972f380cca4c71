"""What is done unattended: the use cases behind the schedule's ticks.

Each tick asks first whether there is anything to do, of the database and not of a process's
memory, and returns in one word what it did.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from . import archive, checkpoints, conf, daily, log, prune, verify
from .daily import End, Job
from .guard import Process
from .models import ArchiveRun, Checkpoint, VerificationRun
from .request import Request
from .result import Outcome
from .verify import Asked
from .watcher import Watcher

Clock = Callable[[], datetime]

BEAT = ArchiveRun.Trigger.BEAT
WHO = "schedule"
# A week less what a night may be late, so that a full one stays on its day.
FULL_AFTER = timedelta(days=6, hours=12)
ENDS = {
    Outcome.ARCHIVED: End.DONE,
    Outcome.NOTHING_DUE: End.DONE,
    Outcome.BUSY: End.NOT_TRIED,
    Outcome.INTERRUPTED: End.NOT_TRIED,
}


def archive_tick(clock: Clock, watcher: Watcher) -> str:
    """Run the archive where it is enabled, it is time, and it has not been run today."""
    now = clock()
    if not conf.archive_enabled():
        return "off"
    claimed = daily.claim(Job.ARCHIVE, now, conf.run_hour_utc())
    if claimed is None:
        return "not now"
    end, outcome, run = End.FAILED, Outcome.FAILED, None
    try:
        result = archive.run(Request(BEAT, WHO, Process.current().label), watcher)
        outcome, run = result.outcome, result.run
        end = ENDS.get(outcome, End.FAILED)
    except KeyboardInterrupt:
        end, outcome = End.NOT_TRIED, Outcome.INTERRUPTED
        raise
    finally:
        daily.settle(claimed, clock(), end, outcome.value, run)
    return outcome.value


def verify_tick(clock: Clock, watcher: Watcher) -> str:
    """Verify the log where it is time and it was not verified today, once a week in full.

    It is time an hour after the archive's. What a verification has found is a verdict; one that
    could not look at everything is tried again.
    """
    now = clock()
    claimed = daily.claim(Job.VERIFY, now, conf.verify_hour_utc())
    if claimed is None:
        return "not now"
    end, outcome, run = End.FAILED, "failed", None
    try:
        level = level_due(now)
        asked = Asked(BEAT, WHO, Process.current().label, level=level, processes=1)
        found = verify.verify(asked, watcher.stop_where_asked)
        outcome, run = found.report.outcome, found.run
        if outcome != VerificationRun.Outcome.UNVERIFIABLE:
            end = End.DONE
    except KeyboardInterrupt:
        end, outcome = End.NOT_TRIED, Outcome.INTERRUPTED.value
    finally:
        daily.settle(claimed, clock(), end, outcome, run)
    return outcome


def level_due(now: datetime) -> str:
    """Return `full` where the last one that the schedule has brought to an end is a week old."""
    full = VerificationRun.objects.filter(
        trigger=BEAT,
        level=VerificationRun.Level.FULL,
        finished_at__gt=now - FULL_AFTER,
        finished_at__lte=max(now, datetime.now(UTC)),  # a clock may have leapt ahead, and back
    ).exclude(outcome=VerificationRun.Outcome.RUNNING)
    # One that could not look at all of it counts, and is not done again every night: all that
    # there is would be read for it.
    whole = any(row.is_whole for row in full)
    return str(VerificationRun.Level.MANIFESTS if whole else VerificationRun.Level.FULL)


def checkpoint_tick() -> str:
    """Make a checkpoint where the newest is as old as it may become, or one waits to be published.

    Raises what `checkpoints.make` raises.
    """
    newest = Checkpoint.objects.defer("document", "frontier").first()
    if newest is None and log.current_state().head_seq == 0:
        return "nothing to sign"
    age = timedelta(minutes=conf.checkpoint_minutes())
    if newest is None or datetime.now(UTC) >= newest.at + age:
        published = checkpoints.make().published
    elif newest.state == Checkpoint.State.PENDING:
        published = checkpoints.publish()
    else:
        return "not now"
    return "published" if published else "pending"


def prune_tick() -> str:
    """Forget what has been kept for long enough."""
    return f"{prune.forget():,} forgotten"
