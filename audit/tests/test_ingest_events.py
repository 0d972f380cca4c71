"""`manage.py ingest_events`: good lines go in, bad ones come back unchanged with their reason."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from audit.management import chunks
from audit.models import AuditEvent, LogState
from tenants.models import Tenant

from .factories import drafts, generic_event, ledger_row, numbers
from .simulator import Process, Site, Template

database = pytest.mark.django_db


@dataclass(frozen=True)
class Answer:
    """What the command said and did; `rejects` holds the bytes of the reject file."""

    code: int
    out: str
    err: str
    rejects: bytes | None


def line(**members: Any) -> bytes:
    """Return a line, with an external id of its own unless one is given."""
    event = {"external_id": f"line-{next(numbers)}", **members}
    return json.dumps(generic_event(**event), ensure_ascii=False).encode() + b"\n"


def run(*args: str, beside: Path | None = None) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command("ingest_events", *args, stdout=out, stderr=err)
    except SystemExit as error:
        code = int(str(error.code))
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    found = list(beside.parent.glob(f"{beside.name}.rejects-*.jsonl")) if beside else []
    assert len(found) <= 1
    return Answer(code, out.getvalue(), err.getvalue(), found[0].read_bytes() if found else None)


def ingest(folder: Path, *lines: bytes, args: tuple[str, ...] = ()) -> Answer:
    path = folder / f"events-{next(numbers)}.jsonl"
    path.write_bytes(b"".join(lines))
    return run(str(path), *args, beside=path)


def records() -> list[dict[str, Any]]:
    rows = AuditEvent.objects.order_by("seq").values_list("record", flat=True)
    return [json.loads(bytes(record)) for record in rows]


def actions() -> list[str]:
    return [record["action"] for record in records()]


def rejected(folder: Path, bad: bytes) -> str:
    """Ingest a bad line between two good ones; check what becomes of all; return the reason."""
    answer = ingest(folder, line(action="before"), bad, line(action="after"))
    assert answer.code == 3
    assert actions() == ["before", "after"]
    assert [record["seq"] for record in records()] == [1, 2]
    assert answer.rejects == bad
    assert "3 lines: 2 appended (seq 1–2), 0 duplicates, 1 rejected\n" in answer.out
    assert re.search(r"rejected lines, unchanged: \S+\.rejects-\d+T\d+Z\.jsonl\n", answer.out)
    match = re.fullmatch(r"line 2 rejected: (.*)\n", answer.err)
    assert match is not None, answer.err
    return match[1]


def taken(folder: Path, **members: Any) -> dict[str, Any]:
    """Ingest one good line; return its record."""
    answer = ingest(folder, line(**members))
    assert answer.code == 0, answer.err
    assert answer.rejects is None
    assert answer.err == ""
    (record,) = records()
    return record


# Bad lines, each with a clear answer -------------------------------------------------------


@database
def test_a_malformed_line_is_rejected(tmp_path: Path) -> None:
    reason = rejected(tmp_path, b'{"action": "x", "occurred_at": \n')
    assert reason == "not JSON: Expecting value at character 32"


@database
def test_a_line_that_is_no_object_is_rejected(tmp_path: Path) -> None:
    assert rejected(tmp_path, b'["action"]\n') == "not a JSON object"


@database
def test_a_line_of_10_megabytes_is_rejected(tmp_path: Path) -> None:
    bad = line(data={"a": "x" * 10_000_000})
    assert rejected(tmp_path, bad) == "longer than 1,048,576 bytes"


@database
def test_a_line_one_byte_too_long_is_rejected(tmp_path: Path) -> None:
    bad = b" " * (1024 * 1024 + 1) + b"\n"
    assert rejected(tmp_path, bad) == "longer than 1,048,576 bytes"


@database
def test_a_last_line_that_is_too_long_and_has_no_end_is_rejected(tmp_path: Path) -> None:
    bad = b"x" * 3_000_000
    answer = ingest(tmp_path, line(), bad)
    assert (answer.code, answer.rejects) == (3, bad)
    assert answer.err == "line 2 rejected: longer than 1,048,576 bytes\n"


@database
def test_a_line_as_long_as_allowed_is_read(tmp_path: Path) -> None:
    event = line()[:-1]
    answer = ingest(tmp_path, event + b" " * (1024 * 1024 - len(event)) + b"\n")
    assert (answer.code, answer.rejects) == (0, None)


@database
def test_a_line_of_100000_levels_is_rejected(tmp_path: Path) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    bad = line(data={"a": "@"}).replace(b'"@"', deep)
    assert rejected(tmp_path, bad) == "deeper than 32 levels"


@database
def test_a_line_with_nan_is_rejected(tmp_path: Path) -> None:
    assert rejected(tmp_path, line(data={"a": float("nan")})) == "NaN is not a JSON value"


@database
def test_a_line_with_a_number_that_becomes_infinite_is_rejected(tmp_path: Path) -> None:
    bad = line(data={"a": "@"}).replace(b'"@"', b"1e999")
    assert rejected(tmp_path, bad) == "the number 1e999 is too large"


@database
def test_a_line_with_duplicate_keys_is_rejected(tmp_path: Path) -> None:
    bad = line().replace(b'"action"', b'"action": "first", "action"')
    assert rejected(tmp_path, bad) == "duplicate key 'action'"


@database
def test_a_line_with_a_lone_surrogate_is_rejected(tmp_path: Path) -> None:
    bad = line(actor="@").replace(b"@", rb"\ud83d")
    assert rejected(tmp_path, bad) == "a string has a lone surrogate"


@database
def test_a_line_with_2_to_the_64th_is_rejected(tmp_path: Path) -> None:
    assert rejected(tmp_path, line(data={"a": 2**64})) == "an integer is beyond ±(2^53-1)"


@database
def test_a_line_that_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    bad = line(actor="@").replace(b"@", b"M\xfcller")
    reason = rejected(tmp_path, bad)
    assert reason == f"not UTF-8 (byte {bad.index(0xFC) + 1})"


@database
def test_a_line_in_utf_16_is_rejected(tmp_path: Path) -> None:
    # A UTF-16 file has a zero byte beside each newline: what comes first is one whole line.
    answer = ingest(tmp_path, line(), line().decode().encode("utf-16"))
    assert answer.code == 3
    assert answer.err.startswith("line 2 rejected: not UTF-8 (byte 1)\n")
    assert len(records()) == 1


@database
def test_a_record_over_256_kib_is_rejected(tmp_path: Path) -> None:
    reason = rejected(tmp_path, line(data={"a": "x" * 262_144}))
    assert re.fullmatch(r"its record would have 262,\d{3} bytes, 262,144 are allowed", reason)


@database
def test_a_line_with_an_unknown_member_is_rejected(tmp_path: Path) -> None:
    reason = rejected(tmp_path, line(user="ada"))
    assert reason == "unknown member 'user': put what is your own under 'data'"


@database
def test_a_line_with_a_member_of_a_wrong_type_is_rejected(tmp_path: Path) -> None:
    assert rejected(tmp_path, line(external_id=17)) == "'external_id' is not a string"


@database
def test_a_line_without_a_time_is_rejected(tmp_path: Path) -> None:
    assert rejected(tmp_path, line(occurred_at=None)) == "'occurred_at' is missing"


@database
def test_a_line_with_a_time_without_an_offset_is_rejected(tmp_path: Path) -> None:
    reason = rejected(tmp_path, line(occurred_at="2026-01-02T03:04:05"))
    assert reason == "'2026-01-02T03:04:05' is not an RFC 3339 time with an offset"


# Strange lines that go in ------------------------------------------------------------------


@database
def test_nul_in_a_name_is_kept_in_the_record_and_left_out_of_what_is_searched(
    tmp_path: Path,
) -> None:
    assert taken(tmp_path, actor="Ada\0Lind")["actor"]["name"] == "Ada\0Lind"
    assert AuditEvent.objects.get().actor == "AdaLind"


@database
def test_an_actor_of_50000_characters_is_kept_and_its_search_text_is_cut(tmp_path: Path) -> None:
    name = "ü" * 50_000
    assert taken(tmp_path, actor={"name": name, "id": name})["actor"]["name"] == name
    event = AuditEvent.objects.get()
    assert (event.actor, event.actor_id) == ("ü" * 200, "ü" * 200)


@database
def test_an_event_of_1900_is_kept_with_its_time(tmp_path: Path) -> None:
    record = taken(tmp_path, occurred_at="1900-01-01T00:00:00Z")
    assert record["occurred_at"] == "1900-01-01T00:00:00.000Z"
    assert record["recorded_at"] > "2020"


@database
def test_an_event_of_2200_is_kept_with_its_time(tmp_path: Path) -> None:
    record = taken(tmp_path, occurred_at="2200-12-31T23:59:59.999+00:00")
    assert record["occurred_at"] == "2200-12-31T23:59:59.999Z"
    assert record["recorded_at"] < "2200"


@database
def test_an_unknown_tenant_is_kept_and_flagged(tmp_path: Path) -> None:
    Tenant.objects.create(slug="alder", name="Alder")
    tenants = ["nobody", "alder", "nobody", "", "other"]
    answer = ingest(tmp_path, *(line(tenant=tenant) for tenant in tenants))
    assert answer.code == 0
    assert "flagged: 3 events of 2 unknown tenants are kept: nobody, other\n" in answer.out
    assert [record["tenant"] for record in records()] == tenants


@database
def test_known_tenants_are_not_flagged(tmp_path: Path) -> None:
    Tenant.objects.create(slug="alder", name="Alder")
    assert "flagged" not in ingest(tmp_path, line(tenant="alder"), line()).out


@database
def test_no_more_unknown_tenants_are_named_than_can_be_read(tmp_path: Path) -> None:
    answer = ingest(tmp_path, *(line(tenant=f"t{number:03}") for number in range(100)))
    (named,) = (text for text in answer.out.splitlines() if text.startswith("flagged"))
    assert named.startswith("flagged: 100 events of 100 unknown tenants are kept: t000, t001, ")
    assert named.endswith("t018, t019 …")


# Files -------------------------------------------------------------------------------------


@database
@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n\n  \n\t\n", b"\xef\xbb\xbf"])
def test_a_file_without_lines_is_said_to_be_empty(tmp_path: Path, content: bytes) -> None:
    answer = ingest(tmp_path, content)
    assert (answer.code, answer.err, answer.rejects) == (0, "", None)
    assert answer.out.endswith("holds no lines: nothing to ingest.\n")
    assert not LogState.objects.exists()


@database
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    first = line(external_id=None)
    assert ingest(tmp_path, b"\xef\xbb\xbf" + first).code == 0
    assert "0 appended, 1 duplicates" in ingest(tmp_path, first).out


@database
def test_a_byte_order_mark_anywhere_else_is_rejected(tmp_path: Path) -> None:
    assert rejected(tmp_path, b"\xef\xbb\xbf" + line()).startswith("not JSON: ")


@database
def test_windows_line_ends_are_no_part_of_a_line(tmp_path: Path) -> None:
    first, second = line(external_id=None, action="a"), line(external_id=None, action="b")
    assert ingest(tmp_path, first, second).code == 0
    answer = ingest(tmp_path, *(item.replace(b"\n", b"\r\n") for item in (first, second)))
    assert "2 lines: 0 appended, 2 duplicates, 0 rejected" in answer.out


@database
def test_a_rejected_line_keeps_its_windows_line_end(tmp_path: Path) -> None:
    assert rejected(tmp_path, b"hello\r\n") == "not JSON: Expecting value at character 1"


@database
def test_blank_lines_are_skipped_and_still_counted_in_line_numbers(tmp_path: Path) -> None:
    answer = ingest(tmp_path, b"\n", line(action="a"), b" \t\r\n", b"bad\n", b"\n", line())
    assert answer.err.startswith("line 4 rejected: ")
    assert "3 lines: 2 appended (seq 1–2), 0 duplicates, 1 rejected" in answer.out


@database
def test_a_last_line_without_its_end_goes_in(tmp_path: Path) -> None:
    assert ingest(tmp_path, line(), line(action="last")[:-1]).code == 0
    assert actions() == ["tested", "last"]


@database
def test_a_rejected_last_line_is_given_back_without_an_end_as_well(tmp_path: Path) -> None:
    assert ingest(tmp_path, line(), b"bad").rejects == b"bad"


@database
def test_all_rejected_lines_are_given_back_in_their_order(tmp_path: Path) -> None:
    bad = [b"bad %d\n" % number for number in range(3)]
    answer = ingest(tmp_path, bad[0], line(), bad[1], bad[2], line())
    assert answer.rejects == b"".join(bad)
    assert [text.split()[1] for text in answer.err.splitlines()] == ["1", "3", "4"]


@database
@pytest.mark.parametrize("lines_a_chunk", [1, 2, 3, 100])
def test_a_line_that_is_too_long_keeps_its_place_among_the_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines_a_chunk: int
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_LINES", lines_a_chunk)
    long = b"x" * 1_200_000 + b"\n"
    lines = [line(action="a"), b"bad 2\n", long, b"bad 4\n", line(action="b"), long, b"bad 7\n"]
    answer = ingest(tmp_path, *lines)
    assert answer.rejects == lines[1] + long + lines[3] + long + lines[6]
    assert [text.split()[1] for text in answer.err.splitlines()] == ["2", "3", "4", "6", "7"]
    assert "7 lines: 2 appended (seq 1–2), 0 duplicates, 5 rejected" in answer.out
    assert actions() == ["a", "b"]


@database
def test_a_mended_reject_file_can_be_ingested_itself(tmp_path: Path) -> None:
    answer = ingest(tmp_path, line(action="a"), line(action="b")[:-2] + b"\n")
    assert answer.rejects is not None
    assert ingest(tmp_path, answer.rejects.replace(b"\n", b"}\n")).code == 0
    assert actions() == ["a", "b"]


@database
def test_only_the_first_rejects_are_named_and_all_are_counted(tmp_path: Path) -> None:
    answer = ingest(tmp_path, *[b"bad\n"] * 50, line())
    named = answer.err.splitlines()
    assert len(named) == 21
    assert named[-1] == "more lines rejected; the last line counts them"
    assert "51 lines: 1 appended (seq 1–1), 0 duplicates, 50 rejected" in answer.out
    assert answer.rejects == b"bad\n" * 50


@database
def test_a_file_longer_than_one_append_goes_in_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_LINES", 3)
    answer = ingest(tmp_path, *(line(action=f"a{number}") for number in range(10)), b"bad\n")
    assert "11 lines: 10 appended (seq 1–10), 0 duplicates, 1 rejected" in answer.out
    assert actions() == [f"a{number}" for number in range(10)]


@database
def test_large_lines_are_appended_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 100_000)
    large = [line(data={"a": "x" * 60_000}, action=f"a{number}") for number in range(3)]
    no_folder = ("--rejects", str(tmp_path / "no folder" / "rejects"))
    answer = ingest(tmp_path, *large, b"bad\n", args=no_folder)
    assert "Stopped at line 3" in answer.err
    assert actions() == ["a0", "a1"]


@database
def test_standard_input_is_read_where_the_file_is_a_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given_path = tmp_path / "given.jsonl"
    given_path.write_bytes(line(action="a") + b"bad\n")
    with given_path.open() as given:
        monkeypatch.setattr(sys, "stdin", given)
        answer = run("-", beside=tmp_path / "stdin")
    assert (answer.code, answer.rejects) == (3, b"bad\n")
    assert actions() == ["a"]


@database
def test_the_source_is_the_one_that_was_named(tmp_path: Path) -> None:
    ingest(tmp_path, line())
    ingest(tmp_path, line(), args=("--source", "ocis-2.eu_x"))
    assert [record["source"] for record in records()] == ["platform", "ocis-2.eu_x"]


@pytest.mark.parametrize("source", ["dezky", "", "x" * 51, "a b", "a\x1b[31m", "ä"])
def test_a_source_that_cannot_be_one_is_refused_before_anything_is_read(
    tmp_path: Path, source: str
) -> None:
    answer = ingest(tmp_path, line(), args=("--source", source))
    assert answer.code == 2
    assert f"{source!a} cannot be a source here" in answer.err


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    answer = run(str(tmp_path / "missing.jsonl"))
    assert answer.code == 1
    assert answer.err == f"{tmp_path}/missing.jsonl cannot be read: No such file or directory."


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    answer = run(str(tmp_path))
    assert (answer.code, answer.err) == (1, f"{tmp_path} cannot be read: Is a directory.")


# Reject files ------------------------------------------------------------------------------


@database
def test_rejects_go_where_they_are_asked_to_go(tmp_path: Path) -> None:
    path = tmp_path / "bad lines"
    answer = ingest(tmp_path, b"bad\n", line(), args=("--rejects", str(path)))
    assert (answer.code, answer.rejects) == (3, None)
    assert path.read_bytes() == b"bad\n"
    assert f"rejected lines, unchanged: {path}\n" in answer.out


@database
def test_a_reject_file_that_exists_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "bad lines"
    path.write_bytes(b"precious")
    answer = ingest(tmp_path, b"bad\n", line(), args=("--rejects", str(path)))
    assert answer.code == 1
    assert answer.err == f"{path} exists already: name another reject file."
    assert path.read_bytes() == b"precious"
    assert records() == []


@database
def test_a_reject_file_that_somebody_makes_meanwhile_is_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad lines"

    class Late(io.FileIO):
        def fileno(self) -> int:
            path.write_bytes(b"precious")
            return super().fileno()

    given_path = tmp_path / "given.jsonl"
    given_path.write_bytes(b"bad\n")
    with Late(given_path) as given:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=given))
        answer = run("-", "--rejects", str(path))
    assert answer.code == 1
    assert "Stopped at line 1" in answer.err
    assert "File exists" in answer.err
    assert path.read_bytes() == b"precious"


@database
def test_without_rejects_no_reject_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "bad lines"
    assert ingest(tmp_path, line(), args=("--rejects", str(path))).code == 0
    assert not path.exists()


@database
def test_a_reject_file_that_cannot_be_written_stops_at_the_line(tmp_path: Path) -> None:
    path = tmp_path / "no folder" / "rejects"
    lines = [b"\n", line(action="a"), b"\n", b"bad\n", line(action="b")]
    answer = ingest(tmp_path, *lines, args=("--rejects", str(path)))
    assert answer.code == 1
    assert "No such file or directory" in answer.err
    assert "Stopped at line 2; the lines before it are in, it and those after it" in answer.err
    assert actions() == []


# Again -------------------------------------------------------------------------------------


@database
@pytest.mark.parametrize("external_id", ["x", None], ids=["with ids", "without ids"])
def test_a_replayed_file_is_all_duplicates_and_uses_no_seq(
    tmp_path: Path, external_id: str | None
) -> None:
    lines = [
        line(external_id=external_id and f"{external_id}{number}", action=f"a{number}")
        for number in range(5)
    ]
    assert ingest(tmp_path, *lines).code == 0
    before = records()
    answer = ingest(tmp_path, *lines)
    assert answer.code == 0
    assert answer.out == "5 lines: 0 appended, 5 duplicates, 0 rejected\n"
    assert records() == before
    assert LogState.objects.get().head_seq == 5


@database
def test_a_file_that_grew_appends_only_what_is_new(tmp_path: Path) -> None:
    lines = [line(external_id=None, action=f"a{number}") for number in range(4)]
    ingest(tmp_path, *lines[:2])
    answer = ingest(tmp_path, *lines)
    assert "4 lines: 2 appended (seq 3–4), 2 duplicates, 0 rejected" in answer.out


@database
def test_two_equal_lines_without_ids_are_two_events_in_every_replay(tmp_path: Path) -> None:
    same = line(external_id=None)
    assert "2 appended" in ingest(tmp_path, same, same).out
    assert "0 appended, 2 duplicates" in ingest(tmp_path, same, same).out
    assert "1 appended (seq 3–3), 2 duplicates" in ingest(tmp_path, same, same, same).out


@database
def test_equal_lines_far_apart_are_counted_over_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_LINES", 2)
    same = line(external_id=None)
    lines = [same, line(), line(), same, line(), same]
    assert "6 appended" in ingest(tmp_path, *lines).out
    assert "0 appended, 6 duplicates" in ingest(tmp_path, *lines).out


@database
def test_two_lines_with_one_id_are_one_event(tmp_path: Path) -> None:
    same = line(external_id="x")
    assert "1 appended (seq 1–1), 1 duplicates" in ingest(tmp_path, same, same).out


@database
def test_the_same_id_with_other_content_is_kept_and_flagged(tmp_path: Path) -> None:
    ingest(tmp_path, line(external_id="x", action="first"))
    answer = ingest(tmp_path, line(external_id="x", action="other"))
    assert answer.code == 0
    assert "1 line: 1 appended (seq 2–2), 0 duplicates, 0 rejected" in answer.out
    assert "flagged: 1 say something else than an event with the same external id" in answer.out
    assert actions() == ["first", "other"]


@database
def test_a_file_with_rejects_replayed_rejects_the_same_lines_again(tmp_path: Path) -> None:
    lines = [line(), b"bad\n", line()]
    first, second = ingest(tmp_path, *lines), ingest(tmp_path, *lines)
    assert (second.code, second.rejects) == (first.code, first.rejects) == (3, b"bad\n")
    assert "3 lines: 0 appended, 2 duplicates, 1 rejected" in second.out


# Hostile text on the operator's terminal ---------------------------------------------------


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e\u2028"


@database
def test_escape_sequences_of_tenants_are_shown_and_not_sent(tmp_path: Path) -> None:
    answer = ingest(tmp_path, line(tenant=HOSTILE))
    assert r"\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e\u2028" in answer.out
    assert all(character.isprintable() or character == "\n" for character in answer.out)


@database
@pytest.mark.parametrize(
    "members",
    [{HOSTILE: 1}, {"outcome": HOSTILE}, {"occurred_at": HOSTILE}, {"actor": {HOSTILE: ""}}],
    ids=["member", "outcome", "time", "member of actor"],
)
def test_escape_sequences_in_reasons_are_shown_and_not_sent(
    tmp_path: Path, members: dict[str, Any]
) -> None:
    answer = ingest(tmp_path, line(**members))
    assert answer.code == 3
    assert r"\x1b]0;owned" in answer.err
    assert all(character.isprintable() or character == "\n" for character in answer.err)


@database
def test_a_hostile_name_does_not_flood_the_terminal(tmp_path: Path) -> None:
    answer = ingest(tmp_path, line(tenant="t" * 200_000), line(outcome="o" * 200_000))
    assert len(answer.out) < 1_000
    assert len(answer.err) < 1_000


# Refused as a whole ------------------------------------------------------------------------


@database
def test_a_rolled_back_log_takes_nothing_and_says_so(tmp_path: Path) -> None:
    from audit import log

    log.append(drafts(1))
    ledger_row(1, 9)
    answer = ingest(tmp_path, line())
    assert answer.code == 1
    assert "Stopped at line 1" in answer.err
    assert "ends at seq 1, but the ledger knows seq 9: hot was rolled back" in answer.err
    assert len(records()) == 1


@database
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_inside_an_append_waits_until_it_is_done_and_counted(
    tmp_path: Path, number: signal.Signals
) -> None:
    def interrupt(execute: Any, sql: str, *args: Any) -> Any:
        if 'INSERT INTO "audit_auditevent"' in sql:
            os.kill(os.getpid(), number)
        return execute(sql, *args)

    before = [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)]
    with connection.execute_wrapper(interrupt):
        answer = ingest(tmp_path, line(), line())
    assert answer.code == 130
    assert answer.out.startswith("2 lines: 2 appended (seq 1–2), 0 duplicates, 0 rejected\n")
    assert "Stopped on request at line 3" in answer.err
    assert len(records()) == 2
    assert [signal.getsignal(item) for item in (signal.SIGINT, signal.SIGTERM)] == before


# As a process ------------------------------------------------------------------------------


@pytest.fixture
def empty_site(tmp_path: Path, template: Template) -> Iterator[Site]:
    """Set up a deployment with an empty log and no object store."""
    with Site(tmp_path, template) as site:
        site.start_empty()
        yield site


def pipe(site: Site) -> Path:
    """Return a named pipe to ingest from: the command waits where the test has written no more."""
    path = site.folder / "pipe"
    os.mkfifo(path)
    return path


@contextmanager
def started(site: Site, *lines: bytes) -> Iterator[Process]:
    """Ingest from a pipe; yields when the first append is done, with the pipe still open."""
    path = pipe(site)
    process = site.start("ingest_events", str(path))
    with path.open("wb") as file:
        for item in lines:
            file.write(item)
        file.flush()
        site.wait_until("SELECT count(*) >= 2000 FROM audit_auditevent")
        yield process


def many(count: int) -> list[bytes]:
    return [line(external_id=None, action=f"a{number}") for number in range(count)]


def finish_again(site: Site, lines: list[bytes]) -> None:
    """Run the same file as a whole, and check that each line is in once."""
    path = site.folder / "again.jsonl"
    path.write_bytes(b"".join(lines))
    done = site.manage("ingest_events", str(path))
    assert done.returncode == 0
    new, old = len(lines) - 2_000, 2_000
    assert f"{len(lines):,} lines: {new:,} appended" in done.stdout.decode()
    assert f"{old:,} duplicates, 0 rejected" in done.stdout.decode()
    found = site.rows("SELECT action FROM audit_auditevent ORDER BY seq")
    assert [action for (action,) in found] == [f"a{number}" for number in range(len(lines))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_appends_and_running_again_completes(
    empty_site: Site, number: signal.Signals
) -> None:
    lines = many(2_500)
    with started(empty_site, *lines) as process:
        process.signal(number)
        said = "\n".join(process.finish(code=130))
    assert "2,000 appended (seq 1–2,000), 0 duplicates, 0 rejected" in said
    assert "Stopped on request at line 2,001: run the same command again to go on" in said
    assert "Traceback" not in said
    assert empty_site.rows("SELECT count(*) FROM audit_auditevent") == [(2_000,)]
    finish_again(empty_site, lines)


def test_a_signal_before_the_first_line_says_that_it_was_stopped(empty_site: Site) -> None:
    path = pipe(empty_site)
    process = empty_site.start("ingest_events", str(path))
    with path.open("wb"):
        # The pipe is open at both ends now, so the command is about to read.
        process.signal(signal.SIGTERM)
        said = "\n".join(process.finish(code=130))
    assert "Stopped on request" in said
    assert "holds no lines" not in said


def test_a_database_that_stays_locked_stops_it_in_time_with_nothing_half_in(
    empty_site: Site,
) -> None:
    empty_site.env["DATABASE_URL"] += "?timeout=1"
    lines = many(2_500)
    with closing(sqlite3.connect(empty_site.database, isolation_level=None)) as other:
        with started(empty_site, *lines) as process:
            other.execute("BEGIN IMMEDIATE")
        # The pipe is closed: the last 500 lines are to be appended.
        said = "\n".join(process.finish(code=1))
    assert "Stopped at line 2,001; the lines before it are in, it and those after it are" in said
    assert re.search("stayed locked by another process for [12] s: nothing was written", said)
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert empty_site.rows("SELECT count(*) FROM audit_auditevent") == [(2_000,)]
    finish_again(empty_site, lines)


def test_exit_codes_reach_the_shell(empty_site: Site) -> None:
    rejects = f"--rejects={empty_site.folder}/rejects"
    done = empty_site.manage("ingest_events", "-", rejects, data=line() + b"\xff\n")
    assert done.returncode == 3
    assert done.stderr == b"line 2 rejected: not UTF-8 (byte 1)\n"
    assert done.stdout.startswith(b"2 lines: 1 appended (seq 1\xe2\x80\x931), 0 duplicates")
    assert empty_site.manage("ingest_events", "-", "--source=dezky").returncode == 2
    missing = empty_site.manage("ingest_events", "missing.jsonl")
    assert missing.returncode == 1
    assert b"CommandError: missing.jsonl cannot be read: No such file" in missing.stderr
