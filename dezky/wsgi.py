"""WSGI entrance: serves nothing while the configuration is wrong."""

import os

from django.core.wsgi import get_wsgi_application

from .startup import prepare

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dezky.settings")

application = get_wsgi_application()
prepare("web")
