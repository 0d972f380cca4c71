"""Keys, canonical bytes, and what a set of signatures is worth."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.format.errors import TamperedError, UnverifiableError
from audit.format.keys import HmacKey, KeyringError
from audit.format.signing import Keyring, Signature, canonical
from audit.tests.factories import key, keyring

DOMAIN = "dezky-audit/manifest/v1"
BODY = b'{"a":1}'


# Canonical bytes ---------------------------------------------------------------------------


def test_canonical_bytes_are_those_of_rfc_8785() -> None:
    # Section 3.2.2.2 of the RFC has this string; keys sort by code point, nothing is spaced.
    value = {"b": '€$\x0f\nA\'B"\\\\"/', "a": [1, None, True, {}], "A": -0, "": []}
    assert canonical(value) == (
        '{"":[],"A":0,"a":[1,null,true,{}],"b":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'.encode()
    )


def test_every_control_character_is_written_as_the_rfc_says() -> None:
    short = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}
    for code in range(32):
        escape = short.get(code, f"\\u{code:04x}")
        assert canonical(chr(code)) == f'"{escape}"'.encode()
    assert canonical("\x7f\u2028\U0001f512") == '"\x7f\u2028\U0001f512"'.encode()


ascii_text = st.text(st.characters(max_codepoint=127), max_size=5)
document = st.recursive(
    st.none() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ascii_text, inner, max_size=3),
)


@given(document)
def test_canonical_bytes_say_the_same_and_are_the_same_in_any_order(value: Any) -> None:
    data = canonical(value)
    assert json.loads(data) == value
    assert canonical(json.loads(data)) == data


@pytest.mark.parametrize("value", [1.0, [1.5], {"a": [{"b": -0.0}]}, float("nan")])
def test_a_float_has_no_canonical_bytes_here(value: object) -> None:
    with pytest.raises(ValueError, match="no floats"):
        canonical(value)


# Keys --------------------------------------------------------------------------------------


SECRET = bytes(range(32))
TEXT = base64.b64encode(SECRET).decode()


def test_a_key_is_named_by_its_own_digest() -> None:
    made = HmacKey.from_base64(f" {TEXT}\n")
    assert made.secret == SECRET
    assert made.key_id == "k-" + hashlib.sha256(SECRET).hexdigest()[:8]
    assert made.algorithm == "hmac-sha256"


@pytest.mark.parametrize("text", ["%%%", "AAA", f"{TEXT}!", TEXT.replace("/", "_") + "ü"])
def test_what_is_not_base64_is_no_key(text: str) -> None:
    with pytest.raises(KeyringError, match="AUDIT_SIGNING_KEY is not base64"):
        HmacKey.from_base64(text)


def test_fewer_than_32_bytes_are_no_key() -> None:
    text = base64.b64encode(SECRET[:31]).decode()
    with pytest.raises(KeyringError, match="AUDIT_SIGNING_KEY has 31 bytes, at least 32 are"):
        HmacKey.from_base64(text)


def test_a_key_never_shows_its_secret() -> None:
    made = HmacKey.from_base64(TEXT)
    for text in (repr(made), str(made), f"{[made]}"):
        assert text.strip("[]") == f"<HmacKey {made.key_id}>"


def test_an_error_about_a_key_never_shows_it() -> None:
    short = base64.b64encode(SECRET[:20]).decode()
    for text in (short, f"!{TEXT}"):
        with pytest.raises(KeyringError) as caught:
            HmacKey.from_base64(text)
        assert text not in str(caught.value)


def test_a_signature_is_the_hmac_of_the_domain_and_the_body() -> None:
    (signature,) = keyring("a").sign(DOMAIN, BODY)
    message = b'dezky-audit/manifest/v1\n{"a":1}'
    assert signature.signature == hmac.new(key("a").secret, message, hashlib.sha256).digest()
    assert signature.key_id == key("a").key_id
    assert signature.algorithm == "hmac-sha256"


def test_without_a_key_nothing_can_be_signed() -> None:
    with pytest.raises(KeyringError, match="No signing key is set: set AUDIT_SIGNING_KEY"):
        Keyring([], [key("a")]).sign(DOMAIN, BODY)


# Signatures in a file ----------------------------------------------------------------------


def test_a_signature_reads_back_from_its_wire_form() -> None:
    (signature,) = keyring("a").sign(DOMAIN, BODY)
    assert Signature.from_json(signature.to_json()) == signature


GOOD = Signature("k-1", "hmac-sha256", b"\xfb\xff" * 16).to_json()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "text",
        {},
        {**GOOD, "more": ""},
        {name: GOOD[name] for name in ("key_id", "signature")},
        {**GOOD, "key_id": 1},
        {**GOOD, "algorithm": None},
        {**GOOD, "signature": ["x"]},
        {**GOOD, "signature": GOOD["signature"] + "\n"},
        {**GOOD, "signature": GOOD["signature"].rstrip("=")},
        {**GOOD, "signature": GOOD["signature"].replace("+", "-").replace("/", "_")},
        {**GOOD, "signature": "ü" * 44},
        # The same bytes as GOOD's, but with unused bits set: not what was written.
        {**GOOD, "signature": GOOD["signature"].replace("8=", "9=")},
    ],
)
def test_what_has_another_form_than_a_signature_is_tampered(value: object) -> None:
    assert GOOD["signature"].endswith("8=")
    with pytest.raises(TamperedError):
        Signature.from_json(value)


# Verification ------------------------------------------------------------------------------


def verify(ring: Keyring, signed_by: list[str], signatures: list[Signature]) -> None:
    ring.verify(DOMAIN, BODY, signed_by, signatures)


def signed(*names: str) -> tuple[list[str], list[Signature]]:
    ring = keyring(*names)
    return ring.signed_by, ring.sign(DOMAIN, BODY)


def test_what_a_known_key_signed_is_good() -> None:
    verify(keyring("a"), *signed("a"))


def test_a_key_that_only_verifies_is_known() -> None:
    verify(keyring("b", others="a"), *signed("a"))


def test_of_two_signers_one_known_key_is_enough() -> None:
    verify(keyring("b"), *signed("a", "b"))


def test_of_two_known_signers_both_must_be_good() -> None:
    signed_by, (one, other) = signed("a", "b")
    bad = Signature(other.key_id, other.algorithm, one.signature)
    with pytest.raises(TamperedError, match=f"the signature by {other.key_id} is not good"):
        verify(keyring("a", "b"), signed_by, [one, bad])


def test_where_no_key_is_known_it_is_unverifiable_and_neither_good_nor_tampered() -> None:
    with pytest.raises(UnverifiableError, match="of which no key is known"):
        verify(keyring("c"), *signed("a", "b"))
    with pytest.raises(UnverifiableError):
        verify(Keyring([]), *signed("a"))


def test_a_listed_signature_that_was_stripped_is_tampering() -> None:
    signed_by, signatures = signed("a", "b")
    for left in ([], signatures[:1], signatures[1:]):
        with pytest.raises(TamperedError, match="but carries signatures by"):
            verify(keyring("a", "b"), signed_by, left)


def test_a_signature_that_is_not_listed_is_tampering() -> None:
    _, signatures = signed("a", "b")
    with pytest.raises(TamperedError, match="but carries signatures by"):
        verify(keyring("a", "b"), signed("a")[0], signatures)


def test_signatures_in_another_order_or_twice_are_tampering() -> None:
    signed_by, signatures = signed("a", "b")
    with pytest.raises(TamperedError):
        verify(keyring("a", "b"), signed_by, signatures[::-1])
    with pytest.raises(TamperedError):
        verify(keyring("a", "b"), signed_by, [*signatures, signatures[0]])
    with pytest.raises(TamperedError):
        verify(keyring("a"), signed("a")[0] * 2, signed("a")[1] * 2)


def test_what_nobody_signed_is_tampering() -> None:
    with pytest.raises(TamperedError, match="signed by nobody"):
        verify(keyring("a"), [], [])


@given(st.integers(0, 255))
def test_a_signature_with_a_flipped_bit_is_not_good(bit: int) -> None:
    signed_by, (good,) = signed("a")
    raw = bytearray(good.signature)
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TamperedError, match="is not good"):
        verify(keyring("a"), signed_by, [Signature(good.key_id, good.algorithm, bytes(raw))])


@pytest.mark.parametrize("raw", [b"", b"\0" * 32, b"x" * 33])
def test_a_signature_of_another_length_is_not_good(raw: bytes) -> None:
    signed_by, (good,) = signed("a")
    with pytest.raises(TamperedError, match="is not good"):
        verify(keyring("a"), signed_by, [Signature(good.key_id, good.algorithm, raw)])


def test_another_body_or_domain_is_not_what_was_signed() -> None:
    signed_by, signatures = signed("a")
    for domain, body in ((DOMAIN, b'{"a":2}'), ("dezky-audit/checkpoint/v1", BODY)):
        with pytest.raises(TamperedError, match="is not good"):
            keyring("a").verify(domain, body, signed_by, signatures)


def test_the_algorithm_comes_from_the_keyring_and_never_from_the_file() -> None:
    _, (good,) = signed("a")
    forged = Signature(good.key_id, "none", good.signature)
    with pytest.raises(TamperedError, match="is not good"):
        verify(keyring("a"), [f"none:{good.key_id}"], [forged])


def test_a_key_of_the_same_name_with_another_secret_does_not_verify() -> None:
    signed_by, signatures = signed("a")
    impostor = HmacKey(key("a").key_id, key("b").secret)
    with pytest.raises(TamperedError, match="is not good"):
        verify(Keyring([impostor]), signed_by, signatures)
