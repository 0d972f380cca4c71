"""The bucket: put once, ask, read back, and say what is wrong.

moto stands in where only our own part is looked at; what a service must do itself (credentials,
races) is shown on the real server. A server that misbehaves is a few lines of its own.
"""

from __future__ import annotations

import gzip
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import boto3
import pytest
from django.core.files.storage import storages
from moto import mock_aws

from audit import storage
from audit.format.errors import GapError, TamperedError
from audit.storage import ColdStorage, Digests, UnavailableError

from . import fault_proxy
from .fault_proxy import FaultProxy
from .servers import Server
from .sweep import sweep

BUCKET = "dezky-audit"
KEY = "audit/v1/some.jsonl.gz"
GZIP = "application/gzip"


def digests(data: bytes) -> Digests:
    return Digests(len(data), md5(data, usedforsecurity=False).digest(), sha256(data).hexdigest())


def put(key: str, data: bytes) -> bool:
    return storage.put_once(key, io.BytesIO(data), digests(data), GZIP)


def point_at(settings: Any, endpoint: str | None, **options: str) -> None:
    """Let the storage use another endpoint, or other keys."""
    cold: dict[str, Any] = dict(settings.STORAGES["cold"])
    cold["OPTIONS"] = {**cold["OPTIONS"], "endpoint_url": endpoint, **options}
    settings.STORAGES = {**settings.STORAGES, "cold": cold}
    settings.AUDIT_COLD_ENDPOINT = endpoint or "https://s3.example.eu"


@pytest.fixture
def service(settings: Any) -> Iterator[Any]:
    """Stand in for the service; yields a client of its own."""
    with mock_aws():
        point_at(settings, None)
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client


# Put once ----------------------------------------------------------------------------------


def test_an_object_is_stored_as_it_was_sent(service: Any) -> None:
    assert put(KEY, b"data") is True
    answer = service.get_object(Bucket=BUCKET, Key=KEY)
    assert answer["Body"].read() == b"data"
    assert answer["Metadata"] == {"sha256": sha256(b"data").hexdigest()}


def test_a_gzip_object_has_its_content_type_and_no_content_encoding(service: Any) -> None:
    """With an encoding clients would decompress it, and its digest would be of other bytes."""
    put(KEY, b"data")
    answer = service.head_object(Bucket=BUCKET, Key=KEY)
    assert answer["ContentType"] == "application/gzip"
    assert not answer.get("ContentEncoding")


def test_a_name_that_is_taken_is_never_overwritten(service: Any) -> None:
    assert put(KEY, b"first") is True
    assert put(KEY, b"other") is False
    assert put(KEY, b"first") is False
    assert service.get_object(Bucket=BUCKET, Key=KEY)["Body"].read() == b"first"


@pytest.mark.usefixtures("service")
def test_a_body_is_sent_from_its_start_wherever_it_was_left() -> None:
    body = io.BytesIO(b"data")
    body.seek(0, io.SEEK_END)
    assert storage.put_once(KEY, body, digests(b"data"), GZIP)
    assert storage.read(KEY, 100) == b"data"


@pytest.mark.usefixtures("service")
def test_an_object_is_encrypted_only_where_that_is_asked_for(settings: Any) -> None:
    put("plain", b"data")
    settings.AUDIT_COLD_SSE = True
    put("encrypted", b"data")
    assert storage.head("plain").encryption is None
    assert storage.head("encrypted").encryption == "AES256"


# Asking and reading ------------------------------------------------------------------------


@pytest.mark.usefixtures("service")
def test_the_service_says_length_and_md5() -> None:
    put(KEY, b"data")
    assert storage.head(KEY) == storage.Head(4, digests(b"data").md5.hex(), None)


@pytest.mark.usefixtures("service")
def test_an_object_is_read_whole_from_its_start() -> None:
    data = bytes(range(256)) * 100
    put(KEY, data)
    with storage.opened(KEY, len(data)) as stream:
        assert stream.read(1_000) == data[:1_000]
        assert stream.read() == data[1_000:]
    assert storage.read(KEY, len(data)) == data


@pytest.mark.usefixtures("service")
def test_a_compressed_object_is_not_decompressed_by_reading_it() -> None:
    member = gzip.compress(b"{}\n", mtime=0)
    put(KEY, member)
    assert storage.read(KEY, 1_000) == member


@pytest.mark.usefixtures("service")
def test_an_object_larger_than_expected_is_not_read() -> None:
    put(KEY, b"x" * 2_000)
    with pytest.raises(TamperedError) as caught:
        storage.read(KEY, 1_999)
    assert str(caught.value) == f"{KEY} has 2,000 bytes, 1,999 were expected."


@pytest.mark.usefixtures("service")
def test_large_objects_are_spooled_to_disk() -> None:
    assert cast(ColdStorage, storages["cold"]).max_memory_size == storage.SPOOL_BYTES > 0


# Listing -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("service")
def test_names_come_in_order_and_from_right_under_the_prefix_only() -> None:
    for key in ("a/b/2", "a/b/10", "a/b/1", "a/b/c/3", "a/other", "a/bc/4", "x"):
        put(key, b"")
    assert storage.names("a/b") == ["1", "10", "2"]


@pytest.mark.usefixtures("service")
def test_an_empty_bucket_has_no_names() -> None:
    assert storage.names("audit/v1") == []


def test_more_names_are_listed_than_one_answer_holds(service: Any) -> None:
    names = [f"{number:05}" for number in range(1_005)]
    for name in names:
        service.put_object(Bucket=BUCKET, Key=f"audit/v1/{name}")
    assert storage.names("audit/v1") == names


# What goes wrong ---------------------------------------------------------------------------


@pytest.mark.usefixtures("service")
def test_an_object_that_is_not_there_is_a_gap() -> None:
    for verb, ask in (("HEAD", storage.head), ("GET", lambda key: storage.read(key, 10))):
        with pytest.raises(GapError) as caught:
            ask(KEY)
        assert str(caught.value) == (
            f"{verb} {KEY} at https://s3.example.eu, bucket 'dezky-audit': "
            "there is no such object."
        )


def test_a_bucket_that_is_not_there_is_named_with_what_to_do(service: Any) -> None:
    service.delete_bucket(Bucket=BUCKET)
    for verb, key, ask in (
        ("PUT", KEY, lambda: put(KEY, b"data")),
        ("LIST", "audit/v1", lambda: storage.names("audit/v1")),
    ):
        with pytest.raises(UnavailableError) as caught:
            ask()
        assert str(caught.value) == (
            f"{verb} {key} at https://s3.example.eu, bucket 'dezky-audit': refused with 404 "
            "NoSuchBucket after 1 of 4 tries; the bucket does not exist: create it, or correct "
            "AUDIT_COLD_BUCKET."
        )


@contextmanager
def serving(settings: Any, handler: type[BaseHTTPRequestHandler]) -> Iterator[None]:
    """Let the storage talk to a server that misbehaves, with one try a request."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            point_at(settings, f"http://127.0.0.1:{server.server_port}")
            yield
        finally:
            server.shutdown()
            thread.join()


class Quiet(BaseHTTPRequestHandler):
    """A server that reads what it is sent and logs nothing."""

    protocol_version = "HTTP/1.1"  # without it the client waits a second before each body

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named by the base
        pass

    def answer(self, status: int, body: bytes = b"", length: int | None = None) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("ETag", '"x"')
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def refusing(status: int, code: str, message: str = "") -> type[BaseHTTPRequestHandler]:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"

    class Refusing(Quiet):
        def do_PUT(self) -> None:
            self.answer(status, text.encode())

    return Refusing


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AccessDenied", "the key may not do this: give it read, write and list"),
        (403, "RequestTimeTooSkewed", "this machine's clock is off: set it by NTP"),
        (507, "QuotaExceeded", "the bucket is full: raise its quota"),
        (501, "NotImplemented", "the service cannot do what this software needs"),
        (400, "BadDigest", "what the service says itself"),
        (400, "InvalidRequest", "what the service says itself"),
    ],
)
def test_a_refusal_says_what_was_asked_and_what_to_do(
    settings: Any, status: int, code: str, hint: str
) -> None:
    settings.AUDIT_COLD_ATTEMPTS = 1
    with (
        serving(settings, refusing(status, code, "what the service says itself")),
        pytest.raises(UnavailableError) as caught,
    ):
        put(KEY, b"data")
    assert f"refused with {status} {code} after 1 of 1 tries" in str(caught.value)
    assert hint in str(caught.value)
    assert str(caught.value).startswith(f"PUT {KEY} at http://127.0.0.1:")


@pytest.mark.parametrize(
    ("status", "code"), [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")]
)
def test_a_name_is_taken_in_the_words_of_either_kind_of_service(
    settings: Any, status: int, code: str
) -> None:
    with serving(settings, refusing(status, code)):
        assert put(KEY, b"data") is False


def test_a_service_that_fails_at_first_is_asked_again(settings: Any) -> None:
    answers = iter([503, 200])

    class Waking(Quiet):
        def do_PUT(self) -> None:
            self.answer(next(answers))

    with serving(settings, Waking):
        assert put(KEY, b"data") is True


def test_a_service_that_is_not_there_is_unavailable(settings: Any) -> None:
    settings.AUDIT_COLD_ATTEMPTS = 1
    point_at(settings, "http://127.0.0.1:9")
    for ask in (
        lambda: put(KEY, b"data"),
        lambda: storage.head(KEY),
        lambda: storage.read(KEY, 10),
        lambda: storage.names("audit/v1"),
    ):
        with pytest.raises(UnavailableError) as caught:
            ask()
        assert "no whole answer after 1 of 1 tries of up to 60 s (no connection)" in str(
            caught.value
        )
        assert "see that AUDIT_COLD_ENDPOINT is right and the service is up, and" in str(
            caught.value
        )


def test_an_answer_that_breaks_off_is_unavailable_and_not_a_short_object(settings: Any) -> None:
    class BreakingOff(Quiet):
        def do_HEAD(self) -> None:
            self.answer(200, length=1_000)

        def do_GET(self) -> None:
            self.answer(200, b"x" * 10, length=1_000)

    settings.AUDIT_COLD_ATTEMPTS = 1
    with serving(settings, BreakingOff), pytest.raises(UnavailableError, match=f"GET {KEY}"):
        storage.read(KEY, 1_000)


@pytest.mark.usefixtures("service")
def test_addresses_are_path_style() -> None:
    client = cast(ColdStorage, storages["cold"]).connection.meta.client
    url = client.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": KEY})
    assert f"/{BUCKET}/{KEY}?" in url
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url


# A proxy before the real server that does one thing wrong ------------------------------------


@pytest.fixture
def proxy(cold: str, seaweedfs: Server, settings: Any) -> Iterator[FaultProxy]:
    """Lead the storage through a proxy, with two tries of a second."""
    settings.AUDIT_COLD_TIMEOUT_SECONDS, settings.AUDIT_COLD_ATTEMPTS = 1, 2
    with FaultProxy(seaweedfs.endpoint) as between:
        point_at(settings, between.endpoint)
        yield between


HANGING = 60  # seconds: far more than the tries that are allowed, on however slow a machine
LARGE = bytes(range(256)) * 80_000  # more than the SDK's own part of a download


def test_a_large_object_goes_and_comes_in_one_request_each(proxy: FaultProxy, cold: str) -> None:
    assert put(f"{cold}/x", LARGE) is True
    assert storage.read(f"{cold}/x", len(LARGE)) == LARGE
    assert (proxy.count("PUT"), proxy.count("GET")) == (1, 1)


def test_a_body_that_is_not_taken_is_given_up_in_time(proxy: FaultProxy, cold: str) -> None:
    proxy.fault(fault_proxy.stall_within_request, "PUT")
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        put(f"{cold}/x", LARGE)
    assert time.monotonic() - began < HANGING
    assert "after 2 of 2 tries of up to 1 s (nothing was taken for that time); see that" in str(
        caught.value
    )
    proxy.lift()
    assert storage.names(cold) == []


@pytest.mark.parametrize(
    "name",
    sweep(
        ["reset_within_request", "stall_within_request", "stall"],
        always=["reset_within_request"],
    ),
)
def test_a_body_is_sent_again_from_its_start(
    proxy: FaultProxy, settings: Any, cold: str, name: str
) -> None:
    settings.AUDIT_COLD_TIMEOUT_SECONDS = 5  # time enough for the second try
    point_at(settings, proxy.endpoint)
    proxy.fault(getattr(fault_proxy, name), "PUT", times=1)
    assert put(f"{cold}/x", LARGE) is True
    assert proxy.count("PUT") == 2
    assert storage.read(f"{cold}/x", len(LARGE)) == LARGE


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("break_off", "it broke off"),
        ("trickle", "it comes too slowly"),
        pytest.param("reset_within_answer", "it broke off", marks=pytest.mark.slow),
        pytest.param("stall", "silence for that time", marks=pytest.mark.slow),
        pytest.param("lose_answer", "the connection was cut off", marks=pytest.mark.slow),
    ],
)
def test_an_answer_that_does_not_come_whole_is_asked_for_again_and_so_often(
    proxy: FaultProxy, settings: Any, cold: str, name: str, reason: str
) -> None:
    put(f"{cold}/x", LARGE)
    proxy.fault(getattr(fault_proxy, name), "GET")
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        storage.read(f"{cold}/x", len(LARGE))
    assert time.monotonic() - began < HANGING
    assert f"no whole answer after 2 of 2 tries of up to 1 s ({reason}); " in str(caught.value)
    assert proxy.count("GET") == 2
    proxy.lift()
    settings.AUDIT_COLD_TIMEOUT_SECONDS = 5  # time enough for the second try
    point_at(settings, proxy.endpoint)
    proxy.fault(getattr(fault_proxy, name), "GET", times=1)
    assert storage.read(f"{cold}/x", len(LARGE)) == LARGE
    assert proxy.count("GET") == 2


@pytest.mark.parametrize(
    ("status", "code", "sse", "hint"),
    [
        (501, "NotImplemented", False, "the service cannot do what this software needs"),
        (
            501,
            "NotImplemented",
            True,
            "AUDIT_COLD_SSE is on, and the service cannot encrypt: turn",
        ),
        (500, "InternalError", False, "and that it has room, and run again."),
        (
            500,
            "InternalError",
            True,
            "run again; AUDIT_COLD_SSE is on, so see that it can encrypt",
        ),
        (400, "InvalidRequest", True, "AUDIT_COLD_SSE is on, so see that it can encrypt, too."),
    ],
)
def test_encryption_is_named_only_where_it_is_asked_for(
    proxy: FaultProxy, cold: str, settings: Any, status: int, code: str, sse: bool, hint: str
) -> None:
    settings.AUDIT_COLD_SSE = sse
    proxy.fault(fault_proxy.refuse(status, code), "PUT")
    with pytest.raises(UnavailableError) as caught:
        put(f"{cold}/x", b"data")
    assert hint in str(caught.value)
    assert ("AUDIT_COLD_SSE" in str(caught.value)) == sse


# On the real server ------------------------------------------------------------------------


def test_an_object_makes_the_round_trip(cold: str) -> None:
    key = f"{cold}/some.jsonl.gz"
    data = bytes(range(256)) * 64
    assert put(key, data) is True
    assert storage.head(key) == storage.Head(len(data), digests(data).md5.hex(), None)
    assert storage.read(key, len(data)) == data
    assert storage.names(cold) == ["some.jsonl.gz"]
    client = cast(ColdStorage, storages["cold"]).connection.meta.client
    answer = client.head_object(Bucket=BUCKET, Key=key)
    assert answer["ContentType"] == "application/gzip"
    assert "ContentEncoding" not in answer


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_bytes_that_are_not_those_of_a_digest_are_refused_by_the_service(
    cold: str, name: str
) -> None:
    """Some services hold only the one against the bytes, some only the other."""
    wrong = replace(digests(b"data"), **{name: getattr(digests(b"daTa"), name)})
    with pytest.raises(UnavailableError, match="refused with 400"):
        storage.put_once(f"{cold}/x", io.BytesIO(b"data"), wrong, GZIP)
    assert storage.names(cold) == []


def test_of_two_that_put_one_name_at_once_exactly_one_stores_it(cold: str) -> None:
    for round_ in range(5):
        key = f"{cold}/{round_}"
        start = threading.Barrier(2)
        won: list[bytes] = []

        def race(data: bytes, key: str = key, start: threading.Barrier = start) -> None:
            start.wait()
            if put(key, data):
                won.append(data)  # noqa: B023  # read before the next round

        threads = [threading.Thread(target=race, args=(data,)) for data in (b"one", b"two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert storage.read(key, 10) == won[0]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("access_key", "403 InvalidAccessKeyId after 1 of 4 tries; the access key is not known"),
        ("secret_key", "403 SignatureDoesNotMatch after 1 of 4 tries; the secret key is wrong"),
    ],
)
def test_wrong_keys_are_named(cold: str, settings: Any, option: str, sentence: str) -> None:
    point_at(settings, settings.AUDIT_COLD_ENDPOINT, **{option: "wrong"})
    for ask in (lambda: put(f"{cold}/x", b"data"), lambda: storage.names(cold)):
        with pytest.raises(UnavailableError) as caught:
            ask()
        assert sentence in str(caught.value)
        assert f"correct AUDIT_COLD_{option.upper()}." in str(caught.value)


def test_wrong_keys_are_no_gap_where_the_answer_has_no_words(cold: str, settings: Any) -> None:
    """A HEAD is answered without a body: nothing but the status tells."""
    put(f"{cold}/x", b"data")
    point_at(settings, settings.AUDIT_COLD_ENDPOINT, secret_key="wrong")
    for ask in (storage.head, lambda key: storage.read(key, 10)):
        with pytest.raises(UnavailableError) as caught:
            ask(f"{cold}/x")
        assert "refused with 403 after 1 of 4 tries; the keys are wrong" in str(caught.value)
        assert "AUDIT_COLD_ACCESS_KEY and AUDIT_COLD_SECRET_KEY" in str(caught.value)
