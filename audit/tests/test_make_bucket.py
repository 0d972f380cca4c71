"""`make_bucket`: made once, there afterwards, and a clear word where it cannot be."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from audit.storage import UnavailableError, make_bucket

from .fault_proxy import FaultProxy, refuse
from .servers import Server
from .test_storage import point_at


def command(*args: str) -> str:
    """Return what the command says."""
    out = StringIO()
    call_command("make_bucket", *args, stdout=out)
    return out.getvalue()


@pytest.fixture(params=["seaweedfs", "juicefs"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the real servers."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def proxy(server: Server, settings: Any) -> Iterator[FaultProxy]:
    """Let the settings name a bucket that is not there, behind a proxy."""
    settings.AUDIT_COLD_BUCKET = f"new-{uuid.uuid4().hex[:12]}"
    with FaultProxy(server.endpoint) as proxy:
        point_at(settings, proxy.endpoint, bucket_name=settings.AUDIT_COLD_BUCKET)
        yield proxy


def test_it_is_made_once(proxy: FaultProxy, server: Server, settings: Any) -> None:
    name = settings.AUDIT_COLD_BUCKET
    assert command() == f"The bucket '{name}' was made.\n"
    assert name in [bucket["Name"] for bucket in server.client.list_buckets()["Buckets"]]
    server.client.put_object(Bucket=name, Key="kept", Body=b"")
    assert command() == f"The bucket '{name}' is there.\n"
    assert server.client.head_object(Bucket=name, Key="kept")


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_it_waits_as_long_as_it_is_told(proxy: FaultProxy) -> None:
    proxy.fault(refuse(503, "ServiceUnavailable"), "LIST", times=2)
    with pytest.raises(CommandError, match="refused with 503"):
        command()
    with pytest.raises(CommandError, match="refused with 503"):
        command("--wait", "0")
    proxy.lift()
    proxy.fault(refuse(503, "ServiceUnavailable"), "LIST", times=2)
    assert command("--wait", "60").endswith("was made.\n")


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_a_name_that_is_taken_between_the_two_requests(proxy: FaultProxy) -> None:
    proxy.fault(refuse(404, "404"), "LIST", times=1)
    proxy.fault(refuse(409, "BucketAlreadyOwnedByYou"), "LIST", skip=0, times=1)
    proxy.fault(refuse(403, "403"), "LIST", times=1)
    with pytest.raises(UnavailableError, match=r"(?s)AUDIT_COLD_ACCESS_KEY"):
        make_bucket(5)
    proxy.lift()
    proxy.fault(refuse(404, "404"), "LIST", times=1)
    proxy.fault(refuse(409, "BucketAlreadyExists"), "LIST", times=1)
    proxy.fault(refuse(404, "404"), "LIST", times=1)
    with pytest.raises(UnavailableError, match="somebody else's"):
        make_bucket(5)


@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_keys_that_may_not_and_an_endpoint_that_is_not_there(
    server: Server, settings: Any
) -> None:
    point_at(settings, server.endpoint, secret_key="wrong" * 8)
    with pytest.raises(CommandError, match="AUDIT_COLD_SECRET_KEY"):
        command()
    point_at(settings, "http://127.0.0.1:9")
    with pytest.raises(CommandError, match="AUDIT_COLD_ENDPOINT is right"):
        command()
