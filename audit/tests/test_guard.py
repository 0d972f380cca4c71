"""The lease: held by one, renewed while held, taken over when its holder is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audit import guard
from audit.models import ArchiveRun, Lease, LogState

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_lease_is_held_by_one() -> None:
    with guard.lease(), pytest.raises(guard.LeaseHeldError) as caught, guard.lease():
        pass
    assert f"process {os.getpid()}, since " in str(caught.value)
    with guard.lease() as grip:
        assert grip.token == 2


def test_a_lease_is_free_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), guard.lease():
        raise ZeroDivisionError
    with guard.lease() as grip:
        assert grip.is_live()
    assert not grip.is_live()


def test_a_token_is_above_all_that_were_seen_here_and_in_hot() -> None:
    LogState.objects.create(origin="x", head_link="", floor_link="", fence=41)
    with guard.lease() as grip:
        assert grip.token == 42


def test_a_lease_is_renewed_while_it_is_held(settings: Any) -> None:
    settings.AUDIT_LEASE_SECONDS = 1
    with guard.lease() as grip:
        first = Lease.objects.get().expires_at
        deadline = time.monotonic() + 30
        while Lease.objects.get().expires_at == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert grip.is_live()


def test_a_run_that_was_overtaken_does_not_free_the_others_lease() -> None:
    with guard.lease() as overtaken:
        Lease.objects.update(expires_at=datetime(2000, 1, 1, tzinfo=UTC))
        with guard.lease() as other:
            overtaken.release()
            assert other.is_live()
            assert guard.holder()


def test_whoever_holds_the_lease_is_named_while_it_does() -> None:
    assert guard.holder() == ""
    with guard.lease():
        assert f"process {os.getpid()}" in guard.holder()
    assert guard.holder() == ""


def test_the_lease_of_a_process_that_cannot_be_asked_is_waited_for() -> None:
    """The first process of a machine is always there; its start may not be readable."""
    hold_elsewhere(pid=1, pid_started=guard._started(1) or "unknown")
    with pytest.raises(guard.LeaseHeldError), guard.lease():
        pass


def test_an_expired_lease_is_taken_over_and_its_run_closed() -> None:
    now = datetime.now(UTC)
    run = ArchiveRun.objects.create(
        trigger="beat", token=7, holder="dead", started_at=now, cutoff=now
    )
    Lease.objects.create(
        name="archive", holder="dead", token=7, expires_at=now - timedelta(seconds=1)
    )
    with guard.lease() as grip:
        assert grip.token == 8
    run.refresh_from_db()
    assert run.outcome == "interrupted"
    assert "dead" in run.error


def hold_elsewhere(**changes: Any) -> None:
    """Let another process of this machine, which is alive unless changed, hold the lease."""
    with guard.lease():
        row = Lease.objects.get()
    values = {
        "holder": "another",
        "pid": row.pid,
        "pid_started": row.pid_started,
        "expires_at": datetime.now(UTC) + timedelta(hours=1),
        "acquired_at": datetime.now(UTC),
        **changes,
    }
    Lease.objects.update(**values)


def test_the_lease_of_a_process_of_this_machine_that_is_gone_is_taken_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    hold_elsewhere(pid=process.pid, pid_started="1")
    with guard.lease() as grip:
        assert grip.is_live()


def test_a_process_that_got_the_number_of_a_dead_one_is_not_mistaken_for_it() -> None:
    hold_elsewhere(pid_started="1")  # our own number, another start
    with guard.lease() as grip:
        assert grip.is_live()


@pytest.mark.parametrize("changes", [{}, {"host": "elsewhere", "pid": 0}, {"host": ""}])
def test_a_lease_that_may_be_alive_is_waited_for(changes: dict[str, Any]) -> None:
    hold_elsewhere(**changes)
    with pytest.raises(guard.LeaseHeldError, match="another"), guard.lease():
        pass


def test_a_process_that_has_ended_and_was_not_reaped_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = guard._started(process.pid)
        assert started
        process.kill()
        deadline = time.monotonic() + 30
        while guard._started(process.pid):  # a zombie until it is waited for
            assert time.monotonic() < deadline
            time.sleep(0.01)
