"""Whose word is taken for who the client is: the proxies that `TRUSTED_PROXIES` names.

A client's address is evidence in the log, and any client can write a header. So what a proxy says
is read only where the peer, whoever really connected, is a trusted one; where it is not, such
headers are taken away before anything can read them. That makes `SECURE_PROXY_SSL_HEADER` safe.
Nothing in front of Django may do the like by itself, or it would be done twice.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED_FOR = "HTTP_X_FORWARDED_FOR"
# What only a proxy may say.
PROXY_HEADERS = (
    FORWARDED_FOR,
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_FORWARDED",
    "HTTP_X_REAL_IP",
    "HTTP_X_REQUEST_ID",
)
UNIX = "unix"
MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
WITH_PORT = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<four>[^:\[\]]*))(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Trusted:
    """The trusted proxies: networks, and whether one that comes by a unix socket is one."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `TRUSTED_PROXIES` says: addresses, networks and `unix`, between commas.

        Raises ImproperlyConfigured with what to write instead.
        """
        words = [word.strip() for word in text.split(",") if word.strip()]
        networks = tuple(_network(word) for word in words if word != UNIX)
        return cls(networks, unix=UNIX in words)

    def __bool__(self) -> bool:
        """Say whether anybody is trusted."""
        return bool(self.networks) or self.unix

    def has(self, address: Address | None) -> bool:
        """Say whether an address is a trusted proxy's; None is the peer at a unix socket."""
        if address is None:
            return self.unix
        return any(address in network for network in self.networks)


class Proxies:
    """The middleware that comes before all others, and lets them see the client."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Take the next layer, and whom the settings trust."""
        self.get_response = get_response
        self.trusted: Trusted = settings.TRUSTED_PROXIES
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Answer a request, by way of the next layer."""
        see_client(request.META, self.trusted)
        return self.get_response(request)


def see_client(meta: dict[str, Any], trusted: Trusted) -> None:
    """Let `REMOTE_ADDR` be the client's address, and no header what an untrusted peer says."""
    peer = str(meta.get("REMOTE_ADDR") or "")
    address = address_in(peer.partition("%")[0])  # a link-local one has its interface's name
    if (address is None and peer) or not trusted.has(address):
        for name in PROXY_HEADERS:
            meta.pop(name, None)
    known = str(address) if address and "%" not in peer else peer
    meta["REMOTE_ADDR"] = client_of(known, str(meta.get(FORWARDED_FOR, "")), trusted)


def client_of(peer: str, forwarded: str, trusted: Trusted) -> str:
    """Return the client's address, as far as trusted proxies know it.

    `forwarded` is `X-Forwarded-For` of a trusted peer. Each proxy has written at its right end who
    connected to it, so it is read from there: what stands left of the first one that is not
    trusted, or of anything that is no address, may be anybody's invention.
    """
    known = peer
    for entry in reversed(forwarded.split(",")):
        address = address_in(entry)
        if address is None:
            break
        known = str(address)
        if not trusted.has(address):
            break
    return known


def address_in(entry: str) -> Address | None:
    """Return the address in `1.2.3.4`, `::1`, `1.2.3.4:567` or `[::1]:567`, None where none is.

    An IPv4 address in IPv6's clothes is an IPv4 address.
    """
    text = entry.strip()
    if parts := WITH_PORT.fullmatch(text):
        text = parts["six"] or parts["four"] or ""
        if parts["six"] and ":" not in text:
            return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:  # any text may be one
            return None
        return address.ipv4_mapped or address
    return address


def _network(word: str) -> Network:
    try:
        network = ipaddress.ip_network(word)
    except ValueError:
        raise ImproperlyConfigured(
            f"TRUSTED_PROXIES has '{word}', {_what_is_wrong(word)}"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(MAPPED):
        inner = network.network_address.ipv4_mapped
        network = ipaddress.ip_network(f"{inner}/{network.prefixlen - MAPPED.prefixlen}")
    if network.prefixlen == 0:
        raise ImproperlyConfigured(
            f"TRUSTED_PROXIES has '{word}', which is everybody, and anybody could then write any "
            "address into the log: name the proxies alone."
        )
    return network


def _what_is_wrong(word: str) -> str:
    try:
        loose = ipaddress.ip_network(word, strict=False)
    except ValueError:
        return (
            "which is no address, no network like 10.0.0.0/8 and not the word unix: correct it, "
            "or take it out."
        )
    return (
        f"which is an address and not a network: write {loose} for all of them, or "
        f"{word.partition('/')[0]} for this one."
    )
