"""The reader refuses what it must: the worked example's log, and what can be wrong with it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from . import reader
from .test_formats_document import PREFIX, read_example, read_objects

EXAMPLE = read_example()
KEY = base64.b64decode(EXAMPLE["signing_key"])
ORIGIN = EXAMPLE["origin"]
OBJECT1, OBJECT2 = EXAMPLE["object1_key"], EXAMPLE["object2_key"]
MANIFEST1, MANIFEST2 = EXAMPLE["manifest1_key"], EXAMPLE["manifest2_key"]
RECORDS = [EXAMPLE[f"record{n}"].encode() for n in range(1, 6)]
Objects = dict[str, bytes]
Inner = dict[str, Any]


def read(objects: Objects, key: bytes = KEY, origin: str = ORIGIN) -> reader.Cold:
    return reader.read_cold(objects, PREFIX, key, origin)


def inner_of(manifest: bytes) -> Inner:
    inner: Inner = json.loads(manifest)["manifest"]
    return inner


def name_of(inner: Inner, data: bytes, ending: str) -> str:
    digest = hashlib.sha256(data).hexdigest()[:16]
    return f"{PREFIX}/{inner['start_seq']:020}-{inner['end_seq']:020}-{digest}.{ending}"


def sign(inner: Inner, key: bytes = KEY, algorithm: str = "hmac-sha256") -> Objects:
    """Return a manifest of the inner object, whatever is in it, under its proper name."""
    key_id = "k-" + hashlib.sha256(key).hexdigest()[:8]
    inner = inner | {"signed_by": [f"{algorithm}:{key_id}"]}
    message = b"dezky-audit/manifest/v1\n" + reader.canonical(inner)
    signature = base64.b64encode(hmac.digest(key, message, "sha256")).decode()
    signatures = [{"algorithm": algorithm, "key_id": key_id, "signature": signature}]
    data = reader.canonical({"manifest": inner, "signatures": signatures})
    return {name_of(inner, data, "manifest.json"): data}


def store(inner: Inner, data: bytes) -> Objects:
    """Return an object, whatever is in it, and a manifest that is right about its bytes."""
    frames = inner["frames"]
    frames = [*frames[:-1], frames[-1] | {"length": len(data) - frames[-1]["offset"]}]
    inner = inner | {"frames": frames, "bytes_compressed": len(data)}
    inner |= {"sha256": hashlib.sha256(data).hexdigest()}
    inner |= {"key": name_of(inner, data, "jsonl.gz")}
    return {inner["key"]: data} | sign(inner)


def archive(records: list[bytes], *, times: list[str] | None = None) -> Objects:
    """Return one batch in one frame of the records, whatever is in them."""
    log = reader.read_cold({}, PREFIX, KEY, ORIGIN).log
    for record in records:
        log.leaves.append(reader.sha(b"\x00", record))
        log.links.append(reader.sha(b"\x02", log.link, log.leaves[-1]))
    text = b"".join(record + b"\n" for record in records)
    first, last = times or [json.loads(records[at])["recorded_at"] for at in (0, -1)]
    subtrees = [log.tree(*each).hex() for each in reader.cover(0, len(records))]
    inner = inner_of(EXAMPLE["manifest1"].encode())
    frame = inner["frames"][0] | {"count": len(records), "subtrees": subtrees}
    frame |= {"end_link": log.link.hex(), "first_recorded_at": first}
    inner |= {"end_seq": len(records), "event_count": len(records), "frames": [frame]}
    inner |= {"end_link": log.link.hex(), "root": log.tree(0, len(records)).hex()}
    inner |= {"first_recorded_at": first, "last_recorded_at": last}
    return store(inner | {"bytes_uncompressed": len(text)}, gzip.compress(text))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_the_example_and_what_these_tests_make_are_right() -> None:
    objects = read_objects(EXAMPLE)
    assert len(read(objects).log.records) == 5
    again = {OBJECT1: objects[OBJECT1]} | sign(inner_of(objects[MANIFEST1]))
    assert again == {name: objects[name] for name in (OBJECT1, MANIFEST1)}
    assert read(archive(RECORDS)).log.records == RECORDS
    assert read({}).log.records == []


OBJECTS: dict[str, Callable[[Objects], object]] = {
    "object flipped": lambda o: o.update({OBJECT1: flip(o[OBJECT1], 200)}),
    "object cut": lambda o: o.update({OBJECT2: o[OBJECT2][:-1]}),
    "object missing": lambda o: o.pop(OBJECT2),
    "objects swapped": lambda o: o.update({OBJECT1: o[OBJECT2], OBJECT2: o[OBJECT1]}),
    "manifest flipped": lambda o: o.update({MANIFEST1: flip(o[MANIFEST1], 40)}),
    "manifest empty": lambda o: o.update({MANIFEST2: b""}),
    "first manifest missing": lambda o: o.pop(MANIFEST1),
    "manifests swapped": lambda o: o.update({MANIFEST1: o[MANIFEST2], MANIFEST2: o[MANIFEST1]}),
    "manifest under another name": lambda o: o.update(
        {MANIFEST2[:-30] + "0" * 16 + MANIFEST2[-14:]: o.pop(MANIFEST2)}
    ),
    "overlap": lambda o: o.update(
        sign(inner_of(o[MANIFEST2]) | {"start_seq": 5, "event_count": 1})
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects(name: str) -> None:
    objects = read_objects(EXAMPLE)
    OBJECTS[name](objects)
    with pytest.raises(reader.WrongError):
        read(objects)


def test_another_key_and_another_origin() -> None:
    objects = read_objects(EXAMPLE)
    with pytest.raises(reader.WrongError, match="unverifiable"):
        read(objects, key=bytes(32))
    with pytest.raises(reader.WrongError, match="origin"):
        read(objects, origin="audit.example.org")


HASH = "00" * 32
LATER, EARLIER = "2026-01-05T09:00:03.001Z", "2026-01-05T09:00:02.999Z"
SIGNED: dict[str, Inner] = {
    "format": {"format": "dezky-audit-manifest/v2"},
    "another member": {"note": ""},
    "origin": {"origin": "audit.example.org"},
    "bucket is no text": {"bucket": None},
    "key": {"key": OBJECT2.replace("/v1/", "/v2/")},
    "created at no time": {"created_at": "2026-02-30T00:00:00.000Z"},
    "range": {"end_seq": 6, "event_count": 3},
    "event_count": {"event_count": 3},
    "a float": {"event_count": 2.0},
    "true is no number": {"event_count": True},
    "start_link": {"start_link": HASH},
    "end_link": {"end_link": HASH},
    "upper case": {"root": EXAMPLE["root5"].upper()},
    "root": {"root": EXAMPLE["root3"]},
    "first time": {"first_recorded_at": EARLIER},
    "last time": {"last_recorded_at": LATER},
    "last time, earlier": {"last_recorded_at": EARLIER},
    "sha256": {"sha256": HASH},
    "bytes_compressed": {"bytes_compressed": 308},
    "bytes_uncompressed": {"bytes_uncompressed": 673},
    "no frames": {"frames": []},
    "no manifest before": {"previous_manifest_sha256": None},
    "another manifest before": {"previous_manifest_sha256": HASH},
}
FRAMES: dict[str, Inner] = {
    "offset": {"offset": 1},
    "length": {"length": 308},
    "first_seq": {"first_seq": 5},
    "count": {"count": 1},
    "end_link": {"end_link": HASH},
    "a subtree": {"subtrees": [EXAMPLE["leaf4"], HASH]},
    "subtrees paired": {"subtrees": [EXAMPLE["root5"]]},
    "first time": {"first_recorded_at": EARLIER},
    "another member": {"note": ""},
}


@pytest.mark.parametrize("name", SIGNED)
def test_signed_manifests_that_are_wrong(name: str) -> None:
    objects = read_objects(EXAMPLE)
    objects |= sign(inner_of(objects.pop(MANIFEST2)) | SIGNED[name])
    with pytest.raises(reader.WrongError):
        read(objects)


@pytest.mark.parametrize("name", FRAMES)
def test_signed_frames_that_are_wrong(name: str) -> None:
    objects = read_objects(EXAMPLE)
    inner = inner_of(objects.pop(MANIFEST2))
    objects |= sign(inner | {"frames": [inner["frames"][0] | FRAMES[name]]})
    with pytest.raises(reader.WrongError):
        read(objects)


def test_signatures() -> None:
    objects = read_objects(EXAMPLE)
    inner, file = inner_of(objects[MANIFEST2]), json.loads(objects.pop(MANIFEST2))
    with pytest.raises(reader.WrongError, match="algorithm"):
        read(objects | sign(inner, algorithm="hmac-sha512"))
    with pytest.raises(reader.WrongError, match="unverifiable"):
        read(objects | sign(inner, key=bytes(32)))
    (signature,) = file["signatures"]
    other = signature | {"signature": base64.b64encode(bytes(32)).decode()}
    for signatures in (
        [],
        [other],
        [signature, signature],
        [signature, signature | {"key_id": "k-0"}],
    ):
        data = reader.canonical(file | {"signatures": signatures})
        with pytest.raises(reader.WrongError, match="sign"):
            read(objects | {name_of(inner, data, "manifest.json"): data})


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\n",
        lambda data: data.replace(b":", b": ", 1),
        lambda data: data.replace(b"audit.example", b"\\u0061udit.example"),
    ],
)
def test_a_manifest_that_is_not_in_canonical_bytes(change: Callable[[bytes], bytes]) -> None:
    objects = read_objects(EXAMPLE)
    inner, data = inner_of(objects[MANIFEST2]), change(objects.pop(MANIFEST2))
    with pytest.raises(reader.WrongError):
        read(objects | {name_of(inner, data, "manifest.json"): data})


TAILS = {
    "an empty member": gzip.compress(b""),
    "another member": gzip.compress(RECORDS[4] + b"\n"),
    "zeros": bytes(8),
    "a byte": b"\x1f",
}


@pytest.mark.parametrize("name", TAILS)
def test_bytes_after_a_frame(name: str) -> None:
    objects = read_objects(EXAMPLE)
    inner, data = inner_of(objects.pop(MANIFEST2)), objects.pop(OBJECT2)
    assert read(objects | store(inner, data)).batches == [(1, 3), (4, 5)]
    with pytest.raises(reader.WrongError, match="frame's end"):
        read(objects | store(inner, data + TAILS[name]))


def test_an_object_that_is_not_the_signed_one_and_has_the_same_text() -> None:
    objects = read_objects(EXAMPLE)
    data, inner = objects.pop(OBJECT2), inner_of(objects.pop(MANIFEST2))
    with pytest.raises(reader.WrongError, match="digest"):
        read(read_objects(EXAMPLE) | {OBJECT2: flip(data, 9)})  # a byte that gzip passes over
    longer = store(inner, data + b"\x00")
    (manifest,) = (name for name in longer if name.endswith(".manifest.json"))
    shorter = {"frames": inner["frames"], "bytes_compressed": len(data)}
    longer |= sign(inner_of(longer.pop(manifest)) | shorter)
    with pytest.raises(reader.WrongError, match="length"):
        read(objects | longer)
    elsewhere = OBJECT2.replace("/v1/", "/v2/")
    with pytest.raises(reader.WrongError, match="key"):
        read(objects | {elsewhere: data} | sign(inner | {"key": elsewhere}))


def test_a_manifest_that_is_too_long() -> None:
    objects = read_objects(EXAMPLE)
    inner = inner_of(objects.pop(MANIFEST2))
    size = len(EXAMPLE["manifest2"]) - len(inner["bucket"])
    assert read(objects | sign(inner | {"bucket": "b" * (16_777_216 - size)})).batches
    with pytest.raises(reader.WrongError, match="too long"):
        read(objects | sign(inner | {"bucket": "b" * (16_777_217 - size)}))


def test_times_of_records() -> None:
    first, last = (json.loads(RECORDS[at])["recorded_at"] for at in (0, -1))
    earlier = RECORDS[1].replace(b"02.250Z", b"02.249Z").replace(b"-834a-", b"-8349-")
    with pytest.raises(reader.WrongError, match="older"):
        read(archive([RECORDS[0], earlier], times=[first, first]))
    with pytest.raises(reader.WrongError, match="frame's time"):
        read(archive(RECORDS, times=["2026-01-05T09:00:02.249Z", last]))


def test_frames_that_are_cut_wrongly() -> None:
    objects = read_objects(EXAMPLE)
    inner, data = inner_of(objects.pop(MANIFEST2)), objects.pop(OBJECT2)
    (frame,) = inner["frames"]
    half = frame | {"length": 100, "count": 1, "subtrees": [EXAMPLE["leaf4"]]}
    half |= {"end_link": EXAMPLE["link4"]}
    rest = frame | {"offset": 100, "first_seq": 5, "count": 1, "subtrees": [EXAMPLE["leaf5"]]}
    with pytest.raises(reader.WrongError, match="frame's end"):
        read(objects | store(inner | {"frames": [half, rest]}, data))
    parts = [gzip.compress(record + b"\n") for record in RECORDS[3:]]
    half |= {"length": len(parts[0])}
    rest |= {"offset": len(parts[0])}
    right = store(inner | {"frames": [half, rest]}, b"".join(parts))
    assert read(objects | right).batches == [(1, 3), (4, 5)]
    with pytest.raises(reader.WrongError, match="frame's end_link"):
        read(
            objects | store(inner | {"frames": [half | {"end_link": HASH}, rest]}, b"".join(parts))
        )
    with pytest.raises(reader.WrongError, match="count"):
        read(objects | store(inner, parts[0]))
    for text in (b"".join(RECORDS[3:]), b"\n".join(RECORDS[3:])):
        with pytest.raises(reader.WrongError, match="newline"):
            read(objects | store(inner, gzip.compress(text)))


def test_a_frame_that_inflates_too_far() -> None:
    objects = read_objects(EXAMPLE)
    inner, _ = inner_of(objects.pop(MANIFEST2)), objects.pop(OBJECT2)
    with pytest.raises(reader.WrongError, match="size"):
        read(objects | store(inner, gzip.compress(bytes(4_194_305))))


def test_a_frame_that_crosses_a_multiple_of_1024() -> None:
    objects = archive(RECORDS[:1] * 1024)
    with pytest.raises(reader.WrongError, match="seq 1 in the place of 2"):
        read(objects)
    objects = archive(RECORDS[:1] * 1025)
    with pytest.raises(reader.WrongError, match="cut"):
        read(objects)


DEEP = b"[" * 31 + b"]" * 31
SECOND: dict[str, tuple[bytes, bytes]] = {
    "white space": (b'"seq":2', b'"seq": 2'),
    "order of keys": (b'"Z":1,"a":"tab\\there"', b'"a":"tab\\there","Z":1'),
    "duplicate key": (b'"Z":1', b'"Z":1,"Z":1'),
    "longer escape": (b"tab\\t", b"tab\\u0009"),
    "escape not needed": ("é".encode(), b"\\u00e9"),
    "slash": (b"tab\\t", b"tab\\/"),
    "lone surrogate": (b"tab\\t", b"tab\\ud800"),
    "no UTF-8": ("é".encode(), b"\xe9"),
    "byte order mark": (b'{"action"', b'\xef\xbb\xbf{"action"'),
    "too large": (b'"Z":1', b'"Z":9007199254740992'),
    "not finite": (b"0.5", b"1e999"),
    "NaN": (b"0.5", b"NaN"),
    "too deep": (b"0.5", DEEP),
    "too long": (b"there", b"there" + b"e" * 262_144),
    "seq": (b'"seq":2', b'"seq":3'),
    "version": (b'"v":1', b'"v":2'),
    "earlier": (b"09:00:02.250Z", b"09:00:02.249Z"),
    "time": (b"09:00:00.000Z", b"09:00:00Z"),
    "outcome": (b'"unknown"', b'"maybe"'),
    "id": (b"-7021-", b"-4021-"),
    "time in the id": (b"019b8d62-834a", b"019b8d62-834b"),
    "missing member": (b',"tenant":""', b""),
    "another member": (b'"v":1', b'"v":1,"w":1'),
    "empty source": (b'"platform"', b'""'),
}


@pytest.mark.parametrize("name", SECOND)
def test_records(name: str) -> None:
    before, after = SECOND[name]
    assert RECORDS[1].count(before) == 1
    records = [RECORDS[0], RECORDS[1].replace(before, after), *RECORDS[2:]]
    with pytest.raises(reader.WrongError):
        read(archive(records))


def test_what_a_record_may_have() -> None:
    for after in (b"5e-1", b"1e+16", b"-9007199254740991", DEEP[1:-1], b'"\\u001f\\u0000\x7f"'):
        records = [RECORDS[0], RECORDS[1].replace(b"0.5", after), *RECORDS[2:]]
        assert read(archive(records)).log.records == records


def test_manifests_beside_the_right_one() -> None:
    objects = read_objects(EXAMPLE)
    first, second = inner_of(objects[MANIFEST1]), inner_of(objects[MANIFEST2])
    superseded = sign(first | {"created_at": "2026-04-06T02:59:59.000Z"})
    foreign = sign(second | {"root": HASH}, key=bytes(32))
    for beside in (superseded, foreign):  # however a bucket orders its names
        assert read(beside | objects).batches == read(objects | beside).batches
    with pytest.raises(reader.WrongError, match="names none"):
        read(
            superseded
            | sign(first | {"created_at": LATER})
            | {name: objects[name] for name in (OBJECT1, OBJECT2, MANIFEST2)}
        )
    with pytest.raises(reader.WrongError, match="previous_manifest_sha256"):
        read(superseded | {name: objects[name] for name in (OBJECT1, OBJECT2, MANIFEST2)})
    del objects[MANIFEST2]
    with pytest.raises(reader.WrongError, match="unverifiable"):
        read(objects | foreign)
    frame = second["frames"][0] | {"end_link": HASH}
    fork = sign(second | {"end_link": HASH, "frames": [frame]})
    with pytest.raises(reader.WrongError, match="two logs"):
        read(read_objects(EXAMPLE) | fork)


def test_other_names_are_passed_over() -> None:
    objects = read_objects(EXAMPLE)
    for name in (
        "audit/v1/checkpoints/1",
        "audit/v1/README",
        "audit/v10/" + MANIFEST1.rpartition("/")[2],
        "audit/v1/old/" + MANIFEST1.rpartition("/")[2],
        MANIFEST1.replace("-" + "0" * 19 + "3-", "-" + "0" * 20 + "-"),
        OBJECT1.replace("a5de", "0000"),
    ):
        objects[name] = b""
    assert read(objects).batches == [(1, 3), (4, 5)]


def hot(path: Path, head: int, floor: int, seqs: list[int], **changes: Any) -> Path:
    database = path / "hot.sqlite3"
    database.unlink(missing_ok=True)
    rows = [(seq, RECORDS[seq - 1], EXAMPLE[f"link{seq}"]) for seq in seqs]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE audit_logstate (head_seq, floor_seq)")
        connection.execute("CREATE TABLE audit_auditevent (seq, record, link)")
        connection.execute("INSERT INTO audit_logstate VALUES (?, ?)", (head, floor))
        connection.executemany("INSERT INTO audit_auditevent VALUES (?, ?, ?)", rows)
        for column, value in changes.items():
            connection.execute(f"UPDATE audit_auditevent SET {column} = ? WHERE seq = 4", (value,))  # noqa: S608  # our own names
    return database


def test_both_tiers(tmp_path: Path) -> None:
    whole = read_objects(EXAMPLE)
    half = {name: whole[name] for name in (OBJECT1, MANIFEST1)}

    def read_all(objects: Objects, database: Path) -> list[bytes]:
        return reader.read_all(objects, PREFIX, KEY, ORIGIN, database).records

    assert read_all({}, hot(tmp_path, 5, 0, [1, 2, 3, 4, 5])) == RECORDS
    assert read_all(half, hot(tmp_path, 5, 0, [1, 2, 3, 4, 5])) == RECORDS
    assert read_all(half, hot(tmp_path, 5, 3, [2, 4, 5])) == RECORDS
    assert read_all(whole, hot(tmp_path, 5, 3, [4, 5])) == RECORDS
    assert read_all(whole, hot(tmp_path, 5, 5, [4], record=b"residue")) == RECORDS
    wrong: list[tuple[Objects, int, int, list[int], dict[str, Any]]] = [
        (half, 5, 5, [], {}),  # newer batches were removed from cold
        (half, 5, 3, [5], {}),
        (half, 5, 3, [4], {}),
        (half, 4, 3, [4, 5], {}),
        (whole, 3, 3, [], {}),
        (whole, 5, 3, [4, 5], {"record": RECORDS[3] + b" "}),
        (whole, 5, 3, [4, 5], {"link": HASH}),
        (half, 5, 3, [4, 5], {"record": RECORDS[3].replace(b"file_read", b"file_reap")}),
        (half, 5, 3, [4, 5], {"link": HASH}),
    ]
    for objects, head, floor, seqs, changes in wrong:
        with pytest.raises(reader.WrongError):
            read_all(objects, hot(tmp_path, head, floor, seqs, **changes))
