"""The console: evidence to look at, never to change."""

from . import alarms, archive, checkpoints, days, events, tokens, verification

__all__ = ["alarms", "archive", "checkpoints", "days", "events", "tokens", "verification"]
