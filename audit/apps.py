"""The audit app."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """The log, its archive and its console."""

    name = "audit"
    verbose_name = "Audit log"

    def ready(self) -> None:
        """Register checks and tasks, and what each process that appends looks at once."""
        from . import (
            checks,  # noqa: F401  # importing registers them
            log,
            tasks,  # noqa: F401  # and so does this
        )
        from .lookout import Lookout

        log.lookout.use(Lookout())
