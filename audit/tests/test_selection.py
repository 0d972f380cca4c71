"""What is due, and what may leave hot."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import ingest, log, selection
from audit.format.errors import GapError, RecordError
from audit.format.record import parse, read
from audit.models import AuditEvent

from .factories import drafts

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TIME = "2026-01-01T00:00:00.000Z"

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=6), values, max_size=5), st.text(max_size=20))
def test_every_record_that_is_taken_in_can_leave_again(data: dict[str, Any], actor: str) -> None:
    given_event = {"occurred_at": "2026-01-01T00:00:00Z", "action": "x", "actor": actor}
    try:
        line = json.dumps({**given_event, "data": data}).encode()
        event = ingest.generic_event("platform", parse(line))
    except RecordError:
        return
    record = log.encode(event, id="0" * 36, recorded_at=TIME, seq=7)
    assert read(record)["seq"] == 7
    row = (7, record, b"")
    assert selection._check_records([row], TIME) == (TIME, TIME)


def test_a_record_that_another_version_wrote_with_other_digits_can_leave_too() -> None:
    """Canonical, though orjson would write the number in another way."""
    event = ingest.generic_event("platform", {"occurred_at": TIME, "action": "x"})
    written = log.encode(event, id="0" * 36, recorded_at=TIME, seq=7)
    record = written.replace(b'"data":{}', b'"data":{"x":1e-7,"y":1E5,"z":0.10}')
    assert log.encode(json.loads(record)) != record
    selection._check_records([(7, record, b"")], "")


@pytest.mark.django_db
class TestDue:
    """The newest seq that is due, and the batch that is cut off next."""

    def begin(self) -> None:
        log.append(drafts(4), now=NOW - timedelta(days=100))
        log.append(drafts(3), now=NOW - timedelta(days=10))

    def test_what_was_recorded_before_the_cutoff_is_due(self) -> None:
        self.begin()
        cutoff = selection.cutoff_at(NOW)
        assert selection.last_due(0, 7, cutoff) == 4
        assert selection.last_due(4, 7, cutoff) == 4
        assert selection.last_due(0, 7, NOW) == 7

    def test_what_was_recorded_at_the_cutoff_itself_is_not_due(self) -> None:
        self.begin()
        assert selection.last_due(0, 7, NOW - timedelta(days=100)) == 0

    def test_a_retention_longer_than_time_itself_keeps_everything(self, settings: Any) -> None:
        self.begin()
        settings.AUDIT_HOT_RETENTION_DAYS = 999_999_999
        assert selection.last_due(0, 7, selection.cutoff_at(NOW)) == 0

    def test_the_next_range_is_cut_by_events(self, settings: Any) -> None:
        self.begin()
        settings.AUDIT_BATCH_MAX_EVENTS = 3
        found = selection.next_range(0, 4)
        assert found is not None
        assert (found.start_seq, found.end_seq, found.event_count) == (1, 3, 3)
        assert found.bytes_uncompressed == sum(
            len(bytes(record)) + 1
            for record in AuditEvent.objects.filter(seq__lte=3).values_list("record", flat=True)
        )
        rest = selection.next_range(3, 4)
        assert rest is not None
        assert (rest.start_seq, rest.end_seq) == (4, 4)
        assert selection.next_range(4, 4) is None

    @pytest.mark.parametrize("missing", [1, 2, 4])
    def test_a_missing_row_is_named(self, missing: int) -> None:
        self.begin()
        AuditEvent.objects.filter(seq=missing).delete()
        with pytest.raises(GapError, match=f"Seq {missing} is missing"):
            selection.next_range(0, 4)

    def test_a_missing_row_right_behind_the_due_ones_is_named(self) -> None:
        """Its time is not known: it may have been due."""
        self.begin()
        AuditEvent.objects.filter(seq=5).delete()
        with pytest.raises(GapError, match="Seq 5 is missing"):
            selection.last_due(0, 7, selection.cutoff_at(NOW))
