"""The console: evidence to look at, never to change."""

from . import archive, events

__all__ = ["archive", "events"]
