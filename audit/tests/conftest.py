"""Property tests try the same examples on every run, and keep no notes between runs."""

from __future__ import annotations

from hypothesis import configuration, settings

from . import environment

configuration.set_hypothesis_home_dir(environment.FOLDER)
settings.register_profile(
    "dezky", derandomize=True, deadline=None, max_examples=100, database=None
)
settings.load_profile("dezky")
