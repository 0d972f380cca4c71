"""Events are counted by source, each once."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from audit import log, tally
from audit.models import AuditEvent, LogState, SourceCount

from .factories import draft, drafts


def append(**sources: int) -> None:
    """Append so many events of each source, mixed."""
    rest = dict(sources)
    found = []
    while any(rest.values()):
        for source in [source for source, number in rest.items() if number]:
            found.append(draft(source))
            rest[source] -= 1
    log.append(found)


def counts() -> dict[str, int]:
    return dict(SourceCount.objects.values_list("source", "events"))


@pytest.mark.django_db
def test_events_are_counted_once_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tally.count() == 0
    monkeypatch.setattr(tally, "CHUNK", 4)
    append(authentik=7, stalwart=3)
    assert tally.count() == 10
    assert counts() == {"authentik": 7, "stalwart": 3}
    assert tally.count() == 0
    append(stalwart=2, ocis=1)
    assert tally.count() == 3
    assert counts() == {"authentik": 7, "stalwart": 5, "ocis": 1}
    assert tally.counted() == LogState.objects.get().head_seq


@pytest.mark.django_db
def test_one_call_counts_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "CHUNK", 4)
    append(authentik=11)
    assert [tally.count(limit=6) for _ in range(3)] == [6, 5, 0]
    assert counts() == {"authentik": 11}


@pytest.mark.django_db
def test_what_was_purged_before_is_of_an_unknown_source() -> None:
    append(authentik=6)
    AuditEvent.objects.filter(seq__lte=4).delete()
    assert tally.count() == 6
    assert counts() == {"authentik": 2, tally.UNKNOWN: 4}


@pytest.mark.django_db
def test_sources_without_bound_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST_SOURCES", 3)
    append(a=1, b=1, c=1)
    assert tally.count() == 3
    append(a=2, d=3, e=4)
    assert tally.count() == 9
    assert counts() == {"a": 3, "b": 1, "c": 1, tally.OTHER: 7}


@pytest.mark.django_db
def test_a_log_that_was_rolled_back_is_not_counted_again() -> None:
    append(authentik=6)
    tally.count()
    LogState.objects.update(head_seq=4)
    assert tally.count() == 0
    assert counts() == {"authentik": 6}


@pytest.mark.django_db(transaction=True)
def test_two_at_once_count_each_event_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "CHUNK", 3)
    log.append(drafts(30))
    both = threading.Barrier(2)
    really, done = log.count_by_source, []

    def together(first: int, last: int) -> dict[str, int]:
        found = really(first, last)
        if first == 1:
            both.wait(30)  # both have counted the first chunk
        return found

    def work() -> None:
        done.append(tally.count())
        connections.close_all()

    monkeypatch.setattr(log, "count_by_source", together)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == sum(counts().values()) == 30
