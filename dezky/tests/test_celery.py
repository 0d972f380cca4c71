"""The Celery app: its connection to the broker."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from celery import Celery

from audit.tests.redis_server import RedisServer
from dezky.celery import configuration


def connect(url: str, settings: Any) -> Any:
    """Return a connection as a worker makes one."""
    settings.REDIS_URL = url
    app = Celery(set_as_current=False)
    app.conf.update(configuration())
    return app.connection_for_write()


def test_what_is_left_of_a_connection_that_was_given_up_says_so(
    redis: RedisServer, settings: Any
) -> None:
    """By an error that a worker knows; of any other it would die."""
    redis.start()
    connection = connect(redis.url, settings)
    channel = connection.channel()
    connection.close()
    with (
        pytest.raises(connection.connection_errors, match="was lost and given up"),
        channel.conn_or_acquire(),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1:6379/0", None),
        ("rediss://127.0.0.1:6379/0", ssl.CERT_REQUIRED),
        ("rediss://127.0.0.1:6379/0?ssl_cert_reqs=none", ssl.CERT_NONE),
    ],
)
def test_over_tls_the_broker_has_to_show_a_good_certificate(
    settings: Any, url: str, expected: ssl.VerifyMode | None
) -> None:
    found = connect(url, settings).ssl
    assert (found["ssl_cert_reqs"] if found else None) == expected
