"""What the bucket claims of the log: waited for a moment by everybody, and then by nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from audit import lookout, storage
from audit.log import Claim

CLAIM = Claim(7, "ab" * 32, "some/key")


def test_whoever_comes_while_another_one_waits_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it appended unchecked, only because it was not the first."""
    asked, answer = threading.Event(), threading.Event()

    def look() -> list[Claim]:
        asked.set()
        assert answer.wait(60)
        return [CLAIM]

    monkeypatch.setattr(lookout, "look", look)
    monkeypatch.setattr(lookout, "FIRST_WAIT_SECONDS", 60.0)
    found: list[Sequence[Claim] | None] = []
    out = lookout.Lookout()

    def append() -> None:
        out.begin()
        found.append(out.claims())

    threads = [threading.Thread(target=append) for _ in range(3)]
    threads[0].start()
    assert asked.wait(60)
    for thread in threads[1:]:
        thread.start()
    threads[1].join(0.3)
    assert found == []
    answer.set()
    for thread in threads:
        thread.join(60)
    assert found == [(CLAIM,)] * 3


def test_the_wait_is_over_for_all_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def look() -> list[Claim]:
        assert answer.wait(60)
        return []

    monkeypatch.setattr(lookout, "look", look)
    monkeypatch.setattr(lookout, "FIRST_WAIT_SECONDS", 1.0)
    out = lookout.Lookout()
    began = time.monotonic()
    for _ in range(20):
        out.begin()
        assert out.claims() is None
    assert 1.0 <= time.monotonic() - began < 10.0
    answer.set()


def test_a_bucket_that_does_not_answer_at_once_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look() -> list[Claim]:
        raise storage.UnavailableError("It is down.")

    monkeypatch.setattr(lookout, "look", look)
    monkeypatch.setattr(lookout, "FIRST_WAIT_SECONDS", 600.0)
    out = lookout.Lookout()
    for _ in range(2):
        out.begin()
        assert out.claims() is None
