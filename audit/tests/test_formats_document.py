"""The worked example of docs/formats.md, recomputed with the standard library and the reader."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audit import offline

from . import reader

DOCUMENT = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
PREFIX, BUCKET = "audit/v1", "dezky-audit"
# What nobody can compute: what goes in, and bytes that a library of compression made.
GIVEN = {"origin", "object1", "object2", *(f"line{n}" for n in range(1, 6))}


def read_example() -> dict[str, str]:
    """Return the labels and values of the worked example, all in one."""
    example = DOCUMENT[DOCUMENT.index("\n## Worked example\n") :]
    lines = "".join(re.findall(r"^```text\n(.*?)^```$", example, re.DOTALL | re.MULTILINE))
    values: dict[str, str] = {}
    for line in lines.splitlines():
        label, equals, value = line.partition(" = ")
        assert equals, f"no label: {line}"
        assert label not in values, f"{label} is there twice"
        values[label] = value
    return values


def read_objects(example: dict[str, str]) -> dict[str, bytes]:
    """Return the example's bucket."""
    objects = {}
    for n in (1, 2):
        objects[example[f"object{n}_key"]] = base64.b64decode(example[f"object{n}"], validate=True)
        objects[example[f"manifest{n}_key"]] = example[f"manifest{n}"].encode()
    return objects


def h16(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()[:16]


def texts(*parts: str) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in encoded)


def read_line(line: str) -> dict[str, Any]:
    """Return the event of a line: a record without its id, recorded_at and seq."""
    given = json.loads(line)

    def party(member: str, *names: str) -> dict[str, str]:
        value = given.get(member, {})
        parts = {"name": value} if isinstance(value, str) else value
        return {name: parts.get(name, "") for name in names}

    when = datetime.fromisoformat(given["occurred_at"].upper()).astimezone(UTC)
    return {
        "action": given["action"],
        "actor": party("actor", "id", "ip", "name"),
        "data": given.get("data", {}),
        "external_id": given.get("external_id", ""),
        "occurred_at": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "outcome": given.get("outcome", "unknown"),
        "source": "platform",
        "target": party("target", "id", "name", "type"),
        "tenant": given.get("tenant", ""),
        "v": 1,
    }


def make_keys(example: dict[str, str]) -> dict[str, str]:
    made: dict[str, str] = {}
    digests: dict[bytes, bytes] = {}
    occurrences: dict[str, int] = {}
    for n in range(1, 6):
        line = example[f"line{n}"]
        event = read_line(line)
        digest = h16(reader.canonical(event))
        if event["external_id"]:
            key = h16(texts("platform", "file", event["external_id"]))
        else:
            line_digest = made[f"line_digest{n}"] = h16(line.encode()).hex()
            occurrences[line_digest] = occurrences.get(line_digest, 0) + 1
            key = h16(texts("platform", "file", line_digest, str(occurrences[line_digest])))
        if digests.get(key, digest) != digest:
            made[f"own_key{n}"] = key.hex()
            key = h16(key + digest)
        assert key not in digests, "the example has no duplicate"
        digests[key] = digest
        made |= {f"digest{n}": digest.hex(), f"key{n}": key.hex()}
    made["event1"] = reader.canonical(read_line(example["line1"])).decode()
    return made


def make_log(example: dict[str, str]) -> tuple[reader.Log, dict[str, str]]:
    log = reader.Log([hashlib.sha256(b"dezky-audit/v1\n" + example["origin"].encode()).digest()])
    made = {"link0": log.link.hex()}
    for n in range(1, 6):
        found = json.loads(example[f"record{n}"])
        made_up = {name: found[name] for name in ("id", "recorded_at")}
        record = reader.canonical(read_line(example[f"line{n}"]) | made_up | {"seq": n})
        log.add(record)
        made |= {f"record{n}": record.decode(), f"link{n}": log.link.hex()}
        made[f"leaf{n}"] = hashlib.sha256(b"\x00" + record).hexdigest()
    return log, made


def make_tree(log: reader.Log) -> dict[str, str]:
    leaf = [b"", *log.leaves]
    node12, node34 = reader.node(leaf[1], leaf[2]), reader.node(leaf[3], leaf[4])
    made = {"node12": node12.hex(), "node34": node34.hex()}
    made["node1234"] = reader.node(node12, node34).hex()
    frontier: list[bytes] = []
    size = 0
    for start, end in ((1, 3), (4, 5)):
        subtrees = []
        for first, beyond in reader.cover(start - 1, end - start + 1):
            subtrees.append(log.tree(first, beyond))
            hash_, bit = subtrees[-1], beyond - first
            while size & bit:
                hash_, bit = reader.node(frontier.pop(), hash_), bit * 2
            frontier.append(hash_)
            size += beyond - first
        root = frontier[-1]
        for left in reversed(frontier[:-1]):
            root = reader.node(left, root)
        assert root == log.tree(0, end), "folding the frontier gives another root than RFC 6962"
        made[f"subtrees_{start}_{end}"] = " ".join(each.hex() for each in subtrees)
        made |= {f"frontier{end}": " ".join(each.hex() for each in frontier)}
        made[f"root{end}"] = root.hex()
    return made


def make_batches(example: dict[str, str], secret: bytes, made: dict[str, str]) -> dict[str, str]:
    """Return both batches, made of the labels that were made before."""
    batches: dict[str, str] = {}
    previous = None
    for n, start, end in ((1, 1, 3), (2, 4, 5)):
        records = [made[f"record{seq}"].encode() + b"\n" for seq in range(start, end + 1)]
        data = base64.b64decode(example[f"object{n}"], validate=True)
        assert reader.inflate(data) == b"".join(records)
        digest = hashlib.sha256(data).hexdigest()
        key = f"{PREFIX}/{start:020}-{end:020}-{digest[:16]}.jsonl.gz"
        first, last = (json.loads(made[f"record{seq}"])["recorded_at"] for seq in (start, end))
        links = {"end_link": made[f"link{end}"]}
        frame = links | {"offset": 0, "length": len(data), "first_seq": start}
        frame |= {"count": len(records), "first_recorded_at": first}
        inner = links | {
            "format": "dezky-audit-manifest/v1",
            "origin": example["origin"],
            "bucket": BUCKET,
            "key": key,
            "created_at": json.loads(example[f"manifest{n}"])["manifest"]["created_at"],
            "start_seq": start,
            "end_seq": end,
            "event_count": len(records),
            "start_link": made[f"link{start - 1}"],
            "root": made[f"root{end}"],
            "first_recorded_at": first,
            "last_recorded_at": last,
            "sha256": digest,
            "bytes_compressed": len(data),
            "bytes_uncompressed": len(b"".join(records)),
            "frames": [frame | {"subtrees": made[f"subtrees_{start}_{end}"].split()}],
            "previous_manifest_sha256": previous,
            "signed_by": [f"hmac-sha256:{made['key_id']}"],
        }
        message = b"dezky-audit/manifest/v1\n" + reader.canonical(inner)
        signature = base64.b64encode(hmac.digest(secret, message, "sha256")).decode()
        named = {"algorithm": "hmac-sha256", "key_id": made["key_id"], "signature": signature}
        manifest = reader.canonical({"manifest": inner, "signatures": [named]})
        previous = hashlib.sha256(manifest).hexdigest()
        name = f"{PREFIX}/{start:020}-{end:020}-{previous[:16]}.manifest.json"
        batches |= {f"object{n}_sha256": digest, f"object{n}_key": key}
        batches |= {f"manifest{n}_sha256": previous, f"manifest{n}_key": name}
        batches |= {f"manifest{n}": manifest.decode(), f"signature{n}": signature}
    return batches


def make_checkpoints(
    example: dict[str, str], secret: bytes, made: dict[str, str]
) -> dict[str, str]:
    """Return both checkpoints, made of the labels that were made before."""
    points: dict[str, str] = {}
    previous = None
    for n, seq in ((1, 3), (2, 5)):
        inner = {
            "format": "dezky-audit-checkpoint/v1",
            "origin": example["origin"],
            "index": n,
            "seq": seq,
            "link": made[f"link{seq}"],
            "root": made[f"root{seq}"],
            "at": json.loads(example[f"checkpoint{n}"])["checkpoint"]["at"],
            "previous_sha256": previous,
            "signed_by": [f"hmac-sha256:{made['key_id']}"],
        }
        message = b"dezky-audit/checkpoint/v1\n" + reader.canonical(inner)
        signature = base64.b64encode(hmac.digest(secret, message, "sha256")).decode()
        named = {"algorithm": "hmac-sha256", "key_id": made["key_id"], "signature": signature}
        document = reader.canonical({"checkpoint": inner, "signatures": [named]})
        previous = hashlib.sha256(document).hexdigest()
        points |= {f"checkpoint{n}": document.decode(), f"checkpoint{n}_sha256": previous}
        points[f"checkpoint{n}_key"] = (
            f"{PREFIX}/checkpoints/{n:012}-{seq:020}-{previous[:16]}.json"
        )
        points[f"checkpoint{n}_signature"] = signature
    return points


def test_every_value_of_the_worked_example_follows_from_the_ones_above_it() -> None:
    example = read_example()
    log, made = make_log(example)
    secret = bytes(range(32))
    made |= make_keys(example) | make_tree(log)
    made["signing_key"] = base64.b64encode(secret).decode()
    made["key_id"] = "k-" + hashlib.sha256(secret).hexdigest()[:8]
    made |= make_batches(example, secret, made)
    made |= make_checkpoints(example, secret, made)
    assert not GIVEN & made.keys()
    assert made | {label: example[label] for label in GIVEN} == example


def test_the_objects_of_the_worked_example_are_a_log() -> None:
    example = read_example()
    secret = base64.b64decode(example["signing_key"])
    cold = reader.read_cold(read_objects(example), PREFIX, secret, example["origin"])
    assert cold.batches == [(1, 3), (4, 5)]
    assert [record.decode() for record in cold.log.records] == [
        example[f"record{n}"] for n in range(1, 6)
    ]
    assert cold.log.link.hex() == example["link5"]


def test_the_verifier_says_that_the_worked_example_is_a_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = read_example()
    points = {example[f"checkpoint{n}_key"]: example[f"checkpoint{n}"].encode() for n in (1, 2)}
    for name, data in {**read_objects(example), **points}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "key").write_text(example["signing_key"])
    assert offline.main([str(tmp_path), "--key", str(tmp_path / "key"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["root"] == example["root5"]
    assert answer["checkpoints"] == answer["objects"] == {"valid": 2, "total": 2}
    table = DOCUMENT[DOCUMENT.index("## Output of audit.offline --json") :].split("\n## ", 1)[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    assert set(re.findall(r"\w+", " ".join(rows))) == set(answer)


def test_the_sizes_in_the_table_of_subtrees() -> None:
    table = DOCUMENT[DOCUMENT.index("| first seq | count |") :].split("\n\n", 1)[0]
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d, ]+?) [(|]", table, re.MULTILINE)
    assert len(rows) == len(table.splitlines()) - 2
    for first, count, sizes in rows:
        cover = reader.cover(int(first.replace(",", "")) - 1, int(count.replace(",", "")))
        assert [str(end - begin) for begin, end in cover] == sizes.split(", ")
