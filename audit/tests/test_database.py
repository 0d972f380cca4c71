"""Writers on SQLite wait for their turn, fairly and for a bounded time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from audit import log

from .factories import drafts
from .simulator import Site


@pytest.fixture
def turn(transactional_db: None) -> Iterator[int]:
    """Open the file that writers lock before they write."""
    log.append(drafts(1))
    file = os.open(f"{connection.settings_dict['NAME']}.queue", os.O_RDWR)
    yield file
    os.close(file)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_writer_whose_turn_does_not_come_is_busy_and_writes_nothing(turn: int) -> None:
    fcntl.flock(turn, fcntl.LOCK_EX)
    with pytest.raises(log.BusyError, match="stayed locked by another process"):
        log.append(drafts(1))
    assert log.current_state().head_seq == 1
    fcntl.flock(turn, fcntl.LOCK_UN)
    log.append(drafts(2))
    assert log.current_state().head_seq > 1


@pytest.mark.usefixtures("turn", "impatient")
def test_a_transaction_within_another_has_its_turn_already() -> None:
    with log.write_transaction(), log.write_transaction():
        assert connection.in_atomic_block


def test_where_the_file_cannot_be_used_writers_go_without(turn: int) -> None:
    path = Path(f"{connection.settings_dict['NAME']}.queue")
    fcntl.flock(turn, fcntl.LOCK_EX)
    path.unlink()
    path.mkdir()
    try:
        log.append(drafts(2))
    finally:
        path.rmdir()
    assert log.current_state().head_seq > 1


def test_a_turn_ends_with_its_process(site: Site) -> None:
    writer = site.driver("append", "--each=5", '--pause=sql:INSERT INTO "audit_eventkey"')
    writer.wait_for("^paused")
    writer.kill()
    other = site.driver("append", "--name=other", "--each=5")
    assert not [line for line in other.finish() if line.startswith("busy")]
