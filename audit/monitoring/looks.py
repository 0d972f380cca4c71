"""Bounded looks: nobody waits for long, and what hangs holds one thread, however many ask.

All checks run beside each other, each in a thread of its own. One look is taken at a time in a
process; whoever asks meanwhile, or soon after, gets its answer. A check that has not ended in time
counts as failed, and is not started again before it has.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping

from django.db import DatabaseError, connections
from health_check.base import HealthCheckResult
from health_check.exceptions import HealthCheckException, ServiceUnavailable

from audit import log
from audit.format.errors import AuditError

from .readiness import Check

PATIENCE = 5.0
FRESH = 3.0

logger = logging.getLogger(__name__)


class Looks:
    """The newest answers of all checks; threads may share it."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        """Begin without any."""
        self._checks = checks
        self._turn = threading.Lock()
        self._at = -math.inf
        self._newest: dict[str, HealthCheckResult] = {}
        self._at_work: dict[str, _Look] = {}
        self._said: dict[str, str] = {}

    def results(self) -> dict[str, HealthCheckResult]:
        """Return what came of each check: now, or a moment ago."""
        with self._turn:
            if time.monotonic() - self._at > FRESH:
                self._newest = self._look()
                self._at = time.monotonic()
                self._tell()
            return self._newest

    def _look(self) -> dict[str, HealthCheckResult]:
        limit = time.monotonic() + PATIENCE
        for name, check in self._checks.items():
            if name not in self._at_work:
                self._at_work[name] = _Look(name, check)
                self._at_work[name].start()
        results = {}
        for name, look in list(self._at_work.items()):
            look.join(max(0.0, limit - time.monotonic()))
            if look.result is None:
                late = ServiceUnavailable(f"No answer within {PATIENCE:.0f} s.")
                results[name] = HealthCheckResult(look.check, late, PATIENCE)
            else:
                results[name] = look.result
                del self._at_work[name]
        return results

    def _tell(self) -> None:
        """Log what has changed."""
        for name, result in self._newest.items():
            reason = reason_of(result)
            if reason != self._said.get(name, ""):
                if reason:
                    logger.warning("Not ready (%s): %s", name, reason)
                else:
                    logger.warning("Ready again (%s).", name)
            self._said[name] = reason


def reason_of(result: HealthCheckResult) -> str:
    """Return why a check failed, nothing where it did not."""
    return str(result.error.message) if result.error else ""


class _Look(threading.Thread):
    """One check at work; `result` is there once it has ended."""

    def __init__(self, name: str, check: Check) -> None:
        super().__init__(name=f"readiness-{name}", daemon=True)
        self.check = check
        self.result: HealthCheckResult | None = None

    def run(self) -> None:
        """Carry it out."""
        began = time.monotonic()
        error = self._error()
        connections.close_all()  # they are this thread's own
        self.result = HealthCheckResult(self.check, error, time.monotonic() - began)

    def _error(self) -> HealthCheckException | None:
        try:
            self.check.run()
        except HealthCheckException as error:
            return error
        except AuditError as error:
            return ServiceUnavailable(str(error))
        except DatabaseError as error:
            return ServiceUnavailable(log.explain(error))
        except Exception as error:
            logger.exception("A check of readiness failed in a way that nobody thought of.")
            return ServiceUnavailable(f"It failed ({type(error).__name__}): see the log.")
        return None
