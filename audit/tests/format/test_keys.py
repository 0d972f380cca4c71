"""Keys: what they sign, and the text in which they are given."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.format import keys
from audit.format.keys import Ed25519Key, HmacKey, Key, KeyringError, generate, parse
from audit.format.signing import Keyring

ROOT = Path(__file__).parents[3]
SECRET = bytes(range(32))
TEXT = base64.b64encode(SECRET).decode()
OTHER = base64.b64encode(
    bytes(range(1, 34))
).decode()  # 33 bytes: no padding, so it looks like an id
HMAC = f"hmac-sha256:k-1:{TEXT}"

# RFC 8032, section 7.1: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
            "f9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
            "f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f76098"
            "4dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


def b64(text: str) -> str:
    """Return the base64 of what is given in hex."""
    return base64.b64encode(bytes.fromhex(text)).decode()


SEED, PUBLIC, _, _ = RFC_8032[0]
ED25519 = f"ed25519:e-1:{b64(SEED)}"
ED25519_PUBLIC = f"ed25519-public:e-2:{b64(PUBLIC)}"


def error_of(text: str) -> str:
    with pytest.raises(KeyringError) as caught:
        Keyring.of("", text)
    return str(caught.value)


# Ed25519 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_ed25519_is_that_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    ((signer, _), (verifier, _)) = parse(
        f"ed25519:e-1:{b64(seed)},ed25519-public:e-2:{b64(public)}"
    )
    data, expected = bytes.fromhex(message), bytes.fromhex(signature)
    assert signer.public == f"ed25519-public:e-1:{b64(public)}"
    assert signer.sign(data) == expected
    for key in (signer, verifier):
        assert key.verify(data, expected)
        assert not key.verify(data + b"x", expected)


@given(st.integers(0, 64 * 8 - 1))
def test_an_ed25519_signature_with_a_flipped_bit_is_not_good(bit: int) -> None:
    raw = bytearray.fromhex(RFC_8032[0][3])
    raw[bit // 8] ^= 1 << bit % 8
    assert not one(ED25519).verify(b"", bytes(raw))


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_an_ed25519_signature_of_another_length_is_not_good(length: int) -> None:
    raw = (bytes.fromhex(RFC_8032[0][3]) * 2)[:length]
    assert not one(ED25519).verify(b"", raw)


@pytest.mark.parametrize("public", [bytes(32), b"\xff" * 32, b"\x02" + bytes(31)])
def test_a_public_key_that_is_no_point_verifies_nothing_and_fails_nothing(public: bytes) -> None:
    key = Ed25519Key.from_public("e-1", public)
    assert not key.verify(b"", bytes.fromhex(RFC_8032[0][3]))


def test_a_public_key_cannot_sign() -> None:
    key = one(ED25519_PUBLIC)
    assert (key.can_sign, key.weak, key.algorithm) == (False, False, "ed25519")
    with pytest.raises(KeyringError, match="e-2 is a public key, which cannot sign"):
        key.sign(b"")


def test_what_is_public_of_a_key_reads_back_and_has_no_secret() -> None:
    made = one(f"{ED25519}:until=2026-12-31")
    assert made.public == f"ed25519-public:e-1:{b64(PUBLIC)}:until=2026-12-31"
    (back,) = Keyring.to_verify(made.public).known.values()
    assert (back.key_id, back.until, back.can_sign) == ("e-1", date(2026, 12, 31), False)
    assert b64(SEED) not in made.public
    assert one(HMAC).public is None


# The text form -----------------------------------------------------------------------------


def one(text: str) -> Key:
    ((key, _),) = parse(text)
    return key


def ids(ring: Keyring) -> list[str]:
    return [key.key_id for key in ring.signers]


@pytest.mark.parametrize("between", [",", "\n", " , ", ",\n", "\r\n", "\n\n,,\n"])
def test_keys_are_separated_by_commas_or_newlines(between: str) -> None:
    ring = Keyring.of("", between + between.join([HMAC, ED25519, ED25519_PUBLIC]) + between)
    assert list(ring.known) == ["k-1", "e-1", "e-2"]
    assert ids(ring) == ["k-1"]


def test_a_line_that_begins_with_a_number_sign_is_a_remark() -> None:
    text = f"# first, the new one\n{ED25519}\n  # {HMAC}\n\n#\n{ED25519_PUBLIC}\n"
    assert list(Keyring.of("", text).known) == ["e-1", "e-2"]
    assert Keyring.of("", "# nothing yet").signers == ()


@pytest.mark.parametrize(
    ("text", "signers"),
    [
        (f"{HMAC},{ED25519}", ["k-1"]),
        (f"+{HMAC},{ED25519}", ["k-1"]),
        (f"{HMAC},+{ED25519}", ["k-1", "e-1"]),
        (f"{ED25519},+{HMAC},{ED25519_PUBLIC}", ["e-1", "k-1"]),
        (f"{ED25519},{ED25519_PUBLIC},+{HMAC}", ["e-1", "k-1"]),
    ],
)
def test_the_first_signs_and_so_does_each_with_a_plus(text: str, signers: list[str]) -> None:
    assert ids(Keyring.of("", text)) == signers


def test_until_is_the_last_day_and_may_be_left_away() -> None:
    assert one(f"{HMAC}:until=2028-02-29").until == date(2028, 2, 29)
    assert one(HMAC).until is None


@pytest.mark.parametrize(
    "end",
    [
        "until=2026-02-30",
        "until=2026-1-01",
        "until=20260101",
        "until=2026-W01-1",
        "until= 2026-01-01",
        "until=",
        "until",
        "",
        "2026-01-01",
        "since=2026-01-01",
        "Until=2026-01-01",
        "until=٢٠٢٦-01-01",
    ],
)
def test_an_until_that_is_no_day_is_refused(end: str) -> None:
    assert error_of(f"{HMAC}:{end},{ED25519}") == (
        "Key 1 of 2 in AUDIT_SIGNING_KEYS does not end in until=YYYY-MM-DD, a day that exists."
    )


@pytest.mark.parametrize("key_id", ["a", "K-1", "2026.q1_eu-west", "x" * 50])
def test_an_id_is_of_letters_digits_dots_underscores_and_hyphens(key_id: str) -> None:
    assert one(f"hmac-sha256:{key_id}:{TEXT}").key_id == key_id


@pytest.mark.parametrize("key_id", ["", "-a", ".a", "x" * 51, "a b", "a/b", "ü", "a\tb", "a=b"])
def test_any_other_id_is_refused(key_id: str) -> None:
    assert "Key 1 of 1 in AUDIT_SIGNING_KEYS has no good id" in error_of(
        f"hmac-sha256:{key_id}:{TEXT}"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("k-1", "does not have the form [+]ALGORITHM:KEY_ID:BASE64[:until=YYYY-MM-DD]."),
        (TEXT, "does not have the form"),
        (f"k-1:{TEXT}", "does not have the form"),
        (f"{HMAC}:until=2026-01-01:x", "does not have the form"),
        (f"rsa:k-1:{TEXT}", "has an unknown algorithm: use hmac-sha256, ed25519 or"),
        (f"HMAC-SHA256:k-1:{TEXT}", "has an unknown algorithm"),
        (f"++{HMAC}", "has an unknown algorithm"),
        ("hmac-sha256:k-1:%%%", "is not base64."),
        ("hmac-sha256:k-1:", "has 0 bytes, at least 32 are needed."),
        (f"hmac-sha256:k-1:{b64('00' * 31)}", "has 31 bytes, at least 32 are needed."),
        (f"ed25519:e-1:{b64('00' * 31)}", "has 31 bytes, Ed25519 has 32."),
        (f"ed25519:e-1:{b64(SEED + PUBLIC)}", "has 64 bytes, Ed25519 has 32."),
        (f"ed25519-public:e-1:{b64(PUBLIC + '00')}", "has 33 bytes, Ed25519 has 32."),
        ("ed25519-public:e-1:ü", "is not base64."),
    ],
)
def test_what_is_no_key_is_refused_by_its_place(text: str, error: str) -> None:
    said = error_of(f"{ED25519_PUBLIC},{text}")
    assert said.startswith(f"Key 2 of 2 in AUDIT_SIGNING_KEYS {error}")


def test_longer_hmac_keys_are_keys_and_short_variation_is_weak() -> None:
    assert not one(f"hmac-sha256:k-1:{OTHER}").weak
    assert one(f"hmac-sha256:k-1:{b64('00010203' * 8)}").weak
    assert one(f"ed25519:e-1:{b64('00' * 32)}").weak
    assert not one(ED25519).weak


def test_two_keys_need_two_ids() -> None:
    same = f"ed25519-public:k-1:{b64(PUBLIC)}"
    assert error_of(f"{HMAC},{same}") == "Two keys are called k-1: give each an id of its own."
    with pytest.raises(KeyringError, match="Two keys have the same id"):
        Keyring([HmacKey("a", SECRET)], [HmacKey("a", SECRET[::-1])])


@pytest.mark.parametrize("text", [f"{ED25519_PUBLIC},{HMAC}", f"{HMAC},+{ED25519_PUBLIC}"])
def test_a_public_key_can_neither_be_the_first_nor_have_a_plus(text: str) -> None:
    assert error_of(text).startswith("e-2 is a public key, which cannot sign: put one that can")


def test_either_variable_and_never_both() -> None:
    own = "k-" + hashlib.sha256(SECRET).hexdigest()[:8]
    assert ids(Keyring.of(TEXT)) == ids(Keyring.of(TEXT, " \n")) == [own]
    assert ids(Keyring.of("", f"hmac-sha256:{own}:{TEXT}")) == [own]
    assert Keyring.of("").signers == ()
    with pytest.raises(KeyringError, match=f"are both set: .* as hmac-sha256:{own}:…") as caught:
        Keyring.of(TEXT, ED25519)
    assert TEXT not in str(caught.value)


def swapped() -> Iterator[str]:
    """Yield texts that are wrong, with secrets in every place."""
    for secret in (TEXT, OTHER, OTHER[:32], SECRET.hex()[:50], "%" + OTHER):
        yield secret
        yield f"hmac-sha256:{secret}"
        yield f"{secret}:k-1"
        yield f"hmac-sha256:{secret}:k-1"
        yield f"ed25519:{secret}:k-1"
        yield f"ed25519-public:{secret}:k-1"
        yield f"{secret}:k-1:hmac-sha256"
        yield f"rsa:{secret}:k-1"
        yield f"rsa:k-1:{secret}"
        yield f"ed25519:k-1:{secret}%"
        yield f"hmac-sha256:k-1:until=2026-01-01:{secret}"
        yield f"hmac-sha256:{secret}:k-1:until=2026-01-01"
        yield f"hmac-sha256:k-1:{OTHER}:{secret}"
        yield f"hmac-sha256:k-1:{OTHER}:until={secret}"
        yield f"hmac-sha256:k-1:{OTHER},hmac-sha256:k-1:{secret}"


def errors_of(text: str) -> Iterator[KeyringError]:
    """Yield what each reader of keys says against a text."""
    for read in (Keyring.of, lambda keys: Keyring.of("", keys), Keyring.to_verify):
        try:
            read(text)
        except KeyringError as error:
            yield error


@pytest.mark.parametrize("text", list(swapped()))
def test_no_error_ever_shows_a_secret(text: str) -> None:
    for error in errors_of(text):
        assert error.__cause__ is None
        for secret in (TEXT, OTHER, SECRET.hex()):
            parts = [secret[at : at + 12] for at in range(len(secret) - 12)]
            assert not any(part in str(error) for part in parts)


@given(st.text("abk-1:+,=%#\n ü", max_size=40) | st.text(max_size=40))
def test_any_text_is_a_keyring_or_a_sentence(text: str) -> None:
    assert all(str(error).endswith(".") for error in errors_of(text))


def test_a_key_never_shows_its_secret() -> None:
    for text in (HMAC, ED25519):
        key = one(text)
        assert repr(key) == f"<{type(key).__name__} {key.key_id}>"
        assert f"{[key]}" == f"[{key!r}]"


def test_a_keyring_describes_each_key_without_its_secret() -> None:
    ring = Keyring.of("", f"{ED25519},{ED25519_PUBLIC}:until=2026-01-01,+{HMAC}:until=2027-01-01")
    assert ring.describe() == [
        {"id": "e-1", "algorithm": "ed25519", "role": "signs first", "until": None},
        {"id": "k-1", "algorithm": "hmac-sha256", "role": "signs too", "until": "2027-01-01"},
        {
            "id": "e-2",
            "algorithm": "ed25519-public",
            "role": "verifies only",
            "until": "2026-01-01",
        },
    ]
    assert Keyring([]).describe() == []


# New keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "letter"), [("ed25519", "e"), ("hmac-sha256", "k")])
def test_a_new_key_reads_back_and_is_another_each_time(algorithm: str, letter: str) -> None:
    made, text = generate(algorithm)
    assert text.startswith(f"{algorithm}:{letter}-")
    assert one(text) == made
    assert not made.weak
    assert generate(algorithm)[0].key_id != made.key_id
    named, text = generate(algorithm, "eu-2026")
    assert (one(text), named.key_id) == (named, "eu-2026")


def test_a_key_is_named_by_the_digest_of_what_everybody_or_nobody_may_know() -> None:
    made, _ = generate("ed25519")
    assert isinstance(made, Ed25519Key)
    assert made.key_id == "e-" + hashlib.sha256(made.public_bytes).hexdigest()[:8]
    assert keys.hmac_key_id(SECRET) == HmacKey.from_base64(TEXT).key_id


# Without the library -----------------------------------------------------------------------

CODE = """
import sys
sys.modules["cryptography"] = None  # as where it is not installed
from audit.format import keys
from audit.format.signing import Keyring
ring = Keyring.of("", sys.argv[1])
(signature,) = ring.sign("domain", b"body")
ring.verify("domain", b"body", ring.signed_by, [signature])
for text in sys.argv[2:]:
    try:
        Keyring.to_verify(text)
    except keys.KeyringError as error:
        print(error)
try:
    keys.Ed25519Key("e-1", bytes(32)).verify(b"", b"")
except keys.KeyringError as error:
    print(error)
try:
    keys.generate("ed25519")
except keys.KeyringError as error:
    print(error)
print(keys.generate("hmac-sha256", "k-2")[0].key_id)
"""


def test_without_cryptography_hmac_works_and_ed25519_says_what_it_needs() -> None:
    # -S and -E: nothing but the standard library, so this also shows that HMAC needs no more.
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", CODE, HMAC, ED25519, ED25519_PUBLIC, HMAC],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    sentence = (
        "An Ed25519 key needs the Python package 'cryptography', which is not there or does not "
        "load: install it (pip install cryptography), or leave that key away."
    )
    assert done.stdout.splitlines() == [sentence] * 4 + ["k-2"]
