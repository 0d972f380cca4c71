"""The walk beside a ledger, and what it does where the store does not answer.

What can be seen in a copy of the bucket alone is in audit/tests/test_offline.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import IO

import pytest

from audit.format.errors import GapError, TamperedError, UnreachableError
from audit.format.examine import examine
from audit.format.report import MOST_NOTES, MOST_PROBLEMS, Kind, Report, printable
from audit.format.walk import Expected, Walk
from audit.tests.factories import ORIGIN
from audit.tests.signed_log import PREFIX, SignedLog, record


@dataclass
class Memory:
    """A store that holds files in memory, and does not answer for some."""

    files: dict[str, bytes]
    prefix: str | None = PREFIX
    silent: set[str] = field(default_factory=set)

    def names(self) -> list[str]:
        return sorted(self.files)

    def size(self, name: str) -> int:
        return len(self._bytes(name))

    def read(self, name: str, max_bytes: int) -> bytes:
        if len(self._bytes(name)) > max_bytes:
            raise TamperedError("too large")
        return self._bytes(name)

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return closing(io.BytesIO(self._bytes(name)))

    def _bytes(self, name: str) -> bytes:
        if name in self.silent:
            raise UnreachableError("The bucket does not answer.")
        if name not in self.files:
            raise GapError("is missing")
        return self.files[name]


@pytest.fixture
def log() -> SignedLog:
    return SignedLog((5, 5, 5), (0, 7, 15))


def ledger(log: SignedLog) -> dict[int, Expected]:
    rows = {}
    for manifest, name in zip(log.manifests, log.manifest_names, strict=True):
        digest = sha256(log.files[name]).hexdigest()
        rows[manifest.start_seq] = Expected(manifest.start_seq, manifest.end_seq, digest)
    return rows


def walked(
    log: SignedLog, expected: dict[int, Expected], store: Memory | None = None, quick: bool = False
) -> Report:
    report = Report()
    walk = Walk(store or Memory(log.files), log.ring, report, origin=ORIGIN, expected=expected)
    walk.read_checkpoints()
    if quick:
        for job in walk.batches():
            walk.look_at(job)
    else:
        examine(walk, walk.batches())
    walk.foreign_objects()
    return report


def places(report: Report) -> list[tuple[str, int | None, str | None]]:
    return [(item.kind.value, item.seq, item.object) for item in report.in_order()]


def test_a_log_that_is_what_the_ledger_says(log: SignedLog) -> None:
    report = walked(log, ledger(log))
    assert (report.outcome, report.events, report.notes) == ("ok", 15, [])


@pytest.mark.parametrize("quick", [False, True])
def test_two_neighbours_of_which_the_ledger_alone_knows_are_two_lines(
    log: SignedLog, quick: bool
) -> None:
    rows = ledger(log)
    gone = log.manifest_names[1:]
    log.remove(*gone, *log.object_names[1:])
    report = walked(log, rows, quick=quick)
    assert places(report) == [("gap", 6, gone[0]), ("gap", 11, gone[1])]
    assert (report.manifests.good, report.manifests.total) == (1, 3)


def test_a_manifest_that_was_changed_where_it_lies(log: SignedLog) -> None:
    rows, name = ledger(log), log.manifest_names[1]
    log.files[name] = log.files[name][:-1]
    assert places(walked(log, rows)) == [("tampered", 6, name)]


def test_a_manifest_that_was_replaced_by_a_signed_one(log: SignedLog) -> None:
    rows = ledger(log)
    name = log.sign(2, created_at="2026-03-04T00:00:00.000Z")
    log.sign_after(2)
    log.files[name[:42] + "0" * 16 + ".manifest.json"] = b"garbage"
    report = walked(log, rows)
    assert places(report) == [
        ("tampered", 6, name),
        ("tampered", 11, log.manifest_names[2]),
    ]
    assert "another one than the ledger's" in report.problems[0].message


def test_garbage_alone_in_the_place_of_a_manifest(log: SignedLog) -> None:
    rows = ledger(log)
    garbage = log.manifest_names[1][:42] + "0" * 16 + ".manifest.json"
    log.rename(log.manifest_names[1], garbage)
    assert places(walked(log, rows)) == [("tampered", 6, garbage)]


def test_the_ledger_s_is_taken_of_two_that_are_signed(log: SignedLog) -> None:
    rows = ledger(log)
    original, data = log.manifest_names[2], log.files[log.manifest_names[2]]
    other = log.sign(3, created_at="2026-03-04T00:00:00.000Z")
    log.files[original] = data
    report = walked(log, rows)
    assert report.outcome == "ok"
    assert report.notes == [f"Superseded, not needed: {other}"]


def test_rows_that_overlap(log: SignedLog) -> None:
    rows = ledger(log) | {8: Expected(8, 9, "00" * 32)}
    report = walked(log, rows)
    assert places(report) == [("tampered", 8, None)]
    assert "rebuild_ledger" in report.problems[0].message


def test_a_batch_that_goes_on_from_another_log_and_is_signed_to_follow_this_one() -> None:
    """The same records after other ones: everything fits but the link before them."""
    log = SignedLog((5, 5, 5), (0, 7))
    other = SignedLog(
        (5, 5, 5), (), make=lambda seq: record(seq, tenant="birch" if seq <= 10 else "alder")
    ).manifests[2]
    log.sign(3, start_link=other.start_link, end_link=other.end_link, frames=other.frames)
    report = walked(log, {})
    assert places(report) == [("tampered", 11, log.manifest_names[2])]
    assert "does not continue the link of seq 10" in report.problems[0].message


def test_a_batch_under_another_prefix_than_the_store_s(log: SignedLog) -> None:
    report = walked(log, {}, Memory(log.files, prefix="other"))
    assert report.outcome == "tampered"
    assert {item.seq for item in report.problems} == {1, 6, 11}


@pytest.mark.parametrize("quick", [False, True])
def test_at_the_level_of_manifests_lengths_and_frames_ends_are_held(
    log: SignedLog, quick: bool
) -> None:
    log.files[log.object_names[0]] += b"\0"
    log.sign_point(3, link=sha256(b"other").digest())
    assert places(walked(log, {}, quick=quick)) == [
        ("tampered", 1, log.object_names[0]),
        ("tampered", 15, log.object_names[2]),
    ]


def silent(pick: Callable[[SignedLog], str]) -> Callable[[SignedLog], Memory]:
    return lambda log: Memory(log.files, silent={pick(log)})


@pytest.mark.parametrize(
    "store",
    [
        silent(lambda log: log.point_names[1]),
        silent(lambda log: log.manifest_names[1]),
        silent(lambda log: log.object_names[1]),
    ],
    ids=["checkpoint", "manifest", "object"],
)
@pytest.mark.parametrize("quick", [False, True])
def test_a_store_that_does_not_answer_ends_the_walk(
    log: SignedLog, store: Callable[[SignedLog], Memory], quick: bool
) -> None:
    with pytest.raises(UnreachableError, match=r"^The bucket does not answer\.$"):
        walked(log, ledger(log), store(log), quick)


def test_a_disk_that_fails_while_it_is_read_is_no_verdict(
    log: SignedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    store = Memory(log.files)
    monkeypatch.setattr(store, "opened", lambda name: closing(Disk()))
    report = walked(log, {}, store)
    assert report.outcome == "unverifiable"
    assert report.problems[1].message.startswith(
        "cannot be read (Input/output error): seq 6–10 could not be checked."
    )


# The report ------------------------------------------------------------------------------------


def test_the_worst_names_the_run() -> None:
    report = Report()
    assert (report.outcome, report.exit_code) == ("ok", 0)
    for kind, code in ((Kind.UNVERIFIABLE, 2), (Kind.GAP, 3), (Kind.TAMPERED, 1)):
        report.tell(kind, "Something.")
        assert (report.outcome, report.exit_code) == (kind.value, code)


def test_problems_are_in_the_order_of_the_log_those_without_a_seq_first() -> None:
    report = Report()
    for seq in (7, None, 3):
        report.tell(Kind.GAP, "Something.", seq)
    assert [item["seq"] for item in report.to_json()["problems"]] == [None, 3, 7]


def test_what_is_past_the_first_thousand_is_counted() -> None:
    report = Report()
    for number in range(MOST_PROBLEMS + 5):
        report.tell(Kind.GAP, f"Problem {number}.")
    for number in range(MOST_NOTES + 7):
        report.note(f"Note {number}")
    answer = report.to_json()
    assert (len(answer["problems"]), answer["more_problems"]) == (MOST_PROBLEMS, 5)
    assert (len(answer["notes"]), answer["more_notes"]) == (MOST_NOTES, 7)


def test_what_is_not_printable_is_escaped() -> None:
    report = Report()
    report.tell(Kind.GAP, "a\x1b[31m\nb\u202e\udcff–é")
    report.note("\x9b")
    assert report.problems[0].message == "a\\x1b[31m\\nb\\u202e\\udcff–é"
    assert report.notes == ["\\x9b"]
    assert printable("as it is – é") == "as it is – é"
