"""Who the client is, where proxies are between: evidence that nobody else can write."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from audit.models import ArchiveRun
from audit.tests.api.conftest import issue
from audit.tests.doors import own_events, user
from dezky.proxies import PROXY_HEADERS, Trusted, client_of, see_client

from .test_settings import load, run

INNER = Trusted.parse("10.0.0.0/8, fd00::/8, 192.0.2.7")
SPOOFED = {"HTTP_X_FORWARDED_FOR": "203.0.113.9", "HTTP_X_FORWARDED_PROTO": "https"}


# What the setting says ---------------------------------------------------------------------


def test_it_names_addresses_networks_and_the_unix_socket() -> None:
    nobody = Trusted.parse(" , ")
    assert not nobody
    assert Trusted.parse("unix")
    assert Trusted.parse("unix").has(None)
    assert not INNER.has(None)
    mapped = Trusted.parse("::ffff:10.0.0.0/104, ::ffff:192.0.2.7")
    assert mapped == Trusted.parse("10.0.0.0/8, 192.0.2.7")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("proxy.example.eu", "has 'proxy.example.eu', which is no address, no network like"),
        ("10.0.0.0/8, *", "has '*', which is no address"),
        ("10.0.0.0/33", "has '10.0.0.0/33', which is no address"),
        ("10.0.0.7/8", "write 10.0.0.0/8 for all of them, or 10.0.0.7 for this one"),
        ("::/0", "has '::/0', which is everybody"),
        ("::ffff:0:0/96", "has '::ffff:0:0/96', which is everybody"),
    ],
)
def test_what_names_no_proxy_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        Trusted.parse(text)
    assert str(caught.value).startswith("TRUSTED_PROXIES has '")
    assert said in str(caught.value)


def test_the_settings_believe_a_proxys_https_only_where_there_is_one() -> None:
    assert "SECURE_PROXY_SSL_HEADER" not in load()
    believed = load(TRUSTED_PROXIES="10.0.0.0/8")["SECURE_PROXY_SSL_HEADER"]
    assert believed == ["HTTP_X_FORWARDED_PROTO", "https"]
    assert load()["MIDDLEWARE"][0] == "dezky.proxies.Proxies"
    done = run("manage.py", "check", TRUSTED_PROXIES="everybody")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("manage.py: TRUSTED_PROXIES has 'everybody', which is no")


# Whose word is taken -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # By way of one proxy, and of several.
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.3,10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 192.0.2.7", "203.0.113.9"),
        # What stands left of the first that is not trusted is that one's own invention.
        ("10.0.0.1", "127.0.0.1, 10.9.9.9, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 192.0.2.8", "192.0.2.8"),
        # All are trusted: somebody within.
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # No address: what is known until there.
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.9,,10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2,", "10.0.0.1"),
        ("10.0.0.1", "' OR 1=1 --\r\n", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.009", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:1:2", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9:port", "10.0.0.1"),
        ("10.0.0.1", "[203.0.113.9]:1", "10.0.0.1"),
        ("10.0.0.1", "fe80::1%<script>", "10.0.0.1"),
        ("10.0.0.1", "[]:1", "10.0.0.1"),
        ("10.0.0.1", "," * 8_000, "10.0.0.1"),
        # Ports, and IPv6 in all its forms.
        ("10.0.0.1", " 203.0.113.9:567 ", "203.0.113.9"),
        ("10.0.0.1", "2001:DB8:0:0::9", "2001:db8::9"),
        ("10.0.0.1", "[2001:db8::9]:567", "2001:db8::9"),
        ("10.0.0.1", "[2001:db8::9], fd00::2, [fd00::3]:567", "2001:db8::9"),
        ("10.0.0.1", "203.0.113.9, ::ffff:10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy_of_ours(
    peer: str, forwarded: str, client: str
) -> None:
    assert client_of(peer, forwarded, INNER) == client


@pytest.mark.parametrize("peer", ["203.0.113.1", "192.0.2.8", "2001:db8::1", "", "/run/a.sock"])
def test_of_a_peer_that_is_not_trusted_no_such_header_is_left(peer: str) -> None:
    said = dict.fromkeys(PROXY_HEADERS, "10.0.0.1")
    meta = {**said, "REMOTE_ADDR": peer, "HTTP_HOST": "audit.example.eu"}
    see_client(meta, INNER)
    assert meta == {"REMOTE_ADDR": peer, "HTTP_HOST": "audit.example.eu"}


@pytest.mark.parametrize("peer", ["10.0.0.1", "192.0.2.7", "fd00::1", "::ffff:10.0.0.1"])
def test_a_trusted_peer_is_believed(peer: str) -> None:
    meta = {"REMOTE_ADDR": peer, **SPOOFED}
    see_client(meta, INNER)
    assert meta == {**SPOOFED, "REMOTE_ADDR": "203.0.113.9"}


def test_a_peer_at_a_unix_socket_has_no_address_and_is_believed_by_its_word() -> None:
    for meta in ({"REMOTE_ADDR": "", **SPOOFED}, {**SPOOFED}):
        see_client(meta, Trusted.parse("unix"))
        assert meta["REMOTE_ADDR"] == "203.0.113.9"
    alone: dict[str, Any] = {}
    see_client(alone, Trusted.parse("unix"))
    assert alone == {"REMOTE_ADDR": ""}


def test_a_peer_is_called_by_one_name() -> None:
    for peer, name in (("::ffff:203.0.113.1", "203.0.113.1"), ("fe80::1%eth0", "fe80::1%eth0")):
        meta = {"REMOTE_ADDR": peer}
        see_client(meta, INNER)
        assert meta["REMOTE_ADDR"] == name


# What becomes of it ------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("cold")
@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "seen"),
    [
        ("", "127.0.0.1", "203.0.113.9", "127.0.0.1"),
        ("10.0.0.0/8", "192.0.2.7", "203.0.113.9", "192.0.2.7"),
        ("10.0.0.0/8", "10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("unix", "", "2001:db8::9", "2001:db8::9"),
    ],
)
def test_the_log_has_the_address_that_nobody_could_invent(
    settings: Any, trusted: str, peer: str, forwarded: str, seen: str
) -> None:
    settings.TRUSTED_PROXIES = Trusted.parse(trusted)
    program = issue(user("ada", "run_archive"))
    answer = program.post(
        REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded, HTTP_FORWARDED="for=198.51.100.77"
    )
    assert answer.status_code == 202, answer.content
    assert ArchiveRun.objects.get().requested_from == seen
    asked, ended = own_events()
    assert (asked["action"], ended["action"]) == ("archive_requested", "archive_ended")
    for event in (asked, ended):
        assert (event["actor"]["ip"], event["data"]["from"]) == (seen, seen)


@pytest.mark.parametrize(
    ("peer", "status"), [("10.0.0.1", 404), ("192.0.2.7", 301), ("127.0.0.1", 301)]
)
def test_that_a_client_came_by_https_is_believed_of_a_trusted_proxy_alone(
    settings: Any, peer: str, status: int
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.TRUSTED_PROXIES = Trusted.parse("10.0.0.0/8")
    headers = {"x-forwarded-proto": "https"}
    assert Client().get("/no", headers=headers, REMOTE_ADDR=peer).status_code == status


async def asgi_status(peer: str | None) -> int:
    """Return what an ASGI server, to which `peer` has connected, would answer."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/no",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"x-forwarded-proto", b"https")],
        "server": ("localhost", 80),
        "client": (peer, 1) if peer else None,
    }
    said = [{"type": "http.request", "body": b"", "more_body": False}]
    answered: list[Any] = []

    async def receive() -> Any:
        return said.pop() if said else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        answered.append(message)

    await get_asgi_application()(scope, receive, send)
    return int(answered[0]["status"])


@pytest.mark.django_db  # a request ends by looking at what another test has left open
@pytest.mark.parametrize(("peer", "status"), [("10.0.0.1", 404), ("192.0.2.7", 301), (None, 404)])
def test_an_asgi_server_sees_the_same(settings: Any, peer: str | None, status: int) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.TRUSTED_PROXIES = Trusted.parse("10.0.0.0/8, unix")
    assert async_to_sync(asgi_status)(peer) == status
