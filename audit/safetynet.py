"""The safety net: finds what must not be, if all else works. It deletes and mends nothing.

What changes while it looks must not look wrong. So what is made last is listed first and what is
listed is looked for once more: the ledger before the bucket for objects that are gone, and after
it for those that no row knows, since a row learns each name before its PUT. What a run is at work
on is not looked at until it has ended: until then, what was found of it stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from . import conf, guard, ledger, log, lookout, purge, selection, storage
from .alarms import COMMON, Finding, Kind, Look, NotNowError, open_alarms
from .format.names import CHECKPOINTS, CheckpointName, ObjectName
from .log import Claim, RolledBackError, current_state, link_at
from .models import Alarm, ArchiveBatch, Checkpoint, LogState
from .wording import count

UNFINISHED_FOR = timedelta(hours=2)
CLOCK_OFF = timedelta(minutes=5)
NAMED = 3
# Where one of these is found, the log may have been rolled back, or nobody can say.
DOUBTS = {*COMMON, Kind.TAMPERING, Kind.BROKEN} - {Kind.CLOCK}
State = ArchiveBatch.State


def log_state() -> Iterator[Finding]:
    """Find that the log is behind ledger or checkpoints, or that its clock has leapt."""
    while True:
        state = current_state()
        try:
            log.check_checkpoint(state)
            break
        except RolledBackError:
            if current_state().floor_seq == state.floor_seq:
                raise  # else what it looked for was purged meanwhile
    now = datetime.now(UTC)
    if state.head_recorded_at and state.head_recorded_at > now + CLOCK_OFF:
        yield Finding(
            Kind.CLOCK,
            f"The newest event was recorded at {state.head_recorded_at:%Y-%m-%d %H:%M:%S} UTC, "
            f"which is to come: a clock had leapt ahead. Until then all events get that time, and "
            "none comes of age; see that NTP runs. archive_now --through-seq archives what would "
            "not come of age for long.",
        )


def overdue() -> Iterator[Finding]:
    """Find events that should have been archived long ago."""
    head, at = current_state().head_seq, ledger.highest_archived_seq()
    cutoff = selection.cutoff_at(datetime.now(UTC) - timedelta(days=conf.grace_days()))
    if number := selection.last_due(at, head, cutoff) - at:
        why = "" if conf.archive_enabled() else " ARCHIVE_ENABLED is off: turn it on."
        yield Finding(
            Kind.ARCHIVE_BEHIND,
            f"{count(number, 'event')} from seq {at + 1:,} on are still in hot, more than "
            f"{count(conf.grace_days(), 'day')} after they were due.{why} See how the last runs "
            "ended, and run archive_now.",
        )


def residue() -> Iterator[Finding]:
    """Find rows at or below the floor although no run is at work."""
    _require_no_run()
    floor = current_state().floor_seq
    oldest = log.oldest_seq()
    if oldest is None or oldest > floor:
        return
    _require_no_run()
    row = purge.residue()  # raises where no batch holds them
    yield Finding(
        Kind.UNFINISHED,
        f"Seq {oldest:,} is in hot although all up to seq {floor:,} was purged"
        + (f", that of {row} included" if row else "")
        + ": the next run confirms it in the bucket and deletes it. Run archive_now.",
    )


def stored() -> Iterator[Finding]:
    """Find batches that are in the bucket, and were not purged for hours."""
    return _unfinished(State.STORED, "archived_at", "is stored and not purged")


def planned() -> Iterator[Finding]:
    """Find batches that were planned hours ago, and are not in the bucket."""
    return _unfinished(State.PLANNED, "planned_at", "was planned and is not stored")


def _unfinished(state: str, column: str, what: str) -> Iterator[Finding]:
    _require_no_run()
    since = datetime.now(UTC) - UNFINISHED_FOR
    for row in ArchiveBatch.objects.filter(state=state, **{f"{column}__lt": since})[:1]:
        _require_no_run()
        yield Finding(
            Kind.UNFINISHED,
            f"{row} {what}, since {getattr(row, column):%Y-%m-%d %H:%M:%S} UTC, and no run "
            "is at work: run archive_now, which goes on with it or says why it cannot.",
        )


def _require_no_run() -> None:
    if holder := guard.holder():
        raise NotNowError(f"A run is at work ({holder}).")


def objects() -> Iterator[Finding]:
    """Find objects that rows name and the bucket has not, and those that no row names."""
    prefix = conf.cold_prefix()
    before = _named()
    there = {f"{prefix}/{name}" for name in storage.names(prefix)}
    there |= {
        f"{prefix}/{CHECKPOINTS}/{name}" for name in storage.names(f"{prefix}/{CHECKPOINTS}")
    }
    after = _named()
    if gone := sorted(key for key, must in before.items() if must and key not in there):
        still = [key for key in gone if after.get(key)]
        if still:
            yield Finding(
                Kind.GAP,
                f"{count(len(still), 'object')} that rows name are not in the bucket "
                f"'{conf.cold_bucket()}': {_some(still)}. Restore them from a copy of the bucket, "
                "and find out who can delete there.",
            )
    unknown = sorted(key for key in there if key not in after and not _is_superseded(key))
    if unknown:
        yield Finding(
            Kind.UNKNOWN_OBJECTS,
            f"{count(len(unknown), 'object')} in the bucket that no row knows: {_some(unknown)}. "
            "What continues the ledger the next run adopts (run archive_now); an old ledger "
            "is made anew by rebuild_ledger; of anything else, find out who wrote it.",
        )


def _named() -> dict[str, bool]:
    """Return each key that rows name, and whether it must be in the bucket."""
    named: dict[str, bool] = {}
    rows = ArchiveBatch.objects.values_list("state", "jsonl_key", "manifest_key")
    for state, *keys in rows.iterator():
        named |= dict.fromkeys(filter(None, keys), state in ledger.IN_COLD)
    points = Checkpoint.objects.values_list("state", "index", "seq", "sha256")
    for state, index, seq, digest in points.iterator():
        key = CheckpointName.of(index, seq, digest).key(conf.cold_prefix())
        named[key] = state == Checkpoint.State.PUBLISHED
    return named


def _is_superseded(key: str) -> bool:
    """Say whether a key is of a range that the ledger has under another name.

    A run that died may have left it; a verification reports it, and it is no alarm.
    """
    name = ObjectName.parse(key.rpartition("/")[2])
    return (
        name is not None
        and ArchiveBatch.objects.filter(start_seq=name.start_seq, end_seq=name.end_seq).exists()
    )


def _some(keys: list[str]) -> str:
    more = len(keys) - NAMED
    return ", ".join(keys[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def claims() -> Iterator[Finding]:
    """Find that the log is behind what is signed in the bucket, or is another one."""
    unknown: list[tuple[int, str]] = []
    for claim in lookout.look(unknown):
        state = current_state()
        while not (fits := _fits(state, claim)):
            newer = current_state()
            if newer.floor_seq == state.floor_seq:
                break
            state = newer  # what was looked for was purged meanwhile
        if not fits:
            yield Finding(
                Kind.APPEND_REFUSED,
                f"{claim.key} in the bucket is signed for seq {claim.seq:,}, which the hot "
                f"database, at seq {state.head_seq:,}, does not have as it was: hot was rolled "
                "back. Each process that starts refuses to append; restore hot from its newest "
                "backup.",
            )
            return
    head = current_state().head_seq
    if ahead := [each for each in unknown if each[0] > head]:
        seq, key = max(ahead)
        yield Finding(
            Kind.KEY_MISSING,
            f"{key} in the bucket may be signed for seq {seq:,}, beyond the head at {head:,}: its "
            "key is not known here. Set AUDIT_SIGNING_KEYS so that it has that key, too; until "
            "then nobody can say whether hot was rolled back.",
        )


def _fits(state: LogState, claim: Claim) -> bool:
    return state.head_seq >= claim.seq and link_at(state, claim.seq) in {None, claim.link}


def clock() -> Iterator[Finding]:
    """Find that this machine's clock is not the bucket's."""
    ahead = storage.clock_ahead()
    if ahead is not None and abs(ahead) > CLOCK_OFF:
        way = "ahead of" if ahead > timedelta() else "behind"
        yield Finding(
            Kind.CLOCK,
            f"This machine's clock is {abs(ahead).total_seconds() / 60:,.0f} minutes {way} the "
            "object store's: one of the two is wrong. See that NTP runs here; events are recorded "
            "by this clock, and a store refuses requests whose time is off.",
        )


LOOKS = (
    Look("log", log_state),
    Look("overdue", overdue),
    Look("residue", residue),
    Look("stored", stored),
    Look("planned", planned),
    Look("objects", objects),
    Look("clock", clock),
    Look("claims", claims),  # last: what it says is soon acted on
)


def is_in_order(found: Iterable[Finding]) -> bool:
    """Say whether this look, and each before, has the log where ledger and bucket have it.

    That the log's own clock had leapt, as `log_state` finds, is no reason to doubt that.
    """
    doubts = open_alarms().filter(subject__in=["log", "claims", Alarm.SAFETY_NET])
    if doubts.exclude(kind=Kind.CLOCK, subject="log").exists():
        return False
    # Another safety net may just have cleared what this one has found.
    return DOUBTS.isdisjoint(finding.kind for finding in found)
