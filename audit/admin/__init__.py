"""The console: evidence to look at, never to change."""

from . import archive, events, tokens

__all__ = ["archive", "events", "tokens"]
