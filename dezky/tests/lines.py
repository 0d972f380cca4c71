"""Lines of the log, as they would be written to standard error."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dezky.logging import JSON, Formatter, Mask


class Lines:
    """What was written."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def text(self) -> str:
        """Return it as it is."""
        return self._stream.getvalue()

    def __call__(self) -> list[dict[str, Any]]:
        """Return the objects."""
        return [json.loads(line) for line in self.text().splitlines()]


@contextmanager
def lines_of(*names: str, form: str = JSON, mask: Mask | None = None) -> Iterator[Lines]:
    """Yield what these loggers say from now on, at INFO."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter(form, mask))
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield Lines(stream)
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
