"""What every server does before it serves."""

from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured


def refuse_misconfiguration() -> None:
    """Raise ImproperlyConfigured, with every error and its hint, where the checks find one."""
    if serious := [str(message) for message in run_checks() if message.is_serious()]:
        raise ImproperlyConfigured("\n".join(serious))
