"""Our own figures, asked of the database when somebody reads them.

Each look is cheap, whatever the log's size: single rows, bisection, and sums over the ledger. It
is caught by itself, so one that fails leaves the others, and counts in `scrape_errors`. Times are
in seconds since 1970. A figure of something that never was has no sample.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from django.db.models import Count, Sum
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from audit import conf, ledger, log, selection, tally, verifications
from audit.models import (
    Alarm,
    ArchiveBatch,
    ArchiveRun,
    AuditEvent,
    Checkpoint,
    Heartbeat,
    LogState,
    SourceCount,
    VerificationRun,
)

PREFIX = "dezky_audit_"
MOST_SOURCES = 50
REST = "other"
NO_SOURCE = "(none)"  # Prometheus takes an empty label for none
Level, Outcome = VerificationRun.Level, ArchiveRun.Outcome
SUCCESSES = (Outcome.ARCHIVED, Outcome.NOTHING_DUE)

logger = logging.getLogger(__name__)


class Figures(Collector):
    """All looks, taken anew each time that it is asked."""

    def collect(self) -> Iterator[Metric]:
        """Yield every figure, and at last which looks have failed."""
        errors = gauge("scrape_errors", "Whether a look at the database failed just now.", "look")
        for name, look in LOOKS.items():
            try:
                found = list(look())
            except Exception:
                logger.exception("The figures of '%s' could not be read.", name)
                found = []
                errors.add_metric([name], 1)
            else:
                errors.add_metric([name], 0)
            yield from found
        yield errors


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Return a figure that goes up and down, without a sample."""
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def one(name: str, text: str, value: float | datetime | None) -> GaugeMetricFamily:
    """Return a figure with its sample, or without where there is no value."""
    family = gauge(name, text)
    if isinstance(value, datetime):
        value = value.timestamp()
    if value is not None:
        family.add_metric([], value)
    return family


def of_log() -> Iterator[Metric]:
    """Look where the log ends, what is where, and what should be elsewhere by now."""
    now = datetime.now(UTC)
    archived = ledger.highest_archived_seq()
    state = LogState.objects.first()
    head, floor = (state.head_seq, state.floor_seq) if state else (0, 0)
    yield one("head_seq", "The newest seq.", head)
    yield one("floor_seq", "The newest seq that may be purged, or is.", floor)
    yield one("highest_archived_seq", "The newest seq that is in cold.", archived)
    events = gauge("events", "Events in each tier; on their way, they are in both.", "tier")
    events.add_metric(["hot"], head - floor)
    events.add_metric(["cold"], archived)
    yield events
    oldest = AuditEvent.objects.filter(seq__gt=floor).order_by("seq")
    at = oldest.values_list("recorded_at", flat=True).first()
    yield one(
        "oldest_hot_age_seconds",
        "The age of the oldest event in hot; 0 where there is none.",
        (now - at).total_seconds() if at else 0,
    )
    grace = timedelta(days=conf.grace_days())
    try:
        overdue = log.last_seq_before(selection.cutoff_at(now) - grace, archived, head) - archived
    except OverflowError:  # kept for ever
        overdue = 0
    yield one("events_overdue", "Events due for longer than AUDIT_GRACE_DAYS.", max(0, overdue))


def of_sources() -> Iterator[Metric]:
    """Look how many events each source has had recorded, as far as they were counted."""
    family = CounterMetricFamily(
        f"{PREFIX}events_recorded",
        f"Events by source; the largest {MOST_SOURCES}, and the rest as {REST}.",
        labels=["source"],
    )
    counts = list(SourceCount.objects.order_by("-events", "source").values_list())
    shown: dict[str, int] = {}
    for number, (source, events) in enumerate(counts):
        rest = number >= MOST_SOURCES or source == tally.OTHER
        name = REST if rest else source or NO_SOURCE
        shown[name] = shown.get(name, 0) + events  # a source may be called like the rest
    for name, events in shown.items():
        family.add_metric([name], events)
    yield family


def of_runs() -> Iterator[Metric]:
    """Look how the runs ended, and at the last one more closely."""
    runs = ArchiveRun.objects.exclude(outcome=Outcome.RUNNING)
    counts = {
        (trigger, outcome): number
        for trigger, outcome, number in runs.order_by()
        .values_list("trigger", "outcome")
        .annotate(number=Count("pk"))
    }
    total = CounterMetricFamily(
        f"{PREFIX}archive_runs", "Runs that have ended.", labels=["trigger", "outcome"]
    )
    for trigger in ArchiveRun.Trigger.values:
        for outcome in Outcome.values:
            if outcome:
                total.add_metric([trigger, outcome], counts.get((trigger, outcome), 0))
    yield total
    last = runs.first()
    good = runs.filter(outcome__in=SUCCESSES).first()
    yield one(
        "last_run_end_timestamp_seconds",
        "When the last run ended.",
        last.finished_at if last else None,
    )
    judged = runs.exclude(outcome=Outcome.INTERRUPTED).first()
    yield one(
        "last_run_success",
        "Whether the last one that was not interrupted archived what was due, or nothing was.",
        judged.outcome in SUCCESSES if judged else None,
    )
    yield one(
        "last_successful_run_timestamp_seconds",
        "When the last one that did ended.",
        good.finished_at if good else None,
    )
    phases = gauge("last_run_phase_seconds", "How long its phases took.", "phase")
    for phase, seconds in sorted(last.seconds.items()) if last else ():
        phases.add_metric([phase], float(seconds))
    yield phases
    yield one("archive_enabled", "ARCHIVE_ENABLED.", conf.archive_enabled())


def of_ledger() -> Iterator[Metric]:
    """Look how much is in cold."""
    rows = ArchiveBatch.objects.order_by()
    sums = rows.filter(state__in=ledger.IN_COLD).aggregate(
        compressed=Sum("bytes_compressed"), uncompressed=Sum("bytes_uncompressed")
    )
    size = gauge("cold_bytes", "Bytes of the batches in cold.", "kind")
    for kind, value in sums.items():
        size.add_metric([kind], value or 0)
    yield size
    counts = dict(rows.values_list("state").annotate(number=Count("pk")))
    batches = gauge("batches", "Batches by state.", "state")
    for state in ArchiveBatch.State.values:
        batches.add_metric([state], counts.get(state, 0))
    yield batches


def of_verifications() -> Iterator[Metric]:
    """Look what was verified last, and what was found that still counts."""
    at = gauge(
        "last_verification_timestamp_seconds",
        "When the log was verified last at that level, or a higher one.",
        "level",
    )
    ok = gauge(
        "last_verification_ok",
        "Whether the last one that tells found all right.",
        "level",
    )
    for level, levels in (
        (Level.MANIFESTS, (Level.MANIFESTS, Level.FULL)),
        (Level.FULL, (Level.FULL,)),
    ):
        whole, telling = verifications.last_whole(*levels), verifications.last_telling(*levels)
        if whole and whole.finished_at:
            at.add_metric([level], whole.finished_at.timestamp())
        if telling:
            ok.add_metric([level], telling.outcome == VerificationRun.Outcome.OK)
    yield at
    yield ok
    yield one(
        "unresolved_verifications",
        "Verifications that were not ok and that none has put right since.",
        len(list(verifications.bad_news())),
    )


def of_checkpoints() -> Iterator[Metric]:
    """Look when the log was signed last, and what waits for the bucket."""
    newest = Checkpoint.objects.defer("document", "frontier").first()
    yield one(
        "last_checkpoint_timestamp_seconds",
        "When the newest checkpoint was signed.",
        newest.at if newest else None,
    )
    waiting = Checkpoint.objects.filter(state=Checkpoint.State.PENDING).count()
    yield one("checkpoints_pending", "Checkpoints that are not in the bucket yet.", waiting)


def of_alarms() -> Iterator[Metric]:
    """Look which alarms are open."""
    rows = Alarm.objects.filter(cleared_at=None).order_by()
    counts = dict(rows.values_list("kind").annotate(number=Count("pk")))
    family = gauge("alarms_open", "Alarms that are open, by kind.", "kind")
    for kind in Alarm.Kind.values:
        family.add_metric([kind], counts.get(kind, 0))
    yield family


def of_schedule() -> Iterator[Metric]:
    """Look when the parts of the schedule were heard of last."""
    at = dict(Heartbeat.objects.values_list("name", "at"))
    yield one(
        "schedule_heartbeat_timestamp_seconds",
        "When beat, broker and worker worked together last.",
        at.get(Heartbeat.SCHEDULE),
    )
    yield one(
        "safety_net_timestamp_seconds",
        "When the safety net looked at all last.",
        at.get(Heartbeat.SAFETY_NET),
    )


LOOKS: dict[str, Callable[[], Iterator[Metric]]] = {
    "log": of_log,
    "sources": of_sources,
    "runs": of_runs,
    "ledger": of_ledger,
    "verifications": of_verifications,
    "checkpoints": of_checkpoints,
    "alarms": of_alarms,
    "schedule": of_schedule,
}
