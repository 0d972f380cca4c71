"""Tokens from the shell, and in the console."""

from __future__ import annotations

import re
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from audit.api.models import Token
from audit.tests.api.conftest import ARCHIVES, issue

from .doors import browser, user

pytestmark = pytest.mark.django_db
LIST = "/admin/audit_api/token/"


def api_token(*args: str) -> tuple[str, str]:
    """Return what the command says on its two outputs."""
    out, err = StringIO(), StringIO()
    call_command("api_token", *args, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def status_of(secret: str) -> int:
    answer = Client().get(ARCHIVES, headers={"Authorization": f"Bearer {secret}"})
    return answer.status_code


# From the shell ----------------------------------------------------------------------------


def test_a_token_is_printed_once_and_opens_the_door() -> None:
    user("ada", "run_archive")
    out, err = api_token("create", "ada")
    assert re.fullmatch(r"dezky_[0-9a-f]{64}\n", out)
    token = Token.objects.get()
    assert re.fullmatch(rf"token {token.pk} of ada, good until 20.* UTC\. It is not.*\n", err)
    assert status_of(out.strip()) == 200
    assert out.strip() not in api_token("list")[0]


@pytest.mark.parametrize(("options", "days"), [([], 90), (["--days=7"], 7), (["--days", "1"], 1)])
def test_a_token_expires(options: list[str], days: int) -> None:
    user("ada", "run_archive")
    api_token("create", "ada", *options)
    expiry = Token.objects.get().expiry
    assert abs(expiry - timezone.now() - timedelta(days=days)) < timedelta(minutes=1)


@pytest.mark.parametrize("days", ["0", "-1", "x", "1.5", "3651", "9" * 30])
def test_a_wrong_number_of_days_is_wrong_usage(days: str) -> None:
    user("ada", "run_archive")
    with pytest.raises(CommandError, match="is not a whole number from 1 to 3,650"):
        api_token("create", "ada", f"--days={days}")
    assert not Token.objects.exists()


def test_a_user_whom_nobody_knows_gets_none() -> None:
    with pytest.raises(CommandError, match="There is no user 'ada': make the account") as caught:
        api_token("create", "ada")
    assert caught.value.returncode == 1


def test_a_user_who_is_not_active_gets_none() -> None:
    user("ada", "run_archive", is_active=False)
    with pytest.raises(CommandError, match="'ada' is not active: no token was made"):
        api_token("create", "ada")
    assert not Token.objects.exists()


def test_a_user_who_may_not_run_the_archive_is_told_so() -> None:
    user("ada")
    out, err = api_token("create", "ada")
    assert "has no permission 'audit.run_archive' yet" in err
    assert status_of(out.strip()) == 403


def test_the_list_has_everything_but_secrets() -> None:
    assert api_token("list") == ("There are no tokens.\n", "")
    first, second = issue(user("ada")), issue(user("bela"), days=-1)
    out, _ = api_token("list")
    for token, line in zip((first.token, second.token), out.splitlines(), strict=True):
        assert line.split()[:2] == [str(token.pk), token.user.username]
        assert f"made {token.created:%Y-%m-%d %H:%M}" in line
        assert f"good until {token.expiry:%Y-%m-%d %H:%M} UTC" in line
        assert line.endswith("expired") == (token == second.token)
    for program in (first, second):
        for secret in (program.secret, program.token.digest, program.token.token_key):
            assert secret[:12] not in out


def test_a_revoked_token_opens_nothing() -> None:
    program, other = issue(user("ada", "run_archive")), issue(user("bela", "run_archive"))
    assert status_of(program.secret) == 200
    out, _ = api_token("revoke", str(program.token.pk))
    assert out == f"Revoked token {program.token.pk} of ada. It opens nothing from now on.\n"
    assert (status_of(program.secret), status_of(other.secret)) == (401, 200)


@pytest.mark.parametrize("number", ["7", "x", "", "-1", "²", "9" * 30])
def test_a_token_that_nobody_knows_cannot_be_revoked(number: str) -> None:
    issue(user("ada"))
    with pytest.raises(CommandError, match=r"There is no token .*: see") as caught:
        api_token("revoke", "--", number)
    assert caught.value.returncode == 1
    assert Token.objects.count() == 1


@pytest.mark.parametrize("args", [[], ["make"], ["create"], ["revoke"]])
def test_wrong_usage_is_said(args: list[str]) -> None:
    with pytest.raises(CommandError):
        api_token(*args)


def test_a_database_that_fails_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*fields: str) -> None:
        raise OperationalError("no such table: audit_api_token")

    monkeypatch.setattr(Token.objects, "select_related", fail)
    with pytest.raises(CommandError, match="is not up to date"):
        api_token("list")


# In the console ----------------------------------------------------------------------------


def pages(client: Client, token: Token) -> Any:
    """Yield each page on which the console shows a token, and where its user's deletion does."""
    yield LIST
    for page in ("change", "delete", "history"):
        yield reverse(f"admin:audit_api_token_{page}", args=[token.pk])
    yield reverse("admin:auth_user_delete", args=[token.user_id])


def test_no_page_shows_a_digest() -> None:
    program = issue(user("ada"))
    client = browser(user("root", is_staff=True, is_superuser=True))
    for url in pages(client, program.token):
        answer = client.get(url)
        assert answer.status_code == 200, url
        html = answer.content.decode()
        assert f"oken {program.token.pk}" in html
        for secret in (program.token.digest, program.token.token_key):
            assert secret[:12] not in html


def test_tokens_are_revoked_in_the_console_and_never_made_or_changed() -> None:
    program = issue(user("ada", "run_archive"))
    client = Client()
    client.force_login(user("root", is_staff=True, is_superuser=True))
    change = reverse("admin:audit_api_token_change", args=[program.token.pk])
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}add/", {"user": "1"}).status_code == 403
    assert client.post(change, {"user": "1"}).status_code == 403
    assert client.post(change.replace("change", "delete"), {"post": "yes"}).status_code == 302
    assert not Token.objects.exists()
    assert status_of(program.secret) == 401


def test_only_those_with_the_permission_revoke_in_the_console() -> None:
    program = issue(user("ada"))
    reader = Client()
    reader.force_login(user("bela", "view_token", is_staff=True))
    delete = reverse("admin:audit_api_token_delete", args=[program.token.pk])
    assert reader.get(LIST).status_code == 200
    assert reader.post(delete, {"post": "yes"}).status_code == 403
    assert "delete_selected" not in reader.get(LIST).content.decode()
    assert Token.objects.exists()


def test_the_library_s_own_pages_are_not_there() -> None:
    client = browser(user("root", is_staff=True, is_superuser=True))
    assert client.get("/admin/knox/authtoken/").status_code == 404
