"""Sweeps over a parameter: some values are tried always, the others by `./scripts/test.sh --all`.

What is tried always shows by itself what the test is named for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sweep(values: Iterable[Any], always: Iterable[Any]) -> list[Any]:
    """Return the values for `parametrize`, those marked as slow that are not tried always."""
    tried, values = list(always), list(values)
    assert all(value in values for value in tried)
    return [
        value if value in tried else pytest.param(value, marks=pytest.mark.slow)
        for value in values
    ]
