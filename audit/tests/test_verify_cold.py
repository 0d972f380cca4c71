"""Attacks on the bucket: objects and manifests removed, changed, signed anew, spliced in."""

# ruff: noqa: S608  # an attack is SQL, and its values are the test's own
from __future__ import annotations

import base64
import gzip
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from audit import verify
from audit.format.names import Kind, ObjectName

from . import fault_proxy as proxies
from .attacks import COLD, ENDED, NEWER, ONE, TWO, UNKNOWN, Scene, assert_found
from .factories import batch
from .fault_proxy import FaultProxy, refuse

Attack = Callable[[Scene], Any]
BOTH = f"{ONE},+{TWO}"
OBJECT, MANIFEST = Kind.JSONL, Kind.MANIFEST
STARTS = (1, 21, 41)


def name_of(key: str) -> str:
    return key.rpartition("/")[2]


def forget(scene: Scene, *starts: int) -> None:
    for start in starts:
        scene.run(f"DELETE FROM audit_archivebatch WHERE start_seq = {start}")


def learn(scene: Scene, start: int, key: str, data: bytes) -> None:
    """Let the ledger know another manifest, as somebody would who can write to it."""
    scene.run(
        f"UPDATE audit_archivebatch SET manifest_key = '{key}', "
        f"manifest_sha256 = '{sha256(data).hexdigest()}' WHERE start_seq = {start}"
    )


# Removed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [(1,), (21,), (41,), (1, 21), (21, 41)], ids=str)
@pytest.mark.parametrize(
    ("manifests", "rows"),
    [(True, True), (True, False), (False, False)],
    ids=["manifests and rows, too", "manifests, too", "alone"],
)
def test_each_batch_that_was_removed_is_named(
    scene: Scene, starts: tuple[int, ...], manifests: bool, rows: bool
) -> None:
    for start in starts:
        scene.remove(scene.key(start))
        if manifests:
            scene.remove(scene.key(start, MANIFEST))
        if rows:
            forget(scene, start)
    found = scene.verify()
    if rows:
        # Nothing says any more where one ended and the next began.
        end = starts[-1] + 19
        words = "neither manifest nor object is there" if end < COLD else "and not in the cold"
        assert_found(found, "gap", starts[0], words)
        assert f"{starts[0]}–{end}" in found.report.problems[-1].message
        return
    for start in starts:
        what = f"Batch {start}–{start + 19}: its manifest is missing" if manifests else ""
        assert_found(found, "gap", start, what or "missing", f"{start:020d}-")
    assert [problem.seq for problem in found.report.problems] == list(starts)


def test_a_manifest_alone_removed_is_named(scene: Scene) -> None:
    scene.remove(scene.key(21, MANIFEST))
    assert_found(scene.verify(), "gap", 21, "Batch 21–40: its manifest is missing")
    forget(scene, 21)
    assert_found(scene.verify(), "gap", 21, "manifest of this batch, seq 21–40, is missing")


# Changed -----------------------------------------------------------------------------------


def flip(scene: Scene, at: int) -> None:
    data = bytearray(scene.get(scene.key(21)))
    data[at] ^= 1
    scene.put(scene.key(21), bytes(data))


@pytest.mark.parametrize("at", [0, 9, 10, 300, -5, -1])
def test_a_flipped_byte_names_the_frame(scene: Scene, at: int) -> None:
    flip(scene, at)
    found = scene.verify()
    words = "a gzip header was changed" if at == 9 else "Frame at byte 0, seq 21–40"
    assert_found(found, "tampered", 21, words, name_of(scene.key(21)))
    assert len(found.report.problems) == 1


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:100]])
def test_a_truncated_object_names_the_frame(
    scene: Scene, change: Callable[[bytes], bytes]
) -> None:
    scene.put(scene.key(21), change(scene.get(scene.key(21))))
    for level in (verify.FULL, verify.MANIFESTS):
        assert_found(scene.verify(level), "tampered", 21, where=name_of(scene.key(21)))
    assert "rame" in scene.verify().report.problems[0].message


@pytest.mark.parametrize(
    "more", [b"\0", gzip.compress(b"{}\n"), b"x" * 3_000_000], ids=["a byte", "a member", "much"]
)
def test_an_object_that_goes_on_names_the_frame(scene: Scene, more: bytes) -> None:
    scene.put(scene.key(21), scene.get(scene.key(21)) + more)
    assert_found(scene.verify(), "tampered", 21, "goes on", name_of(scene.key(21)))
    assert_found(scene.verify(verify.MANIFESTS), "tampered", 21, "bytes")


def test_a_bomb_is_not_inflated(scene: Scene) -> None:
    scene.put(scene.key(21), gzip.compress(b"0" * 300_000_000, 9))
    assert_found(scene.verify(), "tampered", 21, "rame")


def swap(scene: Scene, *kinds: Kind) -> None:
    for kind in kinds:
        one, other = scene.key(1, kind), scene.key(21, kind)
        scene.put(one, scene.get(other))
        scene.put(other, scene.get(one))


@pytest.mark.parametrize("kinds", [(OBJECT,), (MANIFEST,), (OBJECT, MANIFEST)], ids=str)
def test_two_that_were_swapped_are_both_named(scene: Scene, kinds: tuple[Kind, ...]) -> None:
    swap(scene, *kinds)
    found = scene.verify()
    kind = MANIFEST if MANIFEST in kinds else OBJECT
    for start in (1, 21):
        assert_found(found, "tampered", start, where=name_of(scene.key(start, kind)))


@pytest.mark.parametrize("kind", [OBJECT, MANIFEST])
@pytest.mark.parametrize(
    "to",
    [
        "aside/{name}",
        "00000000000000000061-00000000000000000080-0123456789abcdef{end}",
        "x{name}",
    ],
)
def test_one_that_was_moved_or_renamed_is_missing_from_its_place(
    scene: Scene, kind: Kind, to: str
) -> None:
    key = scene.key(21, kind)
    scene.put(f"{scene.prefix}/{to.format(name=name_of(key), end=kind.value)}", scene.get(key))
    scene.remove(key)
    found = scene.verify()
    renamed = "0061" in to and kind is MANIFEST
    outcome, seq = ("tampered", 61) if renamed else ("gap", 21)
    assert_found(found, outcome, seq)
    assert any(problem.kind == "gap" and problem.seq == 21 for problem in found.report.problems)


# Signed anew -------------------------------------------------------------------------------


def unseal(data: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(data)
    return document


def seal(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def stripped(scene: Scene, *, of_all: bool = False, listed: bool = True) -> bytes:
    document = unseal(scene.get(scene.key(21, MANIFEST)))
    document["signatures"] = [] if of_all else document["signatures"][:1]
    if not listed:
        document["manifest"]["signed_by"] = document["manifest"]["signed_by"][:1]
    return seal(document)


def with_algorithm(scene: Scene) -> bytes:
    document = unseal(scene.get(scene.key(21, MANIFEST)))
    document["signatures"][1]["algorithm"] = "hmac-sha256"
    document["manifest"]["signed_by"][1] = "hmac-sha256:e-two"
    return seal(document)


def with_version(scene: Scene) -> bytes:
    """Change the format's version, and sign that as it should be signed."""
    document = unseal(scene.get(scene.key(21, MANIFEST)))
    inner = document["manifest"]
    inner["format"] = "dezky-audit-manifest/v2"
    message = b"dezky-audit/manifest/v1\n" + seal(inner)
    secret = base64.b64decode(ONE.rpartition(":")[2])
    document["signatures"][0]["signature"] = base64.b64encode(
        hmac.digest(secret, message, "sha256")
    ).decode()
    return seal(document)


def ended(scene: Scene, **changes: Any) -> bytes:
    """Sign with a key that has come to its end, as whoever stole it would."""
    return scene.sign(f"hmac-sha256:k-old:{ENDED}", 21, **changes)


SIGNED_ANEW: dict[str, tuple[Callable[[Scene], bytes], str]] = {
    "by a newer key": (lambda scene: scene.sign(NEWER, 21), "signed again"),
    "by the same keys, of another time": (
        lambda scene: scene.sign(BOTH, 21, created_at="2026-01-02T03:04:05.678Z"),
        "signed again",
    ),
    "by a key past its end": (ended, "though that key came to its end"),
    "by a key past its end, dated back": (
        lambda scene: ended(scene, created_at="2025-12-31T00:00:00.000Z"),
        "though that key came to its end",
    ),
    "stripped of one of two signatures": (stripped, "but carries signatures by"),
    "stripped of one, and of its place in the list": (
        lambda scene: stripped(scene, listed=False),
        "is not good",
    ),
    "stripped of all signatures": (lambda scene: stripped(scene, of_all=True), "by nobody"),
    "with another algorithm": (with_algorithm, "is not good"),
    "with another version of the format": (with_version, "format does not have the signed form"),
    "with another link": (
        lambda scene: scene.sign(BOTH, 21, start_link=sha256(b"x").digest()),
        "signed again",
    ),
    "with another root": (
        lambda scene: scene.sign(BOTH, 21, root=sha256(b"x").digest()),
        "signed again",
    ),
    "no JSON": (lambda scene: b"x", "not JSON"),
    "empty": (lambda scene: b"", "not JSON"),
    "too large": (lambda scene: b" " * 17_000_000, "bytes"),
}


@pytest.mark.parametrize("name", SIGNED_ANEW)
@pytest.mark.parametrize("known", [False, True], ids=["ledger as it was", "ledger changed, too"])
def test_a_manifest_signed_anew_is_found(scene: Scene, name: str, known: bool) -> None:
    make, words = SIGNED_ANEW[name]
    data = make(scene)
    key = scene.put_manifest(data, 21)
    if known:
        learn(scene, 21, key, data)
        words = "" if words == "signed again" else words
    found = scene.verify(verify.MANIFESTS)
    assert_found(found, "tampered", 21, words)


@pytest.mark.parametrize("name", ["by a newer key", "stripped of all signatures"])
def test_a_manifest_replaced_under_its_own_name_is_found(scene: Scene, name: str) -> None:
    scene.put_manifest(SIGNED_ANEW[name][0](scene), 21, in_place=True)
    assert_found(scene.verify(), "tampered", 21, "holds other bytes than its name says")


def test_a_manifest_signed_only_by_a_stranger_is_unverifiable(scene: Scene) -> None:
    data = scene.sign(UNKNOWN, 41)
    learn(scene, 41, scene.put_manifest(data, 41), data)
    found = scene.verify()
    assert_found(found, "unverifiable", 41, "signed by hmac-sha256:k-stranger, of which no key")
    assert found.report.exit_code == 2


def test_a_log_whose_keys_are_not_known_is_unverifiable(scene: Scene) -> None:
    scene.keys = UNKNOWN
    found = scene.verify()
    assert_found(found, "unverifiable", 21, "of which no key is known")
    assert {problem.kind for problem in found.report.problems} == {"unverifiable"}
    assert [start for start in STARTS if any(p.seq == start for p in found.report.problems)] == [
        *STARTS
    ]


# Spliced in --------------------------------------------------------------------------------


def splice(scene: Scene, start: int, **changes: Any) -> None:
    """Put a batch of another log in a place, with its objects, and let the ledger know it."""
    keyring = scene.keyring(BOTH)
    made = batch(20, after=start - 1)
    name = ObjectName.of(OBJECT, start, start + 19, made.manifest.sha256)
    before = scene.manifest(start - 20) if start > 1 else None
    values: dict[str, Any] = {
        "key": name.key(scene.prefix),
        "signed_by": tuple(keyring.signed_by),
        "previous_manifest_sha256": sha256(scene.get(scene.key(start - 20, MANIFEST))).hexdigest()
        if before
        else None,
        "created_at": "2026-11-01T00:00:00.000Z",
        **changes,
    }
    manifest = replace(made.manifest, **values)
    data = manifest.to_bytes(keyring)
    key = scene.put_manifest(data, start) if start <= 41 else ""
    if not key:
        key = ObjectName.of(MANIFEST, start, start + 19, sha256(data).hexdigest()).key(
            scene.prefix
        )
        scene.put(key, data)
    else:
        learn(scene, start, key, data)
    scene.put(manifest.key, made.data)


@pytest.mark.parametrize("seq", [1, 21, 41, 61])
@pytest.mark.parametrize("origin", ["other", "dezky-test"])
def test_a_batch_of_another_log_is_found(scene: Scene, seq: int, origin: str) -> None:
    """Even where its origin is made ours, it does not continue the links."""
    splice(scene, seq, origin=origin)
    words = "is of another log, 'other'" if origin == "other" else ""
    found = scene.verify()
    assert found.report.outcome == "tampered"
    assert_found(found, "tampered", None if seq == 1 else seq, words)


def test_another_deployment_s_whole_prefix_is_found(scene: Scene) -> None:
    scene.settings["AUDIT_ORIGIN"] = "other"
    found = scene.verify()
    assert_found(found, "tampered", 21, "is of another log, 'dezky-test'")


# What is not the log's ---------------------------------------------------------------------


def test_foreign_and_superseded_objects_are_notes(scene: Scene) -> None:
    scene.put(f"{scene.prefix}/readme.txt", b"hello")
    scene.put(f"{scene.prefix}/checkpoints/readme.txt", b"hello")
    stranger = ObjectName.of(OBJECT, 61, 80, sha256(b"x").hexdigest())
    scene.put(stranger.key(scene.prefix), b"x")
    older = scene.sign(BOTH, 21, created_at="2026-11-01T00:00:00.000Z")
    scene.put(ObjectName.of(MANIFEST, 21, 40, sha256(older).hexdigest()).key(scene.prefix), older)
    bad = ObjectName.of(MANIFEST, 21, 40, sha256(b"y").hexdigest())
    scene.put(bad.key(scene.prefix), b"y")
    within = ObjectName.of(MANIFEST, 25, 30, sha256(b"z").hexdigest())
    scene.put(within.key(scene.prefix), b"z")
    for level in (verify.FULL, verify.MANIFESTS):
        report = scene.verify(level).report
        assert (report.outcome, report.problems) == ("ok", [])
        notes = "\n".join(report.notes)
        for words in (
            "Foreign, no part of the log: readme.txt",
            "Foreign, no part of the log: checkpoints/readme.txt",
            f"no manifest names it: {stranger}",
            "Superseded, not needed: ",
            f"Foreign, beside a valid one of its place: {bad}",
            f"Foreign, within another batch: {within}",
        ):
            assert words in notes
        assert len(report.notes) == 6


def test_a_foreign_name_does_not_take_the_place_of_a_batch_that_is_asked_for(
    scene: Scene,
) -> None:
    within = ObjectName.of(MANIFEST, 25, 30, sha256(b"z").hexdigest())
    scene.put(within.key(scene.prefix), b"z")
    for rows in (True, False):
        report = scene.verify(batch_seq=25).report
        assert (report.events, report.first_seq, report.last_seq) == (20, 21, 40)
        assert report.outcome == "ok" if rows else "gap"
        forget(scene, 21)


# A bucket that does not answer ---------------------------------------------------------------


FAULTS: dict[str, tuple[proxies.Act, str, str, int, str, int]] = {
    # what, to which requests, after how many, what is said, and how many events were looked at
    "the list refused": (refuse(403, "AccessDenied"), "LIST", "", 0, "403 AccessDenied", 32),
    "the list silent": (proxies.stall, "LIST", "", 0, "silence", 32),
    "checkpoints refused": (refuse(403, "AccessDenied"), "GET", ".json", 0, "403", 32),
    "a manifest refused": (
        refuse(403, "AccessDenied"),
        "GET",
        ".manifest.json",
        1,
        "From seq 21 on",
        52,
    ),
    "an object refused": (refuse(403, "AccessDenied"), "GET", ".gz", 1, "From seq 21 on", 52),
    "an object silent": (proxies.stall, "GET", ".gz", 2, "From seq 41 on", 72),
    "an object cut off": (proxies.reset_within_answer, "GET", ".gz", 0, "From seq 1 on", 32),
    "a HEAD refused": (refuse(503, "SlowDown"), "HEAD", ".gz", 2, "From seq 21 on", 52),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bucket_that_goes_half_way_is_unverifiable_and_what_was_checked_is_told(
    scene: Scene, name: str
) -> None:
    act, verb, key, skip, words, events = FAULTS[name]
    scene.settings = {"AUDIT_COLD_TIMEOUT_SECONDS": 1, "AUDIT_COLD_ATTEMPTS": 1}
    with FaultProxy(scene.archived.site.env["AUDIT_COLD_ENDPOINT"]) as proxy:
        scene.endpoint = proxy.endpoint
        proxy.fault(act, verb, key, skip=skip)
        found = scene.verify()
    assert_found(found, "unverifiable", None, words)
    assert len(found.report.problems) == 1
    assert found.report.exit_code == 2
    assert found.report.events == events
    assert found.report.last_seq == 92


def test_a_bucket_that_goes_does_not_hide_what_is_wrong_elsewhere(scene: Scene) -> None:
    scene.run("DELETE FROM audit_auditevent WHERE seq = 70")
    scene.settings = {"AUDIT_COLD_TIMEOUT_SECONDS": 1, "AUDIT_COLD_ATTEMPTS": 1}
    scene.endpoint = "http://127.0.0.1:9"
    found = scene.verify()
    assert_found(found, "gap", 70, "Seq 70 is missing")
    assert {problem.kind for problem in found.report.problems} == {"gap", "unverifiable"}


@pytest.mark.parametrize("endpoint", ["nonsense", "http://"])
def test_an_address_that_is_none_is_unverifiable(scene: Scene, endpoint: str) -> None:
    scene.endpoint = endpoint
    found = scene.verify()
    assert_found(found, "unverifiable", None, "AUDIT_COLD_ENDPOINT")
    assert any(re.match(r"audit\.E004", line) for line in found.checks) == (endpoint != "http://")


def test_a_bucket_that_is_not_there_is_unverifiable(scene: Scene) -> None:
    scene.bucket = "missing"
    assert_found(scene.verify(), "unverifiable", None, "the bucket does not exist")
