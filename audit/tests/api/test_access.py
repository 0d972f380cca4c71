"""Who is let in over HTTP, and who is not."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from audit.api.models import Token
from audit.tests.doors import browser, everything, history, own_events, user

from .conftest import ARCHIVES, RUN, Program, issue

pytestmark = pytest.mark.django_db
WAYS = [("get", ARCHIVES), ("get", f"{ARCHIVES}/runs/1"), ("post", RUN)]
each_way = pytest.mark.parametrize(("method", "url"), WAYS)


def is_unauthorized(answer: Any) -> bool:
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["detail"]
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    return bool(answer.status_code == 401)


@each_way
def test_nobody_is_refused(method: str, url: str) -> None:
    history()
    before = everything()
    assert is_unauthorized(getattr(Client(), method)(url))
    assert everything() == before


@each_way
@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer dezky_" + "0" * 64,
        "Bearer dezky_" + "0" * 64 + " x",
        "Bearer dezky_" + "0" * 65,
        "Bearer \xff\xfe",
        "Bearer dezky_\x00" + "0" * 63,
        "Token dezky_" + "0" * 64,
        "Basic YWRhOng=",
    ],
    ids=ascii,
)
def test_a_wrong_token_is_refused(method: str, url: str, header: str) -> None:
    assert is_unauthorized(getattr(Client(), method)(url, headers={"Authorization": header}))


@each_way
def test_a_revoked_token_is_refused(method: str, url: str, program: Program) -> None:
    history()
    program.get(ARCHIVES)
    program.token.delete()
    before = everything()
    assert is_unauthorized(program.request(method, url))
    assert everything() == before
    assert own_events() == []


@each_way
def test_an_expired_token_is_refused(method: str, url: str) -> None:
    expired = issue(user("ada", "run_archive"), days=-1)
    assert is_unauthorized(expired.request(method, url))


@each_way
def test_an_account_that_is_not_active_is_refused(method: str, url: str, program: Program) -> None:
    session = browser(program.account)
    program.account.is_active = False
    program.account.save()
    assert is_unauthorized(program.request(method, url))
    assert is_unauthorized(getattr(session, method)(url))


@each_way
def test_an_account_without_the_permission_is_refused(method: str, url: str) -> None:
    history()
    account = user("ada", "view_archivebatch", "view_archiverun", is_staff=True)
    reader, session = issue(account), browser(account)
    before = everything()
    for answer in (reader.request(method, url), getattr(session, method)(url)):
        assert answer.status_code == 403
        assert answer.json()["detail"]
    assert everything() == before


@each_way
def test_a_permission_that_is_taken_away_is_gone_at_once(
    method: str, url: str, program: Program
) -> None:
    program.account.user_permissions.clear()
    assert program.request(method, url).status_code == 403


def test_a_session_reads_without_a_csrf_token_and_runs_nothing_without_it() -> None:
    history()
    session = browser(user("ada", "run_archive"))
    assert session.get(ARCHIVES).status_code == 200
    before = everything()
    answer = session.post(RUN)
    assert answer.status_code == 403
    assert answer.json()["detail"].startswith("CSRF Failed")
    assert session.post(RUN, headers={"X-CSRFToken": "x" * 64}).status_code == 403
    assert everything() == before


@pytest.mark.parametrize(
    ("url", "allowed"),
    [(ARCHIVES, "GET, HEAD"), (f"{ARCHIVES}/runs/1", "GET, HEAD"), (RUN, "POST")],
)
def test_a_wrong_method_is_refused_and_the_right_ones_are_named(
    url: str, allowed: str, program: Program
) -> None:
    history()
    before = everything()
    for method in ("get", "post", "put", "patch", "delete", "options"):
        if method.upper() not in allowed:
            answer = program.request(method, url)
            assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
            assert "not allowed" in answer.json()["detail"]
    assert everything() == before


@pytest.mark.parametrize("secret", ["", "x", "\xff", "dezky_"])
def test_what_does_not_look_like_a_token_costs_no_query(
    secret: str, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        Client().get(ARCHIVES, headers={"Authorization": f"Bearer {secret}"})


def test_a_token_that_nobody_has_costs_one_query(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        Client().get(ARCHIVES, headers={"Authorization": "Bearer dezky_" + "0" * 64})


def test_of_a_token_only_its_digest_is_kept(program: Program) -> None:
    (row,) = Token.objects.values()
    assert len(program.secret) == len("dezky_") + 64
    assert program.secret not in str(row)
    assert len(row["digest"]) == 128
    assert row["token_key"] == program.secret[:15]
    assert row["digest"] not in str(program.token) + repr(program.token)


def test_nothing_is_kept_by_a_cache_and_nothing_inline_may_run(program: Program) -> None:
    for answer in (program.request("get", ARCHIVES), Client().get(ARCHIVES)):
        assert "no-store" in answer.headers["Cache-Control"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_there_is_no_page_for_browsers(program: Program) -> None:
    client = Client()
    headers = {"Authorization": f"Bearer {program.secret}", "Accept": "text/html"}
    answer = client.get(ARCHIVES, headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (406, "application/json")
    answer = client.get(f"{ARCHIVES}?format=api", headers={**headers, "Accept": "*/*"})
    assert answer.headers["Content-Type"] == "application/json"
