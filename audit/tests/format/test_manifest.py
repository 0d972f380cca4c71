"""The manifest: what was signed reads back, and anything else is refused as what it is."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.format.errors import AuditError, EndedKeyError, TamperedError, UnverifiableError
from audit.format.keys import KeyringError
from audit.format.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest
from audit.format.merkle import Frontier
from audit.format.signing import Keyring, canonical
from audit.tests.factories import Batch, batch, key, keyring

RING = keyring("a")
BATCH = batch(3, after=1_023)  # two frames: one ends at 1,024
DATA = BATCH.manifest.to_bytes(RING)


def reads(data: bytes, ring: Keyring = RING) -> Manifest:
    return Manifest.from_bytes(data, ring)


def error_of(data: bytes, ring: Keyring = RING) -> AuditError:
    with pytest.raises(AuditError) as caught:
        reads(data, ring)
    return caught.value


def signed_anew(inner: Any, ring: Keyring = RING) -> bytes:
    """Return the file of any inner object, with good signatures: what a thief of the key does."""
    signatures = [item.to_json() for item in ring.sign(MANIFEST.domain, canonical(inner))]
    return canonical({"manifest": inner, "signatures": signatures})


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each member of a document."""
    members: Any = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    for name, member in members:
        yield (*at, name)
        yield from paths(member, (*at, name))


def edited(path: tuple[Any, ...], edit: Callable[[Any, Any], None]) -> Any:
    document = json.loads(DATA)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    edit(inner, path[-1])
    return document


def remove(inner: Any, name: Any) -> None:
    del inner[name]


def change(inner: Any, name: Any) -> None:
    value = inner[name]
    if isinstance(value, str):
        inner[name] = ("1" if value[:1] == "0" else "0") + value[1:]
    elif isinstance(value, int):
        inner[name] = value + 1
    else:
        inner[name] = None


def add(inner: Any, name: Any) -> None:
    if isinstance(inner, dict):
        inner["more"] = inner[name]
    else:
        inner.append(inner[name])


PATHS = list(paths(json.loads(DATA)))


# Round trip --------------------------------------------------------------------------------


@given(st.integers(1, 40), st.sampled_from([0, 1, 5, 1_000, 1_020]))
def test_what_was_written_reads_back(count: int, after: int) -> None:
    made = batch(count, after=after)
    data = made.manifest.to_bytes(RING)
    assert reads(data) == made.manifest
    assert reads(data).to_bytes(RING) == data


def test_the_form_is_the_documented_one() -> None:
    document = json.loads(DATA)
    assert set(document) == {"manifest", "signatures"}
    assert set(document["manifest"]) == set(
        "format origin bucket key created_at start_seq end_seq event_count start_link end_link "
        "root first_recorded_at last_recorded_at sha256 bytes_compressed bytes_uncompressed "
        "frames previous_manifest_sha256 signed_by".split()
    )
    assert set(document["manifest"]["frames"][0]) == set(
        "offset length first_seq count end_link subtrees first_recorded_at".split()
    )
    assert document["manifest"]["format"] == "dezky-audit-manifest/v1"
    assert document["manifest"]["event_count"] == 3


def test_the_first_manifest_has_none_before_it() -> None:
    made = batch(3)
    assert made.manifest.previous_manifest_sha256 is None
    assert reads(made.manifest.to_bytes(RING)) == made.manifest


def test_a_file_is_canonical() -> None:
    assert canonical(json.loads(DATA)) == DATA


# Altered -----------------------------------------------------------------------------------


def test_any_flipped_bit_is_tampering() -> None:
    for bit in range(len(DATA) * 8):
        data = bytearray(DATA)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TamperedError):
            reads(bytes(data))


@pytest.mark.parametrize("edit", [remove, change, add])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_any_member_that_is_missing_changed_or_new_is_tampering(
    path: tuple[Any, ...], edit: Callable[[Any, Any], None]
) -> None:
    assert isinstance(error_of(canonical(edited(path, edit))), TamperedError)


@pytest.mark.parametrize("edit", [remove, add])
@pytest.mark.parametrize(
    "path",
    [path for path in PATHS if path[0] == "manifest" and len(path) > 1],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_signed_manifest_of_another_form_is_refused_too(
    path: tuple[Any, ...], edit: Callable[[Any, Any], None]
) -> None:
    inner = edited(path, edit)["manifest"]
    if path[-2] == "subtrees":
        # Of the right form; that subtrees lead to the root is for `extend` to check.
        manifest = reads(signed_anew(inner))
        with pytest.raises(TamperedError):
            manifest.extend(BATCH.before)
        return
    assert isinstance(error_of(signed_anew(inner)), TamperedError)


@pytest.mark.parametrize(
    "value", [None, True, -1, 1.5, 2**53, "", "text", [], {}, [None], "AB" * 32, "é" * 64]
)
@pytest.mark.parametrize("name", sorted(json.loads(DATA)["manifest"]))
def test_a_signed_member_of_a_wrong_type_is_refused(name: str, value: Any) -> None:
    if name in {"bucket", "origin"} and isinstance(value, str):
        value = 0  # any text may be the name of a bucket or of a log
    if name == "previous_manifest_sha256" and value is None:
        value = 0  # the first manifest has none before it
    inner = {**json.loads(DATA)["manifest"], name: value}
    signed = {"a": 1} if isinstance(value, float) else inner
    signatures = json.loads(signed_anew(signed))["signatures"]
    document = {"manifest": inner, "signatures": signatures}
    assert isinstance(error_of(json.dumps(document).encode()), TamperedError)


@pytest.mark.parametrize(
    "time", ["2026-01-02T04:00:00Z", "2026-01-02T04:00:00.000+00:00", "", "now"]
)
@pytest.mark.parametrize("name", ["created_at", "first_recorded_at", "last_recorded_at", "frame"])
def test_a_signed_time_in_another_form_than_a_record_s_is_refused(name: str, time: str) -> None:
    inner = json.loads(DATA)["manifest"]
    if name == "frame":
        inner["frames"][1]["first_recorded_at"] = time
    else:
        inner[name] = time
    assert "does not have the signed form" in str(error_of(signed_anew(inner)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        DATA[:-1],
        DATA + DATA,
        DATA.replace(b'"origin":', b'"origin":"x","origin":', 1),
        b"[" * 100_000,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_no_manifest_is_tampering(data: bytes) -> None:
    assert isinstance(error_of(data), TamperedError)


def test_what_is_larger_than_any_manifest_is_not_even_read() -> None:
    error = error_of(DATA + b" " * MAX_MANIFEST_BYTES)
    assert str(error) == "larger than 16777216 bytes, no manifest is"


# Signatures --------------------------------------------------------------------------------

TWO = keyring("a", "b")
BY_TWO = replace(BATCH.manifest, signed_by=tuple(TWO.signed_by)).to_bytes(TWO)


def with_signatures(data: bytes, *indexes: int) -> bytes:
    document = json.loads(data)
    document["signatures"] = [document["signatures"][index] for index in indexes]
    return canonical(document)


@pytest.mark.parametrize("ring", [keyring("a"), keyring("b"), TWO], ids=["a", "b", "both"])
def test_a_manifest_signed_twice_is_good_by_either_key(ring: Keyring) -> None:
    assert reads(BY_TWO, ring).signed_by == tuple(TWO.signed_by)


@pytest.mark.parametrize("left", [(), (0,), (1,), (1, 0), (0, 0), (0, 1, 1), (0, 1, 0)])
def test_a_stripped_swapped_or_repeated_signature_is_tampering(left: tuple[int, ...]) -> None:
    assert isinstance(error_of(with_signatures(BY_TWO, *left), TWO), TamperedError)


def test_an_extra_signature_is_tampering_even_a_good_one() -> None:
    document = json.loads(DATA)
    body = canonical(document["manifest"])
    document["signatures"] += [item.to_json() for item in keyring("b").sign(MANIFEST.domain, body)]
    assert isinstance(error_of(canonical(document), TWO), TamperedError)


@pytest.mark.parametrize("ring", [keyring("c"), Keyring([])], ids=["another", "none"])
def test_signed_by_unknown_keys_only_it_is_unverifiable(ring: Keyring) -> None:
    assert isinstance(error_of(BY_TWO, ring), UnverifiableError)


def test_signed_by_a_thief_with_a_key_of_his_own_it_is_unverifiable() -> None:
    thief = keyring("thief")
    forged = replace(BATCH.manifest, signed_by=tuple(thief.signed_by)).to_bytes(thief)
    assert isinstance(error_of(forged), UnverifiableError)


def test_signed_for_another_purpose_it_is_tampering() -> None:
    document = json.loads(DATA)
    body = canonical(document["manifest"])
    document["signatures"] = [
        item.to_json() for item in RING.sign("dezky-audit/checkpoint/v1", body)
    ]
    assert isinstance(error_of(canonical(document)), TamperedError)


# Contradictions, though signed -------------------------------------------------------------


def contradiction(**members: Any) -> str:
    error = error_of(replace(BATCH.manifest, **members).to_bytes(RING))
    assert isinstance(error, TamperedError)
    return str(error)


FIRST, SECOND = BATCH.manifest.frames


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"start_seq": 0}, "its range"),
        ({"end_seq": 1_022}, "its range"),
        ({"end_seq": 2**53 - 1}, "the name of its object"),
        ({"key": "audit/v1/other.jsonl.gz"}, "the name of its object"),
        ({"key": ""}, "the name of its object"),
        ({"sha256": "0" * 64}, "the name of its object"),
        ({"frames": ()}, "its frames"),
        ({"frames": (FIRST,)}, "its frames"),
        ({"frames": (SECOND,)}, "the frame at byte 0"),
        ({"frames": (SECOND, FIRST)}, "the frame at byte 0"),
        ({"frames": (FIRST, replace(SECOND, offset=SECOND.offset + 1))}, "the frame at byte"),
        ({"frames": (replace(FIRST, length=0), SECOND)}, "the frame at byte 0"),
        (
            {
                "frames": (
                    replace(FIRST, length=0),
                    replace(SECOND, offset=0, length=len(BATCH.data)),
                )
            },
            "the frame at byte 0",
        ),
        (
            {
                "bytes_compressed": len(BATCH.data) + 1,
                "frames": (
                    FIRST,
                    SECOND,
                    replace(SECOND, offset=len(BATCH.data), length=1, first_seq=1_027, count=0),
                ),
            },
            "the frame at seq 1027",
        ),
        ({"frames": (FIRST, replace(SECOND, first_seq=1_026))}, "the frame at seq 1025"),
        ({"frames": (replace(FIRST, count=0), SECOND)}, "the frame at seq 1024"),
        ({"frames": (replace(FIRST, count=2), SECOND)}, "the frame at seq 1024"),
        ({"frames": (FIRST, replace(SECOND, count=3))}, "its frames"),
        ({"frames": (FIRST, replace(SECOND, length=SECOND.length + 1))}, "its frames"),
        ({"bytes_compressed": BATCH.manifest.bytes_compressed + 1}, "its frames"),
        ({"end_link": bytes(32)}, "its end link"),
        ({"first_recorded_at": "2000-01-01T00:00:00.000Z"}, "its first time"),
        ({"first_recorded_at": "2100-01-01T00:00:00.000Z"}, "the time at seq 1024"),
        ({"last_recorded_at": "2000-01-01T00:00:00.000Z"}, "its last time"),
    ],
)
def test_parts_that_do_not_agree_are_refused_though_signed(
    members: dict[str, Any], what: str
) -> None:
    assert contradiction(**members).startswith(f"the manifest contradicts itself: {what}")


# The tree ----------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4))
@settings(max_examples=30)
def test_the_tree_goes_on_from_batch_to_batch(counts: list[int]) -> None:
    frontier = Frontier()
    for count in counts:
        made = batch(count, after=frontier.size)
        assert made.before == frontier
        frontier = made.manifest.extend(frontier)
    assert frontier.root() == made.manifest.root


def test_a_tree_that_does_not_lead_to_the_signed_root_is_tampering() -> None:
    with pytest.raises(TamperedError, match="do not lead to its signed root"):
        replace(BATCH.manifest, root=bytes(32)).extend(BATCH.before)


def test_a_batch_that_begins_elsewhere_than_the_log_before_it_is_tampering() -> None:
    for before in (Frontier(), batch(3, after=1_000).before):
        with pytest.raises(TamperedError):
            BATCH.manifest.extend(before)


def test_a_tree_that_ends_elsewhere_than_the_batch_is_tampering() -> None:
    with pytest.raises(TamperedError, match="do not lead to its signed root"):
        replace(BATCH.manifest, end_seq=1_027).extend(BATCH.before)


def test_subtrees_in_a_wrong_number_are_tampering() -> None:
    frames = (FIRST, replace(SECOND, subtrees=(*SECOND.subtrees, bytes(32))))
    with pytest.raises(TamperedError, match="subtrees do not cover"):
        replace(BATCH.manifest, frames=frames).extend(BATCH.before)


# The object --------------------------------------------------------------------------------


def replayed(made: Batch, data: bytes) -> list[tuple[int, bytes, bytes]]:
    rows = []
    for first, records, links in made.manifest.replay(io.BytesIO(data)):
        rows += [
            (seq, record, link)
            for seq, (record, link) in enumerate(zip(records, links, strict=True), first)
        ]
    return rows


@given(st.integers(1, 60), st.sampled_from([0, 7, 1_000]))
def test_every_record_and_link_comes_back_from_the_object(count: int, after: int) -> None:
    made = batch(count, after=after)
    assert replayed(made, made.data) == made.rows


@given(st.integers(0, len(BATCH.data) * 8 - 1))
def test_any_flipped_bit_of_the_object_is_tampering(bit: int) -> None:
    data = bytearray(BATCH.data)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TamperedError):
        replayed(BATCH, bytes(data))


@given(st.integers(0, len(BATCH.data) - 1))
def test_an_object_that_ends_too_early_is_tampering(length: int) -> None:
    with pytest.raises(TamperedError):
        replayed(BATCH, BATCH.data[:length])


@pytest.mark.parametrize("after", [b"\0", b"\0" * 1024, BATCH.data])
def test_an_object_that_goes_on_is_tampering(after: bytes) -> None:
    with pytest.raises(TamperedError, match="goes on after its last frame"):
        replayed(BATCH, BATCH.data + after)


def test_frames_in_another_order_are_tampering() -> None:
    swapped = BATCH.data[SECOND.offset :] + BATCH.data[: SECOND.offset]
    with pytest.raises(TamperedError):
        replayed(BATCH, swapped)


def test_an_object_compressed_otherwise_is_not_the_one_that_was_signed() -> None:
    """Its records are the same and its links hold: only the digest tells."""
    data = bytearray(BATCH.data)
    data[4] = 1  # the time in the gzip header, which nothing reads
    with pytest.raises(TamperedError, match="its bytes are not the signed ones"):
        replayed(BATCH, bytes(data))


def test_another_uncompressed_size_than_was_signed_is_tampering() -> None:
    size = BATCH.manifest.bytes_uncompressed
    made = replace(BATCH, manifest=replace(BATCH.manifest, bytes_uncompressed=size + 1))
    with pytest.raises(TamperedError, match=f"inflates to {size} bytes"):
        replayed(made, made.data)


@pytest.mark.parametrize(
    "members", [{"last_recorded_at": "2026-01-02T04:00:00.000Z"}, {"end_seq": 1_027}]
)
def test_a_batch_ends_where_its_last_record_says(members: dict[str, Any]) -> None:
    made = replace(BATCH, manifest=replace(BATCH.manifest, **members))
    with pytest.raises(TamperedError, match="its last record is of another place or time"):
        replayed(made, made.data)


def test_the_digest_is_that_of_the_whole_object() -> None:
    assert BATCH.manifest.sha256 == sha256(BATCH.data).hexdigest()


@pytest.mark.parametrize("data", [DATA + b"\n", b" " + DATA, DATA.replace(b'":', b'": ', 1)])
def test_another_spelling_of_the_same_file_is_refused(data: bytes) -> None:
    """What is signed is the inner object; the file around it has one form only."""
    assert json.loads(data) == json.loads(DATA)
    assert isinstance(error_of(data), TamperedError)


def test_no_key_signs_events_of_a_day_after_its_end_whatever_the_batch_says_of_itself() -> None:
    """Whoever reads it would have to call it tampered."""
    ring = Keyring([replace(key(), until=date(2026, 1, 2))])
    good = batch().manifest
    assert Manifest.from_bytes(good.to_bytes(ring), ring) == good
    later = replace(good, last_recorded_at="2026-01-03T00:00:00.000Z")
    with pytest.raises(KeyringError, match="has come to its end, 2026-01-02"):
        later.to_bytes(ring)
    signed = later.to_bytes(keyring())
    with pytest.raises(EndedKeyError, match="on 2026-01-03, though that key came to its end"):
        Manifest.from_bytes(signed, ring)
