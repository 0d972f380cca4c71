"""The rows of verifications."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from audit import verifications
from audit.models import VerificationRun
from audit.verifications import AlreadyVerifyingError

pytestmark = pytest.mark.django_db(transaction=True)
AT_ONCE = 8


def begin(trigger: str) -> bool:
    """Begin a verification; say whether it may go on."""
    try:
        verifications.open_row(trigger, level="manifests")
    except AlreadyVerifyingError:
        return False
    finally:
        connections.close_all()
    return True


def test_of_many_that_are_asked_for_over_http_at_once_one_begins() -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = list(pool.map(begin, ["api", "console"] * (AT_ONCE // 2)))
    assert begun.count(True) == VerificationRun.objects.count() == 1


def test_from_a_shell_as_many_as_are_asked_for_begin() -> None:
    assert [begin(trigger) for trigger in ("command", "api", "command", "command")] == [True] * 4
