"""ASGI entrance: serves nothing while the configuration is wrong."""

import os

from django.core.asgi import get_asgi_application

from .startup import prepare

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dezky.settings")

application = get_asgi_application()
prepare("web")
