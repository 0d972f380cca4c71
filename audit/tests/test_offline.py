"""What somebody does to a copy of the bucket, with the keys or without, and what is said of it."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from audit import offline
from audit.format import frames
from audit.format.keys import Ed25519Key, HmacKey, Key
from audit.format.names import ObjectName
from audit.format.report import EXIT_CODES
from audit.format.signing import Keyring, canonical

from .factories import ORIGIN, key, keyring
from .signed_log import SIZES, SignedLog, record, signed_log, time_of

A, B = key("a"), key("b")
Problems = list[dict[str, Any]]


def key_line(item: Key) -> str:
    """Return a key as a key file has it."""
    if isinstance(item, Ed25519Key):
        line = item.public
    else:
        assert isinstance(item, HmacKey)
        line = f"hmac-sha256:{item.key_id}:{base64.b64encode(item.secret).decode()}"
    return line if item.until is None or ":until=" in line else f"{line}:until={item.until}"


@dataclass(frozen=True)
class Answer:
    """What the command has said."""

    code: int
    json: dict[str, Any]

    @property
    def outcome(self) -> str:
        return str(self.json["outcome"])

    @property
    def problems(self) -> Problems:
        return list(self.json["problems"])

    def only(self) -> dict[str, Any]:
        """Return the only problem."""
        assert len(self.problems) == 1, self.problems
        return self.problems[0]

    def places(self) -> list[tuple[str, int | None, str | None]]:
        """Return the kind, seq and object of each problem."""
        return [(item["kind"], item["seq"], item["object"]) for item in self.problems]


Verify = Callable[..., Answer]


@pytest.fixture
def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    """Write a log into a folder and verify it, as the command line does."""
    turn = iter(range(1_000))

    def run(log: SignedLog, *options: str, keys: tuple[Key, ...] = (A,)) -> Answer:
        folder = tmp_path / f"copy-{next(turn)}"
        log.write(folder)
        file = tmp_path / "keys"
        file.write_text("\n".join(map(key_line, keys)))
        code = offline.main([str(folder), "--key", str(file), "--json", *options])
        answer = json.loads(capsys.readouterr().out)
        assert EXIT_CODES[answer["outcome"]] == code, answer
        assert answer["error"] is None, answer
        return Answer(code, answer)

    return run


@pytest.fixture
def log() -> SignedLog:
    return signed_log()


def kept(tmp_path: Path, data: bytes) -> tuple[str, str]:
    file = tmp_path / "kept.json"
    file.write_bytes(data)
    return "--checkpoint", str(file)


# A log that is as it was ---------------------------------------------------------------------


def test_a_log_that_is_as_it_was_is_ok(verify: Verify, log: SignedLog) -> None:
    answer = verify(log)
    assert (answer.outcome, answer.code, answer.problems) == ("ok", 0, [])
    assert answer.json | {"limits": []} == {
        "outcome": "ok",
        "origin": ORIGIN,
        "events": 7_300,
        "first_seq": 1,
        "last_seq": 7_300,
        "root": log.root(7_300).hex(),
        "manifests": {"valid": 6, "total": 6},
        "objects": {"valid": 6, "total": 6},
        "checkpoints": {"valid": 10, "total": 10},
        "problems": [],
        "more_problems": 0,
        "notes": [],
        "more_notes": 0,
        "limits": [],
        "error": None,
    }


def test_several_processes_say_the_same(verify: Verify, log: SignedLog) -> None:
    data = bytearray(log.objects[2])
    data[log.manifests[2].frames[1].offset + 100] ^= 1
    log.files[log.object_names[2]] = bytes(data)
    one, two = verify(log, "--processes", "1"), verify(log, "--processes", "2")
    assert one == two
    assert one.outcome == "tampered"


def test_an_empty_log_is_ok_with_0_events(verify: Verify) -> None:
    answer = verify(SignedLog((), (0, 0)))
    assert (answer.outcome, answer.json["events"]) == ("ok", 0)
    assert answer.json["checkpoints"] == {"valid": 2, "total": 2}


def test_a_log_that_is_hot_alone_is_ok_with_0_events(verify: Verify) -> None:
    answer = verify(SignedLog((), (0, 5)))
    assert (answer.outcome, answer.json["events"]) == ("ok", 0)
    assert any(limit.startswith("Seq 1–5, for which") for limit in answer.json["limits"])


def test_what_it_cannot_know_is_said(verify: Verify, log: SignedLog) -> None:
    limits = verify(log).json["limits"]
    assert [limit.split(",")[0].split(".")[0] for limit in limits] == [
        "Who signed 16 of the manifests and checkpoints",
        "Seq 7",
        "Whether anything after checkpoint 10 (seq 7",
    ]


def test_without_a_checkpoint_it_says_that_the_end_is_not_known(verify: Verify) -> None:
    limits = verify(SignedLog((3,), ())).json["limits"]
    assert any("there is no checkpoint" in limit for limit in limits)


def test_with_ed25519_alone_nobody_who_verifies_can_have_signed(verify: Verify) -> None:
    signer = Ed25519Key.from_seed("e-1", bytes(range(32)))
    public = Ed25519Key.from_public("e-1", signer.public_bytes)
    log = SignedLog((5, 5), (0, 7), ring=Keyring([signer]))
    answer = verify(log, "--require", "ed25519", keys=(public,))
    assert answer.outcome == "ok"
    assert not any("Who signed" in limit for limit in answer.json["limits"])


def test_a_required_algorithm_is_required_of_everything(verify: Verify) -> None:
    signer = Ed25519Key.from_seed("e-1", bytes(range(32)))
    log = SignedLog((5, 5), (7,), ring=Keyring([A, signer]))
    assert verify(log, "--require", "ed25519", keys=(A, signer)).outcome == "ok"
    log.sign(2, ring=Keyring([A]))
    assert verify(log, keys=(A, signer)).outcome == "ok"
    answer = verify(log, "--require", "ed25519", keys=(A, signer))
    assert (answer.outcome, answer.code) == ("unverifiable", 2)
    assert answer.only()["seq"] == 6


# What is missing ----------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 2, 3, 5])
def test_a_batch_that_is_missing_is_a_gap(verify: Verify, log: SignedLog, nth: int) -> None:
    log.remove(log.manifest_names[nth - 1], log.object_names[nth - 1])
    answer = verify(log)
    first, last = log.manifests[nth - 1].start_seq, log.manifests[nth - 1].end_seq
    assert (answer.outcome, answer.code) == ("gap", 3)
    assert answer.places() == [("gap", first, None)]
    assert f"Seq {first:,}–{last:,}: neither" in answer.only()["message"]
    assert answer.json["events"] == 7_300 - SIZES[nth - 1]
    assert answer.json["objects"] == {"valid": 5, "total": 5}


@pytest.mark.parametrize("nth", [1, 2, 5])
def test_a_manifest_that_is_missing_is_a_gap(verify: Verify, log: SignedLog, nth: int) -> None:
    log.remove(log.manifest_names[nth - 1])
    answer = verify(log)
    start = log.manifests[nth - 1].start_seq
    assert (answer.outcome, answer.code) == ("gap", 3)
    assert answer.places() == [("gap", start, log.object_names[nth - 1])]
    assert answer.json["manifests"] == {"valid": 5, "total": 6}


@pytest.mark.parametrize("nth", range(1, 7))
def test_an_object_that_is_missing_is_a_gap(verify: Verify, log: SignedLog, nth: int) -> None:
    log.remove(log.object_names[nth - 1])
    answer = verify(log)
    start = log.manifests[nth - 1].start_seq
    assert (answer.outcome, answer.code) == ("gap", 3)
    assert answer.places() == [("gap", start, log.object_names[nth - 1])]
    assert answer.json["objects"] == {"valid": 5, "total": 6}


def test_two_neighbours_without_their_manifests_are_two_lines(
    verify: Verify, log: SignedLog
) -> None:
    log.remove(*log.manifest_names[2:4])
    assert verify(log).places() == [
        ("gap", 2_101, log.object_names[2]),
        ("gap", 4_601, log.object_names[3]),
    ]


def test_two_neighbours_without_their_objects_are_two_lines(
    verify: Verify, log: SignedLog
) -> None:
    log.remove(*log.object_names[0:2])
    assert verify(log).places() == [
        ("gap", 1, log.object_names[0]),
        ("gap", 1_501, log.object_names[1]),
    ]


def test_two_neighbours_of_which_nothing_is_left_are_one_stretch(
    verify: Verify, log: SignedLog
) -> None:
    log.remove(*log.object_names[2:4], *log.manifest_names[2:4])
    answer = verify(log)
    assert answer.places() == [("gap", 2_101, None)]
    assert answer.only()["message"].startswith("Seq 2,101–5,300: neither manifest nor object")


def test_a_gap_hides_nothing_behind_it(verify: Verify, log: SignedLog) -> None:
    """What comes after it is held against the checkpoints, its links included."""
    log.remove(log.object_names[1], log.manifest_names[1])
    wrong = sha256(b"wrong").digest()
    log.sign(3, start_link=wrong)
    log.sign_after(3)
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert ("tampered", 2_101, log.object_names[2]) in answer.places()


def test_a_checkpoint_before_a_batch_behind_a_gap_is_held_against_it(
    verify: Verify,
) -> None:
    log = SignedLog((5, 5, 5), (10,))
    log.remove(log.object_names[1], log.manifest_names[1])
    log.sign_point(1, link=sha256(b"wrong").digest())
    answer = verify(log)
    assert ("tampered", 10, log.manifest_names[2]) in answer.places()


def test_manifests_that_are_missing_at_the_end_are_told_of(verify: Verify, log: SignedLog) -> None:
    """A run that was stopped leaves the same: it is no verdict, but never silent."""
    log.remove(log.manifest_names[5])
    answer = verify(log)
    assert (answer.outcome, answer.json["last_seq"]) == ("ok", 6_400)
    assert any("seq 6,401–7,300" in limit for limit in answer.json["limits"])


def test_no_manifest_at_all_is_a_gap_of_each_batch_but_the_last(
    verify: Verify, log: SignedLog
) -> None:
    """The last one may be what a run that was stopped has left."""
    log.remove(*log.manifest_names)
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("gap", 3)
    assert [item["seq"] for item in answer.problems] == [
        int(name[:20]) for name in log.manifest_names[:-1]
    ]
    assert answer.json["events"] == 0
    assert any("Seq 1–7,800" in limit for limit in answer.json["limits"])
    assert any("seq 1–1,500, 1,501–2,100" in limit for limit in answer.json["limits"])


def test_where_nothing_is_signed_nothing_is_fine(verify: Verify, log: SignedLog) -> None:
    """A file with the name of a checkpoint alone, or of a manifest, makes no log."""
    log.remove(*log.manifest_names, *log.point_names, *log.object_names)
    log.files[f"checkpoints/{1:012d}-{0:020d}-{'0' * 16}.txt"] = b""
    log.files[f"{1:020d}-{9:020d}-{'0' * 16}.manifest.json"] = b""
    assert verify(log).code in {1, 2}


@pytest.mark.parametrize("index", [1, 4, 9])
def test_a_checkpoint_that_is_missing_is_a_gap(verify: Verify, log: SignedLog, index: int) -> None:
    log.remove(log.point_names[index - 1])
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("gap", 3)
    assert f"Checkpoint {index} is missing" in answer.only()["message"]
    assert answer.only()["object"] == f"checkpoints/{index:012d}-…"
    assert answer.json["checkpoints"] == {"valid": 9, "total": 10}


def test_two_checkpoints_that_are_missing_are_two_lines(verify: Verify, log: SignedLog) -> None:
    log.remove(*log.point_names[3:5])
    assert [item["message"][:23] for item in verify(log).problems] == [
        "Checkpoint 4 is missing",
        "Checkpoint 5 is missing",
    ]


def test_a_thousand_checkpoints_that_are_missing_are_not_a_thousand_lines(
    verify: Verify,
) -> None:
    log = SignedLog((3,), (1, 2))
    log.sign_point(2, index=10**12 - 1, previous_sha256=sha256(b"x").hexdigest())
    answer = verify(log)
    assert len(answer.problems) == 101
    assert "999,999,999,897 more" in answer.problems[-1]["message"]


# The end, and a checkpoint that was kept elsewhere ----------------------------------------------


def test_an_end_that_was_cut_off_is_not_seen_without_a_kept_checkpoint(
    verify: Verify, log: SignedLog, tmp_path: Path
) -> None:
    newest = log.files[log.point_names[9]]
    log.remove(*log.point_names[7:], log.object_names[5], log.manifest_names[5])
    assert verify(log).outcome == "ok"
    answer = verify(log, *kept(tmp_path, newest))
    assert (answer.outcome, answer.code) == ("gap", 3)
    assert answer.places() == [("gap", 7_800, None)]
    assert "Checkpoint 10, seq 7,800, which was given, is newer" in answer.only()["message"]
    assert "checkpoint 7, seq 5,300" in answer.only()["message"]


def test_a_kept_checkpoint_of_the_log_says_nothing_against_it(
    verify: Verify, log: SignedLog, tmp_path: Path
) -> None:
    answer = verify(log, *kept(tmp_path, log.files[log.point_names[9]]))
    assert answer.outcome == "ok"
    assert not any("was cut off" in limit for limit in answer.json["limits"])


def test_history_that_was_made_anew_contradicts_a_kept_checkpoint(
    verify: Verify, log: SignedLog, tmp_path: Path
) -> None:
    """Somebody with the key has made the whole log anew; it agrees with itself."""
    other = SignedLog(make=lambda seq: record(seq, tenant="birch" if seq == 3_000 else "alder"))
    assert verify(other).outcome == "ok"
    answer = verify(other, *kept(tmp_path, log.files[log.point_names[8]]))
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert answer.places() == [
        ("tampered", 7_300, other.point_names[8]),
        ("tampered", 7_300, other.object_names[5]),
    ]


def test_history_without_checkpoints_is_held_against_a_kept_one(
    verify: Verify, log: SignedLog, tmp_path: Path
) -> None:
    other = SignedLog(
        points=(), make=lambda seq: record(seq, tenant="birch" if seq == 300 else "alder")
    )
    answer = verify(other, *kept(tmp_path, log.files[log.point_names[1]]))
    assert answer.outcome == "tampered"
    assert ("tampered", 700, other.object_names[0]) in answer.places()


def test_a_kept_checkpoint_of_another_log_fits_nothing(
    verify: Verify, log: SignedLog, tmp_path: Path
) -> None:
    other = SignedLog((3,), (3,), origin="another")
    answer = verify(log, *kept(tmp_path, other.files[other.point_names[0]]))
    assert answer.outcome == "tampered"
    assert "of the log 'another', this one is 'dezky-test'" in answer.only()["message"]


# Signatures --------------------------------------------------------------------------------

BOTH = (A, B)


def test_a_manifest_that_was_signed_again_by_another_known_key(
    verify: Verify, log: SignedLog
) -> None:
    name = log.sign(3, ring=keyring("b"))
    answer = verify(log, keys=BOTH)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert answer.places() == [("tampered", 2_101, name)]
    assert log.manifest_names[3] in answer.only()["message"]
    assert answer.json["manifests"] == {"valid": 5, "total": 6}
    assert answer.json["objects"] == {"valid": 6, "total": 6}


def test_the_original_beside_one_that_was_signed_again_is_the_log_s(
    verify: Verify, log: SignedLog
) -> None:
    original, data = log.manifest_names[2], log.files[log.manifest_names[2]]
    again = log.sign(3, ring=keyring("b"))
    log.files[original] = data
    answer = verify(log, keys=BOTH)
    assert answer.outcome == "ok"
    assert answer.json["notes"] == [f"Superseded, not needed: {again}"]


@pytest.mark.parametrize("nth", [3, 6])
def test_a_manifest_by_a_key_that_is_not_known(verify: Verify, log: SignedLog, nth: int) -> None:
    name = log.sign(nth, ring=keyring("b"))
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("unverifiable", 2)
    assert answer.places() == [("unverifiable", log.manifests[nth - 1].start_seq, name)]
    assert B.key_id in answer.only()["message"]


def test_a_key_file_without_the_log_s_key(verify: Verify, log: SignedLog) -> None:
    answer = verify(log, keys=(B,))
    assert (answer.outcome, answer.code) == ("unverifiable", 2)
    assert len(answer.problems) == 6 + 10
    assert answer.json["events"] == 0
    assert answer.json["checkpoints"] == {"valid": 0, "total": 10}


def test_a_key_that_is_past_its_end(verify: Verify, log: SignedLog) -> None:
    """Somebody found an old key, and signs with it what it may not sign any more."""
    old = replace(B, until=date(2026, 1, 2))
    name = log.sign(6, ring=keyring("b"))
    answer = verify(log, keys=(A, old))
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert answer.places() == [("tampered", 6_401, name)]
    assert "came to its end on 2026-01-02" in answer.only()["message"]


def test_a_key_that_is_past_its_end_and_a_manifest_dated_back(
    verify: Verify, log: SignedLog
) -> None:
    old = replace(B, until=date(2026, 1, 2))
    name = log.sign(6, ring=keyring("b"), created_at="2026-01-01T00:00:00.000Z")
    assert log.manifests[5].last_recorded_at > "2026-01-03"
    answer = verify(log, keys=(A, old))
    assert answer.places() == [("tampered", 6_401, name)]


def test_a_checkpoint_by_a_key_that_is_past_its_end(verify: Verify, log: SignedLog) -> None:
    old = replace(B, until=date(2026, 1, 2))
    name = log.sign_point(10, ring=keyring("b"))
    assert verify(log, keys=(A, old)).places() == [("tampered", 7_800, name)]
    name = log.sign_point(10, ring=keyring("b"), at="2026-01-01T00:00:00.000Z")
    assert verify(log, keys=(A, old)).places() == [("tampered", 7_800, name)]


def strip_one(document: Any) -> None:
    del document["signatures"][1]


def strip_all(document: Any) -> None:
    document["signatures"] = []


def strip_everything(document: Any) -> None:
    document["signatures"] = []
    document["manifest"]["signed_by"] = []


def other_algorithm(document: Any) -> None:
    document["signatures"][0]["algorithm"] = "none"
    document["manifest"]["signed_by"][0] = f"none:{A.key_id}"


def other_version(document: Any) -> None:
    document["manifest"]["format"] = "dezky-audit-manifest/v2"


def other_count(document: Any) -> None:
    document["manifest"]["bytes_uncompressed"] += 1


@pytest.mark.parametrize(
    "change",
    [strip_one, strip_all, strip_everything, other_algorithm, other_version, other_count],
)
def test_a_manifest_that_was_changed_without_a_key(
    verify: Verify, change: Callable[[Any], None]
) -> None:
    log = SignedLog((5, 5, 5), (0, 7), ring=keyring("a", "b"))
    old = log.manifest_names[1]
    document = json.loads(log.files.pop(old))
    change(document)
    data = canonical(document)
    name = old[:42] + sha256(data).hexdigest()[:16] + ".manifest.json"
    log.files[name] = data
    answer = verify(log, keys=BOTH)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert answer.places() == [("tampered", 6, name)]


def test_garbage_in_a_checkpoint_s_place(verify: Verify, log: SignedLog) -> None:
    for garbage in (b"", b"\xff", b"{}", b"[" * 60_000, b"0" * 70_000):
        log.files[log.point_names[4]] = garbage
        answer = verify(log)
        assert answer.places() == [("tampered", 3_000, log.point_names[4])]
        assert answer.json["checkpoints"] == {"valid": 9, "total": 10}


# Objects in each other's places ---------------------------------------------------------------


def test_manifests_that_were_swapped(verify: Verify, log: SignedLog) -> None:
    log.swap(log.manifest_names[1], log.manifest_names[2])
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert answer.places() == [
        ("tampered", 1_501, log.manifest_names[1]),
        ("tampered", 2_101, log.manifest_names[2]),
    ]


def test_objects_that_were_swapped(verify: Verify, log: SignedLog) -> None:
    log.swap(log.object_names[1], log.object_names[3])
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert {item["object"] for item in answer.problems} == {
        log.object_names[1],
        log.object_names[3],
    }
    assert {item["seq"] for item in answer.problems} >= {1_501, 4_601}


def test_batches_that_were_swapped_as_a_whole(verify: Verify, log: SignedLog) -> None:
    log.swap(log.manifest_names[1], log.manifest_names[2])
    log.swap(log.object_names[1], log.object_names[2])
    assert verify(log).outcome == "tampered"


def test_another_batch_under_a_batch_s_name(verify: Verify, log: SignedLog) -> None:
    """Its digest fits its name, its range does not."""
    data = log.files[log.manifest_names[3]]
    log.remove(log.manifest_names[1])
    name = log.manifest_names[1][:42] + sha256(data).hexdigest()[:16] + ".manifest.json"
    log.files[name] = data
    answer = verify(log)
    assert answer.places() == [("tampered", 1_501, name)]
    assert "another range" in answer.only()["message"]


@pytest.mark.parametrize("to", ["elsewhere/{}", "checkpoints/{}", "{}.bak"])
def test_an_object_that_was_moved_or_renamed(verify: Verify, log: SignedLog, to: str) -> None:
    name = log.object_names[2]
    log.rename(name, to.format(name))
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("gap", 3)
    assert answer.places() == [("gap", 2_101, name)]
    assert answer.json["notes"] == [f"Foreign, no part of the log: {to.format(name)}"]


def test_an_object_under_another_digest(verify: Verify, log: SignedLog) -> None:
    name = log.object_names[2]
    other = name[:42] + "0" * 16 + ".jsonl.gz"
    log.rename(name, other)
    answer = verify(log)
    assert answer.places() == [("gap", 2_101, name)]
    assert answer.json["notes"] == [f"Superseded or foreign, no manifest names it: {other}"]


def test_a_manifest_under_another_range_that_hides_all_that_follows(
    verify: Verify, log: SignedLog
) -> None:
    """Without a key: one manifest goes, and a name that covers everything takes its place."""
    log.remove(log.manifest_names[1])
    name = f"{1_501:020d}-{2**53 - 1:020d}-{'0' * 16}.manifest.json"
    log.files[name] = b"{}"
    data = bytearray(log.objects[3])
    data[100] ^= 1
    log.files[log.object_names[3]] = bytes(data)
    answer = verify(log)
    assert answer.places() == [
        ("tampered", 1_501, name),
        ("tampered", 4_601, log.object_names[3]),
    ]
    assert answer.json["objects"] == {"valid": 4, "total": 5}


# Bytes of an object ---------------------------------------------------------------------------


def frame_at(log: SignedLog, nth: int, place: int) -> frames.Frame:
    return next(
        frame
        for frame in log.manifests[nth - 1].frames
        if frame.offset <= place < frame.offset + frame.length
    )


def test_a_byte_that_was_flipped_names_its_frame(verify: Verify) -> None:
    log = SignedLog((1_100, 1_100), (2_000,))
    good = log.objects[1]
    places = random.Random(7).sample(range(len(good)), 80)  # noqa: S311  # any places will do
    headers = [frame.offset + n for frame in log.manifests[1].frames[:2] for n in range(10)]
    for place in [*places, *headers]:
        data = bytearray(good)
        data[place] ^= 1 << place % 8
        log.files[log.object_names[1]] = bytes(data)
        answer = verify(log)
        frame = frame_at(log, 2, place)
        assert (answer.outcome, answer.code) == ("tampered", 1), place
        names_frame = ("tampered", frame.first_seq, log.object_names[1])
        # What a header says of its compressor is told from those of most frames; here are two.
        unknown = ("tampered", 1_101, log.object_names[1])
        said_of_compressor = place - frame.offset in {8, 9}
        assert answer.places() == [unknown if said_of_compressor else names_frame], place


def test_an_object_that_breaks_off(verify: Verify, log: SignedLog) -> None:
    second = log.manifests[2].frames[1]
    for length in (
        0,
        second.offset - 1,
        second.offset,
        second.offset + 1,
        len(log.objects[2]) - 1,
    ):
        log.files[log.object_names[2]] = log.objects[2][:length]
        answer = verify(log)
        assert answer.outcome == "tampered"
        assert answer.only()["seq"] == frame_at(log, 3, length).first_seq
        assert f"breaks off at byte {length:,}" in answer.only()["message"]


@pytest.mark.parametrize(
    "more",
    [b"\0", b"\n", bytes(512), gzip.compress(b"", mtime=0), gzip.compress(b"{}\n", mtime=0)],
    ids=["a zero", "a newline", "zeros", "an empty member", "a member"],
)
def test_an_object_that_goes_on(verify: Verify, log: SignedLog, more: bytes) -> None:
    log.files[log.object_names[2]] += more
    answer = verify(log)
    assert answer.outcome == "tampered"
    assert answer.places() == [("tampered", 4_097, log.object_names[2])]
    assert "goes on after this" in answer.only()["message"]


def test_a_bomb_in_a_frame(verify: Verify) -> None:
    """Signed by whoever has the key; never inflated."""
    log = SignedLog((1_100,), ())
    bomb = gzip.compress(bytes(64 * 1024 * 1024), 9, mtime=0)
    first, second = log.manifests[0].frames
    data = bomb + log.objects[0][second.offset :]
    found = [replace(first, length=len(bomb)), replace(second, offset=len(bomb))]
    log.put_batch(1, data, found)
    answer = verify(log)
    assert answer.places() == [("tampered", 1, log.object_names[0])]
    assert "holds more than 4194304 bytes" in answer.only()["message"]


def test_a_frame_that_is_signed_to_be_longer_than_any(verify: Verify, tmp_path: Path) -> None:
    log = SignedLog((3,), ())
    length = frames.FRAME_LENGTH + 1
    log.put_batch(1, log.objects[0], [replace(log.manifests[0].frames[0], length=length)],
                  bytes_compressed=length)  # fmt: skip
    log.files[log.object_names[0]] = bytes(length)
    answer = verify(log)
    assert answer.places() == [("tampered", 1, log.object_names[0])]
    assert "more than any frame" in answer.only()["message"]


def test_a_frame_index_that_lies(verify: Verify, log: SignedLog) -> None:
    """By whoever has the key: the frames meet one byte too late."""
    one, two, three = log.manifests[2].frames
    lies = [replace(one, length=one.length + 1), replace(two, offset=two.offset + 1,
            length=two.length - 1), three]  # fmt: skip
    log.put_batch(3, log.objects[2], lies)
    log.sign_after(3)
    answer = verify(log)
    assert answer.places() == [
        ("tampered", 2_101, log.object_names[2]),
        ("tampered", 3_073, log.object_names[2]),
    ]


@pytest.mark.parametrize("signed", [False, True])
def test_frames_in_another_order(verify: Verify, log: SignedLog, signed: bool) -> None:
    one, two, three = log.manifests[2].frames
    data = log.objects[2]
    parts = [data[each.offset : each.offset + each.length] for each in (two, one, three)]
    if signed:
        moved = [
            replace(one, length=two.length),
            replace(two, offset=two.length, length=one.length),
            three,
        ]
        log.put_batch(3, b"".join(parts), moved)
        log.sign_after(3)
    else:
        log.files[log.object_names[2]] = b"".join(parts)
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert [item["seq"] for item in answer.problems] == [2_101, 3_073]
    assert {item["object"] for item in answer.problems} == {log.object_names[2]}


def test_an_object_that_was_compressed_anew(verify: Verify) -> None:
    """Every record is right, and every length: only the digest tells."""
    log = SignedLog((3,), ())
    data = bytearray(log.objects[0])
    data[8] ^= 2  # how hard the compressor says to have worked
    log.files[log.object_names[0]] = bytes(data)
    answer = verify(log)
    assert answer.places() == [("tampered", 1, log.object_names[0])]
    assert "the object's bytes are not" in answer.only()["message"]


def test_another_object_altogether_is_one_problem(verify: Verify, log: SignedLog) -> None:
    size = len(log.objects[2])
    log.files[log.object_names[2]] = random.Random(1).randbytes(size)  # noqa: S311  # any bytes
    answer = verify(log)
    assert answer.places() == [("tampered", 2_101, log.object_names[2])]
    assert "No other of its 3 frames is good" in answer.only()["message"]


# Other logs ---------------------------------------------------------------------------------


def test_a_batch_of_another_log_in_a_batch_s_place(verify: Verify, log: SignedLog) -> None:
    """Of another deployment, or another tenant's, that has the same key."""
    other = SignedLog(origin="another")
    log.remove(log.manifest_names[2], log.object_names[2])
    for name in (other.manifest_names[2], other.object_names[2]):
        log.files[name] = other.files[name]
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert answer.places() == [("tampered", 2_101, other.manifest_names[2])]
    assert "of another log, 'another'" in answer.only()["message"]


def test_a_batch_of_another_log_s_records_signed_for_this_one(
    verify: Verify, log: SignedLog
) -> None:
    other = SignedLog(make=lambda seq: record(seq, tenant="birch"))
    log.remove(log.manifest_names[2], log.object_names[2])
    for name in (other.manifest_names[2], other.object_names[2]):
        log.files[name] = other.files[name]
    answer = verify(log)
    assert answer.outcome == "tampered"
    assert ("tampered", 2_101, other.manifest_names[2]) in answer.places()
    assert ("tampered", 4_601, log.manifest_names[3]) in answer.places()


def test_a_checkpoint_of_another_log(verify: Verify, log: SignedLog) -> None:
    other = SignedLog(origin="another")
    log.remove(log.point_names[4])
    log.files[other.point_names[4]] = other.files[other.point_names[4]]
    assert verify(log).places() == [("tampered", 3_000, other.point_names[4])]


def test_a_log_that_was_copied_to_another_prefix_in_part(verify: Verify, log: SignedLog) -> None:
    key_ = log.manifests[2].key.replace("audit/v1/", "audit/v2/")
    name = log.sign(3, key=key_)
    log.sign_after(3)
    answer = verify(log)
    assert answer.places() == [("tampered", 2_101, name)]
    assert "another prefix, 'audit/v2'" in answer.only()["message"]


# Checkpoints that were signed anew -------------------------------------------------------------


def test_two_checkpoints_of_one_seq_with_different_links(verify: Verify, log: SignedLog) -> None:
    name = log.sign_point(8, link=sha256(b"other").digest())
    log.sign_points_after(8)
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    assert answer.places() == [
        ("tampered", 5_300, name),
        ("tampered", 5_300, log.object_names[3]),
    ]
    assert "both signed for seq 5,300" in answer.problems[0]["message"]


def test_two_checkpoints_of_one_index(verify: Verify, log: SignedLog) -> None:
    original = log.point_names[4]
    data = log.files[original]
    other = log.sign_point(5, root=sha256(b"other").digest())
    log.files[original] = data
    answer = verify(log)
    assert answer.outcome == "tampered"
    assert answer.only()["object"] == min(original, other)
    assert "2 checkpoints of index 5 are signed" in answer.only()["message"]
    assert answer.json["checkpoints"] == {"valid": 9, "total": 10}


def test_a_checkpoint_that_was_signed_anew_is_named_by_the_next(
    verify: Verify, log: SignedLog
) -> None:
    log.sign_point(5, at=time_of(3_001))
    answer = verify(log)
    assert answer.places() == [("tampered", 4_600, log.point_names[5])]
    assert "Checkpoint 6 follows another one than checkpoint 5" in answer.only()["message"]


def test_a_chain_that_leaves_out_an_index(verify: Verify, log: SignedLog) -> None:
    log.sign_point(10, index=11)
    answer = verify(log)
    assert answer.outcome == "tampered"
    assert answer.places() == [("tampered", 7_800, log.point_names[9])]
    assert "leaves out an index" in answer.only()["message"]


def test_a_checkpoint_that_goes_back(verify: Verify, log: SignedLog) -> None:
    log.sign_point(6, seq=2_000, link=log.link(2_000), root=log.root(2_000))
    log.sign_points_after(6)
    answer = verify(log)
    assert answer.places() == [("tampered", 2_000, log.point_names[5])]
    assert "goes back behind checkpoint 5" in answer.only()["message"]


@pytest.mark.parametrize(
    ("index", "seq"), [(2, 700), (3, 1_024), (4, 1_500), (5, 3_000), (6, 4_600)],
    ids=["in a frame", "at its end", "at a batch's end", "in a later one", "at the end of that"],
)  # fmt: skip
@pytest.mark.parametrize("member", ["link", "root"])
def test_a_signed_checkpoint_that_disagrees_with_the_batches(
    verify: Verify, log: SignedLog, index: int, seq: int, member: str
) -> None:
    other: dict[str, Any] = {member: sha256(b"other").digest()}
    log.sign_point(index, **other)
    log.sign_points_after(index)
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    nth = next(n for n, item in enumerate(log.manifests) if item.end_seq >= seq)
    assert answer.places() == [("tampered", seq, log.object_names[nth])]
    assert f"the {member} for which checkpoint {index} is signed" in answer.only()["message"]


def test_many_checkpoints_that_say_the_same_are_one_problem(verify: Verify) -> None:
    log = SignedLog((5,), (3,) * 50)
    for index in range(1, 51):
        log.sign_point(index, root=sha256(b"other").digest())
        log.sign_points_after(index)
    assert verify(log).only()["seq"] == 3


def test_a_checkpoint_s_end_of_a_broken_frame_is_held_all_the_same(
    verify: Verify, log: SignedLog
) -> None:
    data = bytearray(log.objects[0])
    data[log.manifests[0].frames[1].offset + 50] ^= 1
    log.files[log.object_names[0]] = bytes(data)
    log.sign_point(4, link=sha256(b"other").digest())
    log.sign_points_after(4)
    assert [item["seq"] for item in verify(log).problems] == [1_025, 1_500]


# Whole histories that a thief of the key made ----------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "seq", "object_"),
    [(1_200, 1_025, "object"), (1_025, 1_025, "object"), (1_501, 1_501, "manifest")],
    ids=["inside a frame", "between frames", "between batches"],
)
def test_time_that_goes_back(verify: Verify, bad: int, seq: int, object_: str) -> None:
    log = SignedLog(
        (1_500, 600), (), make=lambda n: record(n, recorded_at=time_of(n - 5 if n == bad else n))
    )
    answer = verify(log)
    assert (answer.outcome, answer.code) == ("tampered", 1)
    place = log.object_names[0] if object_ == "object" else log.manifest_names[1]
    assert answer.places()[0] == ("tampered", seq, place)
    assert "back in time" in answer.problems[0]["message"]


def test_a_record_that_says_that_it_is_of_another_place(verify: Verify) -> None:
    log = SignedLog((1_500,), (), make=lambda n: record(n, says=7 if n == 1_200 else n))
    answer = verify(log)
    assert answer.places() == [("tampered", 1_025, log.object_names[0])]
    assert "the record of seq 1,200 says" in answer.only()["message"]


def test_a_root_that_is_signed_and_wrong(verify: Verify, log: SignedLog) -> None:
    log.sign(3, root=sha256(b"other").digest())
    log.sign_after(3)
    answer = verify(log)
    assert answer.places() == [("tampered", 2_101, log.manifest_names[2])]
    assert "another root" in answer.only()["message"]
    assert answer.json["root"] == log.root(7_300).hex()
    assert answer.json["manifests"] == {"valid": 5, "total": 6}


def test_subtrees_that_are_signed_and_wrong(verify: Verify, log: SignedLog) -> None:
    one, *others = log.manifests[1].frames
    log.sign(2, frames=(replace(one, subtrees=one.subtrees[:-1]), *others))
    log.sign_after(2)
    answer = verify(log)
    assert ("tampered", 1_501, log.manifest_names[1]) in answer.places()
    assert answer.json["root"] is None


def test_a_total_that_is_signed_and_wrong(verify: Verify, log: SignedLog) -> None:
    log.sign(2, bytes_uncompressed=log.manifests[1].bytes_uncompressed + 1)
    log.sign_after(2)
    assert verify(log).places() == [("tampered", 1_501, log.object_names[1])]
    log.sign(2, bytes_uncompressed=log.manifests[1].bytes_uncompressed - 1)
    log.sign(2, last_recorded_at=time_of(2_100)[:-2] + "1Z")
    log.sign_after(2)
    answer = verify(log)
    assert answer.only()["object"] == log.object_names[1]
    assert "ends at another time" in answer.only()["message"]


def test_a_first_manifest_that_names_one_before_it(verify: Verify) -> None:
    log = SignedLog((3, 3), ())
    log.sign(1, previous_manifest_sha256=sha256(b"none").hexdigest())
    log.sign_after(1)
    answer = verify(log)
    assert answer.places() == [("tampered", 1, log.manifest_names[0])]
    assert answer.json["manifests"] == {"valid": 1, "total": 2}


def test_two_signed_logs_of_one_range(verify: Verify, log: SignedLog) -> None:
    other = SignedLog(make=lambda seq: record(seq, tenant="birch" if seq == 7_000 else "alder"))
    for name in (other.manifest_names[5], other.object_names[5]):
        log.files[name] = other.files[name]
    answer = verify(log)
    assert answer.outcome == "tampered"
    assert any(item["object"] == other.manifest_names[5] or "both signed" in item["message"]
               for item in answer.problems)  # fmt: skip


# What is too much, and no harm -----------------------------------------------------------------


def test_foreign_and_superseded_objects_are_reported_and_no_obstacle(
    verify: Verify, log: SignedLog
) -> None:
    valid = log.manifest_names[1]
    garbage = valid[:42] + "0" * 16 + ".manifest.json"
    within = f"{2_200:020d}-{2_300:020d}-{'1' * 16}.manifest.json"
    loose = f"{2_101:020d}-{4_600:020d}-{'2' * 16}.jsonl.gz"
    point = log.point_names[4][:-21] + "0" * 16 + ".json"
    superseded, data = log.manifest_names[3], log.files[log.manifest_names[3]]
    log.sign(4, created_at="2026-02-03T00:00:00.000Z")
    log.sign_after(4)
    for name in (garbage, within, loose, point, "notes.txt", "other/folder/file"):
        log.files[name] = b"garbage"
    log.files[superseded] = data
    answer = verify(log)
    assert (answer.outcome, answer.code, answer.problems) == ("ok", 0, [])
    for name in (garbage, within, loose, point.split("/")[1], "notes.txt", "other/folder/file"):
        assert any(name in note for note in answer.json["notes"]), name
    assert f"Superseded, not needed: {superseded}" in answer.json["notes"]
    assert answer.json["manifests"] == {"valid": 6, "total": 6}
    assert answer.json["checkpoints"] == {"valid": 10, "total": 10}


def test_a_name_that_is_none_of_ours_is_foreign(verify: Verify, log: SignedLog) -> None:
    log.files[f"{0:020d}-{5:020d}-{'0' * 16}.manifest.json"] = b"{}"
    log.files[log.manifest_names[0].upper()] = b"{}"
    answer = verify(log)
    assert answer.outcome == "ok"
    assert len(answer.json["notes"]) == 2
    assert not any(map(ObjectName.parse, [note.split()[-1] for note in answer.json["notes"]]))
