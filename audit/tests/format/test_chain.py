"""Leaf and link: the values that any other implementation must come to as well."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from audit.format.chain import genesis_link, leaf_hash, next_link

# Made with sha256sum:
#   printf 'dezky-audit/v1\ndezky.example.eu' | sha256sum
#   printf '\0{"seq":1}' | sha256sum
#   (printf '\2'; echo "$LINK_0 $LEAF_1" | xxd -r -p) | sha256sum
LINK_0 = "0fb69a4a5a2e0d7a9acdd99a68acb4fe97e304fb94c4a7910f8363f3cccab551"
LEAF_1 = "b119a77a4864308c481efb947ff723d6bd4ea1e7fab902eb8ca98bd759e46aee"
LINK_1 = "7d7947840c35d9535cf0879514dc7864504056294d3d3e023f90a1418ac5d3df"
LEAF_OF_NOTHING = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


def test_link_0_is_made_of_the_format_and_the_origin() -> None:
    assert genesis_link("dezky.example.eu").hex() == LINK_0


def test_a_leaf_is_made_of_the_record_alone() -> None:
    assert leaf_hash(b'{"seq":1}').hex() == LEAF_1
    assert leaf_hash(b"").hex() == LEAF_OF_NOTHING


def test_a_link_is_made_of_the_link_before_it_and_the_leaf() -> None:
    assert next_link(bytes.fromhex(LINK_0), bytes.fromhex(LEAF_1)).hex() == LINK_1


def test_another_origin_makes_another_log_from_its_very_first_link() -> None:
    assert genesis_link("a") != genesis_link("b")
    assert genesis_link("dezky-ü").hex() != genesis_link("dezky-u").hex()


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8), st.data())
def test_a_record_changed_swapped_or_left_out_changes_every_later_link(
    records: list[bytes], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(records) - 1))
    other = data.draw(st.binary(max_size=20).filter(lambda item: item != records[at]))
    changed = [*records[:at], other, *records[at + 1 :]]
    before, after = links(records), links(changed)
    assert before[:at] == after[:at]
    assert not set(before[at:]) & set(after[at:])
    assert links([*records[:at], *records[at + 1 :]])[-1:] != before[-1:]


def links(records: list[bytes]) -> list[bytes]:
    link = genesis_link("dezky-test")
    found = []
    for record in records:
        link = next_link(link, leaf_hash(record))
        found.append(link)
    return found
