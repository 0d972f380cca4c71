"""Names of objects: made from what they name, and read back only if they are ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.format.names import MAX_INDEX, MAX_SEQ, CheckpointName, Kind, ObjectName

DIGEST = "0123456789abcdef" * 4
NAME = "00000000000000000001-00000000000000102400-0123456789abcdef.jsonl.gz"


def test_a_name_holds_the_range_and_the_start_of_the_digest() -> None:
    name = ObjectName.of(Kind.JSONL, 1, 102_400, DIGEST)
    assert str(name) == NAME
    assert name.key("audit/v1") == f"audit/v1/{NAME}"


def test_a_manifest_is_named_the_same_way() -> None:
    name = ObjectName.of(Kind.MANIFEST, 1, 102_400, DIGEST)
    assert str(name) == NAME.replace(".jsonl.gz", ".manifest.json")


@given(
    st.sampled_from(Kind),
    st.integers(1, MAX_SEQ),
    st.integers(0, MAX_SEQ),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_every_name_reads_back(kind: Kind, start: int, more: int, sha256: str) -> None:
    name = ObjectName.of(kind, start, min(start + more, MAX_SEQ), sha256)
    assert ObjectName.parse(str(name)) == name


@given(st.lists(st.tuples(st.integers(1, MAX_SEQ), st.sampled_from(Kind)), max_size=20))
def test_names_sort_as_their_ranges_do(parts: list[tuple[int, Kind]]) -> None:
    """A listing comes in the order of names, so it comes in the order of seqs."""
    found = [ObjectName.of(kind, seq, seq, DIGEST) for seq, kind in parts]
    by_name = sorted(found, key=str)
    assert [name.start_seq for name in by_name] == sorted(seq for seq, _ in parts)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "README.md",
        f"audit/v1/{NAME}",
        f"{NAME}\n",
        f"{NAME}.tmp",
        f" {NAME}",
        NAME.removesuffix(".gz"),
        NAME.replace(".jsonl.gz", ".jsonl.zst"),
        NAME.replace("abcdef", "ABCDEF"),
        NAME.replace("abcdef", "abcde"),
        NAME.replace("abcdef", "abcdef0"),
        NAME.replace("-0", "_0", 1),
        NAME.removeprefix("0"),
        f"0{NAME}",
        NAME.replace("00000000000000000001", "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠١"),
        NAME.replace("00000000000000000001", "00000000000000000000"),
        NAME.replace("00000000000000000001", "00000000000000102401"),
        NAME.replace("00000000000000102400", "00009007199254740992"),
        NAME.replace("00000000000000000001", "-0000000000000000001"),
    ],
)
def test_what_is_none_of_our_names_is_not_taken_for_one(name: str) -> None:
    assert ObjectName.parse(name) is None


@given(st.text(max_size=80))
def test_any_other_text_is_no_name_and_no_error(name: str) -> None:
    parsed = ObjectName.parse(name)
    assert parsed is None or str(parsed) == name


# Checkpoints -------------------------------------------------------------------------------

CHECKPOINT = "000000000007-00000000000000102400-0123456789abcdef.json"


def test_a_checkpoint_s_name_holds_its_index_its_seq_and_the_start_of_its_digest() -> None:
    name = CheckpointName.of(7, 102_400, DIGEST)
    assert str(name) == CHECKPOINT
    assert name.key("audit/v1") == f"audit/v1/checkpoints/{CHECKPOINT}"


@given(
    st.integers(1, MAX_INDEX),
    st.integers(0, MAX_SEQ),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_every_name_of_a_checkpoint_reads_back(index: int, seq: int, sha256: str) -> None:
    name = CheckpointName.of(index, seq, sha256)
    assert CheckpointName.parse(str(name)) == name
    assert ObjectName.parse(str(name)) is None


@given(st.lists(st.tuples(st.integers(1, MAX_INDEX), st.integers(0, MAX_SEQ)), max_size=20))
def test_checkpoints_sort_as_they_were_made(parts: list[tuple[int, int]]) -> None:
    found = [CheckpointName.of(index, seq, DIGEST) for index, seq in parts]
    assert sorted(found, key=str) == sorted(found)


@pytest.mark.parametrize(
    "name",
    [
        "",
        NAME,
        f"checkpoints/{CHECKPOINT}",
        f"{CHECKPOINT}\n",
        f"{CHECKPOINT}.gz",
        f" {CHECKPOINT}",
        CHECKPOINT.removesuffix(".json"),
        CHECKPOINT.replace(".json", "xjson"),
        CHECKPOINT.replace("abcdef", "ABCDEF"),
        CHECKPOINT.replace("abcdef", "abcde"),
        CHECKPOINT.replace("abcdef", "abcdef0"),
        CHECKPOINT.removeprefix("0"),
        f"0{CHECKPOINT}",
        CHECKPOINT.replace("000000000007", "000000000000"),
        CHECKPOINT.replace("000000000007", "٠٠٠٠٠٠٠٠٠٠٠٧"),
        CHECKPOINT.replace("00000000000000102400", "00009007199254740992"),
    ],
)
def test_what_is_no_name_of_a_checkpoint_is_not_taken_for_one(name: str) -> None:
    assert CheckpointName.parse(name) is None


@given(st.text(max_size=80))
def test_any_other_text_is_no_checkpoint_and_no_error(name: str) -> None:
    parsed = CheckpointName.parse(name)
    assert parsed is None or str(parsed) == name
