"""How many events each source has had recorded, counted as the log grows.

Nobody can count 100 million rows while somebody waits for a figure. So events are counted in
passing, each once: seqs have no gaps, so what was counted already ends at the sum of all counts,
and a chunk is added only where that sum is what it was when the chunk was counted.
"""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS
from django.db.models import F, Sum

from . import log
from .models import LogState, SourceCount

CHUNK = 50_000
LIMIT = 20 * CHUNK
MOST_SOURCES = 200
UNKNOWN = "(unknown)"  # they were purged before they were counted
OTHER = "(other)"


def counted() -> int:
    """Return the seq up to which events were counted."""
    return SourceCount.objects.aggregate(sum=Sum("events"))["sum"] or 0


def count(limit: int = LIMIT) -> int:
    """Count events that were not counted yet, oldest first; return how many.

    At most `limit` of them, so that one call does not take for ever. Raises BusyError.
    """
    done = 0
    head = LogState.objects.values_list("head_seq", flat=True).first() or 0
    while done < limit and (before := counted()) < head:
        last = min(head, before + min(CHUNK, limit - done))
        found = log.count_by_source(before + 1, last)
        if purged := last - before - sum(found.values()):
            found[UNKNOWN] = found.get(UNKNOWN, 0) + purged
        if _add(found, before):
            done += last - before
    return done


def _add(found: dict[str, int], before: int) -> bool:
    """Add what was found behind `before`; says whether nobody else has done so meanwhile."""
    with log.write_transaction(DEFAULT_DB_ALIAS):
        if counted() != before:
            return False
        known = set(SourceCount.objects.values_list("source", flat=True))
        kept: dict[str, int] = {}
        for source, events in found.items():
            name = source
            if source not in known:
                room = source in {UNKNOWN, OTHER} or len(known) < MOST_SOURCES
                name = source if room else OTHER
                known.add(name)
            kept[name] = kept.get(name, 0) + events
        for name, events in kept.items():
            if not SourceCount.objects.filter(pk=name).update(events=F("events") + events):
                SourceCount.objects.create(source=name, events=events)
        return True
