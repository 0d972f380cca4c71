"""Signing keys from the shell: made, listed, and what an auditor gets of them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from audit.format import keys
from audit.format.keys import generate, parse
from audit.format.signing import Keyring

ROOT = Path(__file__).parents[2]
HMAC_TEXT = base64.b64encode(bytes(range(32))).decode()
HMAC_ID = "k-630dcd29"
ED25519, ED25519_TEXT = generate("ed25519", "e-1")
RETIRED, RETIRED_TEXT = generate("ed25519", "e-0")
KEYS = f"{ED25519_TEXT},+hmac-sha256:{HMAC_ID}:{HMAC_TEXT},{RETIRED.public}:until=2020-12-31"
SECRETS = [HMAC_TEXT, ED25519_TEXT.rpartition(":")[2]]


def audit_keys(*args: str) -> tuple[str, str]:
    """Return what the command says on its two outputs."""
    out, err = StringIO(), StringIO()
    call_command("audit_keys", *args, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def ring(settings: Any) -> None:
    """Set a key of each kind."""
    settings.AUDIT_SIGNING_KEY, settings.AUDIT_SIGNING_KEYS = "", KEYS


# generate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ed25519", "hmac-sha256"])
def test_a_new_key_is_one_line_on_standard_output_that_can_be_set_as_it_is(algorithm: str) -> None:
    out, err = audit_keys("generate", f"--algorithm={algorithm}")
    assert out.count("\n") == 1
    (key,) = Keyring.of("", out).signers
    assert key.algorithm == algorithm
    assert f"That was the secret of {key.key_id}: it is shown this one time" in err
    assert "AUDIT_SIGNING_KEYS" in err
    assert out.strip().rpartition(":")[2] not in err


def test_without_a_wish_it_is_ed25519_and_each_is_another() -> None:
    first, second = audit_keys("generate")[0], audit_keys("generate")[0]
    assert first.startswith("ed25519:e-")
    assert first != second


def test_a_key_may_be_given_its_id() -> None:
    assert audit_keys("generate", "--id=eu-2026")[0].startswith("ed25519:eu-2026:")


@pytest.mark.parametrize("name", ["a b", "-", "x" * 51, "a:b", ""])
def test_what_is_no_id_is_wrong_usage(name: str) -> None:
    with pytest.raises(CommandError, match="an id has 1 to 50 letters, digits"):
        audit_keys("generate", f"--id={name}")


def test_without_the_library_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(CommandError, match="needs the Python package 'cryptography'"):
        audit_keys("generate")
    assert audit_keys("generate", "--algorithm=hmac-sha256")


# list --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ring")
def test_the_list_has_everything_but_secrets() -> None:
    out, err = audit_keys("list")
    assert [line.split() for line in out.splitlines()] == [
        ["e-1", "ed25519", "signs", "first", "no", "end"],
        [HMAC_ID, "hmac-sha256", "signs", "too", "no", "end"],
        "e-0 ed25519-public verifies only until 2020-12-31, has come to its end".split(),
    ]
    assert err == ""


@pytest.mark.usefixtures("ring")
def test_the_list_is_json_where_that_is_asked_for() -> None:
    assert json.loads(audit_keys("list", "--json")[0])["keys"][1:] == [
        {
            "id": HMAC_ID,
            "algorithm": "hmac-sha256",
            "role": "signs too",
            "until": None,
            "ended": False,
        },
        {
            "id": "e-0",
            "algorithm": "ed25519-public",
            "role": "verifies only",
            "until": "2020-12-31",
            "ended": True,
        },
    ]


def test_the_one_key_of_the_environment_is_a_keyring_too(settings: Any) -> None:
    settings.AUDIT_SIGNING_KEY = HMAC_TEXT
    out, _ = audit_keys("list")
    assert out.split() == [HMAC_ID, "hmac-sha256", "signs", "first", "no", "end"]


# public ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ring")
def test_what_an_auditor_gets_is_a_key_file_with_every_key_that_is_not_secret() -> None:
    out, _ = audit_keys("public")
    assert "AUDIT_ORIGIN" in out
    assert "'dezky-test'" in out
    known = Keyring.to_verify(out).known
    assert list(known) == ["e-1", "e-0"]
    assert str(known["e-0"].until) == "2020-12-31"
    assert known["e-1"].verify(b"message", ED25519.sign(b"message"))
    assert not any(key.can_sign for key in known.values())


@pytest.mark.usefixtures("ring")
def test_of_an_hmac_key_there_is_a_remark_that_says_why_it_is_not_there() -> None:
    out, _ = audit_keys("public")
    remarks = " ".join(line for line in out.splitlines() if line.startswith("# "))
    assert f"{HMAC_ID} is an HMAC key. It is secret: whoever can verify with it" in remarks
    assert "in a safe way" in remarks


def test_of_an_hmac_key_alone_there_is_nothing_but_remarks(settings: Any) -> None:
    settings.AUDIT_SIGNING_KEY = HMAC_TEXT
    assert parse(audit_keys("public")[0]) == []


@pytest.mark.usefixtures("ring")
@pytest.mark.parametrize("args", [["list"], ["list", "--json"], ["public"]])
def test_only_generate_prints_a_secret(args: list[str]) -> None:
    said = "".join(audit_keys(*args))
    for secret in SECRETS:
        assert secret[:12] not in said


@given(st.integers(0, 2**64))
def test_what_is_printed_reads_back(number: int) -> None:
    secret = number.to_bytes(32, "big")
    key = keys.Ed25519Key.from_seed("e-1", secret)
    ((back, _),) = parse(key.public)
    assert back.verify(b"x", key.sign(b"x"))


# What goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["list", "public"])
def test_without_a_key_there_is_one_sentence(settings: Any, action: str) -> None:
    settings.AUDIT_SIGNING_KEY = ""
    with pytest.raises(CommandError, match=r"^No signing key is set: .* makes one") as caught:
        audit_keys(action)
    assert caught.value.returncode == 1


@pytest.mark.parametrize("action", ["list", "public"])
def test_a_keyring_that_cannot_be_used_is_one_sentence(settings: Any, action: str) -> None:
    settings.AUDIT_SIGNING_KEYS = KEYS
    with pytest.raises(CommandError, match="are both set: move the first into") as caught:
        audit_keys(action)
    assert caught.value.returncode == 1


@pytest.mark.parametrize("args", [[], ["make"], ["generate", "--algorithm=rsa"], ["list", "x"]])
def test_wrong_usage_is_said(args: list[str]) -> None:
    with pytest.raises(CommandError):
        audit_keys(*args)


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "audit_keys", *args],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DEZKY_ENV_FILE": "", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_key_is_to_be_had_before_anything_else_is_in_order(tmp_path: Path) -> None:
    """Nothing is set: no database, no origin, no key. The exit codes are those of the handbook."""
    url = f"sqlite:///{tmp_path}/none/at-all.sqlite3"
    made = run("generate", DATABASE_URL=url)
    assert made.returncode == 0, made.stderr
    listed = run("list", DATABASE_URL=url, AUDIT_SIGNING_KEYS=made.stdout)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "signs first" in listed.stdout
    none = run("list", DATABASE_URL=url)
    assert (none.returncode, none.stdout) == (1, "")
    assert none.stderr.startswith("CommandError: No signing key is set")
    assert none.stderr.count("\n") == 1
    assert run("generate", "--algorithm=rsa", DATABASE_URL=url).returncode == 2
    assert list(tmp_path.iterdir()) == []
