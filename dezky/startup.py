"""What every server does before it serves."""

from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

SCHEDULED = {"worker", "beat"}
ENDED_KEY = "audit.E018"


def prepare(server: str) -> None:
    """Refuse to serve while the configuration is wrong; else note what changed in it.

    `server` says what starts: `web`, `worker`, `beat`. Django must be set up. Raises
    ImproperlyConfigured.
    """
    # A key that has come to its end is an alarm, which only who runs can raise.
    refuse_misconfiguration(except_for=ENDED_KEY if server in SCHEDULED else "")
    if server in SCHEDULED and not settings.REDIS_URL:
        raise ImproperlyConfigured(
            "REDIS_URL is not set, and this cannot work without a broker: set it to "
            "redis://:PASSWORD@HOST:6379/0."
        )
    notice_settings(server)


def refuse_misconfiguration(*, except_for: str = "") -> None:
    """Raise ImproperlyConfigured, with every error and its hint, where the checks find one."""
    found = [message for message in run_checks() if message.is_serious()]
    if serious := [str(message) for message in found if message.id != except_for]:
        raise ImproperlyConfigured("\n".join(serious))


def notice_settings(server: str) -> None:
    """Let a change of the settings become an event in the log; never raises for the database.

    In a thread: an ASGI server loads us where its loop runs, and Django lets nobody ask a database
    there. And no connection is left open that a server's forks would share.
    """
    from audit import sightings  # noqa: PLC0415  # models need Django to be set up

    def notice() -> None:
        try:
            sightings.notice(server)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1, thread_name_prefix="sightings") as thread:
        thread.submit(notice).result()
