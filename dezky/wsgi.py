"""WSGI entrance: serves nothing while the configuration is wrong."""

import os

from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dezky.settings")

application = get_wsgi_application()

if serious := [str(message) for message in run_checks() if message.is_serious()]:
    raise ImproperlyConfigured("\n".join(serious))
