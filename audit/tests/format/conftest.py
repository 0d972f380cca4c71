"""Property tests of the format try the same examples on every run."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile(
    "dezky", derandomize=True, deadline=None, max_examples=100, database=None
)
settings.load_profile("dezky")
