"""The hot log: what append promises, what a purge may touch."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from audit import log
from audit.format.chain import genesis_link, leaf_hash, next_link
from audit.format.errors import GapError, RecordError
from audit.format.record import format_time, parse_time
from audit.log import Appended, BusyError, FenceError, RolledBackError
from audit.models import AuditEvent, EventKey, LogState

from .factories import ORIGIN, draft, drafts, ledger_row

database = pytest.mark.django_db
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def rows() -> list[AuditEvent]:
    return list(AuditEvent.objects.order_by("seq"))


def documents() -> list[dict[str, Any]]:
    return [json.loads(bytes(row.record)) for row in rows()]


def seqs() -> list[int]:
    return list(AuditEvent.objects.order_by("seq").values_list("seq", flat=True))


# Seqs, links, records ----------------------------------------------------------------------


@database
def test_seqs_begin_at_1_and_go_on_from_call_to_call() -> None:
    assert log.append(drafts(2)) == [Appended(1), Appended(2)]
    assert log.append(drafts(1)) == [Appended(3)]
    assert seqs() == [1, 2, 3]
    assert [document["seq"] for document in documents()] == [1, 2, 3]


@database
def test_every_link_follows_from_the_origin_and_the_records() -> None:
    log.append(drafts(3))
    log.append(drafts(2))
    link = genesis_link(ORIGIN)
    for row in rows():
        link = next_link(link, leaf_hash(bytes(row.record)))
        assert row.link == link.hex()
    state = LogState.objects.get()
    assert (state.head_seq, state.head_link) == (5, link.hex())
    assert (state.floor_seq, state.floor_link) == (0, genesis_link(ORIGIN).hex())


@database
def test_a_record_is_canonical_and_has_exactly_the_documented_members() -> None:
    log.append([draft(data={"z": [1.5, None, True], "ü": "\U0001f512\n\0", "a": {}})], now=NOON)
    (row,) = rows()
    document = json.loads(bytes(row.record))
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert bytes(row.record) == text.encode()
    assert {**document, "id": "…", "external_id": "…"} == {
        "action": "tested",
        "actor": {"id": "", "ip": "", "name": ""},
        "data": {"z": [1.5, None, True], "ü": "\U0001f512\n\0", "a": {}},
        "external_id": "…",
        "id": "…",
        "occurred_at": "2026-01-02T03:04:05.678Z",
        "outcome": "unknown",
        "recorded_at": "2026-03-04T12:00:00.000Z",
        "seq": 1,
        "source": "platform",
        "target": {"id": "", "name": "", "type": ""},
        "tenant": "",
        "v": 1,
    }


@database
def test_keys_of_a_record_sort_by_code_point() -> None:
    names = ["\U0001f512", "\uff5e", "z", "Z", "é", ""]
    log.append([draft(data=dict.fromkeys(names, 1))])
    (document,) = documents()
    assert list(document["data"]) == ["", "Z", "z", "é", "\uff5e", "\U0001f512"]


texts = st.text(max_size=20) | st.sampled_from(
    ['","source":"', ',"occurred_at":', '\\",\\"source\\":', "\\", '"', "\x00"]
)
data_of_events = st.recursive(
    st.none() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            texts | st.sampled_from(["source", "occurred_at", "v"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {"data": st.dictionaries(st.sampled_from(["source", "occurred_at"]), data_of_events)},
        optional={
            "action": texts.filter(bool),
            "actor": st.fixed_dictionaries({"id": texts, "ip": texts, "name": texts}),
            "external_id": texts,
            "target": st.fixed_dictionaries({"id": texts, "name": texts, "type": texts}),
            "tenant": texts,
        },
    ),
    st.integers(1, 2**53 - 1),
)
def test_a_record_is_the_event_with_what_is_assigned_encoded_as_one(
    members: dict[str, Any], seq: int
) -> None:
    made = draft(**members)
    assigned: dict[str, Any] = {
        "id": log.uuid7(5),
        "recorded_at": "2026-03-04T12:00:00.000Z",
        "seq": seq,
    }
    assert made.record(**assigned) == log.encode(made.event, **assigned)
    assert made.digest == log.short_digest(log.encode(made.event))


@database
def test_every_event_has_an_id_of_its_own() -> None:
    log.append(drafts(50))
    assert len({document["id"] for document in documents()}) == 50


def test_a_record_that_could_be_too_large_is_refused_with_its_size() -> None:
    fits = 262_144 - len(log.encode(draft(data={"a": ""}).event, **log.drafts.UNASSIGNED)) - 10
    draft(data={"a": "x" * fits})
    with pytest.raises(RecordError, match=r"would have 262,\d+ bytes, 262,144 are allowed"):
        draft(data={"a": "x" * (fits + 100)})


@database
def test_a_record_as_large_as_allowed_never_outgrows_the_limit_when_it_gets_its_seq() -> None:
    space = 262_144 - len(log.encode(draft(data={"a": ""}).event, **log.drafts.UNASSIGNED))
    # The external id of the next draft may be one digit longer.
    log.append([draft(data={"a": "x" * (space - 2)})])
    assert 262_000 < len(rows()[0].record) <= 262_144


@database
def test_nothing_to_append_touches_nothing(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_num_queries(0):
        assert log.append([]) == []
    assert not LogState.objects.exists()


# Times -------------------------------------------------------------------------------------


@database
def test_recorded_at_is_cut_to_milliseconds_everywhere() -> None:
    log.append(drafts(1), now=NOON + timedelta(microseconds=123_999))
    (row,) = rows()
    assert row.recorded_at == NOON + timedelta(milliseconds=123)
    assert LogState.objects.get().head_recorded_at == row.recorded_at
    assert documents()[0]["recorded_at"] == "2026-03-04T12:00:00.123Z"


@database
def test_recorded_at_never_goes_back_though_the_clock_does() -> None:
    for hours in (0, -1, -500, 1):
        log.append(drafts(1), now=NOON + timedelta(hours=hours))
    times = [row.recorded_at for row in rows()]
    assert times == [NOON, NOON, NOON, NOON + timedelta(hours=1)]
    assert [document["recorded_at"] for document in documents()][2] == "2026-03-04T12:00:00.000Z"


@database
def test_all_events_of_a_call_are_recorded_at_one_time() -> None:
    log.append(drafts(20))
    assert len({row.recorded_at for row in rows()}) == 1


@database
def test_recorded_at_is_the_clock_s_time() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    log.append(drafts(1))
    assert before <= rows()[0].recorded_at <= datetime.now(UTC)


@database
@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00.000Z", "1900-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"]
)
def test_occurred_at_may_be_any_time(time: str) -> None:
    log.append([draft(occurred_at=time)])
    assert documents()[0]["occurred_at"] == time
    assert rows()[0].occurred_at == datetime.fromisoformat(time)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_has_the_column_that_django_would_give_it(moment: datetime) -> None:
    text = format_time(moment)
    column = log.appending.time_column(connection)(text)
    assert column == connection.ops.adapt_datetimefield_value(parse_time(text))
    assert log.appending.time_column(connection) is log.appending.sqlite_time


def test_a_connection_with_a_zone_of_its_own_has_times_as_django_gives_them() -> None:
    other = connection.copy()
    other.settings_dict = {**other.settings_dict, "TIME_ZONE": "Europe/Vienna"}
    column = log.appending.time_column(other)("2026-03-04T12:00:00.120Z")
    assert column == "2026-03-04 13:00:00.120000"


# The moment before the commit ---------------------------------------------------------------


@database
def test_only_the_commit_is_left_when_its_caller_is_called() -> None:
    found = []

    def look() -> None:
        found.append((seqs(), LogState.objects.get().head_seq, EventKey.objects.count()))

    log.append(drafts(3), before_commit=look)
    assert found == [([1, 2, 3], 3, 3)]
    log.append([], before_commit=look)
    assert len(found) == 1


@database
def test_nothing_was_appended_where_the_caller_fails_before_the_commit() -> None:
    def fail() -> None:
        raise OSError("no thread")

    with pytest.raises(OSError, match="no thread"):
        log.append(drafts(3), before_commit=fail)
    assert seqs() == []


# Duplicates and conflicts ------------------------------------------------------------------


@database
def test_an_event_that_is_in_the_log_is_a_duplicate_and_takes_no_seq() -> None:
    one, two, three = drafts(3)
    log.append([one, two])
    assert log.append([two, three, one]) == [
        Appended(2, duplicate=True),
        Appended(3),
        Appended(1, duplicate=True),
    ]
    assert seqs() == [1, 2, 3]
    assert LogState.objects.get().head_seq == 3


@database
def test_an_event_that_came_earlier_in_the_same_call_is_a_duplicate() -> None:
    one, two = drafts(2)
    assert log.append([one, one, two, one]) == [
        Appended(1),
        Appended(1, duplicate=True),
        Appended(2),
        Appended(1, duplicate=True),
    ]
    assert seqs() == [1, 2]


@database
def test_a_call_of_duplicates_only_changes_nothing() -> None:
    given_drafts = drafts(2)
    log.append(given_drafts, now=NOON)
    before = LogState.objects.values().get()
    log.append(given_drafts, now=NOON + timedelta(hours=1))
    assert LogState.objects.values().get() == before


@database
def test_an_event_is_recognised_long_after_its_row_is_gone() -> None:
    given_drafts = drafts(3)
    log.append(given_drafts)
    AuditEvent.objects.all().delete()
    state = LogState.objects.get()
    LogState.objects.update(floor_seq=3, floor_link=state.head_link)
    assert log.append(given_drafts) == [Appended(seq, duplicate=True) for seq in (1, 2, 3)]


@database
def test_another_event_under_the_same_key_is_kept_and_flagged() -> None:
    log.append([draft(external_id="x", action="first")])
    other = draft(external_id="x", action="other")
    assert log.append([other]) == [Appended(2, conflict=True)]
    assert [document["action"] for document in documents()] == ["first", "other"]
    key = log.short_digest(other.key + other.digest)
    assert EventKey.objects.get(seq=2).key == key


@database
def test_a_replayed_conflict_is_a_duplicate() -> None:
    first, other = draft(external_id="x", action="first"), draft(external_id="x", action="other")
    assert log.append([first, other, other]) == [
        Appended(1),
        Appended(2, conflict=True),
        Appended(2, duplicate=True, conflict=True),
    ]
    assert log.append([other, first]) == [
        Appended(2, duplicate=True, conflict=True),
        Appended(1, duplicate=True),
    ]
    assert seqs() == [1, 2]


@database
def test_every_different_event_under_one_key_is_kept() -> None:
    versions = [draft(external_id="x", action=f"version {number}") for number in range(4)]
    assert log.append(versions) == [
        Appended(1),
        *(Appended(seq, conflict=True) for seq in (2, 3, 4)),
    ]


@database
def test_duplicates_and_conflicts_come_mixed_with_what_is_new() -> None:
    first, other = draft(external_id="x", action="first"), draft(external_id="x", action="other")
    log.append([first, other])
    one, two = draft(external_id="y", action="one"), draft(external_id="y", action="two")
    third = draft(external_id="x", action="third")
    assert log.append([one, other, two, third, one, two, third, first]) == [
        Appended(3),
        Appended(2, duplicate=True, conflict=True),
        Appended(4, conflict=True),
        Appended(5, conflict=True),
        Appended(3, duplicate=True),
        Appended(4, duplicate=True, conflict=True),
        Appended(5, duplicate=True, conflict=True),
        Appended(1, duplicate=True),
    ]
    assert seqs() == [1, 2, 3, 4, 5]
    assert sorted(EventKey.objects.values_list("seq", flat=True)) == [1, 2, 3, 4, 5]


@database
def test_a_conflict_whose_first_event_is_forgotten_is_a_duplicate_of_itself() -> None:
    first, other = draft(external_id="x", action="first"), draft(external_id="x", action="other")
    log.append([first, other])
    EventKey.objects.filter(seq=1).delete()
    assert log.append([first, other]) == [
        Appended(3),
        Appended(2, duplicate=True, conflict=True),
    ]


@database
def test_the_same_id_from_another_source_is_another_event() -> None:
    answers = log.append([draft(source, external_id="x") for source in ("ocis", "authentik")])
    assert answers == [Appended(1), Appended(2)]


@database
def test_duplicates_are_found_among_more_keys_than_one_query_takes() -> None:
    given_drafts = drafts(1_500)
    log.append(given_drafts)
    answers = log.append([*given_drafts, *drafts(1)])
    assert answers == [
        *(Appended(seq, duplicate=True) for seq in range(1, 1_501)),
        Appended(1_501),
    ]


# Refusals ----------------------------------------------------------------------------------


@database
def test_a_head_behind_the_ledger_refuses_to_append() -> None:
    log.append(drafts(3))
    ledger_row(1, 4)
    with pytest.raises(RolledBackError, match=r"ends at seq 3, but the ledger knows seq 4: hot"):
        log.append(drafts(1))
    assert seqs() == [1, 2, 3]


@database
def test_a_planned_batch_is_known_to_the_ledger_as_well() -> None:
    log.append(drafts(3))
    ledger_row(1, 4, "planned")
    with pytest.raises(RolledBackError):
        log.append(drafts(1))


@database
def test_a_head_as_far_as_the_ledger_goes_on() -> None:
    log.append(drafts(3))
    ledger_row(1, 3)
    assert log.append(drafts(1)) == [Appended(4)]


@database
def test_the_log_of_another_origin_refuses_to_append(settings: Any) -> None:
    log.append(drafts(1))
    settings.AUDIT_ORIGIN = "another"
    with pytest.raises(RolledBackError, match="origin is 'dezky-test', but AUDIT_ORIGIN is 'ano"):
        log.append(drafts(1))
    assert seqs() == [1]


@database
def test_a_missing_state_beside_events_refuses_to_append() -> None:
    log.append(drafts(1))
    LogState.objects.all().delete()
    with pytest.raises(RolledBackError, match="state is missing though the log is not empty"):
        log.append(drafts(1))
    assert seqs() == [1]
    assert not LogState.objects.exists()


@database
def test_a_missing_state_beside_the_ledger_refuses_to_append() -> None:
    ledger_row(1, 1, "planned")
    with pytest.raises(RolledBackError, match="state is missing though the log is not empty"):
        log.append(drafts(1))


@database
@pytest.mark.parametrize(
    "change",
    [
        {"head_seq": 2},
        {"head_seq": 8},
        {"head_link": "ab" * 32},
        {"head_seq": 3, "floor_seq": 3},
        {"floor_seq": 5},
    ],
)
def test_nothing_is_appended_to_a_head_that_is_not_the_newest_rows(change: dict[str, Any]) -> None:
    log.append(drafts(5))
    LogState.objects.update(**change)
    if change == {"floor_seq": 5}:
        LogState.objects.update(floor_link="ab" * 32)
    before = LogState.objects.values().get()
    with pytest.raises(RolledBackError, match="The log's state says that it ends at seq"):
        log.append(drafts(3))
    assert seqs() == [1, 2, 3, 4, 5]
    assert EventKey.objects.count() == 5
    assert LogState.objects.values().get() == before


@database
def test_nothing_is_appended_where_the_newest_row_is_gone() -> None:
    log.append(drafts(3))
    AuditEvent.objects.filter(seq=3).delete()
    with pytest.raises(RolledBackError, match="its newest row is seq 2"):
        log.append(drafts(1))


@database
def test_a_log_does_not_begin_anew_where_keys_are_known() -> None:
    log.append(drafts(3))
    AuditEvent.objects.all().delete()
    LogState.objects.all().delete()
    with pytest.raises(RolledBackError, match="state is missing though the log is not empty"):
        log.append(drafts(1))


@contextmanager
def locked_by_another() -> Iterator[None]:
    """Hold the database's write lock on another connection; ours gives up soon."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout=50")
    try:
        path = str(connection.settings_dict["NAME"])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_a_database_that_stays_locked_is_busy_and_nothing_was_written() -> None:
    log.append(drafts(1))
    with (
        locked_by_another(),
        pytest.raises(BusyError, match="stayed locked by another process for 0 s: nothing was"),
    ):
        log.append(drafts(1))
    assert log.append(drafts(1)) == [Appended(2)]


@database
def test_any_other_failure_of_the_database_is_not_called_busy() -> None:
    with (
        pytest.raises(OperationalError, match="no such table"),
        log.write_transaction(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT 1 FROM missing")


@database
def test_looking_at_a_new_log_does_not_begin_it() -> None:
    assert log.current_state().head_seq == 0
    assert not LogState.objects.exists()


# Projections -------------------------------------------------------------------------------


@database
def test_projections_are_cleaned_and_cut_while_the_record_keeps_all() -> None:
    actor, target = "a\0" + "ü" * 300, "\0\0"
    log.append(
        [
            draft(
                actor={"name": actor, "id": "\0" * 300},
                target={"name": target, "id": "t"},
                tenant="t\0enant",
                action="x" * 201,
                external_id="e" * 400,
            )
        ]
    )
    (row,), (document,) = rows(), documents()
    assert row.actor == "a" + "ü" * 199
    assert row.actor_id == ""
    assert row.target == ""
    assert row.tenant == "tenant"
    assert row.action == "x" * 200
    assert row.external_id == "e" * 200
    assert document["actor"] == {"id": "\0" * 300, "ip": "", "name": actor}
    assert document["target"]["name"] == target
    assert document["tenant"] == "t\0enant"
    assert document["action"] == "x" * 201
    assert document["external_id"] == "e" * 400


@database
def test_an_actor_or_target_without_a_name_is_shown_by_its_id() -> None:
    log.append([draft(actor={"id": "a-1"}, target={"id": "t-1", "type": "file"})])
    (row,) = rows()
    assert (row.actor, row.actor_id, row.target) == ("a-1", "a-1", "t-1")


@given(st.lists(st.text(max_size=300), min_size=10, max_size=10))
def test_a_projection_never_fails_and_always_fits(texts: list[str]) -> None:
    names = ["source", "tenant", "action", "outcome", "external_id"]
    event: dict[str, Any] = dict(zip(names, texts, strict=False))
    event["actor"] = {"name": texts[5], "id": texts[6], "ip": texts[7]}
    event["target"] = {"name": texts[8], "id": texts[9], "type": ""}
    found = dict(zip(log.drafts.TEXT_COLUMNS, log.project(event), strict=True))
    assert all(len(text) <= 200 and "\0" not in text for text in found.values())
    assert found["actor_id"] == texts[6].replace("\0", "")[:200]


# UUIDs -------------------------------------------------------------------------------------


def test_an_id_is_a_uuid_of_version_7_with_its_time() -> None:
    text = log.uuid7(1_772_625_600_123)
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", text
    )
    value = uuid.UUID(text)
    assert value.version == 7
    assert value.variant == uuid.RFC_4122
    assert value.int >> 80 == 1_772_625_600_123


def test_all_other_bits_of_an_id_are_random() -> None:
    ones, zeros = 0, (1 << 128) - 1
    for _ in range(200):
        value = uuid.UUID(log.uuid7(0)).int
        ones, zeros = ones | value, zeros & value
    changing = ones & ~zeros
    assert changing.bit_count() == 74
    assert changing == 0xFFF << 64 | (1 << 62) - 1


# Reading -----------------------------------------------------------------------------------


@database
def test_a_range_is_read_in_order_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    log.append(drafts(10))
    whole = [(row.seq, bytes(row.record), bytes.fromhex(row.link)) for row in rows()]
    for chunk in (1, 3, 8, 9, 100):
        monkeypatch.setattr(log.rows, "READ_CHUNK", chunk)
        assert list(log.read_range(2, 9)) == whole[1:9]
        assert list(log.read_sizes(2, 9)) == [(seq, len(data)) for seq, data, _ in whole[1:9]]


@database
def test_a_range_without_rows_is_empty() -> None:
    log.append(drafts(2))
    assert list(log.read_range(3, 9)) == []
    assert list(log.read_range(2, 1)) == []
    assert list(log.read_sizes(3, 9)) == []


@database
def test_the_oldest_seq_is_that_of_the_first_row_above_the_floor() -> None:
    assert log.oldest_seq() is None
    log.append(drafts(3))
    assert [log.oldest_seq(above) for above in (0, 1, 2, 3)] == [1, 2, 3, None]


def make_rows(times: dict[int, int]) -> None:
    """Make rows of these seqs, recorded this many seconds after noon."""
    AuditEvent.objects.bulk_create(
        AuditEvent(
            seq=seq,
            record=b"{}",
            link="",
            recorded_at=NOON + timedelta(seconds=seconds),
            occurred_at=NOON,
        )
        for seq, seconds in times.items()
    )


@database
@pytest.mark.parametrize(
    "times",
    [
        {},
        {1: 5},
        {seq: seq for seq in range(1, 18)},
        {seq: seq // 4 for seq in range(1, 33)},
        dict.fromkeys(range(1, 10), 3),
        {seq: seq for seq in range(5, 18)},
        {seq: seq for seq in range(1, 18) if seq not in {4, 5, 6, 11, 17}},
    ],
    ids=["none", "one", "all different", "in groups", "all equal", "purged", "holes"],
)
def test_the_last_seq_before_a_time_is_found_by_bisection(times: dict[int, int]) -> None:
    make_rows(times)
    head = max(times, default=0)
    for floor in range(head + 1):
        for seconds in range(-1, 20):
            older = [seq for seq, at in times.items() if seq > floor and at < seconds]
            cutoff = NOON + timedelta(seconds=seconds)
            assert log.last_seq_before(cutoff, floor, head) == max(older, default=floor)


@database
def test_bisection_asks_few_questions(django_assert_max_num_queries: Any) -> None:
    make_rows({seq: seq for seq in range(1, 1_001)})
    with django_assert_max_num_queries(11):
        assert log.last_seq_before(NOON + timedelta(seconds=700), 0, 1_000) == 699


# Floor and fence ---------------------------------------------------------------------------


@database
def test_the_fence_only_rises() -> None:
    log.raise_fence(3)
    for token in (3, 2, 0):
        with pytest.raises(FenceError, match=f"Lease {token} is not newer than 3: run again"):
            log.raise_fence(token)
    log.raise_fence(4)
    assert LogState.objects.get().fence == 4


def begin(events: int = 10, fence: int = 1) -> None:
    log.append(drafts(events))
    log.raise_fence(fence)


def floor() -> tuple[int, str]:
    state = LogState.objects.get()
    return state.floor_seq, state.floor_link


@database
def test_the_floor_rises_from_range_to_range() -> None:
    begin()
    log.raise_floor(1, 1, 4, "aa")
    log.raise_floor(1, 5, 10, "bb")
    assert floor() == (10, "bb")


@database
@pytest.mark.parametrize("token", [0, 1, 3])
def test_the_floor_is_not_raised_under_another_fence(token: int) -> None:
    begin(fence=2)
    before = floor()
    with pytest.raises(
        FenceError, match=rf"A newer run \(lease 2\) has begun: this one \(lease {token}"
    ):
        log.raise_floor(token, 1, 4, "aa")
    assert floor() == before


@database
@pytest.mark.parametrize(("start", "end"), [(2, 4), (5, 10), (1, 11), (1, 12)])
def test_the_floor_is_not_raised_over_what_it_does_not_touch_or_is_not_there(
    start: int, end: int
) -> None:
    begin()
    before = floor()
    with pytest.raises(GapError, match=f"Seqs {start}–{end} do not continue the floor at 0"):
        log.raise_floor(1, start, end, "aa")
    assert floor() == before


@database
def test_the_floor_is_never_lowered() -> None:
    begin()
    log.raise_floor(1, 1, 6, "aa")
    log.raise_floor(1, 1, 4, "bb")
    assert floor() == (6, "aa")


@database
def test_only_rows_at_or_below_the_floor_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    begin()
    log.raise_floor(1, 1, 7, "aa")
    monkeypatch.setattr(log.rows, "DELETE_CHUNK", 3)
    assert list(log.delete_rows(1, 7)) == [3, 3, 1]
    assert seqs() == [8, 9, 10]
    assert list(log.delete_rows(1, 7)) == []


@database
def test_nothing_above_the_floor_is_deleted() -> None:
    begin()
    log.raise_floor(1, 1, 4, "aa")
    with pytest.raises(GapError, match="Seq 5 is above the floor at 4: nothing was deleted"):
        list(log.delete_rows(1, 5))
    assert len(seqs()) == 10


@database
def test_nothing_outside_the_range_is_deleted() -> None:
    begin()
    log.raise_floor(1, 1, 7, "aa")
    assert list(log.delete_rows(3, 5)) == [3]
    assert seqs() == [1, 2, 6, 7, 8, 9, 10]


@database
def test_a_purge_that_stopped_half_way_goes_on_where_rows_are_left() -> None:
    begin()
    log.raise_floor(1, 1, 7, "aa")
    AuditEvent.objects.filter(seq__in=[1, 2, 3, 6]).delete()
    assert sum(log.delete_rows(1, 7)) == 3
    assert seqs() == [8, 9, 10]


@database
def test_the_log_goes_on_after_everything_was_purged() -> None:
    begin()
    head_link = LogState.objects.get().head_link
    log.raise_floor(1, 1, 10, head_link)
    list(log.delete_rows(1, 10))
    assert log.append(drafts(1)) == [Appended(11)]
    (row,) = rows()
    assert row.link == next_link(bytes.fromhex(head_link), leaf_hash(bytes(row.record))).hex()
