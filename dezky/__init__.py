"""The Django project: settings and entrances."""

# So that whatever loads the project, a management command or the web server, sends by this app.
from .celery import app as celery_app

__all__ = ["celery_app"]
