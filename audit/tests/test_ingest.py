"""What a source sent becomes a draft, or is refused with the reason."""

from __future__ import annotations

import json
import sqlite3
import string
from typing import Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from audit import ingest
from audit.format.errors import RecordError
from audit.ingest import event_key, generic_event, line_reader, unknown_tenants
from audit.log import Draft
from tenants.models import Tenant

from .factories import generic_event as given_event


def reason_for(**members: Any) -> str:
    with pytest.raises(RecordError) as caught:
        generic_event("platform", given_event(**members))
    return str(caught.value)


# Members -----------------------------------------------------------------------------------


def test_an_event_needs_only_a_time_and_an_action() -> None:
    event = {"occurred_at": "2026-01-02T03:04:05+01:00", "action": "login"}
    assert generic_event("authentik", event) == {
        "action": "login",
        "actor": {"id": "", "ip": "", "name": ""},
        "data": {},
        "external_id": "",
        "occurred_at": "2026-01-02T02:04:05.000Z",
        "outcome": "unknown",
        "source": "authentik",
        "target": {"id": "", "name": "", "type": ""},
        "tenant": "",
        "v": 1,
    }


def test_every_member_is_kept() -> None:
    event = generic_event(
        "ocis",
        {
            "occurred_at": "2026-01-02T03:04:05Z",
            "external_id": "e-1",
            "tenant": "alder",
            "actor": {"id": "a-1", "ip": "192.0.2.1", "name": "Ada"},
            "action": "file_read",
            "target": {"id": "t-1", "name": "budget.ods", "type": "file"},
            "outcome": "success",
            "data": {"size": 17},
        },
    )
    assert event["external_id"] == "e-1"
    assert event["tenant"] == "alder"
    assert event["actor"] == {"id": "a-1", "ip": "192.0.2.1", "name": "Ada"}
    assert event["target"] == {"id": "t-1", "name": "budget.ods", "type": "file"}
    assert event["outcome"] == "success"
    assert event["data"] == {"size": 17}


def test_an_actor_or_target_given_as_text_is_its_name() -> None:
    event = generic_event("platform", given_event(actor="Ada", target="budget.ods"))
    assert event["actor"] == {"id": "", "ip": "", "name": "Ada"}
    assert event["target"] == {"id": "", "name": "budget.ods", "type": ""}


def test_null_is_the_same_as_left_out() -> None:
    names = ("actor", "data", "external_id", "outcome", "target", "tenant")
    nulls = {**given_event(), **dict.fromkeys(names)}
    assert generic_event("platform", nulls) == generic_event("platform", given_event())


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"extra": 1}, "unknown member 'extra': put what is your own under 'data'"),
        ({"Action": "x"}, "unknown member 'Action'"),
        ({"seq": 1}, "unknown member 'seq'"),
        ({"id": "x"}, "unknown member 'id'"),
        ({"recorded_at": "2026-01-02T03:04:05Z"}, "unknown member 'recorded_at'"),
        ({"source": "dezky"}, "unknown member 'source'"),
        ({"x" * 1_000: 1}, "unknown member '" + "x" * 50 + "'"),
        ({"action": None}, "'action' is missing"),
        ({"action": ""}, "'action' is missing"),
        ({"action": 1}, "'action' is not a string"),
        ({"occurred_at": None}, "'occurred_at' is missing"),
        ({"occurred_at": 1767323045}, "'occurred_at' is not a string"),
        ({"occurred_at": "soon"}, "'soon' is not an RFC 3339 time with an offset"),
        ({"occurred_at": "2026-01-02T03:04:05"}, "'2026-01-02T03:04:05' is not an RFC 3339"),
        ({"occurred_at": "2026-02-30T00:00:00Z"}, "'2026-02-30T00:00:00Z' is no time that exists"),
        ({"external_id": 17}, "'external_id' is not a string"),
        ({"tenant": ["alder"]}, "'tenant' is not a string"),
        ({"outcome": "maybe"}, "outcome 'maybe' is none of success, failure, unknown"),
        ({"outcome": True}, "'outcome' is not a string"),
        ({"data": []}, "'data' is not an object"),
        ({"data": ""}, "'data' is not an object"),
        ({"actor": 1}, "'actor' is neither an object nor a string"),
        ({"actor": {"email": "x"}}, "unknown member 'email' of 'actor'"),
        ({"actor": {"id": 4}}, "'id' is not a string"),
        ({"target": []}, "'target' is neither an object nor a string"),
        ({"target": {"ip": "x"}}, "unknown member 'ip' of 'target'"),
    ],
)
def test_what_has_another_shape_is_refused_by_name(members: dict[str, Any], reason: str) -> None:
    assert reason_for(**members).startswith(reason)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(sorted(ingest.MEMBERS)) | st.text(string.ascii_letters, max_size=3),
        any_json | st.sampled_from(["2026-01-02T03:04:05Z", "success", "x"]),
    )
)
def test_whatever_is_given_nothing_but_a_reason_is_raised(event: dict[str, Any]) -> None:
    try:
        made = generic_event("platform", {**given_event(), **event})
    except RecordError:
        return
    assert set(made) == {
        *("action actor data external_id occurred_at outcome source target tenant v".split())
    }


# Keys --------------------------------------------------------------------------------------


def test_a_key_has_16_bytes_and_depends_on_every_part() -> None:
    assert len(event_key("a", "b")) == 16
    assert event_key("a", "b") == event_key("a", "b")
    assert event_key("a", "b") != event_key("b", "a")


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_parts_of_a_key_never_run_together(one: list[str], other: list[str]) -> None:
    assert (event_key(*one) == event_key(*other)) == (one == other)


def test_an_external_id_is_known_by_source_scope_and_id() -> None:
    event = generic_event("ocis", given_event(external_id="x"))
    key = ingest.draft(event, "scope").key
    assert key == ingest.draft({**event, "action": "other"}, "scope").key
    assert key != ingest.draft(event, "other scope").key
    assert key != ingest.draft({**event, "source": "other"}, "scope").key
    assert key != ingest.draft({**event, "external_id": "other"}, "scope").key


def test_a_digest_says_what_the_event_says() -> None:
    event = generic_event("ocis", given_event(external_id="x"))
    digest = ingest.draft(event, "scope").digest
    assert digest == ingest.draft(dict(reversed(event.items())), "scope").digest
    assert digest != ingest.draft({**event, "action": "other"}, "scope").digest
    assert digest != ingest.draft({**event, "data": {"a": 1}}, "scope").digest


# Lines -------------------------------------------------------------------------------------


def keys_of(*lines: bytes, source: str = "platform") -> list[bytes]:
    with line_reader(source) as reader:
        return [reader.draft(line).key for line in lines]


def line(**members: Any) -> bytes:
    return json.dumps(given_event(**members)).encode()


def test_a_line_without_an_id_is_known_by_its_bytes_and_how_often_they_came() -> None:
    keys = keys_of(line(), line(action="other"), line(), line())
    assert len(set(keys)) == 4
    assert keys_of(line(), line(), line(), line(action="other")) == [
        *(keys[0], keys[2], keys[3], keys[1])
    ]


def test_the_same_line_of_another_source_is_another_event() -> None:
    assert not set(keys_of(line())) & set(keys_of(line(), source="ocis"))


def test_a_line_with_an_id_is_known_by_that_wherever_it_stands() -> None:
    one, two = line(external_id="x"), line(external_id="x", action="other")
    keys = keys_of(one, two, one)
    assert len(set(keys)) == 1
    with line_reader("platform") as reader:
        assert reader.draft(one).digest != reader.draft(two).digest


def test_keys_and_digests_are_what_they_always_were() -> None:
    # Those of a file that is ingested again are looked up among those of years ago.
    lines = [
        (
            b'{"occurred_at":"2026-01-02T03:04:05.678Z","action":"login","external_id":"e-1",'
            b'"actor":{"id":"a","ip":"","name":"A"},"data":{"b":1.5,"a":["\\u00fc"]}}'
        ),
        *[b'{"action": "login", "occurred_at": "2026-01-02T03:04:05+01:00"}'] * 2,
    ]
    with line_reader("platform") as reader:
        found = [reader.draft(line) for line in lines]
    assert [(draft.key.hex(), draft.digest.hex()) for draft in found] == [
        ("e56f554f3a858c05e469c6946614a6e0", "cadfae415f5bc97fc5b0a3a8cf0e0122"),
        ("ead9ec445ef12ce0cf5e015c5e00338c", "26e9310e5f3770e145f0087f129aa8ff"),
        ("4c2b27fb98e0957ad21e0470cac26369", "26e9310e5f3770e145f0087f129aa8ff"),
    ]


def test_the_key_of_a_line_is_that_of_its_event() -> None:
    with line_reader("ocis") as reader:
        (made,) = reader.drafts([line(external_id="ü-1")])
    assert isinstance(made, Draft)
    assert made.key == event_key("ocis", ingest.FILE_SCOPE, "ü-1")
    assert made == ingest.draft(made.event, ingest.FILE_SCOPE)


def test_of_many_lines_each_is_a_draft_or_a_reason() -> None:
    with line_reader("platform") as reader:
        first, bad, second = reader.drafts([line(), b"[]", line()])
    assert isinstance(first, Draft)
    assert isinstance(second, Draft)
    assert first.key != second.key
    assert str(bad) == "not a JSON object"


def test_a_refused_line_counts_as_no_occurrence() -> None:
    with line_reader("platform") as reader:
        with pytest.raises(RecordError):
            reader.draft(b"{}")
        assert reader.draft(line()).key == keys_of(line())[0]


def test_a_line_is_bounded() -> None:
    with (
        line_reader("platform") as reader,
        pytest.raises(RecordError, match="longer than 1,048,576 bytes"),
    ):
        reader.draft(b" " * (1024 * 1024 + 1))


# Tenants -----------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_tenant_is_unknown_unless_one_has_exactly_that_slug() -> None:
    Tenant.objects.create(slug="alder", name="Alder")
    asked = ["alder", "Alder", "alder ", "al\0der", "\ud800".encode(errors="replace").decode(), ""]
    assert unknown_tenants(asked) == {"Alder", "alder ", "al\0der", "?"}


@pytest.mark.django_db
@pytest.mark.parametrize("status", Tenant.Status.values)
def test_a_tenant_is_known_in_every_status(status: str) -> None:
    Tenant.objects.create(slug="alder", name="Alder", status=status)
    assert unknown_tenants(["alder"]) == set()


@pytest.mark.django_db
def test_more_tenants_can_be_looked_up_than_one_query_takes() -> None:
    Tenant.objects.create(slug="t-1", name="One")
    assert connection.connection is not None
    limit = sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER
    before = connection.connection.setlimit(limit, 999)
    try:
        unknown = unknown_tenants(f"t-{number}" for number in range(3_000))
    finally:
        connection.connection.setlimit(limit, before)
    assert len(unknown) == 2_999
    assert "t-1" not in unknown
