"""What a process that was started beside this one does first."""

from __future__ import annotations

import django


def set_up() -> None:
    """Set Django up, from the same environment."""
    django.setup()
