"""The checkpoint: what was signed reads back, and anything else is refused as what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.format.chain import genesis_link
from audit.format.checkpoint import CHECKPOINT, MAX_CHECKPOINT_BYTES, Checkpoint
from audit.format.errors import AuditError, GapError, TamperedError, UnverifiableError
from audit.format.merkle import EMPTY_ROOT
from audit.format.names import MAX_INDEX, MAX_SEQ, CheckpointName
from audit.format.signing import Keyring, canonical
from audit.tests.factories import ORIGIN, keyring

RING = keyring("a")
FIRST = Checkpoint(
    origin=ORIGIN,
    index=1,
    seq=0,
    link=genesis_link(ORIGIN),
    root=EMPTY_ROOT,
    at="2026-01-02T03:00:00.000Z",
    previous_sha256=None,
    signed_by=tuple(RING.signed_by),
)
BEFORE = replace(
    FIRST,
    index=7,
    seq=1_000,
    link=sha256(b"link").digest(),
    root=sha256(b"root").digest(),
    previous_sha256=sha256(b"sixth").hexdigest(),
)
BEFORE_SHA256 = sha256(BEFORE.to_bytes(RING)).hexdigest()
GOOD = replace(
    BEFORE,
    index=8,
    seq=1_024,
    link=sha256(b"next link").digest(),
    root=sha256(b"next root").digest(),
    at="2026-01-02T04:00:00.000Z",
    previous_sha256=BEFORE_SHA256,
)
DATA = GOOD.to_bytes(RING)
INNER = json.loads(DATA)["checkpoint"]


def reads(data: bytes, ring: Keyring = RING) -> Checkpoint:
    return Checkpoint.from_bytes(data, ring)


def error_of(data: bytes, ring: Keyring = RING) -> AuditError:
    with pytest.raises(AuditError) as caught:
        reads(data, ring)
    return caught.value


def signed_anew(inner: Any, ring: Keyring = RING) -> bytes:
    """Return the file of any inner object, with good signatures: what a thief of the key does."""
    signatures = [item.to_json() for item in ring.sign(CHECKPOINT.domain, canonical(inner))]
    return canonical({"checkpoint": inner, "signatures": signatures})


# Round trip --------------------------------------------------------------------------------

hashes = st.binary(min_size=32, max_size=32)


@given(st.integers(1, MAX_INDEX), st.integers(1, MAX_SEQ), hashes, hashes, hashes, st.datetimes())
def test_what_was_written_reads_back(
    index: int, seq: int, link: bytes, root: bytes, previous: bytes, at: Any
) -> None:
    made = Checkpoint(
        origin=ORIGIN,
        index=index,
        seq=seq,
        link=link,
        root=root,
        at=at.isoformat(timespec="milliseconds") + "Z",
        previous_sha256=previous.hex() if index > 1 else None,
        signed_by=tuple(RING.signed_by),
    )
    data = made.to_bytes(RING)
    assert reads(data) == made
    assert reads(data).to_bytes(RING) == data


def test_one_of_an_empty_log_reads_back() -> None:
    for made in (FIRST, replace(GOOD, seq=0, link=FIRST.link, root=FIRST.root)):
        assert reads(made.to_bytes(RING)) == made


def test_the_form_is_the_documented_one() -> None:
    document = json.loads(DATA)
    assert canonical(document) == DATA
    assert set(document) == {"checkpoint", "signatures"}
    assert set(INNER) == set(
        "format origin index seq link root at previous_sha256 signed_by".split()
    )
    assert INNER["format"] == "dezky-audit-checkpoint/v1"
    message = b"dezky-audit/checkpoint/v1\n" + canonical(INNER)
    (signature,) = document["signatures"]
    assert signature == {
        "algorithm": "hmac-sha256",
        "key_id": RING.signers[0].key_id,
        "signature": signature["signature"],
    }
    assert RING.sign("dezky-audit/checkpoint/v1", canonical(INNER))[0].to_json() == signature
    assert message.startswith(CHECKPOINT.domain.encode())


# Altered -----------------------------------------------------------------------------------


def test_any_flipped_bit_is_tampering() -> None:
    for bit in range(len(DATA) * 8):
        data = bytearray(DATA)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TamperedError):
            reads(bytes(data))


def remove(inner: dict[str, Any], name: str) -> None:
    del inner[name]


def add(inner: dict[str, Any], name: str) -> None:
    inner["more"] = inner[name]


@pytest.mark.parametrize("edit", [remove, add])
@pytest.mark.parametrize("name", sorted(INNER))
def test_a_signed_one_of_another_form_is_refused(
    name: str, edit: Callable[[dict[str, Any], str], None]
) -> None:
    inner = dict(INNER)
    edit(inner, name)
    if name == "signed_by" and edit is remove:
        assert isinstance(error_of(signed_anew(inner)), TamperedError)
    else:
        assert "does not have the signed form" in str(error_of(signed_anew(inner)))


@pytest.mark.parametrize(
    "value", [None, True, -1, "", "text", [], {}, [None], "AB" * 32, 2**53 - 1]
)
@pytest.mark.parametrize("name", sorted(INNER))
def test_a_signed_member_of_a_wrong_type_is_refused(name: str, value: Any) -> None:
    if (name == "origin" and isinstance(value, str)) or value == (
        2**53 - 1 if name == "seq" else 0
    ):
        value = -1  # any text may be the name of a log; any seq is a seq
    assert isinstance(error_of(signed_anew({**INNER, name: value})), TamperedError)


@pytest.mark.parametrize(
    "time", ["2026-01-02T04:00:00Z", "2026-01-02T04:00:00.000+00:00", "2026-02-30T04:00:00.000Z"]
)
def test_a_signed_time_in_another_form_than_a_record_s_is_refused(time: str) -> None:
    assert "at does not have the signed form" in str(error_of(signed_anew({**INNER, "at": time})))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", DATA[:-1], DATA + b"\n", DATA + DATA, b"[" * 60_000],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_checkpoint_is_tampering(data: bytes) -> None:
    assert isinstance(error_of(data), TamperedError)


def test_what_is_larger_than_any_checkpoint_is_not_even_read() -> None:
    assert str(error_of(DATA + b" " * MAX_CHECKPOINT_BYTES)) == (
        "larger than 65536 bytes, no checkpoint is"
    )


# Contradictions, though signed -------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"index": 0, "previous_sha256": None}, "its place"),
        ({"index": MAX_INDEX + 1}, "its place"),
        ({"previous_sha256": None}, "the one before it"),
        ({"index": 1}, "the one before it"),
        ({"seq": 0}, "the link of an empty log"),
        ({"seq": 0, "link": FIRST.link}, "the link of an empty log"),
        ({"seq": 0, "root": FIRST.root}, "the link of an empty log"),
        (
            {"seq": 0, "root": FIRST.root, "link": FIRST.link, "origin": "another"},
            "the link of an empty log",
        ),
    ],
)
def test_parts_that_do_not_agree_are_refused_though_signed(
    members: dict[str, Any], what: str
) -> None:
    error = error_of(replace(GOOD, **members).to_bytes(RING))
    assert isinstance(error, TamperedError)
    assert str(error) == f"the checkpoint contradicts itself: {what}"


# Signatures --------------------------------------------------------------------------------


def test_signed_by_unknown_keys_only_it_is_unverifiable() -> None:
    for ring in (keyring("c"), Keyring([])):
        assert isinstance(error_of(DATA, ring), UnverifiableError)


def test_signed_for_another_purpose_it_is_tampering() -> None:
    signatures = RING.sign("dezky-audit/manifest/v1", canonical(INNER))
    document = {"checkpoint": INNER, "signatures": [item.to_json() for item in signatures]}
    assert isinstance(error_of(canonical(document)), TamperedError)


# Held against its name ---------------------------------------------------------------------

NAME = CheckpointName.of(GOOD.index, GOOD.seq, sha256(DATA).hexdigest())


def test_an_object_that_fits_its_name_is_read() -> None:
    assert Checkpoint.from_object(NAME, DATA, RING) == GOOD


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (replace(NAME, digest="0" * 16), "holds other bytes than its name says"),
        (replace(NAME, index=9), "is of another place than its name says"),
        (replace(NAME, seq=1_025), "is of another place than its name says"),
    ],
)
def test_an_object_under_another_name_is_tampering(name: CheckpointName, error: str) -> None:
    with pytest.raises(TamperedError, match=error):
        Checkpoint.from_object(name, DATA, RING)


def test_an_object_by_an_unknown_key_is_unverifiable_only_under_its_own_name() -> None:
    with pytest.raises(UnverifiableError):
        Checkpoint.from_object(NAME, DATA, keyring("c"))
    with pytest.raises(TamperedError):
        Checkpoint.from_object(replace(NAME, digest="0" * 16), DATA, keyring("c"))


# Held against the one before ---------------------------------------------------------------


def test_the_next_one_follows() -> None:
    GOOD.check_follows(BEFORE, BEFORE_SHA256)


def test_nothing_may_have_happened_meanwhile() -> None:
    same = replace(GOOD, seq=BEFORE.seq, link=BEFORE.link, root=BEFORE.root, at=BEFORE.at)
    same.check_follows(BEFORE, BEFORE_SHA256)


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"origin": "another"}, "is of another log, 'another'"),
        ({"seq": 999}, "goes back behind checkpoint 7"),
        ({"at": "2026-01-02T02:59:59.999Z"}, "goes back behind checkpoint 7"),
        ({"seq": 1_000}, "are both signed for seq 1,000 and have different links"),
        ({"seq": 1_000, "link": BEFORE.link}, "are both signed for seq 1,000"),
        ({"seq": 1_000, "root": BEFORE.root}, "are both signed for seq 1,000"),
        ({"previous_sha256": "0" * 64}, "follows another one than checkpoint 7"),
        ({"index": 9}, "leaves out an index after checkpoint 7"),
        ({"index": 7}, "is of index 7, though checkpoint 7 is before it"),
    ],
)
def test_one_that_contradicts_the_one_before_is_tampering(
    members: dict[str, Any], error: str
) -> None:
    with pytest.raises(TamperedError, match=error):
        replace(GOOD, **members).check_follows(BEFORE, BEFORE_SHA256)


@pytest.mark.parametrize("index", [9, 100])
def test_where_some_between_are_missing_it_is_a_gap(index: int) -> None:
    later = replace(GOOD, index=index, previous_sha256=sha256(b"another").hexdigest())
    with pytest.raises(GapError, match="comes after checkpoint 7: those between are missing"):
        later.check_follows(BEFORE, BEFORE_SHA256)


@pytest.mark.parametrize("index", [7, 3])
def test_one_of_the_same_or_an_earlier_index_is_no_gap_but_tampering(index: int) -> None:
    other = replace(GOOD, index=index, previous_sha256=sha256(b"another").hexdigest())
    with pytest.raises(TamperedError):
        other.check_follows(BEFORE, BEFORE_SHA256)
