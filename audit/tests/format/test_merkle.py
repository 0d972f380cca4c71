"""The tree over the whole log, against RFC 6962 written down word by word."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.format.chain import leaf_hash
from audit.format.merkle import EMPTY_ROOT, Frontier, heights, subtrees

# The inputs and roots with which Certificate Transparency implementations test themselves.
CT_INPUTS = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
splits = st.lists(st.integers(0, 40), max_size=8)


def tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1: recursive, and obviously right."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def some_leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in CT_INPUTS[:size]]
    assert Frontier().extend(size, subtrees(0, leaves)).root().hex() == CT_ROOTS[size]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == sha256().digest()


@given(splits)
def test_however_a_log_is_split_its_root_is_that_of_rfc_6962(counts: list[int]) -> None:
    leaves = some_leaves(sum(counts))
    frontier = Frontier()
    for count in counts:
        first = frontier.size
        frontier = frontier.extend(count, subtrees(first, leaves[first : first + count]))
        assert frontier.size == first + count
        assert frontier.root() == tree_hash(leaves[: frontier.size])
    assert frontier == Frontier().extend(len(leaves), subtrees(0, leaves))


@given(splits)
def test_a_frontier_holds_the_roots_of_the_perfect_subtrees_largest_first(
    counts: list[int],
) -> None:
    leaves = some_leaves(sum(counts))
    expected = []
    at = 0
    for bit in reversed(range(len(leaves).bit_length())):
        if len(leaves) >> bit & 1:
            expected.append(tree_hash(leaves[at : at + (1 << bit)]))
            at += 1 << bit
    frontier = Frontier().extend(len(leaves), subtrees(0, leaves))
    assert list(frontier.hashes) == expected


@given(st.integers(0, 200), st.integers(0, 200))
def test_subtrees_are_the_largest_aligned_perfect_ones_that_cover_the_leaves(
    first: int, count: int
) -> None:
    leaves = some_leaves(first + count)
    at = first
    for height, root in zip(heights(first, count), subtrees(first, leaves[first:]), strict=True):
        size = 1 << height
        assert at % size == 0
        assert at + size <= first + count
        assert at % (size * 2) != 0 or at + size * 2 > first + count  # no larger one fits
        assert root == tree_hash(leaves[at : at + size])
        at += size
    assert at == first + count


def test_a_whole_block_is_one_subtree() -> None:
    assert heights(1024, 1024) == [10]
    assert heights(1023, 1025) == [0, 10]


@given(st.integers(0, 2**53), st.integers(0, 2**53))
def test_however_long_a_log_is_few_hashes_are_enough(first: int, count: int) -> None:
    assert sum(1 << height for height in heights(first, count)) == count
    assert len(heights(0, first)) <= 64


@given(st.integers(0, 100), st.integers(1, 100), st.booleans())
def test_more_or_fewer_subtrees_than_cover_the_leaves_are_refused(
    size: int, count: int, more: bool
) -> None:
    frontier = Frontier(size, tuple(some_leaves(size.bit_count())))
    given_roots = some_leaves(len(heights(size, count)) + (1 if more else -1))
    with pytest.raises(ValueError, match="subtrees do not cover"):
        frontier.extend(count, given_roots)


@given(st.integers(-3, 100), st.integers(0, 10))
def test_what_is_no_frontier_cannot_be_made(size: int, count: int) -> None:
    if size >= 0 and count == bin(size).count("1"):
        assert Frontier(size, tuple(some_leaves(count))).size == size
        return
    with pytest.raises(ValueError, match="no frontier"):
        Frontier(size, tuple(some_leaves(count)))


@given(st.integers(0, 300))
def test_a_frontier_reads_back_from_hex(size: int) -> None:
    frontier = Frontier(size, tuple(some_leaves(size.bit_count())))
    assert Frontier.from_hex(size, frontier.to_hex()) == frontier


@given(st.integers(1, 64), st.data())
def test_a_changed_or_swapped_leaf_changes_the_root(count: int, data: st.DataObject) -> None:
    leaves = some_leaves(count)
    at = data.draw(st.integers(0, count - 1))
    changed = [*leaves[:at], leaf_hash(b"other"), *leaves[at + 1 :]]
    root = Frontier().extend(count, subtrees(0, leaves)).root()
    assert Frontier().extend(count, subtrees(0, changed)).root() != root
    if count > 1:
        swapped = leaves[::-1]
        assert Frontier().extend(count, subtrees(0, swapped)).root() != root


def test_a_byte_that_moves_from_one_hash_to_the_next_makes_no_frontier() -> None:
    """What is joined and hashed would be the same, and so would the root; the next ones not."""
    whole = Frontier().extend(3, subtrees(0, [leaf_hash(bytes([n])) for n in range(3)]))
    left, right = whole.hashes
    with pytest.raises(ValueError, match="32 bytes"):
        Frontier(3, (left + right[:1], right[1:]))
    with pytest.raises(ValueError, match="32 bytes"):
        Frontier.from_hex(3, [(left + right[:1]).hex(), right[1:].hex()])
