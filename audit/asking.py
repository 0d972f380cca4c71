"""Ask the databases, in whatever state they are; the one place that says that one does not answer.

One that stayed locked for as long as we wait is not asked again: else each look would wait anew.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import DatabaseError

from . import log
from .format.report import Kind, Report


class Asker:
    """Asks; what a database says instead of an answer, it says once, into the report."""

    def __init__(self, report: Report) -> None:
        """Begin with databases that may all answer."""
        self._report = report
        self._locked: dict[str, DatabaseError] = {}  # databases that stayed so

    def ask(self, alias: str, look: Callable[[], object], *, say: bool = True) -> bool:
        """Look at what a database holds; where it does not answer, say so, and return False."""
        try:
            if alias in self._locked:
                raise self._locked[alias]
            look()
        except DatabaseError as error:
            if log.is_lock_timeout(error):
                self._locked[alias] = error
            if say:
                self._tell_once(
                    f"{log.explain(error)} What it holds was not looked at, or not all of it."
                )
            return False
        return True

    def _tell_once(self, message: str) -> None:
        if all(problem.message != message for problem in self._report.problems):
            self._report.tell(Kind.UNVERIFIABLE, message)
