"""Keys, canonical bytes, and what a set of signatures is worth."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.format.errors import TamperedError, UnverifiableError
from audit.format.keys import Ed25519Key, HmacKey, KeyringError, generate
from audit.format.signing import Document, Keyring, Signature, canonical
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


# HMAC and Ed25519 side by side -------------------------------------------------------------

ED25519 = Ed25519Key.from_seed("e-1", hashlib.sha256(b"seed").digest())
ED25519_PUBLIC = Ed25519Key.from_public("e-1", ED25519.public_bytes)
BOTH = Keyring([ED25519, key("a")])


def test_each_signer_signs_in_the_order_of_the_keyring() -> None:
    assert BOTH.signed_by == ["ed25519:e-1", f"hmac-sha256:{key('a').key_id}"]
    first, second = BOTH.sign(DOMAIN, BODY)
    message = b'dezky-audit/manifest/v1\n{"a":1}'
    assert (first.algorithm, first.signature) == ("ed25519", ED25519.sign(message))
    assert (second.algorithm, second.signature) == ("hmac-sha256", key("a").sign(message))
    assert (len(first.signature), len(second.signature)) == (64, 32)


@pytest.mark.parametrize(
    "ring",
    [
        BOTH,
        Keyring([key("a")]),
        Keyring([], [ED25519_PUBLIC]),
        Keyring([key("b")], [key("a"), ED25519_PUBLIC]),
        Keyring.to_verify(ED25519.public),
    ],
    ids=["both", "hmac", "public", "two that only verify", "key file"],
)
def test_what_both_signed_is_good_by_either(ring: Keyring) -> None:
    verify(ring, BOTH.signed_by, BOTH.sign(DOMAIN, BODY))


@pytest.mark.parametrize("index", [0, 1])
def test_where_one_of_both_is_bad_it_is_tampering_for_whoever_knows_that_key(index: int) -> None:
    signatures = BOTH.sign(DOMAIN, BODY)
    other = signatures[1 - index].signature
    signatures[index] = replace(signatures[index], signature=other)
    with pytest.raises(TamperedError, match=f"the signature by {BOTH.signers[index].key_id} is"):
        verify(BOTH, BOTH.signed_by, signatures)
    verify(Keyring([], [BOTH.signers[1 - index]]), BOTH.signed_by, signatures)


def test_a_key_of_another_algorithm_under_the_same_name_does_not_verify() -> None:
    signed_by, signatures = BOTH.signed_by[:1], BOTH.sign(DOMAIN, BODY)[:1]
    # The public key, which everybody has, taken for an HMAC secret: the old trick with tokens.
    impostor = HmacKey("e-1", ED25519.public_bytes)
    forged = Signature("e-1", "hmac-sha256", impostor.sign(b'dezky-audit/manifest/v1\n{"a":1}'))
    with pytest.raises(TamperedError, match="the signature by e-1 is not good"):
        verify(BOTH, ["hmac-sha256:e-1"], [forged])
    with pytest.raises(TamperedError, match="the signature by e-1 is not good"):
        verify(Keyring([impostor]), signed_by, signatures)


def test_ed25519_signs_the_same_bytes_the_same_way() -> None:
    # So an object that is sent again has the same name.
    assert BOTH.sign(DOMAIN, BODY) == BOTH.sign(DOMAIN, BODY)


# Keys that end -----------------------------------------------------------------------------

LAST = date(2026, 6, 30)
NEXT = LAST + timedelta(days=1)
NOTE = Document("note", ("at",), 10_000)


def ending(name: str) -> HmacKey:
    return replace(key(name), until=LAST)


def note(day: date, ring: Keyring, time: str = "23:59:59.999") -> bytes:
    """Return a signed document that was made on a day."""
    return NOTE.seal(
        {"at": f"{day}T{time}Z", "format": NOTE.format, "signed_by": ring.signed_by}, ring
    )


def test_a_key_verifies_what_was_made_on_its_last_day_and_nothing_later() -> None:
    ring, knows = Keyring([key("a")]), Keyring([key("b")], [ending("a")])
    assert NOTE.unseal(note(LAST, ring), knows)["at"] == "2026-06-30T23:59:59.999Z"
    for time in ("00:00:00.000", "23:59:59.999"):
        with pytest.raises(TamperedError, match="on 2026-07-01, though that key came to its end"):
            NOTE.unseal(note(NEXT, ring, time), knows)


def test_of_two_signatures_neither_may_be_of_a_key_that_has_ended() -> None:
    ring = Keyring([key("a"), key("b")])
    with pytest.raises(TamperedError, match=f"signed by {key('b').key_id} on 2026-07-01"):
        NOTE.unseal(note(NEXT, ring), Keyring([key("a"), ending("b")]))
    # Whoever does not know that key is not held up by it.
    assert NOTE.unseal(note(NEXT, ring), Keyring([key("a")]))


def test_a_bad_signature_of_a_key_that_has_ended_is_bad_whenever_it_was_made() -> None:
    data = note(LAST, keyring("a")).replace(b"2026-06-30", b"2026-06-29")
    with pytest.raises(TamperedError, match="is not good"):
        NOTE.unseal(data, Keyring([], [ending("a")]))


@pytest.mark.parametrize("ring", [Keyring([ending("a")]), Keyring([key("b"), ending("a")])])
def test_a_signer_past_its_end_signs_nothing_and_says_what_to_do(ring: Keyring) -> None:
    assert note(LAST, ring)
    with pytest.raises(KeyringError, match=r"has come to its end, 2026-06-30: put a new one") as e:
        note(NEXT, ring)
    assert key("a").key_id in str(e.value)
    assert "Nothing was signed" in str(e.value)


def test_a_key_that_only_verifies_may_have_ended_long_ago() -> None:
    assert note(NEXT, Keyring([key("b")], [ending("a")]))


# A key file --------------------------------------------------------------------------------


def test_a_key_file_verifies_and_signs_nothing() -> None:
    _, text = generate("ed25519", "e-9")
    ring = Keyring.to_verify(f"# for the audit\n{ED25519.public}\n\n  # more\n+{text}\n")
    assert (list(ring.known), ring.signers) == (["e-1", "e-9"], ())
    with pytest.raises(KeyringError, match="No signing key is set"):
        ring.sign(DOMAIN, BODY)


@pytest.mark.parametrize("text", ["{}", "{}\n", " # the key\n\n#\n {} \r\n"])
def test_a_key_file_may_be_the_bare_key_of_the_environment(text: str) -> None:
    assert list(Keyring.to_verify(text.format(TEXT)).known) == [HmacKey.from_base64(TEXT).key_id]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "There is no key in the key file"),
        ("# nothing\n\n", "There is no key in the key file"),
        ("%%%", "The key in the key file is not base64"),
        (f"{TEXT}\n{TEXT}", "Key 1 of 2 in the key file does not have the form"),
        (f"{ED25519.public}\nx:y:z", "Key 2 of 2 in the key file has an unknown algorithm"),
    ],
)
def test_what_is_no_key_file_is_said(text: str, error: str) -> None:
    with pytest.raises(KeyringError, match=error):
        Keyring.to_verify(text)
