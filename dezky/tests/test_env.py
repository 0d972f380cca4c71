"""Reading the environment: values, secrets in files, database URLs."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from dezky.env import BASE_DIR, Reader

NAME = "DEZKY_TEST_VALUE"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Take the variables of these tests out of the environment."""
    for name in (NAME, f"{NAME}_FILE", "TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


# Secrets -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("env")
def test_a_secret_that_is_not_set_is_empty() -> None:
    assert Reader().secret(NAME) == ""


@pytest.mark.parametrize("value", ["plain", "with space", "$TOKEN", "a#b'c\"d", "ü=", "{{x}}"])
def test_a_secret_is_taken_as_it_is(env: pytest.MonkeyPatch, value: str) -> None:
    env.setenv("TOKEN", "another")
    env.setenv(NAME, value)
    assert Reader().secret(NAME) == value


def test_a_secret_may_come_from_a_file(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes("\n  s3cr€t $TOKEN \r\n".encode())
    env.setenv(f"{NAME}_FILE", str(path))
    assert Reader().secret(NAME) == "s3cr€t $TOKEN"


def test_an_empty_value_beside_a_file_is_as_good_as_none(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text("from file")
    env.setenv(NAME, "")
    env.setenv(f"{NAME}_FILE", str(path))
    assert Reader().secret(NAME) == "from file"


def test_a_secret_that_is_set_twice_is_refused(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("from file")
    env.setenv(NAME, "from value")
    env.setenv(f"{NAME}_FILE", str(path))
    with pytest.raises(ImproperlyConfigured) as caught:
        Reader().secret(NAME)
    assert str(caught.value) == f"Both {NAME} and {NAME}_FILE are set: remove one of them."


def test_a_secret_file_that_cannot_be_read_is_named_with_the_reason(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path, reason in (
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (binary, "not UTF-8 text"),
    ):
        env.setenv(f"{NAME}_FILE", str(path))
        with pytest.raises(ImproperlyConfigured) as caught:
            Reader().secret(NAME)
        assert str(caught.value) == (
            f"{NAME}_FILE names {path}, which cannot be read ({reason}): "
            "correct the path or its permissions."
        )


# Numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "number"), [("5", 5), (" -1 ", -1), ("", 90), (None, 90)])
def test_a_number_is_read_or_has_its_default(
    env: pytest.MonkeyPatch, text: str | None, number: int
) -> None:
    if text is not None:
        env.setenv(NAME, text)
    assert Reader().number(NAME, default=90) == number


@pytest.mark.parametrize("text", ["ninety", "1.5", "90d", "1e3"])
def test_what_is_no_whole_number_is_refused_by_name(env: pytest.MonkeyPatch, text: str) -> None:
    env.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} is '{text}', which is not a whole"):
        Reader().number(NAME, default=90)


# Databases ---------------------------------------------------------------------------------


def database(env: pytest.MonkeyPatch, url: str) -> dict[str, object]:
    env.setenv(NAME, url)
    return Reader().database(NAME)


def test_a_sqlite_file_is_opened_so_that_what_was_acknowledged_survives(
    env: pytest.MonkeyPatch,
) -> None:
    config = database(env, "sqlite:////srv/dezky.sqlite3")
    assert config["ENGINE"] == "django.db.backends.sqlite3"
    assert config["NAME"] == "/srv/dezky.sqlite3"
    assert config["OPTIONS"] == {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": (
            "PRAGMA journal_mode=WAL;PRAGMA synchronous=FULL;PRAGMA cache_size=-65536"
        ),
    }
    assert config["CONN_HEALTH_CHECKS"] is True


def test_an_option_of_the_url_wins(env: pytest.MonkeyPatch) -> None:
    options = database(env, "sqlite:////srv/dezky.sqlite3?timeout=5")["OPTIONS"]
    assert isinstance(options, dict)
    assert options["timeout"] == 5
    assert options["transaction_mode"] == "IMMEDIATE"


@pytest.mark.parametrize("timeout", ["0.2", "soon"])
def test_a_timeout_that_is_no_number_is_refused(env: pytest.MonkeyPatch, timeout: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"timeout in {NAME} is no whole number"):
        database(env, f"sqlite:////srv/dezky.sqlite3?timeout={timeout}")


@pytest.mark.parametrize(
    "url", ["djongo://h/n", "mongodb://h/n", "MongoDB+srv://h/n", "mysql://h/n", "nonsense"]
)
def test_another_engine_is_left_for_the_checks_to_explain(
    env: pytest.MonkeyPatch, url: str
) -> None:
    assert database(env, url) == {
        "ENGINE": "django.db.backends.dummy",
        "UNSUPPORTED": url.partition(":")[0].lower(),
    }


def test_a_database_that_is_not_named_is_the_default_or_none(env: pytest.MonkeyPatch) -> None:
    assert Reader().database(NAME) == {}
    assert database(env, "") == {}
    assert Reader().database(NAME, "sqlite:////srv/x.sqlite3")["NAME"] == "/srv/x.sqlite3"


def test_a_database_url_may_come_from_a_file(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("sqlite:////srv/x.sqlite3\n")
    env.setenv(f"{NAME}_FILE", str(path))
    assert Reader().database(NAME)["NAME"] == "/srv/x.sqlite3"


def test_a_relative_sqlite_path_is_the_same_file_from_everywhere(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env.chdir(tmp_path)
    assert database(env, "sqlite:///var/log.sqlite3")["NAME"] == str(BASE_DIR / "var/log.sqlite3")
    assert database(env, "sqlite:////srv/log.sqlite3")["NAME"] == "/srv/log.sqlite3"


@pytest.mark.parametrize(
    ("text", "on"), [("true", True), ("1", True), (" Yes ", True), ("false", False), ("", False)]
)
def test_a_switch_is_on_or_off(env: pytest.MonkeyPatch, text: str, on: object) -> None:
    env.setenv("A_SWITCH", text)
    assert Reader().switch("A_SWITCH") is on


@pytest.mark.parametrize("text", ["AES256", "ture", "2"])
def test_a_switch_that_is_neither_is_refused(env: pytest.MonkeyPatch, text: str) -> None:
    env.setenv("A_SWITCH", text)
    with pytest.raises(ImproperlyConfigured, match=r"A_SWITCH is .*: use 'true' or 'false'"):
        Reader().switch("A_SWITCH")
