"""An independent reader of the log: docs/formats.md and the standard library, nothing else.

It shares no code with what it checks: where the two disagree, one of them is wrong.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

FRAME_RECORDS, FRAME_BYTES = 1_024, 4_194_304
RECORD_BYTES, MANIFEST_BYTES, DEPTH = 262_144, 16_777_216, 32
LARGEST = 2**53 - 1
NAME = re.compile(r"([0-9]{20})-([0-9]{20})-([0-9a-f]{16})\.manifest\.json")
# Outside strings no white space; inside them no escape but the shortest one.
PLAIN = re.compile(
    r"""(?:[^" \t\n\r]|"(?:[^"\\\x00-\x1f]|\\["\\bfnrt]|\\u00(?:0[0-7bef]|1[0-9a-f]))*+")*+"""
)


class WrongError(Exception):
    """The log is not what its documents say."""


def need(truth: bool, text: str) -> None:
    if not truth:
        raise WrongError(text)


def ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    need(all(a < b for (a, _), (b, _) in pairwise(pairs)), "keys out of order, or twice")
    return dict(pairs)


def integer(text: str) -> int:
    need(text != "-0" and abs(int(text)) <= LARGEST, "an integer out of range")
    return int(text)


def double(text: str) -> float:
    need(abs(float(text)) < float("inf"), "no finite number")
    return float(text)


def depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, parts), default=0) if isinstance(value, dict | list) else 0


def parse(data: bytes, number: Callable[[str], float]) -> Any:
    """Read canonical JSON: a record with `double`s, a manifest with `integer`s alone."""
    hooks = {"parse_int": integer, "parse_float": number, "parse_constant": double}
    try:
        value = json.loads(data.decode(), object_pairs_hook=ordered, **hooks)  # type: ignore[arg-type]  # mixed
    except (ValueError, RecursionError) as error:
        raise WrongError("no JSON") from error
    need(PLAIN.fullmatch(data.decode()) is not None, "white space, or a longer escape than needed")
    need(depth(value) <= DEPTH, "too deep")
    return value


def canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def time(value: Any) -> bool:
    shape = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
    try:
        return bool(re.fullmatch(shape, value) and datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return False


def is_like(value: Any, form: Any) -> bool:
    """Say whether it has the form: a type, a pattern, a range, [of each], {of members}, a test."""
    match form:
        case type():
            return isinstance(value, form)
        case re.Pattern():
            return isinstance(value, str) and form.fullmatch(value) is not None
        case range():
            return type(value) is int and value in form
        case [each]:
            return isinstance(value, list) and all(is_like(one, each) for one in value)
        case dict():
            return (
                isinstance(value, dict)
                and value.keys() == form.keys()
                and all(is_like(value[name], form[name]) for name in form)
            )
    return bool(form(value))


TEXT, HEX = re.compile(r"(?s:.+)"), re.compile(r"[0-9a-f]{64}")
SEQ, SIZE = range(1, LARGEST + 1), range(LARGEST + 1)
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
Members = dict[str, Any]
RECORD: Members = (
    Members.fromkeys(("action", "source"), TEXT)
    | Members.fromkeys(("external_id", "tenant"), str)
    | Members.fromkeys(("occurred_at", "recorded_at"), time)
    | {"actor": Members.fromkeys(("id", "ip", "name"), str), "data": dict, "id": UUID7}
    | {"target": Members.fromkeys(("id", "name", "type"), str), "seq": SEQ, "v": range(1, 2)}
    | {"outcome": re.compile("success|failure|unknown")}
)
FRAME: Members = Members.fromkeys(("length", "first_seq", "count"), SEQ) | {
    "offset": SIZE,
    "end_link": HEX,
    "subtrees": [HEX],
    "first_recorded_at": time,
}
INNER: Members = (
    Members.fromkeys(("origin", "bucket", "key"), str)
    | Members.fromkeys(("created_at", "first_recorded_at", "last_recorded_at"), time)
    | Members.fromkeys(("start_seq", "end_seq", "event_count"), SEQ)
    | Members.fromkeys(("bytes_compressed", "bytes_uncompressed"), SIZE)
    | Members.fromkeys(("start_link", "end_link", "root", "sha256"), HEX)
    | {"previous_manifest_sha256": lambda value: value is None or is_like(value, HEX)}
    | {"format": re.compile("dezky-audit-manifest/v1"), "frames": [FRAME], "signed_by": [str]}
)
SIGNATURE = {"algorithm": str, "key_id": str, "signature": str}
MANIFEST = {"manifest": INNER, "signatures": [SIGNATURE]}


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def node(left: bytes, right: bytes) -> bytes:
    return sha(b"\x01", left, right)


def cover(first: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield where each subtree of a range begins and ends."""
    while count:
        size = 1 << (count.bit_length() - 1)
        while first % size:
            size //= 2
        yield first, first + size
        first, count = first + size, count - size


@dataclass
class Log:
    """What was read so far: every record in order, the newest link, all leaves."""

    links: list[bytes]  # the first is link(0)
    records: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    recorded_at: str = ""
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict, repr=False)

    @property
    def link(self) -> bytes:
        return self.links[-1]

    def add(self, record: bytes) -> None:
        seq = len(self.records) + 1
        need(len(record) <= RECORD_BYTES, f"record {seq} is too long")
        event = parse(record, double)
        need(is_like(event, RECORD), f"a member of record {seq}")
        need(event["seq"] == seq, f"seq {event['seq']} in the place of {seq}")
        need(event["recorded_at"] >= self.recorded_at, f"seq {seq} is older than the one before")
        age = datetime.fromisoformat(event["recorded_at"]) - datetime(1970, 1, 1, tzinfo=UTC)
        milliseconds = int(event["id"].replace("-", "")[:12], 16)
        need(milliseconds == age // timedelta(milliseconds=1), f"the time in the id of seq {seq}")
        self.recorded_at = event["recorded_at"]
        self.records.append(record)
        self.leaves.append(sha(b"\x00", record))
        self.links.append(sha(b"\x02", self.link, self.leaves[-1]))

    def tree(self, begin: int, end: int) -> bytes:
        """RFC 6962, section 2.1, of the leaves from index `begin` to before `end`."""
        if end - begin < 2:
            return self.leaves[begin] if begin < end else sha()
        if (begin, end) not in self.nodes:  # leaves never change: what was computed stays right
            middle = begin + (1 << ((end - begin - 1).bit_length() - 1))
            self.nodes[begin, end] = node(self.tree(begin, middle), self.tree(middle, end))
        return self.nodes[begin, end]


@dataclass
class Cold:
    """The log as far as it is in the bucket."""

    log: Log
    batches: list[tuple[int, int]]


def check_signatures(inner: dict[str, Any], signatures: list[dict[str, str]], key: bytes) -> None:
    names = [f"{each['algorithm']}:{each['key_id']}" for each in signatures]
    need(names == inner["signed_by"] and len(names) == len(set(names)), "signed_by")
    message = b"dezky-audit/manifest/v1\n" + canonical(inner)
    right = base64.b64encode(hmac.digest(key, message, "sha256")).decode()
    key_id = f"k-{sha(key).hex()[:8]}"
    known = [each for each in signatures if each["key_id"] == key_id]
    need(known != [], "unverifiable: it is signed by no known key")
    for each in known:
        need(each["algorithm"] == "hmac-sha256", "another algorithm than the key's")
        need(each["signature"] == right, "signature")


def read_manifest(name: str, data: bytes, prefix: str, key: bytes) -> dict[str, Any]:
    """Return what is signed, if it is, and agrees with itself and with its name."""
    need(len(data) <= MANIFEST_BYTES, "a manifest is too long")
    document = parse(data, integer)
    need(is_like(document, MANIFEST), "a manifest's member")
    inner: dict[str, Any] = document["manifest"]
    check_signatures(inner, document["signatures"], key)
    frames, start, end = inner["frames"], inner["start_seq"], inner["end_seq"]
    stem = f"{prefix}/{start:020}-{end:020}"
    need(name == f"{stem}-{sha(data).hex()[:16]}.manifest.json", "a manifest's name")
    need(inner["key"] == f"{stem}-{inner['sha256'][:16]}.jsonl.gz", "key")
    need(inner["event_count"] == end - start + 1, "event_count")
    offset, seq = 0, start
    for frame in frames:
        last = seq + frame["count"] - 1
        need(frame["offset"] == offset and frame["first_seq"] == seq, "a frame's place")
        need((seq - 1) // FRAME_RECORDS == (last - 1) // FRAME_RECORDS, "a frame's cut")
        offset, seq = offset + frame["length"], last + 1
    need(offset == inner["bytes_compressed"] and seq == end + 1, "frames do not fill the batch")
    times = [*(frame["first_recorded_at"] for frame in frames), inner["last_recorded_at"]]
    need(times[0] == inner["first_recorded_at"] and times == sorted(times), "times")
    need(frames[-1]["end_link"] == inner["end_link"], "end_link")
    return inner


def inflate(part: bytes) -> bytes:
    """Inflate one gzip member, which must end where `part` ends."""
    member = zlib.decompressobj(31)
    try:
        text = member.decompress(part, FRAME_BYTES + 1)
    except zlib.error as error:
        raise WrongError("a frame is no gzip member") from error
    need(len(text) <= FRAME_BYTES, "a frame's size")
    need(member.eof and not member.unused_data, "a frame's end")
    return text


def read_object(data: bytes, inner: dict[str, Any], log: Log) -> None:
    need(len(data) == inner["bytes_compressed"], "the object's length")
    need(sha(data).hex() == inner["sha256"], "the object's digest")
    size = 0
    for frame in inner["frames"]:
        text = inflate(data[frame["offset"] : frame["offset"] + frame["length"]])
        *lines, rest = text.split(b"\n")
        need(rest == b"", "a frame's last newline")
        need(len(lines) == frame["count"], "a frame's count")
        for number, line in enumerate(lines):
            log.add(line)
            need(number > 0 or log.recorded_at == frame["first_recorded_at"], "a frame's time")
        subtrees = cover(frame["first_seq"] - 1, frame["count"])
        need([log.tree(*each).hex() for each in subtrees] == frame["subtrees"], "subtrees")
        need(log.link.hex() == frame["end_link"], "a frame's end_link")
        size += len(text)
    need(size == inner["bytes_uncompressed"], "bytes_uncompressed")
    need(log.recorded_at == inner["last_recorded_at"], "last_recorded_at")
    need(log.tree(0, len(log.leaves)).hex() == inner["root"], "root")


def valid(
    objects: Mapping[str, bytes], names: list[str], prefix: str, key: bytes, known: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return a range's valid manifests by their digests; wrong ones beside them are foreign."""
    good, wrong = {}, []
    for name in names:
        try:
            inner = read_manifest(name, objects[name], prefix, key)
            for member, value in known.items():
                need(inner[member] == value, f"{member} is not that of the log")
            good[sha(objects[name]).hex()] = inner
        except WrongError as error:
            wrong.append(f"{name}: {error}")
    need(good != {}, "; ".join(wrong))
    return good


def read_cold(objects: Mapping[str, bytes], prefix: str, key: bytes, origin: str) -> Cold:
    """Recompute everything that the bucket's objects claim, from the first event on."""
    found: dict[tuple[int, int], list[str]] = {}
    for name in objects:
        match = NAME.fullmatch(name.removeprefix(f"{prefix}/"))
        if match and name.startswith(f"{prefix}/"):
            found.setdefault((int(match[1]), int(match[2])), []).append(name)
    found = {
        (start, end): found[start, end] for start, end in found if 1 <= start <= end <= LARGEST
    }
    log, batches = Log([sha(b"dezky-audit/v1\n", origin.encode())]), []
    known: dict[str, Any] = {"origin": origin, "previous_manifest_sha256": None}
    for (start, end), following in pairwise([*sorted(found), (0, 0)]):
        need(start == len(log.records) + 1, f"gap or overlap at {start} after {len(log.records)}")
        known["start_link"] = log.link.hex()
        good = valid(objects, found[start, end], prefix, key, known)
        need(len({inner["end_link"] for inner in good.values()}) == 1, "two logs of one range")
        if len(good) > 1 and following in found:  # the next manifest says which one it is
            after = valid(objects, found[following], prefix, key, {"origin": origin}).values()
            named = {inner["previous_manifest_sha256"] for inner in after}
            good = {digest: inner for digest, inner in good.items() if digest in named}
            need(good != {}, "the next manifest names none of this range")
        known["previous_manifest_sha256"], inner = next(iter(good.items()))
        need(inner["key"] in objects, f"{inner['key']} is missing")
        read_object(objects[inner["key"]], inner, log)
        batches.append((start, end))
    return Cold(log, batches)


def read_hot(database: Path) -> tuple[int, int, list[tuple[int, bytes, str]]]:
    """Return head, floor, and the (seq, record, link) of every row, straight from the file."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")  # both as they are at one moment
        state = connection.execute("SELECT head_seq, floor_seq FROM audit_logstate").fetchone()
        rows = connection.execute("SELECT seq, record, link FROM audit_auditevent ORDER BY seq")
        return *(state or (0, 0)), [(seq, bytes(record), link) for seq, record, link in rows]


def read_all(
    objects: Mapping[str, bytes], prefix: str, key: bytes, origin: str, database: Path
) -> Log:
    """Read cold, then hot: every seq exactly once, every link recomputed, up to the head."""
    log = read_cold(objects, prefix, key, origin).log
    head, floor, rows = read_hot(database)
    end = len(log.records)
    need(floor <= end <= head, f"floor {floor}, end of cold {end}, head {head}")
    logged = [row for row in rows if row[0] > floor]  # the others are residue of a purge
    need([seq for seq, _, _ in logged] == list(range(floor + 1, head + 1)), "seqs in hot")
    for seq, record, link in logged:
        if seq <= end:
            need(record == log.records[seq - 1], f"seq {seq} differs between the tiers")
        else:
            log.add(record)
        need(link == log.links[seq].hex(), f"the link of seq {seq}")
    return log
