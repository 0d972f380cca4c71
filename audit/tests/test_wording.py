"""A result in words."""

from __future__ import annotations

import pytest

from audit.models import ArchiveRun
from audit.result import Outcome, Result
from audit.wording import as_lines, boundary_line, count, result_line, result_line_of

BATCH = {
    "start_seq": 1,
    "end_seq": 5_200,
    "event_count": 5_200,
    "manifest_key": None,
    "bytes_uncompressed": 2_600_000,
    "bytes_compressed": None,
}


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("event",), "0 events"),
        (1, ("event",), "1 event"),
        (1_234, ("event",), "1,234 events"),
        (1, ("batch", "batches"), "1 batch"),
        (2, ("batch", "batches"), "2 batches"),
    ],
)
def test_a_number_has_its_noun(number: int, words: tuple[str, ...], said: str) -> None:
    assert count(number, *words) == said


def test_a_run_ends_with_two_lines_that_its_row_and_the_console_repeat() -> None:
    result = Result(Outcome.ARCHIVED, run=3, batches=[BATCH], events=5_200)
    result.highest_archived_seq, result.oldest_hot_seq = 5_200, 5_201
    lines = as_lines(result)
    assert lines[0] == "batch 1–5,200: 5,200 events, 2.6 MB"
    assert lines[-2:] == [result_line(result), boundary_line(result)]
    assert lines[-2] == "archived (run 3): 5,200 events in 1 batch"
    assert lines[-1] == "tier boundary: highest archived seq 5,200, oldest hot seq 5,201"
    row = ArchiveRun(pk=3, outcome="archived", events=5_200, batches=1)
    assert result_line_of(row) == lines[-2]


def test_what_has_no_run_no_boundary_and_no_outcome_yet_is_said_too() -> None:
    assert result_line(Result(Outcome.NOTHING_DUE)) == "nothing due: 0 events in 0 batches"
    assert boundary_line(Result(Outcome.BUSY)).endswith("archived seq none, oldest hot seq none")
    assert boundary_line(Result(Outcome.BUSY, boundary_known=False)) == "tier boundary: not known"
    assert result_line_of(ArchiveRun(pk=4)) == "running (run 4): 0 events in 0 batches"
