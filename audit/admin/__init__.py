"""The console: evidence to look at, never to change."""

from . import archive, checkpoints, events, tokens, verification

__all__ = ["archive", "checkpoints", "events", "tokens", "verification"]
